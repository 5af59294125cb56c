import type { Clock, StopTimer } from "./clock.js";

/** Something done every so often, and at once when asked, never twice at a time. */
export class Loop {
  readonly #everyMs: number;
  readonly #clock: Clock;
  readonly #run: () => Promise<void>;
  #current: Promise<void> | undefined;
  #again = false;
  #stopTimer: StopTimer | undefined;
  #isStopped = false;

  constructor(everyMs: number, clock: Clock, run: () => Promise<void>) {
    this.#everyMs = everyMs;
    this.#clock = clock;
    this.#run = run;
    this.#arm();
  }

  runNow(): Promise<void> {
    if (this.#isStopped) return Promise.resolve();
    if (this.#current !== undefined) {
      this.#again = true;
      return this.#current;
    }
    this.#stopTimer?.();
    this.#current = this.#run().finally(() => {
      this.#current = undefined;
      if (this.#again) {
        this.#again = false;
        void this.runNow();
      } else this.#arm();
    });
    return this.#current;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stopTimer?.();
    await this.#current;
  }

  #arm(): void {
    if (this.#isStopped) return;
    this.#stopTimer = this.#clock.after(this.#everyMs, () => void this.runNow());
  }
}
