import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Service } from "../lib/service.js";
import type { CrawlEnd, CrawlRecord, Follows, Store } from "../store/index.js";
import type { EventFeed } from "./event-feed.js";
import type { TickStarter } from "./tick-starter.js";

export type CrawlEndsOptions = {
  /** How often it looks when it hears of none, in milliseconds. @default 2_000 */
  readonly everyMs: number;
  /** Longest wait after hearing of one, so that masters do not all look at once, in milliseconds. @default 150 */
  readonly jitterMs: number;
  /** Crawls that follow one another by schedules at most. @default 10 */
  readonly maxChain: number;
};

export const CRAWL_ENDS_DEFAULTS: CrawlEndsOptions = { everyMs: 2_000, jitterMs: 150, maxChain: 10 };

/** Whoever wants to know that a crawl has ended. Told again of the same end, it must do nothing more. */
export type EndListener = { ended(crawl: CrawlRecord, end: CrawlEnd): Promise<void> };

export type CrawlEndsParts = {
  readonly store: Pick<Store, "crawls" | "schedules" | "ticks">;
  readonly starter: Pick<TickStarter, "advance" | "skipped">;
  readonly feed: Pick<EventFeed, "on">;
  readonly listeners: readonly EndListener[];
  readonly clock: Clock;
  readonly logger: Logger;
};

const ENDS: ReadonlySet<string> = new Set(["crawl.finished", "crawl.failed", "crawl.closed"]);

/** By how much the clocks of a database and of who ended a crawl may differ, in milliseconds. */
const CLOCKS_DIFFER_MS = 5_000;

/**
 * Sees to what follows from the end of a crawl: ticks of the schedules that follow it, and whatever listeners do. An
 * end is written down together with the crawl's status, and is settled when all that had to follow is on record; who
 * dies in between leaves it for another. Each thing that follows has a key made of the crawl's and the end's ids, so
 * doing it twice is doing it once.
 */
export class CrawlEnds implements Service {
  readonly name = "crawl ends";
  readonly #parts: CrawlEndsParts;
  readonly #options: CrawlEndsOptions;
  #loop: Loop | undefined;
  #unsubscribe: () => void = () => {};
  #stopTimer: StopTimer | undefined;

  constructor(parts: CrawlEndsParts, options: Partial<CrawlEndsOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...CRAWL_ENDS_DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    const { clock, feed, logger } = this.#parts;
    const { everyMs, jitterMs } = this.#options;
    const loop = new Loop(everyMs, clock, async () => {
      try {
        await this.look();
      } catch (error) {
        logger.warn({ error: messageOf(error) }, "could not look for crawls that have ended");
      }
    });
    this.#loop = loop;
    this.#unsubscribe = feed.on("crawl.*", (events) => {
      if (this.#stopTimer !== undefined) return;
      if (!events.some(({ type }) => ENDS.has(type))) return;
      this.#stopTimer = clock.after(Math.random() * jitterMs, () => {
        this.#stopTimer = undefined;
        void loop.runNow();
      });
    });
  }

  async stop(): Promise<void> {
    this.#unsubscribe();
    this.#stopTimer?.();
    await this.#loop?.stop();
  }

  /** Looks now for ends that nobody has settled. One that cannot be settled must not keep the others from it. */
  async look(): Promise<void> {
    const { store, listeners, logger } = this.#parts;
    for (const { crawl, ends } of await store.crawls.ended()) {
      for (const end of ends) {
        try {
          await this.#follow(crawl, end);
          for (const listener of listeners) await listener.ended(crawl, end);
          await store.crawls.settleEnd(crawl.id, end.id);
        } catch (error) {
          logger.warn(
            { crawl: crawl.id, error: messageOf(error) },
            "could not see to what follows from a crawl's end",
          );
        }
      }
    }
  }

  async #follow(crawl: CrawlRecord, end: CrawlEnd): Promise<void> {
    const { store, starter, clock } = this.#parts;
    // Only who was there then follows: a master that slept over it must not find later ones.
    for (const schedule of await store.schedules.following(end.at + CLOCKS_DIFFER_MS)) {
      if (schedule.after === undefined || !isFollowed(schedule.after, crawl, end)) continue;
      const chain = crawl.origin === undefined ? 1 : crawl.origin.chain + 1;
      const tick = {
        id: `${schedule.id}:after-${crawl.id}-${end.id}`,
        schedule: schedule.id,
        at: end.at,
        cause: "after",
        after: crawl.id,
        chain,
        recordedAt: clock.now(),
        ...(chain > this.#options.maxChain && { skipped: "chain" as const }),
      } as const;
      const isNew = (await store.ticks.record([tick])) > 0;
      if (isNew && tick.skipped !== undefined) starter.skipped(tick, tick.skipped);
      void starter.advance(schedule.id);
    }
  }
}

/** Whether this end of a crawl is one that a schedule follows. */
export function isFollowed(
  { schedule, spider, crawl: id, status }: Follows,
  crawl: Pick<CrawlRecord, "id" | "spider" | "origin">,
  end: Pick<CrawlEnd, "status">,
): boolean {
  return (
    status.includes(end.status) &&
    (id === undefined || id === crawl.id) &&
    (spider === undefined || spider === crawl.spider) &&
    (schedule === undefined || schedule === crawl.origin?.schedule)
  );
}
