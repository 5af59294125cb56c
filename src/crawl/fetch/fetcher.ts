import type { LookupFunction } from "node:net";
import type { Dispatcher } from "undici";
import { type Clock, systemClock } from "../../lib/clock.js";
import type { ExchangeTap } from "../archive/archive.js";
import { FetchError, ProxyError } from "../errors.js";
import type { WireHeader } from "../records.js";
import { Connector } from "./connector.js";
import { ACCEPTED_ENCODINGS } from "./content-coding.js";
import { DNS_DEFAULTS, DnsCache } from "./dns-cache.js";
import { Exchange, type Fetched } from "./exchange.js";
import { HostPools, type Route } from "./host-pools.js";
import { NetworkGuard } from "./network-guard.js";
import { type HttpProxy, ProxyRotation } from "./proxies.js";
import { RateWatch } from "./rate-watch.js";
import { Tunnels } from "./tunnel.js";

export type { Fetched } from "./exchange.js";
export type { FetchedBody } from "./response-body.js";

export type FetcherOptions = {
  /** How requests name themselves. */
  readonly userAgent: string;
  /** From the start of a fetch to the end of its body, in milliseconds. @default 30_000 */
  readonly timeoutMs: number;
  /** For the resolution of a name, in milliseconds. @default 5_000 */
  readonly dnsTimeoutMs: number;
  /** For TCP and TLS together, in milliseconds. @default 10_000 */
  readonly connectTimeoutMs: number;
  /** From the request to the end of the response's headers, in milliseconds. @default 30_000 */
  readonly headersTimeoutMs: number;
  /** Between two pieces of a body, in milliseconds. @default 30_000 */
  readonly bodyTimeoutMs: number;
  /** A body that comes more slowly is given up; 0 waits for the time-outs. @default 100 */
  readonly minBytesPerSecond: number;
  /** Over how long its bytes are counted, in milliseconds. @default 10_000 */
  readonly minRateWindowMs: number;
  /** Bytes of a response's headers in all. @default 65_536 */
  readonly maxHeaderBytes: number;
  /** A response's headers, repeated ones counted each time. @default 256 */
  readonly maxHeaders: number;
  /** Connections to one origin at once. Lanes set the pace; this is a bound only. @default 64 */
  readonly connectionsPerHost: number;
  /** Connections at once in all, idle ones included, which are closed to make room. @default 1_024 */
  readonly maxConnections: number;
  /** Origins whose connections are kept; the one unused for longest goes first. @default 512 */
  readonly maxPools: number;
  /** Networks in CIDR notation that may be fetched although they are not public. @default none */
  readonly allowedNetworks: readonly string[];
  /** Networks in which proxies may be although they are not public; hosts in them stay refused. @default none */
  readonly allowedProxies: readonly string[];
  /** Proxies are handed names as they are, and nobody here judges their addresses. @default false */
  readonly proxyResolves: boolean;
  /** How long the addresses of a name are remembered, in milliseconds; 0 does not. @default 60_000 */
  readonly dnsCacheMs: number;
  /** Names whose addresses are remembered. @default 10_000 */
  readonly dnsCacheNames: number;
  /** Certificates (PEM) of authorities that are trusted besides those of Node. @default none */
  readonly ca?: string | undefined;
};

export const FETCHER_DEFAULTS: Omit<FetcherOptions, "userAgent" | "ca"> = {
  timeoutMs: 30_000,
  dnsTimeoutMs: DNS_DEFAULTS.timeoutMs,
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  bodyTimeoutMs: 30_000,
  minBytesPerSecond: 100,
  minRateWindowMs: 10_000,
  maxHeaderBytes: 65_536,
  maxHeaders: 256,
  connectionsPerHost: 64,
  maxConnections: 1_024,
  maxPools: 512,
  allowedNetworks: [],
  allowedProxies: [],
  proxyResolves: false,
  dnsCacheMs: DNS_DEFAULTS.ttlMs,
  dnsCacheNames: DNS_DEFAULTS.maxNames,
};

/** How a host is reached, when not as all others are. */
export type FetchRoute = {
  /** Whether HTTP/2 may be spoken, if the server offers it. @default false */
  readonly http2?: boolean;
  /** Goes through one of these, in turn for each host; the next one if it fails. */
  readonly proxies?: readonly HttpProxy[];
  /** In place of the fetcher's. */
  readonly timeoutMs?: number;
};

export type FetchRequest = FetchRoute & {
  /** Absolute, http or https; a fragment is not sent. */
  readonly url: string;
  /** @default "GET" */
  readonly method?: "GET" | "HEAD" | "POST";
  /**
   * Go before the fetcher's own. Those that belong to the connection or frame the message (`host`,
   * `content-length`, `connection` and the like) are not sent.
   */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Ends the fetch at any time, its body included. */
  readonly signal?: AbortSignal;
  /** The `accept` header. @default HTML first, then anything */
  readonly accept?: string;
  /** Hears what goes over the wire, a body that is discarded included. */
  readonly tap?: ExchangeTap;
};

export type FetcherDeps = {
  /** How names are resolved. @default the system's resolver */
  readonly resolve?: LookupFunction;
  /** @default the system's */
  readonly clock?: Clock;
};

const DEFAULT_ACCEPT = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";

/** Headers that a request must not choose: they say where it goes, or where it ends. */
export const CONNECTION_HEADERS: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** So many proxies are tried for one request. */
const MAX_PROXIES_TRIED = 4;

const PLAIN_HTTP2: Route = { http2: true };

/**
 * Gets URLs, one request at a time: it follows no redirect and tries nothing twice, so that whoever asked can
 * judge each step. Whatever a server does ends in a response or in a FetchError, within the time and the
 * sizes that were set. Addresses are checked when a connection is made (`NetworkGuard`).
 */
