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

type Window = { readonly startedAt: number; readonly bytes: number };

/** Looks at each body so many times in a window. */
const LOOKS = 5;

/**
 * Ends bodies that come so slowly that only their slowness keeps them going. One timer serves all of them, and
 * a body that is over before it rings costs two operations on a map.
 */
export class RateWatch {
  readonly #options: RateWatchOptions;
  /** Undefined until it was looked at: most bodies are over before that. */
  readonly #windows = new Map<Metered, Window | undefined>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RateWatchOptions) {
    this.#options = options;
  }

  add(metered: Metered): void {
    const { minBytesPerSecond, windowMs } = this.#options;
    if (minBytesPerSecond === 0) return;
    this.#windows.set(metered, undefined);
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

  #judge(metered: Metered, window: Window | undefined, now: number): void {
    const { minBytesPerSecond, windowMs } = this.#options;
    const bytes = metered.meter();
    if (bytes === undefined || window === undefined) {
      this.#windows.set(metered, bytes === undefined ? undefined : { startedAt: now, bytes });
      return;
    }
    const ms = now - window.startedAt;
    if (ms < windowMs) return;
    this.#windows.set(metered, { startedAt: now, bytes });
    const came = bytes - window.bytes;
    if (came < (minBytesPerSecond * ms) / 1_000) metered.tooSlow(came, Math.round(ms));
  }
}
