import { type LookupAddress, lookup as resolveName } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import { LRUCache } from "lru-cache";
import { type Clock, systemClock } from "../../lib/clock.js";
import { DnsTimeoutError } from "../errors.js";

export type DnsCacheOptions = {
  /** How long an answer is used, in milliseconds; 0 asks every time. @default 60_000 */
  readonly ttlMs: number;
  /**
   * How long a name that does not exist is not asked for again, in milliseconds. Shorter than the wait before
   * a second attempt, so that this one asks anew. @default 900
   */
  readonly negativeTtlMs: number;
  /** Names remembered at most; the one unused for longest goes first. @default 10_000 */
  readonly maxNames: number;
  /** Longest wait for one answer, in milliseconds. @default 5_000 */
  readonly timeoutMs: number;
};

export const DNS_DEFAULTS: DnsCacheOptions = {
  ttlMs: 60_000,
  negativeTtlMs: 900,
  maxNames: 10_000,
  timeoutMs: 5_000,
};

/** Addresses of one name that are used at most: more are no help, and an answer may hold thousands. */
const MAX_ADDRESSES = 16;

/** Codes with which a resolver says that there is no such name, not that it cannot tell for now. */
const NO_SUCH_NAME = new Set(["ENOTFOUND", "ENODATA", "ENONAME"]);

type Answer =
  | { readonly addresses: readonly LookupAddress[] }
  | { readonly addresses: undefined; readonly error: NodeJS.ErrnoException };

/**
 * Remembers which addresses a name has, for a while. One question is asked of the resolver however many wait
 * for its answer, and none waits for longer than the time-out: the question itself cannot be taken back, and
 * a late answer still serves those who ask next.
 *
 * It says nothing about whether an address may be connected to. `NetworkGuard` judges every answer, from here
 * or not, each time a connection is made.
 */
export class DnsCache {
  readonly #options: DnsCacheOptions;
  readonly #resolve: LookupFunction;
  readonly #clock: Clock;
  readonly #answers: LRUCache<string, Answer>;
  readonly #asked = new Map<string, Promise<Answer>>();

  constructor(
    options: Partial<DnsCacheOptions> = {},
    resolve: LookupFunction = resolveName,
    clock = systemClock,
  ) {
    this.#options = { ...DNS_DEFAULTS, ...options };
    this.#resolve = resolve;
    this.#clock = clock;
    this.#answers = new LRUCache({
      max: this.#options.maxNames,
      perf: { now: () => clock.monotonic() },
      // Asked by ourselves, so that a clock that stands still in a test is believed.
      ttlResolution: 0,
    });
  }

  /** Takes the place of `dns.lookup`. */
  readonly lookup: LookupFunction = (hostname, options, callback) => {
    const known = this.#answers.get(hostname);
    if (known !== undefined) {
      // Like the system's, never before its caller has gone on.
      process.nextTick(give, known, options, callback);
      return;
    }
    this.#answerInTime(hostname).then(
      (answer) => give(answer, options, callback),
      (error: DnsTimeoutError) => callback(error, "", 0),
    );
  };

  /** How many names are remembered. */
  get size(): number {
    return this.#answers.size;
  }

  #answerInTime(hostname: string): Promise<Answer> {
    const asked = this.#asked.get(hostname) ?? this.#ask(hostname);
    const { timeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const stop = this.#clock.after(timeoutMs, () => reject(new DnsTimeoutError(hostname, timeoutMs)));
      void asked.then((answer) => {
        stop();
        resolve(answer);
      });
    });
  }

  #ask(hostname: string): Promise<Answer> {
    const asking = new Promise<Answer>((resolve) => {
      this.#resolve(hostname, { all: true }, (error, found) => {
        if (error !== null && error !== undefined) {
          resolve({ addresses: undefined, error });
          return;
        }
        const all = typeof found === "string" ? [{ address: found, family: isIP(found) }] : found;
        resolve({ addresses: all.slice(0, MAX_ADDRESSES) });
      });
    })
      .catch((error: NodeJS.ErrnoException): Answer => ({ addresses: undefined, error }))
      .then((answer) => {
        this.#asked.delete(hostname);
        this.#remember(hostname, answer);
        return answer;
      });
    this.#asked.set(hostname, asking);
    return asking;
  }

  #remember(hostname: string, answer: Answer): void {
    const { ttlMs, negativeTtlMs } = this.#options;
    if (answer.addresses !== undefined) {
      if (ttlMs > 0) this.#answers.set(hostname, answer, { ttl: ttlMs });
    } else if (negativeTtlMs > 0 && NO_SUCH_NAME.has(answer.error.code ?? "")) {
      this.#answers.set(hostname, answer, { ttl: negativeTtlMs });
    }
  }
}

function give(
  answer: Answer,
  options: Parameters<LookupFunction>[1],
  callback: Parameters<LookupFunction>[2],
): void {
  if (answer.addresses === undefined) {
    callback(answer.error, "", 0);
    return;
  }
  const family = options.family === 4 || options.family === 6 ? options.family : 0;
  const fitting = family === 0 ? answer.addresses : answer.addresses.filter((one) => one.family === family);
  const first = fitting[0];
  if (options.all === true) callback(null, [...fitting]);
  else if (first !== undefined) callback(null, first.address, first.family);
  else callback(Object.assign(new Error("no address of that family"), { code: "ENOTFOUND" }), "", 0);
}
