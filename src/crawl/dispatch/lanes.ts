import type { Clock, StopTimer } from "../../lib/clock.js";
import { shardOf } from "../urls/url.js";
import { DueQueue } from "./due-queue.js";
import { Fifo } from "./fifo.js";
import { Lane, LaneSource } from "./lane.js";
import type { ReadAhead } from "./read-ahead.js";
import type { Turn, Turns } from "./turns.js";

export type LanesDeps = {
  readonly turns: Turns;
  readonly readAhead: ReadAhead;
  readonly clock: Clock;
  readonly shardCount: number;
  /** Called when the first of the lanes that wait may be open. */
  readonly onDue: () => void;
};

/**
 * How long a lane that nothing waits for is kept, in milliseconds: above the longest crawl delay obeyed, and long enough
 * for what was noted of it to be on record.
 */
const QUIET_MS = 90_000;

/**
 * The lanes of the shards that are held, and when each is looked at next.
 *
 * A lane is made when something is heard of its host, and forgotten when nothing has been for a while; what
 * matters of it is on record. A source stands in its crawl's round while it may have something to give and its
 * lane is open; one whose lane is shut waits in a queue for the instant at which that opens.
 */
export class Lanes {
  readonly #deps: LanesDeps;
  /** The shards held, with the epochs of their leases. */
  readonly #shards = new Map<number, number>();
  readonly #byHost = new Map<string, Lane>();
  readonly #waiting = new DueQueue<Lane>();
  readonly #unread = new Set<Lane>();
  readonly #heldBack = new Fifo<Lane>();
  #stopTimer: StopTimer | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #isStopped = false;

  constructor(deps: LanesDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#byHost.size;
  }

  get(host: string): Lane | undefined {
    return this.#byHost.get(host);
  }

  /** Whether this is still the lane of its host. */
  has(lane: Lane): boolean {
    return this.#byHost.get(lane.host) === lane;
  }

