import type { Clock } from "../../lib/clock.js";
import type { Logger } from "../../lib/logger.js";
import type { Metrics } from "../../lib/metrics.js";
import type { WarrenBus } from "../../protocol/index.js";
import type { Store } from "../../store/index.js";
import type { CrawlService } from "../crawl-service.js";
import type { DeadLetterService } from "../dead-letter-service.js";
import type { EventFeed } from "../event-feed.js";
import type { NodeMonitor } from "../node-monitor.js";
import type { NotificationRuleService } from "../notification-rule-service.js";
import type { ScheduleService } from "../schedule-service.js";
import type { SpiderCatalog } from "../spider-catalog.js";
import type { WaitReasons } from "../wait-reasons.js";

/** What the routes are made of. */
export type ApiParts = {
  readonly store: Store;
  readonly bus: Pick<WarrenBus, "calls" | "connected">;
  readonly crawls: CrawlService;
  readonly deadLetters: DeadLetterService;
  readonly nodes: NodeMonitor;
  readonly feed: EventFeed;
  readonly spiders: SpiderCatalog;
  readonly notificationRules: NotificationRuleService;
  readonly schedules: ScheduleService;
  readonly waitReasons: WaitReasons;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
};
