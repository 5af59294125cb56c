import { LRUCache } from "lru-cache";
import type { Clock } from "../../lib/clock.js";
import type { Logger } from "../../lib/logger.js";
import { Fifo } from "../dispatch/fifo.js";
import { FetchError } from "../errors.js";
import type { Fetched, Fetcher, FetchRoute } from "../fetch/fetcher.js";
import type { FailReason } from "../frontier.js";
import { isRetriedStatus, retryAfterMs, type TaskLimits } from "../limits.js";
import type { RobotsRecord, RobotsStore } from "../records.js";
import { canonicalUrl } from "../urls/url.js";
import { allowingAll } from "./robots-rules.js";
import { parseRobots, type RobotsRules } from "./robots-txt.js";

export { parseRobots, type RobotsRules, type RobotsTxt } from "./robots-txt.js";

export type RobotsOptions = {
  /** How long a robots.txt is used, in milliseconds; RFC 9309, 2.4, allows a day. @default 86_400_000 */
  readonly maxAgeMs: number;
  /**
   * How long at least, in milliseconds, where its `Cache-Control` asks for less than `maxAgeMs`: many servers say
   * `no-cache` to everything, and a file that is asked for before each page would double a crawl. @default 3_600_000
   */
  readonly minAgeMs: number;
  /** How long a host whose robots.txt could not be had is left alone at first, in ms. @default 500 */
  readonly retryAfterMs: number;
  /** And at most: each failure doubles it. @default 60_000 */
  readonly maxRetryAfterMs: number;
  /** Longest `Retry-After` of a failing host that is obeyed, in ms. @default 600_000 */
  readonly maxBackoffMs: number;
  /** Bytes read of a robots.txt; the rest is not looked at (RFC 9309, 2.5). @default 512_000 */
  readonly maxBytes: number;
  /** Redirects followed (RFC 9309, 2.3.1.2). @default 5 */
  readonly maxRedirects: number;
  /** Origins whose rules are held in memory at most. @default 10_000 */
  readonly maxOrigins: number;
  /** Characters of rules held in memory at most, over all origins. @default 16 Mi */
  readonly maxCharacters: number;
  /** Files read at once at most, over all origins. @default 64 */
  readonly maxAtOnce: number;
};

export const ROBOTS_DEFAULTS: RobotsOptions = {
  maxAgeMs: 86_400_000,
  minAgeMs: 3_600_000,
  retryAfterMs: 500,
  maxRetryAfterMs: 60_000,
  maxBackoffMs: 600_000,
  maxBytes: 512_000,
  maxRedirects: 5,
  maxOrigins: 10_000,
  maxCharacters: 16 * 1_048_576,
  maxAtOnce: 64,
};

/** What of a crawler's limits holds for robots.txt too: no host puts off anything for longer. */
export function robotsOptionsOf({ maxRetryDelayMs }: Partial<TaskLimits>): Partial<RobotsOptions> {
  return maxRetryDelayMs === undefined ? {} : { maxBackoffMs: maxRetryDelayMs };
}

export type RobotsDeps = {
  readonly fetcher: Pick<Fetcher, "fetch">;
  readonly store: RobotsStore;
  readonly clock: Clock;
  /** Its product token is the name that rules are looked up by. */
  readonly userAgent: string;
  readonly logger?: Logger;
};

export type RobotsAnswer = {
  readonly allowed: boolean;
  /** From the end of one fetch to the start of the next on this host, in milliseconds; 0 if none is asked. */
  readonly crawlDelayMs: number;
  /** `disallow`: no rule forbids it, but robots.txt could not be had (5xx, unreachable). */
  readonly verdict: RobotsRecord["verdict"];
  /** When the robots.txt was read, in milliseconds since the epoch. */
  readonly fetchedAt: number;
  /** The line that forbids it, for people; absent when none does. */
  readonly line?: string;
  /** With `disallow`: what happened, for people. */
  readonly error?: string;
  /** With `disallow`, when the host did not answer at all: how the fetch failed. */
  readonly failure?: FailReason;
  /** With `disallow`, when the host asked to be left alone: until when. */
  readonly backoffUntil?: number;
};

