import type { Clock } from "../lib/clock.js";

/** What is being worked on, so that whoever stops can wait for it. */
export class AtHand {
  readonly #clock: Clock;
  readonly #all = new Set<Promise<void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param work must not reject */
  add(work: Promise<void>): void {
    const kept = work.finally(() => this.#all.delete(kept));
    this.#all.add(kept);
  }

  /** Resolves when all of it is over, or the time is. */
  async settled(timeoutMs: number): Promise<void> {
    let stopTimer = () => {};
    const late = new Promise<void>((resolve) => {
      stopTimer = this.#clock.after(timeoutMs, resolve);
    });
    await Promise.race([Promise.all(this.#all), late]);
    stopTimer();
  }
}
