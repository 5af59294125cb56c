/** How long a host in trouble is left alone. */
export type BackoffOptions = {
  /** Fetches in a row without any answer after which a host counts as silent. @default 12 */
  readonly silentAfter: number;
  /** How long a silent host is left alone at first, in milliseconds; each vain try doubles it. @default 5_000 */
  readonly silentWaitMs: number;
  /**
   * How long an overloaded host (429 or 503 without `Retry-After`) is left alone at first, in milliseconds; each
   * time in a row doubles it. @default 1_000
   */
  readonly overloadWaitMs: number;
  /** Longest time between two tries of a host in trouble, in milliseconds. @default 300_000 */
  readonly maxWaitMs: number;
  /** How long a host may be silent before its URLs are given up untried, in milliseconds. @default 120_000 */
  readonly patienceMs: number;
};

export const BACKOFF_DEFAULTS: BackoffOptions = {
  silentAfter: 12,
  silentWaitMs: 5_000,
  overloadWaitMs: 1_000,
  maxWaitMs: 300_000,
  patienceMs: 120_000,
};

/** What a fetch says of the health of its host, when that did not simply answer. */
export type TroubleReport = {
  /**
   * `asked`: it said until when to leave it alone. `overloaded`: it answered 429 or 503 and did not say.
   * `silent`: no answer, not even a connection.
   */
  readonly kind: "asked" | "overloaded" | "silent";
  /** For people, in a few words. */
  readonly why: string;
};

/** A host's trouble as it is remembered. */
export type HostTrouble = {
  readonly why: string;
  /** Fetches in a row that had no answer. */
  readonly silences: number;
  /** When the first of them ended, in milliseconds since the epoch. */
  readonly silentSince?: number;
  /** Times that it was left alone for being silent, or for being overloaded. */
  readonly waits: number;
};

/**
 * The health of one host, as the ends of fetches tell it.
 *
 *             429, 503, or silent so many times             an answer
 *   healthy ───────────────────────────────────▶ left alone ─────────▶ eased in: one at once, two, four … healthy
 *                                                  │    ▲
 *                                          one try ▼    │ the same again: left alone for twice as long
 *                                                  tried
 *
 * Fetches that were on their way when the trouble was noticed say nothing new: however many fail together, that is
 * one step. Waits without a word from the host are of random length within a quarter, so that hosts behind one
 * address do not come back together.
 */
export class HostHealth {
  readonly #options: BackoffOptions;
  readonly #random: () => number;
  #why = "";
  #silences = 0;
  #silentSince: number | undefined;
  #waits = 0;
  #troubleAt = Number.NEGATIVE_INFINITY;
  #mostAtOnce = Number.POSITIVE_INFINITY;

  constructor(options: BackoffOptions, random: () => number) {
    this.#options = options;
    this.#random = random;
  }

  /** What is wrong with it, for people; empty when nothing is. */
  get why(): string {
    return this.#why;
  }

  /** How many fetches it can take at once, as far as its health goes. */
  get mostAtOnce(): number {
    return this.#mostAtOnce;
  }

  /** It has not answered lately, be it only once: to try it may take as long as a time-out. */
  get isDoubtful(): boolean {
    return this.#silences > 0;
  }

  /** It counts as silent, and has been for longer than anyone wants to wait. */
  isGivenUp(now: number): boolean {
    return this.givenUpAt <= now;
  }

  /** The instant at which that is so; infinite while it does not count as silent. */
  get givenUpAt(): number {
    if (this.#silentSince === undefined || this.#silences < this.#options.silentAfter) {
      return Number.POSITIVE_INFINITY;
    }
    return this.#silentSince + this.#options.patienceMs;
  }

  get isHealthy(): boolean {
    return this.#silences === 0 && this.#waits === 0 && this.#mostAtOnce === Number.POSITIVE_INFINITY;
  }

  get trouble(): HostTrouble | null {
    if (this.isHealthy) return null;
    return {
      why: this.#why,
      silences: this.#silences,
      ...(this.#silentSince !== undefined && { silentSince: this.#silentSince }),
      waits: this.#waits,
    };
  }

  /** Takes in what is remembered: it is eased in again, whoever held it. */
  recall({ why, silences, silentSince, waits }: HostTrouble): void {
    this.#why = why;
    this.#silences = silences;
    this.#silentSince = silentSince;
    this.#waits = waits;
    this.#mostAtOnce = 1;
  }

  /** It answered, whatever it said. */
  answered(): void {
    this.#silences = 0;
    this.#silentSince = undefined;
    this.#waits = Math.max(0, this.#waits - 1);
    this.#mostAtOnce *= 2;
    if (this.#mostAtOnce > MOST_EASED_IN) this.#mostAtOnce = Number.POSITIVE_INFINITY;
    if (this.isHealthy) this.#why = "";
  }

  /**
   * It did not simply answer.
   * @param beganAt when the fetch was dispatched that tells so
   * @returns until when to leave it alone, besides what it asked for itself; undefined if that need not be
   */
  suffered({ kind, why }: TroubleReport, beganAt: number, now: number): number | undefined {
    const isNews = beganAt > this.#troubleAt;
    if (kind === "silent") {
      this.#silences += 1;
      this.#silentSince ??= now;
      if (this.#silences < this.#options.silentAfter) return undefined;
    } else {
      this.#silences = 0;
      this.#silentSince = undefined;
    }
    this.#why = why;
    this.#mostAtOnce = 1;
    if (!isNews) return undefined;
    this.#troubleAt = now;
    if (kind === "asked") return undefined;
    this.#waits += 1;
    const { silentWaitMs, overloadWaitMs, maxWaitMs } = this.#options;
    const firstMs = kind === "silent" ? silentWaitMs : overloadWaitMs;
    const waitMs = Math.min(maxWaitMs, firstMs * 2 ** Math.min(30, this.#waits - 1));
    return now + waitMs * (1 - JITTER / 2 + JITTER * this.#random());
  }
}

/** Fetches at once from which on a host counts as eased in. */
const MOST_EASED_IN = 32;
const JITTER = 0.25;
