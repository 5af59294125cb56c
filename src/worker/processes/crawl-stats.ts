import type { CrawlState } from "../../crawl/crawl-state.js";
import { type Clock, type StopTimer, systemClock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";

/** How long numbers are gathered before they are added: what a spider counts costs no round trip each time. */
const FLUSH_MS = 2_000;
/** Names that are gathered at once; more are refused, for a crawl's state has no more room either. */
const MAX_NAMES = 1_000;

/** What a spider counts: numbers, added to the crawl's state as `stats.NAME`. */
export class CrawlStats {
  readonly #state: CrawlState;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #sums = new Map<string, number>();
  #stopTimer: StopTimer | undefined;
  #flushing: Promise<void> = Promise.resolve();

  constructor(state: CrawlState, logger: Logger, clock: Clock = systemClock) {
    this.#state = state;
    this.#logger = logger;
    this.#clock = clock;
  }

  add(name: string, by: number): void {
    if (!this.#sums.has(name) && this.#sums.size >= MAX_NAMES) {
      this.#logger.warn({ stats: name.slice(0, 200) }, "too many stats at once: not counted");
      return;
    }
    this.#sums.set(name, (this.#sums.get(name) ?? 0) + by);
    this.#stopTimer ??= this.#clock.after(FLUSH_MS, () => void this.flush());
  }

  /** Resolves when all that was added before is in the state, or could not be put there. */
  flush(): Promise<void> {
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    const sums = this.#sums;
    this.#sums = new Map();
    this.#flushing = this.#flushing.then(() => this.#write(sums));
    return this.#flushing;
  }

  async #write(sums: ReadonlyMap<string, number>): Promise<void> {
    for (const [name, by] of sums) {
      try {
        await this.#state.add(`stats.${name}`, by);
      } catch (error) {
        this.#logger.warn(
          { stats: name.slice(0, 200), by, why: messageOf(error) },
          "a number was not counted",
        );
      }
    }
  }
}