export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #connector: Connector;
  readonly #pools: HostPools;
  readonly #rotation: ProxyRotation;
  readonly #plainHeaders: readonly string[];
  #isClosed = false;

  /** @throws ConfigError when an allowed network is not in CIDR notation */
  constructor(
    options: Partial<FetcherOptions> & Pick<FetcherOptions, "userAgent">,
    { resolve, clock = systemClock }: FetcherDeps = {},
  ) {
    this.#options = { ...FETCHER_DEFAULTS, ...options };
    const { connectTimeoutMs, maxConnections, ca, allowedNetworks, allowedProxies } = this.#options;
    const names = {
      ttlMs: this.#options.dnsCacheMs,
      maxNames: this.#options.dnsCacheNames,
      timeoutMs: this.#options.dnsTimeoutMs,
    };
    const { lookup } = new DnsCache(names, resolve, clock);
    const guard = new NetworkGuard({ allowed: allowedNetworks, resolve: lookup });
    this.#connector = new Connector(
      {
        connectTimeoutMs,
        maxConnections,
        ...(ca !== undefined && { ca }),
        onFull: () => this.#pools.closeIdle(),
      },
      guard,
    );
    this.#rotation = new ProxyRotation(clock);
    const tunnels = new Tunnels({
      connector: this.#connector,
      guard,
      proxyGuard: new NetworkGuard({
        allowed: [...allowedNetworks, ...allowedProxies],
        setting: "WARREN_ALLOWED_PROXIES",
        resolve: lookup,
      }),
      connectTimeoutMs,
      proxyResolves: this.#options.proxyResolves,
      rotation: this.#rotation,
    });
    const rates = new RateWatch({
      minBytesPerSecond: this.#options.minBytesPerSecond,
      windowMs: this.#options.minRateWindowMs,
    });
    this.#pools = new HostPools(this.#options, { connector: this.#connector, tunnels, rates });
    this.#plainHeaders = this.#headersOf({ url: "" });
  }

  /**
   * Sends one request; resolves when the response's headers are there.
   * @throws FetchError
   */
  fetch(request: FetchRequest): Promise<Fetched> {
    const { proxies, http2 = false } = request;
    if (proxies !== undefined && proxies.length > 0) return this.#fetchThrough(proxies, request);
    const { timeoutMs = this.#options.timeoutMs } = request;
    return this.#send(request, http2 ? PLAIN_HTTP2 : undefined, timeoutMs);
  }

  /** How many origins' connections are held. */
  get pools(): number {
    return this.#pools.size;
  }

  /** How many connections are open, or being made. */
  get connections(): number {
    return this.#connector.open;
  }

  /** Ends what runs and closes all connections. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#connector.close();
    await this.#pools.destroy();
  }

  /** Through the proxies in their order, until one does not fail by its own fault. */
  async #fetchThrough(proxies: readonly HttpProxy[], request: FetchRequest): Promise<Fetched> {
    const { http2 = false, timeoutMs = this.#options.timeoutMs } = request;
    const endsAt = performance.now() + timeoutMs;
    const host = URL.canParse(request.url) ? new URL(request.url).host : "";
    let failure: unknown;
    for (const proxy of this.#rotation.inOrder(proxies, host).slice(0, MAX_PROXIES_TRIED)) {
      const restMs = Math.ceil(endsAt - performance.now());
      if (restMs <= 0) break;
      try {
        return await this.#send(request, { http2, proxy }, restMs);
      } catch (error) {
        if (!(error instanceof FetchError && error.cause instanceof ProxyError)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  #send(request: FetchRequest, route: Route | undefined, timeoutMs: number): Promise<Fetched> {
    if (this.#isClosed) {
      return Promise.reject(new FetchError("network", `${request.url}: the fetcher is closed`));
    }
    const found = this.#pools.find(request.url, route);
    if (found === undefined) {
      const told = `${request.url}: not an http or https URL`;
      return Promise.reject(new FetchError("network", told, { retryable: false }));
    }
    const { to, path } = found;
    const { url, signal, body, tap } = request;
    to.begins();
    const exchange = new Exchange({ url, timeoutMs, limits: this.#options, signal, tap }, to);
    const isPlain = request.headers === undefined && request.accept === undefined;
    const options: Dispatcher.DispatchOptions = {
      path,
      method: request.method ?? "GET",
      headers: isPlain ? (this.#plainHeaders as string[]) : this.#headersOf(request),
      ...(body !== undefined && { body }),
    };
    if (tap !== undefined) this.#tell(tap, url, path, options);
    if (!exchange.isOver) to.pool.dispatch(options, exchange);
    return exchange.response;
  }

  #tell(tap: ExchangeTap, url: string, path: string, options: Dispatcher.DispatchOptions): void {
    const flat = options.headers as readonly string[];
    const headers: WireHeader[] = [["host", new URL(url).host]];
    for (let index = 0; index + 1 < flat.length; index += 2) {
      headers.push([flat[index] ?? "", flat[index + 1] ?? ""]);
    }
    const body = options.body as string | undefined;
    tap.requestSent({ method: options.method, path, headers, ...(body !== undefined && { body }) });
  }

  #headersOf({ headers, accept }: FetchRequest): string[] {
    const all = new Map([
      ["user-agent", this.#options.userAgent],
      ["accept", accept ?? DEFAULT_ACCEPT],
      ["accept-encoding", ACCEPTED_ENCODINGS],
    ]);
    for (const [name, value] of Object.entries(headers ?? {})) {
      const lower = name.toLowerCase();
      if (!CONNECTION_HEADERS.has(lower)) all.set(lower, value);
    }
    return [...all].flat();
  }
}
