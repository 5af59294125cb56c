/** Gives back a place; harmless when it was given back already. */
export type LeavePlace = () => void;

type Waiting = { readonly enter: (leave: LeavePlace) => void };

/** A fixed number of places, taken in turn. */
export class Places {
  #free: number;
  readonly #waiting: Waiting[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Those that wait for a place. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Resolves with a place when it is one's turn.
   * @returns undefined when the signal came first
   */
  async take(signal: AbortSignal): Promise<LeavePlace | undefined> {
    if (signal.aborted) return undefined;
    if (this.#free > 0) {
      this.#free -= 1;
      return this.#leaver();
    }
    return new Promise((resolve) => {
      const giveUp = () => {
        const index = this.#waiting.indexOf(waiting);
        if (index >= 0) this.#waiting.splice(index, 1);
        resolve(undefined);
      };
      const waiting: Waiting = {
        enter: (leave) => {
          signal.removeEventListener("abort", giveUp);
          resolve(leave);
        },
      };
      this.#waiting.push(waiting);
      signal.addEventListener("abort", giveUp, { once: true });
    });
  }

  #leaver(): LeavePlace {
    let hasLeft = false;
    return () => {
      if (hasLeft) return;
      hasLeft = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next.enter(this.#leaver());
    };
  }
}
