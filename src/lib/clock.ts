/** Stops a timer; harmless when it has fired or was stopped already. */
export type StopTimer = () => void;

/** Time as a parameter, so that a test can hold it still and move it. */
export interface Clock {
  /** Wall-clock instant in milliseconds since the epoch. */
  now(): number;
  /** Milliseconds on a clock that never jumps, for measuring spans and deadlines. */
  monotonic(): number;
  /** Calls `fire` once, `delayMs` from now. The timer does not keep the process alive. */
  after(delayMs: number, fire: () => void): StopTimer;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, fire) {
    const timer = setTimeout(fire, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A clock that a test advances by hand. Timers fire in order of their due time. */
export class ManualClock implements Clock {
  #nowMs: number;
  #timers: { dueMs: number; fire: () => void }[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  after(delayMs: number, fire: () => void): StopTimer {
    const timer = { dueMs: this.#nowMs + Math.max(0, delayMs), fire };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Moves time on by `ms`, firing what falls due on the way. */
  advance(ms: number): void {
    const targetMs = this.#nowMs + ms;
    for (;;) {
      const next = this.#timers
        .filter((timer) => timer.dueMs <= targetMs)
        .reduce<{ dueMs: number; fire: () => void } | undefined>(
          (first, timer) => (first === undefined || timer.dueMs < first.dueMs ? timer : first),
          undefined,
        );
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#nowMs = next.dueMs;
      next.fire();
    }
    this.#nowMs = targetMs;
  }

  /** How many timers are waiting. */
  get pending(): number {
    return this.#timers.length;
  }
}
