import {
  type CrawlState,
  CrawlStateError,
  type CrawlStates,
  checkedStateValue,
  MAX_STATE_VALUES,
  sumOf,
} from "./crawl-state.js";

/** The states of the crawls of one process. */
export class MemoryCrawlStates implements CrawlStates {
  readonly #states = new Map<string, MemoryCrawlState>();

  of(crawl: string): CrawlState {
    let state = this.#states.get(crawl);
    if (state === undefined) {
      state = new MemoryCrawlState();
      this.#states.set(crawl, state);
    }
    return state;
  }
}

class MemoryCrawlState implements CrawlState {
  readonly #values = new Map<string, unknown>();

  async get(name: string): Promise<unknown> {
    return structuredClone(this.#values.get(name));
  }

  async set(name: string, value: unknown): Promise<void> {
    this.#set(name, checkedStateValue(name, value));
  }

  async add(name: string, by = 1): Promise<number> {
    const sum = sumOf(name, this.#values.get(name) ?? 0, by);
    this.#set(name, checkedStateValue(name, sum));
    return sum;
  }

  async delete(name: string): Promise<void> {
    this.#values.delete(name);
  }

  #set(name: string, value: unknown): void {
    if (!this.#values.has(name) && this.#values.size >= MAX_STATE_VALUES) throw CrawlStateError.tooMany(name);
    this.#values.set(name, value);
  }
}