  get heldShards(): readonly number[] {
    return [...this.#shards.keys()];
  }

  /** The epoch of a shard's lease; undefined when the shard is not held. */
  epochOf(shard: number): number | undefined {
    return this.#shards.get(shard);
  }

  hold(shard: number, epoch: number): void {
    this.#shards.set(shard, epoch);
  }

  /** Gives shards up; returns the lanes that were theirs. */
  drop(shards: readonly number[]): ReadonlySet<Lane> {
    const dropped = new Set(shards);
    for (const shard of dropped) this.#shards.delete(shard);
    const lanes = new Set<Lane>();
    for (const lane of this.#byHost.values()) if (dropped.has(lane.shard)) lanes.add(lane);
    return lanes;
  }

  /** Lanes of whose hosts it has not been read yet what is remembered; each is named once. */
  takeUnread(): readonly Lane[] {
    if (this.#unread.size === 0) return [];
    const lanes = [...this.#unread];
    this.#unread.clear();
    return lanes;
  }

  /** Something was not heard of this lane that is on record: it sends nothing until that was read. */
  readAgain(lane: Lane): void {
    if (!this.has(lane)) return;
    lane.isKnown = false;
    this.#unread.add(lane);
  }

  /** They could not be read, and are to be named again. */
  putBackUnread(lanes: readonly Lane[]): void {
    for (const lane of lanes) if (this.has(lane)) this.#unread.add(lane);
  }

  /** The lane of a host, made if need be; undefined when its shard is not held. */
  of(host: string): Lane | undefined {
    const known = this.#byHost.get(host);
    if (known !== undefined) return known;
    const shard = shardOf(host, this.#deps.shardCount);
    if (!this.#shards.has(shard)) return undefined;
    const lane = new Lane(host, shard, this.#deps.clock.now());
    this.#byHost.set(host, lane);
    this.#unread.add(lane);
    return lane;
  }

  /** A crawl's source on a host, made if need be; undefined when the host's shard is not held. */
  sourceOf(turn: Turn, host: string): LaneSource | undefined {
    const lane = this.of(host);
    if (lane === undefined) return undefined;
    const source = lane.sources.get(turn.crawl.id) ?? this.addSource(lane, turn.crawl.id);
    if (!turn.sources.has(source)) {
      // Its crawl runs again while URLs from before are in flight: until now it did not count.
      turn.sources.add(source);
      this.applyPoliteness(lane);
    }
    return source;
  }

  addSource(lane: Lane, crawl: string): LaneSource {
    const source = new LaneSource(lane, crawl);
    lane.sources.set(crawl, source);
    this.#deps.turns.get(crawl)?.sources.add(source);
    this.applyPoliteness(lane);
    return source;
  }

  removeSource(source: LaneSource): void {
    const { lane } = source;
    this.#deps.readAhead.clear(source);
    source.listed = false;
    source.drained = true;
    source.nextReadyAt = undefined;
    this.#deps.turns.get(source.crawl)?.sources.delete(source);
    if (source.inFlight > 0) return; // Its URLs still hold their places; it goes when the last one lands.
    lane.sources.delete(source.crawl);
    this.applyPoliteness(lane);
  }

  applyPoliteness(lane: Lane): void {
    lane.applyPoliteness(this.#deps.turns.crawlOf);
  }

  /** Puts the lane's sources that have something to give into the rounds of their crawls. */
  offer(lane: Lane): void {
    const now = this.#deps.clock.now();
    if (!lane.isKnown || lane.isHeldBack || lane.isFull(now)) return;
    if (lane.movesAt <= now) {
      for (const source of lane.sources.values()) {
        if (source.listed || !source.hasMore(now)) continue;
        const turn = this.#deps.turns.get(source.crawl);
        if (turn === undefined) continue;
        turn.list(source);
      }
    }
    this.awaitOpening(lane);
  }

  /** Sees to it that the lane is looked at when it opens, or when one of its waiting URLs becomes ready. */
  awaitOpening(lane: Lane): void {
    if (!lane.isKnown) return;
    const now = this.#deps.clock.now();
    let at = Number.POSITIVE_INFINITY;
    const { movesAt } = lane;
    if (movesAt > now) at = movesAt;
    for (const source of lane.sources.values()) {
      if (source.nextReadyAt !== undefined && source.nextReadyAt > now) {
        at = Math.min(at, Math.max(source.nextReadyAt, movesAt));
      }
    }
    if (at === Number.POSITIVE_INFINITY || (lane.wakesAt !== undefined && lane.wakesAt <= at)) return;
    lane.wakesAt = at;
    this.#waiting.push(at, lane);
    this.armTimer();
  }

  /** Holds a lane back until it is let go, though it is open. */
  holdBack(lane: Lane): void {
    if (lane.isHeldBack) return;
    lane.isHeldBack = true;
    this.#heldBack.push(lane);
  }

  /** Lets go so many of those that were held back, the first first. */
  letGo(most: number): void {
    for (let left = Math.min(most, this.#heldBack.size); left > 0; left -= 1) {
      const lane = this.#heldBack.shift();
      if (lane === undefined) return;
      lane.isHeldBack = false;
      if (this.has(lane)) this.offer(lane);
    }
  }

  /** Offers the sources of all lanes that have opened since. */
  openDue(): void {
    const now = this.#deps.clock.now();
    for (;;) {
      const lane = this.#waiting.takeDue(now);
      if (lane === undefined) return;
      if (!this.has(lane)) continue;
      if (lane.wakesAt !== undefined && lane.wakesAt <= now) lane.wakesAt = undefined;
      this.offer(lane);
    }
  }

  /** Sees to it that `onDue` is called when the first lane opens. */
  armTimer(): void {
    const at = this.#waiting.nextDueAt ?? Number.POSITIVE_INFINITY;
    if (at === this.#timerAt || this.#isStopped) return;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    this.#timerAt = at;
    if (at === Number.POSITIVE_INFINITY) return;
    this.#stopTimer = this.#deps.clock.after(Math.max(1, at - this.#deps.clock.now()), () => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.#deps.onDue();
    });
  }

  /** Forgets a lane of which nothing is in flight. */
  forget(lane: Lane): void {
    for (const source of [...lane.sources.values()]) this.removeSource(source);
    this.#byHost.delete(lane.host);
    this.#unread.delete(lane);
  }

  /** Lanes that nothing waits for go once no promise hangs on them; what matters of them is on record. */
  forgetQuiet(now: number): void {
    for (const lane of this.#byHost.values()) {
      if (lane.isKnown && lane.sources.size === 0 && lane.inFlight === 0 && lane.quietFor(now) > QUIET_MS) {
        this.#byHost.delete(lane.host);
      }
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
  }
}