/** What is known of one origin. */
type Known = {
  readonly rules: RobotsRules;
  readonly sitemaps: readonly string[];
  readonly verdict: RobotsRecord["verdict"];
  readonly fetchedAt: number;
  readonly expiresAt: number;
  /** Failed readings in a row. */
  readonly failures: number;
  readonly error?: string;
  readonly failure?: FailReason;
  readonly backoffUntil?: number;
};

type Reading =
  | { readonly verdict: "rules"; readonly body: string; readonly ageMs: number }
  | { readonly verdict: "allow"; readonly ageMs: number }
  | {
      readonly verdict: "disallow";
      readonly error: string;
      readonly failure?: FailReason;
      readonly backoffUntil?: number;
    };

const NOTHING: Pick<Known, "rules" | "sitemaps"> = { rules: allowingAll(), sitemaps: [] };
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/**
 * Asks hosts' robots.txt (RFC 9309): read at most once a day, shared through the store, one request at a time
 * for each origin and a bounded number in all. A 4xx means that all is allowed, a 5xx or no answer that nothing is
 * until it answers; rules that were had before, by whichever process, stay in force meanwhile, also beyond their age
 * (2.4).
 */
export class Robots {
  readonly #deps: RobotsDeps;
  readonly #options: RobotsOptions;
  readonly #known: LRUCache<string, Known>;
  readonly #reading = new Map<string, Promise<Known>>();
  readonly #waiting = new Fifo<() => void>();
  #underWay = 0;

