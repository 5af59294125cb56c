import type { Clock } from "../../lib/clock.js";
import type { Logger } from "../../lib/logger.js";
import type { Metrics } from "../../lib/metrics.js";
import type { WarrenBus } from "../../protocol/index.js";
import type { Store } from "../../store/index.js";
import type { CrawlService } from "../crawl-service.js";
import type { DeadLetterService } from "../dead-letter-service.js";
import type { EventFeed } from "../event-feed.js";
import type { NodeMonitor } from "../node-monitor.js";
import type { SpiderCatalog } from "../spider-catalog.js";

/** What the routes are made of. */
export type ApiParts = {
  readonly store: Store;
  readonly bus: Pick<WarrenBus, "calls" | "connected">;
  readonly crawls: CrawlService;
  readonly deadLetters: DeadLetterService;
  readonly nodes: NodeMonitor;
  readonly feed: EventFeed;
  readonly spiders: SpiderCatalog;
  /** Why a crawl's next URL on a host waits, if this master knows. */
  readonly waitReason?: (crawl: string, host: string) => string | undefined;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
};
