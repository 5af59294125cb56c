import type { Crawl } from "./crawl.js";
import type { QueuedUrl } from "./frontier.js";
import type { HostState } from "./task.js";

/**
 * A crawl's URLs on one host: those read ahead from the frontier, and what is known of the rest.
 *
 * `drained` means that the frontier had no more when it was last asked, so asking again is useless until
 * something is added. `nextReadyAt` is the earliest instant at which one that waits there becomes ready.
 */
export class LaneSource {
  readonly lane: Lane;
  readonly crawl: string;
  buffer: QueuedUrl[] = [];
  drained = false;
  nextReadyAt: number | undefined;
  loading = false;
  /** Whether something was added while a read was under way, so that its answer may be old. */
  addedMeanwhile = false;
  /** Whether it stands in its crawl's round. */
  listed = false;
  inFlight = 0;

  constructor(lane: Lane, crawl: string) {
    this.lane = lane;
    this.crawl = crawl;
  }

  /** Whether it could give a URL now, at once or after asking the frontier. */
  hasMore(now: number): boolean {
    if (this.buffer.length > 0) return true;
    if (this.loading) return false;
    if (!this.drained) return true;
    return this.nextReadyAt !== undefined && this.nextReadyAt <= now;
  }

  /** Something was added to the frontier, or came back to it. */
  freshen(): void {
    this.drained = false;
    if (this.loading) this.addedMeanwhile = true;
  }

  /** Nothing here, nothing in the frontier, nothing under way. */
  get isSpent(): boolean {
    return (
      this.buffer.length === 0 &&
      this.drained &&
      this.nextReadyAt === undefined &&
      !this.loading &&
      this.inFlight === 0
    );
  }
}

/**
 * One host's politeness, over all workers and all crawls.
 *
 *   open ── take ──▶ as many in flight as allowed ──▶ full
 *    ▲                                                 │ release
 *    └──── waits until: the delay after the last end, the host's back-off ◀──┘
 *
 * A lane with a delay has one URL in flight, and its delay runs from the end of that one: so the promise
 * holds whatever the queue and the workers do. Until a host's robots.txt was read its crawl delay is not
 * known, and the lane has one URL in flight as well.
 */
export class Lane {
  readonly host: string;
  readonly shard: number;
  readonly sources = new Map<string, LaneSource>();
  /** False until what is remembered of the host was loaded. */
  isKnown = false;
  inFlight = 0;
  /** The instant for which the lane stands in the queue of those that wait, if it does. */
  wakesAt: number | undefined;

  #lastEndedAt = Number.NEGATIVE_INFINITY;
  #backoffUntil = Number.NEGATIVE_INFINITY;
  #crawlDelayMs: number | undefined;
  #delayMs = 0;
  #maxInFlight = 1;
  readonly #madeAt: number;

  constructor(host: string, shard: number, madeAt: number) {
    this.host = host;
    this.shard = shard;
    this.#madeAt = madeAt;
  }

  /** The delay in force, in milliseconds. */
  get delayMs(): number {
    return this.#delayMs;
  }

  /** Takes in what is remembered of the host, or was just learnt. Instants only grow. */
  learn(state: Omit<HostState, "host">): void {
    if (state.lastEndedAt !== undefined) this.#lastEndedAt = Math.max(this.#lastEndedAt, state.lastEndedAt);
    if (state.backoffUntil !== undefined)
      this.#backoffUntil = Math.max(this.#backoffUntil, state.backoffUntil);
    if (state.crawlDelayMs !== undefined) this.#crawlDelayMs = state.crawlDelayMs;
  }

  /** Works out delay and concurrency anew: of the crawls that share the lane the strictest counts. */
  applyPoliteness(crawlOf: (id: string) => Crawl | undefined): void {
    let delayMs = 0;
    let maxInFlight = Number.POSITIVE_INFINITY;
    for (const source of this.sources.values()) {
      const crawl = crawlOf(source.crawl);
      if (crawl === undefined) continue;
      const { politeness } = crawl;
      delayMs = Math.max(delayMs, politeness.delayMs);
      maxInFlight = Math.min(maxInFlight, politeness.maxConcurrencyPerHost);
      if (!politeness.obeyRobots) continue;
      if (this.#crawlDelayMs === undefined) maxInFlight = 1;
      else delayMs = Math.max(delayMs, this.#crawlDelayMs);
    }
    this.#delayMs = delayMs;
    this.#maxInFlight = delayMs > 0 ? 1 : Math.max(1, maxInFlight);
  }

  /** The instant from which it may send another, not counting those in flight. */
  get opensAt(): number {
    const afterDelay = this.#delayMs > 0 ? this.#lastEndedAt + this.#delayMs : Number.NEGATIVE_INFINITY;
    return Math.max(afterDelay, this.#backoffUntil);
  }

  /** For how long nothing has happened here and nothing is being waited for, in milliseconds. */
  quietSince(now: number): number {
    return now - Math.max(this.#lastEndedAt, this.#backoffUntil, this.#madeAt);
  }

  get isFull(): boolean {
    return this.inFlight >= this.#maxInFlight;
  }

  isOpen(now: number): boolean {
    return this.isKnown && !this.isFull && this.opensAt <= now;
  }
}