  constructor(deps: RobotsDeps, options: Partial<RobotsOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...ROBOTS_DEFAULTS, ...options };
    const { maxOrigins, maxCharacters } = this.#options;
    this.#known = new LRUCache({
      max: maxOrigins,
      maxSize: maxCharacters,
      // The largest still has its place: what is not kept would be read again for every URL.
      sizeCalculation: (known) => Math.min(sizeOf(known), maxCharacters),
    });
  }

  /** How its requests name themselves. */
  get userAgent(): string {
    return this.#deps.userAgent;
  }

  /**
   * Whether a URL may be fetched. Costs a look-up when its host is known.
   * @param route how the host is reached, if it must be asked and not plainly
   * @throws FetchError `address` when the host may not be connected to, or `network` once the signal is aborted
   */
  async check(url: string, signal?: AbortSignal, route?: FetchRoute): Promise<RobotsAnswer> {
    const pathStart = url.indexOf("/", 8);
    const origin = pathStart < 0 ? url : url.slice(0, pathStart);
    const known = this.#fresh(origin) ?? (await this.#readOnce(origin, signal, route));
    const { rules, verdict, fetchedAt, error, failure, backoffUntil } = known;
    const target = pathStart < 0 ? "/" : withoutFragment(url, pathStart);
    const isForbidden = !rules.allows(target);
    const line = isForbidden ? rules.lineAgainst(target) : undefined;
    return {
      allowed: verdict !== "disallow" && !isForbidden,
      crawlDelayMs: rules.crawlDelayMs,
      verdict,
      fetchedAt,
      ...(line !== undefined && { line }),
      ...(error !== undefined && { error }),
      ...(failure !== undefined && { failure }),
      ...(backoffUntil !== undefined && { backoffUntil }),
    };
  }

  /**
   * The sitemaps that the robots.txt of a URL's host names; undefined when it could not be had.
   * @throws FetchError as `check` does
   */
  async sitemaps(
    url: string,
    signal?: AbortSignal,
    route?: FetchRoute,
  ): Promise<readonly string[] | undefined> {
    const { origin } = new URL(url);
    const { sitemaps, verdict } = this.#fresh(origin) ?? (await this.#readOnce(origin, signal, route));
    return verdict === "disallow" ? undefined : sitemaps;
  }

  #fresh(origin: string): Known | undefined {
    const known = this.#known.get(origin);
    return known === undefined || known.expiresAt <= this.#deps.clock.now() ? undefined : known;
  }

  /** Whoever asks for an origin that is being read waits for that; one who leaves does not stop the rest. */
  #readOnce(origin: string, signal: AbortSignal | undefined, route?: FetchRoute): Promise<Known> {
    let reading = this.#reading.get(origin);
    if (reading === undefined) {
      reading = this.#readInTurn(origin, route).finally(() => this.#reading.delete(origin));
      this.#reading.set(origin, reading);
    }
    return signal === undefined ? reading : orAborted(reading, origin, signal);
  }

  async #readInTurn(origin: string, route: FetchRoute | undefined): Promise<Known> {
    if (this.#underWay >= this.#options.maxAtOnce) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#underWay += 1;
    try {
      return await this.#read(origin, route);
    } finally {
      const next = this.#waiting.shift();
      // Whoever waits takes over the place.
      if (next === undefined) this.#underWay -= 1;
      else next();
    }
  }

  async #read(origin: string, route: FetchRoute | undefined): Promise<Known> {
    const held = this.#known.peek(origin);
    const stored = await this.#readStore(origin);
    if (stored !== undefined && stored.expiresAt > this.#deps.clock.now()) return this.#keep(origin, stored);

    const reading = await this.#readHost(origin, route);
    const now = this.#deps.clock.now();
    if (reading.verdict === "disallow") {
      // Not stored: another worker may reach the host, and will want its own word for why not.
      const failures = (held?.failures ?? 0) + 1;
      const { retryAfterMs: firstMs, maxRetryAfterMs } = this.#options;
      const waitMs = Math.min(maxRetryAfterMs, firstMs * 2 ** Math.min(failures - 1, 30));
      const expiresAt = Math.max(now + waitMs, reading.backoffUntil ?? 0);
      const last = held !== undefined && held.verdict !== "disallow" ? held : stored;
      if (last !== undefined) return this.#keep(origin, { ...last, expiresAt, failures });
      return this.#keep(origin, { ...reading, ...NOTHING, fetchedAt: now, expiresAt, failures });
    }
    const { verdict, ageMs } = reading;
    const expiresAt = now + ageMs;
    const body = reading.verdict === "rules" ? reading.body : undefined;
    await this.#writeStore({
      origin,
      fetchedAt: now,
      expiresAt,
      verdict,
      ...(body !== undefined && { body }),
    });
    const said = body === undefined ? NOTHING : this.#said(origin, body);
    return this.#keep(origin, { ...said, verdict, fetchedAt: now, expiresAt, failures: 0 });
  }

  #keep(origin: string, known: Known): Known {
    this.#known.set(origin, known);
    return known;
  }

  #said(origin: string, body: string): Pick<Known, "rules" | "sitemaps"> {
    const { rulesFor, sitemaps } = parseRobots(origin, body);
    return { rules: rulesFor(this.#deps.userAgent), sitemaps };
  }

  /** What is in the store, be it too old to be used while the host answers. */
  async #readStore(origin: string): Promise<Known | undefined> {
    const { store, logger } = this.#deps;
    try {
      const record = await store.get(origin);
      if (record === undefined || record.verdict === "disallow") return undefined;
      const { verdict, fetchedAt, body } = record;
      const expiresAt = Math.min(record.expiresAt, fetchedAt + this.#options.maxAgeMs);
      const said = verdict === "rules" ? this.#said(origin, body ?? "") : NOTHING;
      return { ...said, verdict, fetchedAt, expiresAt, failures: 0 };
    } catch (error) {
      logger?.warn({ err: error, origin }, "could not read a stored robots.txt: asking the host");
      return undefined;
    }
  }

  async #writeStore(record: RobotsRecord): Promise<void> {
    try {
      await this.#deps.store.put(record);
    } catch (error) {
      this.#deps.logger?.warn({ err: error, origin: record.origin }, "could not store a robots.txt");
    }
  }

  /** Reads it from the host, following redirects wherever addresses may be connected to. */
  async #readHost(origin: string, route: FetchRoute | undefined): Promise<Reading> {
    let url = `${origin}/robots.txt`;
    try {
      for (let hops = 0; hops <= this.#options.maxRedirects; hops += 1) {
        const fetched = await this.#deps.fetcher.fetch({ url, accept: "text/plain,*/*;q=0.5", ...route });
        const { statusCode, headers } = fetched;
        if (!REDIRECTS.has(statusCode)) return await this.#judge(fetched);
        fetched.body.discard();
        const target = canonicalUrl(headers.location ?? "", url);
        if (headers.location === undefined || target === undefined) {
          return { verdict: "allow", ageMs: this.#options.maxAgeMs };
        }
        url = target.url;
      }
      // Too many redirects: as if there were none (2.3.1.2).
      return { verdict: "allow", ageMs: this.#options.maxAgeMs };
    } catch (error) {
      if (!(error instanceof FetchError)) throw error;
      const isOwnAddress = url === `${origin}/robots.txt`;
      if (error.reason === "address" && isOwnAddress) throw error;
      const failure = error.reason === "address" ? undefined : error.reason;
      return {
        verdict: "disallow",
        error: `robots.txt could not be had: ${error.message}`,
        ...(failure !== undefined && { failure }),
      };
    }
  }

  async #judge(fetched: Fetched): Promise<Reading> {
    const { statusCode, url, body, headers } = fetched;
    if (statusCode >= 200 && statusCode <= 299) {
      const text = await this.#readBody(body.stream(Number.POSITIVE_INFINITY));
      return { verdict: "rules", body: text, ageMs: this.#ageOf(headers) };
    }
    body.discard();
    if (statusCode >= 500) {
      const now = this.#deps.clock.now();
      const askedMs = retryAfterMs(headers["retry-after"], now);
      return {
        verdict: "disallow",
        error: `robots.txt could not be had: ${url}: status ${statusCode}`,
        ...(askedMs !== undefined && {
          backoffUntil: now + Math.min(askedMs, this.#options.maxBackoffMs),
        }),
      };
    }
    // 400 to 499 is "unavailable", and all is allowed (2.3.1.3), also with 429. But a host that says "not now" has not
    // said that it has none: it is asked again soon.
    const ageMs = isRetriedStatus(statusCode) ? this.#soonOf(headers) : this.#ageOf(headers);
    return { verdict: "allow", ageMs };
  }

  /** How long it may be used, in milliseconds (2.4). */
  #ageOf(headers: Fetched["headers"]): number {
    const { minAgeMs, maxAgeMs } = this.#options;
    const said = headers["cache-control"]?.toLowerCase() ?? "";
    const seconds = /(?:^|[\s,])max-age\s*=\s*"?(\d+)/.exec(said)?.[1];
    const isUncached = /(?:^|[\s,])no-(?:cache|store)(?:$|[\s,])/.test(said);
    const askedMs = isUncached ? 0 : seconds === undefined ? maxAgeMs : Number(seconds) * 1_000;
    return Math.min(maxAgeMs, Math.max(minAgeMs, askedMs));
  }

  #soonOf(headers: Fetched["headers"]): number {
    const { maxRetryAfterMs, maxAgeMs } = this.#options;
    const askedMs = retryAfterMs(headers["retry-after"], this.#deps.clock.now()) ?? 0;
    return Math.min(maxAgeMs, Math.max(maxRetryAfterMs, askedMs));
  }

  /** Its text as far as it is looked at, cut at the end of a line: half a path would forbid too much. */
  async #readBody(body: AsyncIterable<Buffer>): Promise<string> {
    const { maxBytes } = this.#options;
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of body) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > maxBytes) break;
    }
    const whole = Buffer.concat(chunks);
    if (whole.length <= maxBytes) return whole.toString("utf8");
    const cut = whole.subarray(0, maxBytes);
    const end = Math.max(cut.lastIndexOf(0x0a), cut.lastIndexOf(0x0d));
    return cut.subarray(0, end + 1).toString("utf8");
  }
}

/** In characters, about. */
function sizeOf({ rules, sitemaps }: Known): number {
  return sitemaps.reduce((size, { length }) => size + length, rules.size + 100);
}

function withoutFragment(url: string, from: number): string {
  const fragment = url.indexOf("#", from);
  return fragment < 0 ? url.slice(from) : url.slice(from, fragment);
}

/** The answer, or a failure as soon as the signal is aborted. */
function orAborted<T>(answer: Promise<T>, origin: string, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () =>
      reject(new FetchError("network", `${origin}/robots.txt: stopped`, { cause: signal.reason }));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    answer.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
