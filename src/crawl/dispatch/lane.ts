import type { Crawl } from "../crawl.js";
import type { QueuedUrl } from "../frontier.js";
import { DEFAULT_MAX_DELAY_MS } from "../politeness.js";
import { obeysRobots } from "../robots/robots-options.js";
import type { TaskEnd } from "../task.js";
import { type BackoffOptions, HostHealth, type HostTrouble } from "./host-health.js";
import type { HostNote, HostState } from "./host-state.js";

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
 *    └──── waits until: the delay after the last end, the bytes paid for, the host's back-off ◀──┘
 *
 * A lane with a delay has one URL in flight, and its delay runs from the end of that one: so the promise
 * holds whatever the queue and the workers do. Until a host's robots.txt was read its crawl delay is not
 * known, and the lane has one URL in flight as well. A delay may follow how long fetches take; then it is never 0.
 *
 * Bandwidth is paid for afterwards: a fetch's bytes keep the lane shut for as long as they would have taken at the
 * highest rate allowed, reckoned from when it began. So the rate holds over any while, however much one page brings,
 * but for what may be fetched at once, which is paid for together.
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
  /** Those in flight that are fetched, and not merely given up. */
  fetches = 0;
  /** It is held back because too many hosts are being tried that may not answer. */
  isHeldBack = false;

  #lastEndedAt = Number.NEGATIVE_INFINITY;
  #lastFetchMs = 0;
  #backoffUntil = Number.NEGATIVE_INFINITY;
  #paidUntil = Number.NEGATIVE_INFINITY;
  #mostOwedMs = 0;
  #crawlDelayMs: number | undefined;
  #delayMs = 0;
  /** The delays that follow how long a fetch takes; of most lanes there are none. */
  #following: readonly Following[] = NONE;
  #maxInFlight = 1;
  #maxBytesPerSecond: number | undefined;
  #awaitsRobots = false;
  /** Made when something is wrong for the first time. */
  #health: HostHealth | undefined;
  #stirredAt: number;

  constructor(host: string, shard: number, madeAt: number) {
    this.host = host;
    this.shard = shard;
    this.#stirredAt = madeAt;
  }

  /** The delay in force, in milliseconds. */
  get delayMs(): number {
    let delayMs = this.#delayMs;
    for (const { factor, mostMs } of this.#following) {
      delayMs = Math.max(delayMs, 1, Math.min(mostMs, factor * this.#lastFetchMs));
    }
    return delayMs;
  }

  /** Body bytes a second that the host may be asked for; undefined when there is no such limit. */
  get maxBytesPerSecond(): number | undefined {
    return this.#maxBytesPerSecond;
  }

  /** It has one URL in flight only because its robots.txt is not known. */
  get awaitsRobots(): boolean {
    return this.#awaitsRobots;
  }

  get isDoubtful(): boolean {
    return this.#health?.isDoubtful ?? false;
  }

  /** What is wrong with the host, for people; empty when nothing is. */
  get trouble(): string {
    return this.#health?.why ?? "";
  }

  get backoffUntil(): number {
    return this.#backoffUntil;
  }

  /** What of it must outlive whoever holds it and is not noted by the workers: only a host's trouble. */
  get note(): HostNote {
    return { host: this.host, backoffUntil: this.#backoffUntil, trouble: this.#health?.trouble ?? null };
  }

  /** Takes in what is remembered of the host, or was just learnt. Instants only grow. */
  learn(state: Omit<HostState, "host" | "trouble">): void {
    if (state.lastEndedAt !== undefined) this.#lastEndedAt = Math.max(this.#lastEndedAt, state.lastEndedAt);
    if (state.lastFetchMs !== undefined) this.#lastFetchMs = state.lastFetchMs;
    if (state.backoffUntil !== undefined)
      this.#backoffUntil = Math.max(this.#backoffUntil, state.backoffUntil);
    if (state.paidUntil !== undefined) this.#paidUntil = Math.max(this.#paidUntil, state.paidUntil);
    if (state.crawlDelayMs !== undefined) this.#crawlDelayMs = state.crawlDelayMs;
  }

  /** Takes in the trouble that a former holder knew of. */
  recall(trouble: HostTrouble, backoff: Backoff): void {
    this.#health ??= new HostHealth(backoff.options, backoff.random);
    this.#health.recall(trouble);
  }

  /**
   * A fetch has ended, or came back untried.
   * @param beganAt when it was dispatched
   * @returns whether something has changed that must outlive whoever holds the lane
   */
  land(end: TaskEnd, beganAt: number, now: number, backoff: Backoff): boolean {
    this.#stirredAt = now;
    // By our own clock, on which the delay is measured too; the worker's differs by some milliseconds.
    if (end.untouched !== true) this.#lastEndedAt = Math.max(this.#lastEndedAt, now);
    if (end.fetchMs !== undefined) this.#lastFetchMs = end.fetchMs;
    // Of what nobody can tell, as much is taken to have come as ever came here.
    const owedMs = end.isUnknown === true ? this.#mostOwedMs : end.owedMs;
    if (owedMs !== undefined) {
      this.#mostOwedMs = Math.max(this.#mostOwedMs, owedMs);
      this.#paidUntil = Math.max(this.#paidUntil, now - (end.fetchMs ?? 0)) + owedMs;
    }
    const { trouble } = end;
    if (trouble === undefined) {
      if (end.answered !== true || this.#health === undefined) return false;
      this.#health.answered();
      if (!this.#health.isHealthy) return false;
      this.#health = undefined;
      return true;
    }
    this.#health ??= new HostHealth(backoff.options, backoff.random);
    const backoffUntil = this.#health.suffered(trouble, beganAt, now);
    if (backoffUntil === undefined) return false;
    this.#backoffUntil = Math.max(this.#backoffUntil, backoffUntil);
    return true;
  }

  /** A fetch counts as over of which nobody knows whether it began, or what it brought. */
  landUnknown(now: number): void {
    this.#stirredAt = now;
    this.#lastEndedAt = Math.max(this.#lastEndedAt, now);
    this.#paidUntil = Math.max(this.#paidUntil, now) + this.#mostOwedMs;
  }

  /** Works out delay and concurrency anew: of the crawls that share the lane the strictest counts. */
  applyPoliteness(crawlOf: (id: string) => Crawl | undefined): void {
    let delayMs = 0;
    let maxInFlight = Number.POSITIVE_INFINITY;
    let maxBytesPerSecond: number | undefined;
    let following: Following[] | undefined;
    let awaitsRobots = false;
    for (const source of this.sources.values()) {
      const crawl = crawlOf(source.crawl);
      if (crawl === undefined) continue;
      const { politeness } = crawl;
      delayMs = Math.max(delayMs, politeness.delayMs);
      maxInFlight = Math.min(maxInFlight, politeness.maxConcurrencyPerHost);
      const { delayFactor, maxDelayMs, maxBytesPerSecond: most } = politeness;
      if (delayFactor !== undefined && delayFactor > 0) {
        following ??= [];
        following.push({ factor: delayFactor, mostMs: maxDelayMs ?? DEFAULT_MAX_DELAY_MS });
      }
      if (most !== undefined) maxBytesPerSecond = Math.min(maxBytesPerSecond ?? most, most);
      if (!obeysRobots(politeness, this.host)) continue;
      if (this.#crawlDelayMs === undefined) awaitsRobots = true;
      else delayMs = Math.max(delayMs, this.#crawlDelayMs);
    }
    const isPaced = delayMs > 0 || following !== undefined;
    this.#delayMs = delayMs;
    this.#following = following ?? NONE;
    this.#maxBytesPerSecond = maxBytesPerSecond;
    this.#awaitsRobots = awaitsRobots && !isPaced && maxInFlight > 1;
    this.#maxInFlight = isPaced || awaitsRobots ? 1 : Math.max(1, maxInFlight);
  }

  /** The instant from which it may send another, not counting those in flight. */
  get opensAt(): number {
    const { delayMs } = this;
    const afterDelay = delayMs > 0 ? this.#lastEndedAt + delayMs : Number.NEGATIVE_INFINITY;
    const afterBytes = this.#maxBytesPerSecond === undefined ? Number.NEGATIVE_INFINITY : this.#paidUntil;
    return Math.max(afterDelay, afterBytes, this.#backoffUntil);
  }

  /** The instant from which it may send a URL, or give one up. */
  get movesAt(): number {
    return this.#health === undefined ? this.opensAt : Math.min(this.opensAt, this.#health.givenUpAt);
  }

  /** For how long nothing has happened here, in milliseconds. */
  quietFor(now: number): number {
    return now - this.#stirredAt;
  }

  /** The host has been silent for so long that its URLs are given up, but for a try now and then. */
  isGivenUp(now: number): boolean {
    return this.#health?.isGivenUp(now) ?? false;
  }

  isFull(now: number): boolean {
    if (this.#health === undefined) return this.inFlight >= this.#maxInFlight;
    // Those that are given up ask nothing of the host.
    if (this.#health.isGivenUp(now)) return this.inFlight >= MOST_GIVEN_UP_AT_ONCE;
    return this.inFlight >= Math.min(this.#maxInFlight, this.#health.mostAtOnce);
  }

  /** Whether it may send, or give up, a URL now. */
  isOpen(now: number): boolean {
    return this.isKnown && !this.isFull(now) && this.movesAt <= now;
  }

  /**
   * Whether a URL that leaves now is to be fetched. Of a host that is given up only one is, when its time has come.
   * @returns why not, for people; undefined if it is
   */
  objection(now: number): string | undefined {
    if (!this.isGivenUp(now) || (this.opensAt <= now && this.fetches === 0)) return undefined;
    return `the host has not answered for too long: ${this.trouble}`;
  }
}

/** How hosts in trouble are treated. */
export type Backoff = { readonly options: BackoffOptions; readonly random: () => number };

/** URLs of a host that is given up that are being ended at once. */
const MOST_GIVEN_UP_AT_ONCE = 64;

type Following = { readonly factor: number; readonly mostMs: number };

const NONE: readonly Following[] = [];
