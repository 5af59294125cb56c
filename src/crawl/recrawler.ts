import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Crawl } from "./crawl.js";
import type { OpenedUrl, Rounds } from "./frontier.js";
import type { TaskEnd } from "./task.js";

export type RecrawlerDeps = {
  readonly rounds: Rounds;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The shards that this process is responsible for. */
  readonly heldShards: () => readonly number[];
  /** Called with URLs that are queued again. */
  readonly onOpened: (opened: readonly OpenedUrl[]) => void;
};

/** URLs opened together at most. */
const BATCH = 1_000;

/** Wait before the frontier is asked once more that could not be asked, in milliseconds. */
const AGAIN_MS = 1_000;

/** Timers hold no longer waits than this, in milliseconds. */
const LONGEST_WAIT_MS = 3_600_000;

/**
 * Opens URLs for another round when their time has come. Until then they are ended URLs like any others: no lane and
 * no buffer of a dispatcher knows of them.
 *
 * It knows one instant, that of the next visit over all crawls it was told of: from the ends of tasks (`ended`), and
 * from the frontier whenever it looks there. Nothing is polled; but because a report of an end may get lost, `look`
 * is to be called now and then.
 */
export class Recrawler {
  readonly #deps: RecrawlerDeps;
  /** Ids of crawls whose URLs come again, with the generation they are in. */
  #crawls = new Map<string, number>();
  #dueAt = Number.POSITIVE_INFINITY;
  #stopTimer: StopTimer | undefined;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #isStopped = false;

  constructor(deps: RecrawlerDeps) {
    this.#deps = deps;
  }

  /** The crawls that run; of those no longer named nothing is opened. */
  setCrawls(crawls: readonly Crawl[]): void {
    const known = this.#crawls;
    this.#crawls = new Map(
      crawls.filter(({ recrawl }) => recrawl !== undefined).map(({ id, generation }) => [id, generation]),
    );
    for (const [id, generation] of this.#crawls) {
      if (known.get(id) === generation) continue;
      void this.look();
      return;
    }
  }

  ended({ crawl, nextVisitAt }: TaskEnd): void {
    if (nextVisitAt !== undefined && Number.isFinite(nextVisitAt) && this.#crawls.has(crawl)) {
      this.#expect(nextVisitAt);
    }
  }

  /** Opens what is due now. */
  look(): Promise<void> {
    if (this.#looking !== undefined) {
      this.#lookAgain = true;
      return this.#looking;
    }
    if (this.#isStopped || this.#crawls.size === 0) return Promise.resolve();
    this.#looking = this.#openDue().finally(() => {
      this.#looking = undefined;
      if (!this.#lookAgain) return;
      this.#lookAgain = false;
      void this.look();
    });
    return this.#looking;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stopTimer?.();
    await this.#looking;
  }

  async #openDue(): Promise<void> {
    const { rounds, clock, logger, heldShards, onOpened } = this.#deps;
    this.#stopTimer?.();
    this.#dueAt = Number.POSITIVE_INFINITY;
    for (const crawl of this.#crawls.keys()) {
      try {
        for (;;) {
          const { urls, nextDueAt, more } = await rounds.openDue(crawl, heldShards(), clock.now(), BATCH);
          if (urls.length > 0) onOpened(urls);
          if (nextDueAt !== undefined) this.#expect(nextDueAt);
          if (more === undefined || this.#isStopped || !this.#crawls.has(crawl)) break;
        }
      } catch (error) {
        logger.warn({ crawl, error: messageOf(error) }, "could not look for URLs that are due again");
        this.#expect(clock.now() + AGAIN_MS);
      }
    }
  }

  #expect(at: number): void {
    if (at >= this.#dueAt || this.#isStopped) return;
    this.#dueAt = at;
    this.#stopTimer?.();
    const { clock } = this.#deps;
    const waitMs = Math.min(LONGEST_WAIT_MS, Math.max(1, Math.ceil(at - clock.now())));
    this.#stopTimer = clock.after(waitMs, () => {
      this.#dueAt = Number.POSITIVE_INFINITY;
      void this.look();
    });
  }
}
