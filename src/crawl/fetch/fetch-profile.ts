import { LRUCache } from "lru-cache";
import type { Clock } from "../../lib/clock.js";
import type { Crawl } from "../crawl.js";
import type { TaskLimits } from "../limits.js";
import { AttemptJudge } from "../outcome.js";
import type { CookieJars } from "./cookie-jars.js";
import type { Fetched } from "./exchange.js";
import type { Credentials, FetchOptions } from "./fetch-options.js";
import type { FetchRequest, FetchRoute } from "./fetcher.js";
import { proxyOf } from "./proxies.js";

/** Crawls whose profile, and with it whose cookies, are kept in memory. */
const MAX_PROFILES = 256;

/** The profiles of crawls that fetch otherwise than by the settings of the process. */
export class FetchProfiles {
  readonly #clock: Clock;
  readonly #limits: TaskLimits;
  readonly #profiles = new LRUCache<string, FetchProfile>({ max: MAX_PROFILES });

  constructor(clock: Clock, limits: TaskLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Undefined for a crawl without `fetch` options, which must cost nothing. */
  of(crawl: Crawl): FetchProfile | undefined {
    if (crawl.fetch === undefined) return undefined;
    let profile = this.#profiles.get(crawl.id);
    if (profile === undefined) {
      profile = new FetchProfile(crawl.fetch, this.#limits, this.#clock);
      this.#profiles.set(crawl.id, profile);
    }
    return profile;
  }
}

/** What a crawl's `fetch` options make of its requests and limits. It keeps the crawl's cookies. */
export class FetchProfile {
  readonly limits: TaskLimits;
  readonly judge: AttemptJudge;
  /** How hosts are reached, for their robots.txt too. */
  readonly route: FetchRoute;
  readonly #options: FetchOptions;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #byOrigin: ReadonlyMap<string, Readonly<Record<string, string>>>;
  #cookies: Promise<CookieJars> | undefined;

  constructor(options: FetchOptions, limits: TaskLimits, clock: Clock) {
    const { headers, userAgent, auth = {}, proxies = [] } = options;
    const { http2, timeoutMs, maxPageBytes, maxRedirects, maxAttempts, retry } = options;
    this.#options = options;
    this.limits = {
      ...limits,
      ...(maxPageBytes !== undefined && { maxPageBytes }),
      ...(maxRedirects !== undefined && { maxRedirects }),
      ...(maxAttempts !== undefined && { maxAttempts }),
      ...(retry !== undefined && { retry }),
    };
    this.judge = new AttemptJudge(clock, this.limits);
    this.#headers = { ...headers, ...(userAgent !== undefined && { "user-agent": userAgent }) };
    this.#byOrigin = new Map(
      Object.entries(auth).map(([origin, credentials]) => [origin, headersOf(credentials)]),
    );
    this.route = {
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(http2 === true && { http2 }),
      ...(proxies.length > 0 && { proxies: proxies.map(proxyOf) }),
    };
  }

  /** The request with all that the crawl adds to it. What the request says itself goes before. */
  async dressed(request: FetchRequest): Promise<FetchRequest> {
    const { origin } = new URL(request.url);
    const cookie = await (await this.#jars())?.headerFor(request.url);
    return {
      ...this.route,
      ...request,
      headers: {
        ...this.#headers,
        ...(cookie !== undefined && { cookie }),
        ...this.#byOrigin.get(origin),
        ...request.headers,
      },
    };
  }

  /** Keeps the cookies that a response sets, a redirect's among them. */
  async took({ url, setCookies }: Fetched): Promise<void> {
    if (setCookies === undefined) return;
    await (await this.#jars())?.take(url, setCookies);
  }

  /** Undefined when the crawl wants none. Loaded when the first is wanted. */
  #jars(): Promise<CookieJars> | undefined {
    if (this.#options.cookies !== true) return undefined;
    this.#cookies ??= import("./cookie-jars.js").then(({ CookieJars: Jars }) => new Jars());
    return this.#cookies;
  }
}

function headersOf(credentials: Credentials): Readonly<Record<string, string>> {
  if ("headers" in credentials) return credentials.headers;
  if ("bearer" in credentials) return { authorization: `Bearer ${credentials.bearer}` };
  const { username, password } = credentials;
  return { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}` };
}
