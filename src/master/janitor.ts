import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Service } from "../lib/service.js";
import type { WarrenBus } from "../protocol/index.js";
import type { Store } from "../store/index.js";
import type { CrawlService } from "./crawl-service.js";

export type JanitorOptions = {
  /** How often it looks for what was left half done, in milliseconds. @default 5_000 */
  readonly everyMs: number;
  /** How often it looks for stored bytes that nothing refers to, in milliseconds. @default 600_000 */
  readonly contentsEveryMs: number;
  /** How often it looks for logs of crawls that have grown too long, in milliseconds. @default 30_000 */
  readonly logsEveryMs: number;
  /** How often it looks for items and files that have expired, in milliseconds. @default 5_000 */
  readonly expiredEveryMs: number;
  /** What one crawl's log may take, in bytes. @default 256 MiB */
  readonly crawlLogMaxBytes: number;
};

const DEFAULTS: JanitorOptions = {
  everyMs: 5_000,
  contentsEveryMs: 600_000,
  logsEveryMs: 30_000,
  expiredEveryMs: 5_000,
  crawlLogMaxBytes: 256 * 1_048_576,
};

/** Age from which something half done is taken to be abandoned, in milliseconds. */
const ABANDONED_MS = 10_000;

/** Overdue replies that are sent together. */
const REPLIES_AT_ONCE = 100;

export type JanitorParts = {
  readonly store: Store;
  readonly bus: WarrenBus;
  readonly crawls: CrawlService;
  readonly clock: Clock;
  readonly logger: Logger;
};

/**
 * Finishes what someone did not live to finish: replies whose URLs have ended, crawls without their seeds, runs of
 * lost nodes, stored bytes that nothing refers to; and removes what is too old, or too long. Every master has one; what two of
 * them find at once is done once.
 */
export class Janitor implements Service {
  readonly name = "janitor";
  readonly #parts: JanitorParts;
  readonly #options: JanitorOptions;
  #loops: readonly Loop[] = [];

  constructor(parts: JanitorParts, options: Partial<JanitorOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    const { clock } = this.#parts;
    const { everyMs, contentsEveryMs, logsEveryMs, expiredEveryMs, crawlLogMaxBytes } = this.#options;
    this.#loops = [
      new Loop(everyMs, clock, () => this.#attempt("replies", () => this.#sendOverdueReplies())),
      new Loop(everyMs, clock, () =>
        this.#attempt("seeds", () => this.#parts.crawls.seedForgotten(ABANDONED_MS)),
      ),
      new Loop(everyMs, clock, () => this.#attempt("runs", () => this.#takeBackLostRuns())),
      new Loop(contentsEveryMs, clock, () =>
        this.#attempt("dead letters", () => this.#parts.store.deadLetters.trim()),
      ),
      new Loop(logsEveryMs, clock, () =>
        this.#attempt("logs", () => this.#parts.store.crawlLogs.trim(crawlLogMaxBytes)),
      ),
      new Loop(expiredEveryMs, clock, () => this.#attempt("expired items", () => this.#removeExpired())),
      new Loop(contentsEveryMs, clock, () =>
        this.#attempt("contents", () => this.#parts.store.contents.sweep()),
      ),
      new Loop(contentsEveryMs, clock, () => this.#attempt("code", () => this.#parts.store.code.sweep())),
    ];
  }

  async stop(): Promise<void> {
    await Promise.all(this.#loops.map((loop) => loop.stop()));
  }

  async #attempt(what: string, run: () => Promise<unknown>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.#parts.logger.debug(
        { what, error: messageOf(error) },
        "could not look for what was left half done",
      );
    }
  }

  async #takeBackLostRuns(): Promise<void> {
    const { store, bus, clock, logger } = this.#parts;
    for (const { id, crawl, state, node, error } of await store.runs.sweep()) {
      logger.warn({ crawl, run: id, node, state }, "a node was lost that had a run");
      const at = new Date(clock.now()).toISOString();
      bus.events.publish("run.ended", [
        { type: "run.ended", at, crawl, data: { run: id, state, ...(error !== undefined && { error }) } },
      ]);
    }
  }

  async #removeExpired(): Promise<void> {
    const { store, clock } = this.#parts;
    const removed = await store.retention.removeExpired(clock.now());
    for (const [crawl, { items, files }] of removed) {
      store.crawls.count(crawl, { items: -items, files: -files });
    }
  }

  /** One that cannot be sent must not keep the others from it. */
  async #sendOverdueReplies(): Promise<void> {
    const { store, bus, logger } = this.#parts;
    // What is taken now would be out of everyone's reach for a while.
    if (!bus.connected) return;
    const due = await store.replies.sweep(ABANDONED_MS);
    for (let start = 0; start < due.length; start += REPLIES_AT_ONCE) {
      const sent = await Promise.all(
        due.slice(start, start + REPLIES_AT_ONCE).map(async ({ id, replyTo, correlationId, body, trace }) => {
          try {
            await bus.calls.reply(replyTo, correlationId, body, trace);
            return [id];
          } catch (error) {
            logger.warn({ replyTo, error: messageOf(error) }, "could not send an overdue reply");
            return [];
          }
        }),
      );
      await store.replies.sent(sent.flat());
    }
  }
}
