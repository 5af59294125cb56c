import type { Clock, StopTimer } from "../lib/clock.js";
import type { Service } from "../lib/service.js";

/** How often it looks, in milliseconds. */
const EVERY_MS = 1_000;

/** A look that comes so much too late, in milliseconds, tells that nothing else was done meanwhile. */
const STALL_MS = 5_000;

/**
 * Time in which a process that was stopped finds out what happened meanwhile, in milliseconds: that the broker has given
 * up its connection, above all, and its messages to others.
 */
const WAKING_MS = 1_000;

/** Knows when this process did nothing for a while: its event loop was busy with one thing, or it was stopped. */
export class StallWatch implements Service {
  readonly name = "stall watch";
  readonly #clock: Clock;
  #lookedAtMs = 0;
  #stalledAtMs = Number.NEGATIVE_INFINITY;
  #stopTimer: StopTimer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async start(): Promise<void> {
    this.#lookedAtMs = this.#clock.monotonic();
    this.#arm();
  }

  async stop(): Promise<void> {
    this.#stopTimer?.();
  }

  /** Whether it stalled lately, in milliseconds. */
  hasStalledWithin(ms: number): boolean {
    this.#look();
    return this.#clock.monotonic() - this.#stalledAtMs <= ms;
  }

  /** When it stalled just now: a promise that resolves once it has had the time to find out what that led to. */
  whenAwake(): Promise<void> | undefined {
    if (!this.hasStalledWithin(WAKING_MS)) return undefined;
    return new Promise((resolve) => this.#clock.after(WAKING_MS, resolve));
  }

  #arm(): void {
    this.#stopTimer = this.#clock.after(EVERY_MS, () => {
      this.#look();
      this.#arm();
    });
  }

  #look(): void {
    const nowMs = this.#clock.monotonic();
    if (nowMs - this.#lookedAtMs > EVERY_MS + STALL_MS) this.#stalledAtMs = nowMs;
    this.#lookedAtMs = nowMs;
  }
}
