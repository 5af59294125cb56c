import type { Clock } from "../../lib/clock.js";
import type { Logger } from "../../lib/logger.js";
import type { Metrics } from "../../lib/metrics.js";
import type { Store } from "../../store/index.js";
import type { CrawlService } from "../crawl-service.js";
import type { EventFeed } from "../event-feed.js";
import type { NodeMonitor } from "../node-monitor.js";
import type { SpiderCatalog } from "../spider-catalog.js";

/** Calls to nodes, over the bus. */
export interface NodeCalls {
  /**
   * @returns what the node answered
   * @throws an error with a `code`: `unavailable` when the node is away, `timeout` when it is silent
   */
  callNode(node: string, type: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Rejects, saying why, unless messages can be sent and taken. */
  ping(): Promise<void>;
}

/** What the routes are made of. */
export type ApiParts = {
  readonly store: Store;
  readonly bus: NodeCalls;
  readonly crawls: CrawlService;
  readonly nodes: NodeMonitor;
  readonly feed: EventFeed;
  readonly spiders: SpiderCatalog;
  /** Why a crawl's next URL on a host waits, if this master knows. */
  readonly waitReason?: (crawl: string, host: string) => string | undefined;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
};
