/** Something that is under way and should make progress. */
export interface Metered {
  /**
   * Bytes of its body that came so far; undefined while none is to come, or while whoever reads it holds it
   * back: nobody is slow then.
   */
  meter(): number | undefined;
  tooSlow(bytes: number, ms: number): void;
}

export type RateWatchOptions = {
  /** Least bytes a second; 0 watches nothing. */
  readonly minBytesPerSecond: number;
  /** Over how long they are counted, in milliseconds. */
  readonly windowMs: number;
};

type Window = { startedAt: number; bytes: number | undefined };

/** Looks at each body so many times in a window. */
const LOOKS = 5;

/**
 * Ends bodies that come so slowly that only their slowness keeps them going. One timer serves all of them, and
 * a body that is over before it rings costs two operations on a map.
 */
export class RateWatch {
  readonly #options: RateWatchOptions;
  readonly #windows = new Map<Metered, Window>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RateWatchOptions) {
    this.#options = options;
  }

  add(metered: Metered): void {
    const { minBytesPerSecond, windowMs } = this.#options;
    if (minBytesPerSecond === 0) return;
    this.#windows.set(metered, { startedAt: 0, bytes: undefined });
    this.#timer ??= setInterval(() => this.#look(), Math.max(10, windowMs / LOOKS)).unref();
  }

  remove(metered: Metered): void {
    this.#windows.delete(metered);
  }

  #look(): void {
    if (this.#windows.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      return;
    }
    const now = performance.now();
    for (const [metered, window] of this.#windows) this.#judge(metered, window, now);
  }

  #judge(metered: Metered, window: Window, now: number): void {
    const { minBytesPerSecond, windowMs } = this.#options;
    const bytes = metered.meter();
    if (bytes === undefined || window.bytes === undefined) {
      window.startedAt = now;
      window.bytes = bytes;
      return;
    }
    const ms = now - window.startedAt;
    if (ms < windowMs) return;
    const came = bytes - window.bytes;
    window.startedAt = now;
    window.bytes = bytes;
    if (came < (minBytesPerSecond * ms) / 1_000) metered.tooSlow(came, Math.round(ms));
  }
}
