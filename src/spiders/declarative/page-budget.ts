/**
 * Steps for one page: some 50 ns each, so about a second in all. An ordinary page takes some ten thousand; one of 5 MB,
 * 300,000 for each selector that is searched for in all of it.
 */
export const MAX_STEPS = 20_000_000;

/**
 * Bounds what a declaration may cost on one page. A page and a declaration that were made for each other could
 * otherwise keep the process busy for minutes, and there is nothing else to stop them: no step waits for anything.
 */
export class PageBudget {
  /** The member of the declaration that is at work, for the message. */
  member = "";
  #left: number;
  readonly #steps: number;

  constructor(steps: number = MAX_STEPS) {
    this.#steps = steps;
    this.#left = steps;
  }

  /** @throws Error when the page has had its share */
  spend(steps: number): void {
    this.#left -= steps;
    if (this.#left < 0) {
      throw new Error(`${this.member}: more than ${this.#steps} steps on one page, all members together`);
    }
  }
}
