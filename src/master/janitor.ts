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
};

const DEFAULTS: JanitorOptions = { everyMs: 5_000, contentsEveryMs: 600_000 };

/** Age from which something half done is taken to be abandoned, in milliseconds. */
const ABANDONED_MS = 10_000;

export type JanitorParts = {
  readonly store: Store;
  readonly bus: WarrenBus;
  readonly crawls: CrawlService;
  readonly clock: Clock;
  readonly logger: Logger;
};

/**
 * Finishes what someone did not live to finish: replies whose URLs have ended, crawls without their seeds,
 * stored bytes that nothing refers to. Every master has one; what two of them find at once is done once.
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
    const { everyMs, contentsEveryMs } = this.#options;
    this.#loops = [
      new Loop(everyMs, clock, () => this.#attempt("replies", () => this.#sendOverdueReplies())),
      new Loop(everyMs, clock, () =>
        this.#attempt("seeds", () => this.#parts.crawls.seedForgotten(ABANDONED_MS)),
      ),
      new Loop(contentsEveryMs, clock, () =>
        this.#attempt("dead letters", () => this.#parts.store.deadLetters.trim()),
      ),
      new Loop(contentsEveryMs, clock, () =>
        this.#attempt("contents", () => this.#parts.store.contents.sweep()),
      ),
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

  async #sendOverdueReplies(): Promise<void> {
    const { store, bus } = this.#parts;
    for (const { replyTo, correlationId, body } of await store.replies.sweep(ABANDONED_MS)) {
      await bus.calls.reply(replyTo, correlationId, body);
    }
  }
}
