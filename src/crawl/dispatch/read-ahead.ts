import type { QueuedUrl } from "../frontier.js";
import type { LaneSource } from "./lane.js";

/** The URLs read ahead from the frontier over all lanes: how many there are, and how many may be. */
export class ReadAhead {
  readonly #most: number;
  readonly #mostOfOne: number;
  #size = 0;

  /**
   * @param most URLs over all lanes, roughly
   * @param mostOfOne URLs of one crawl on one host
   */
  constructor(most: number, mostOfOne: number) {
    this.#most = most;
    this.#mostOfOne = mostOfOne;
  }

  get size(): number {
    return this.#size;
  }

  /** Whether as much is read ahead as is to be. */
  get isEnough(): boolean {
    return this.#size >= this.#most;
  }

  /** How many to read at once when so many lanes share what is left. */
  shareOf(lanes: number): number {
    const fairShare = Math.floor((this.#most - this.#size) / Math.max(1, lanes));
    return Math.max(4, Math.min(this.#mostOfOne, fairShare));
  }

  push(source: LaneSource, url: QueuedUrl): void {
    source.buffer.push(url);
    this.#size += 1;
  }

  /** Takes the first URL for which this is true. */
  take(source: LaneSource, isWanted: (url: QueuedUrl) => boolean): QueuedUrl | undefined {
    const at = source.buffer.findIndex(isWanted);
    if (at < 0) return undefined;
    this.#size -= 1;
    return at === 0 ? source.buffer.shift() : source.buffer.splice(at, 1)[0];
  }

  /** Forgets all of a source for which this is not true. */
  keep(source: LaneSource, isKept: (url: QueuedUrl) => boolean): void {
    const kept = source.buffer.filter(isKept);
    this.#size -= source.buffer.length - kept.length;
    source.buffer = kept;
  }

  clear(source: LaneSource): void {
    this.#size -= source.buffer.length;
    source.buffer = [];
  }
}
