/**
 * Numbers by key, for the keys used lately: at most `limit` of them, and at least half that many of the most
 * recent. Two maps that take turns cost a fraction of a list kept in order of use, on a path where each link
 * of each page asks.
 */
export class RecentKeys {
  readonly #half: number;
  #young = new Map<string, number>();
  #old = new Map<string, number>();

  /** @param limit keys remembered at most, 2 or more */
  constructor(limit: number) {
    this.#half = Math.max(1, Math.floor(limit / 2));
  }

  get(key: string): number | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }

  set(key: string, value: number): void {
    if (this.#young.size >= this.#half && !this.#young.has(key)) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
  }
}
