import { Pool } from "undici";
import type { Connector } from "./connector.js";
import type { Exchange, ExchangeWatcher } from "./exchange.js";
import type { HttpProxy } from "./proxies.js";
import type { RateWatch } from "./rate-watch.js";
import type { Tunnels } from "./tunnel.js";

export type HostPoolsOptions = {
  readonly connectionsPerHost: number;
  readonly maxPools: number;
  readonly headersTimeoutMs: number;
  readonly bodyTimeoutMs: number;
  readonly maxHeaderBytes: number;
};

/** How a host is reached, when not plainly. */
export type Route = { readonly http2: boolean; readonly proxy?: HttpProxy };

export type HostPoolsDeps = {
  readonly connector: Connector;
  readonly tunnels: Tunnels;
  readonly rates: RateWatch;
};

/** The connections to one origin, by one route. */
export class HostPool implements ExchangeWatcher {
  readonly pool: Pool;
  readonly key: string;
  readonly #rates: RateWatch;
  readonly #onEnded: (ended: HostPool) => void;
  #active = 0;
  #lastUsedAt = performance.now();

  constructor(pool: Pool, key: string, rates: RateWatch, onEnded: (ended: HostPool) => void) {
    this.pool = pool;
    this.key = key;
    this.#rates = rates;
    this.#onEnded = onEnded;
  }

  get isIdle(): boolean {
    return this.#active === 0;
  }

  /** On the clock of `performance.now()`. */
  get lastUsedAt(): number {
    return this.#lastUsedAt;
  }

  begins(): void {
    this.#active += 1;
    this.#lastUsedAt = performance.now();
  }

  bodyBegins(exchange: Exchange): void {
    this.#rates.add(exchange);
  }

  ended(exchange: Exchange): void {
    this.#active -= 1;
    this.#rates.remove(exchange);
    this.#onEnded(this);
  }
}

/** Connections without requests are closed after so long, unless the server says otherwise, in milliseconds. */
const KEEP_ALIVE_MS = 4_000;
const MAX_KEEP_ALIVE_MS = 30_000;
/** A pool without requests is closed after so long, with what it still holds, in milliseconds. */
const IDLE_MS = 30_000;

/**
 * The pools of connections, one for each origin and route. They are never shared: a connection serves the host
 * it was made for and no other, whatever its certificate or its HTTP/2 server would allow (RFC 9113, 9.1.1).
 */
export class HostPools {
  readonly #options: HostPoolsOptions;
  readonly #deps: HostPoolsDeps;
  readonly #pools = new Map<string, HostPool>();
  /** Out of use: their connections close as soon as nothing runs on them. */
  readonly #retired = new Map<HostPool, Promise<void>>();
  #sweep: NodeJS.Timeout | undefined;

  constructor(options: HostPoolsOptions, deps: HostPoolsDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get size(): number {
    return this.#pools.size;
  }

  /** The pool for a URL and what to ask it for; undefined when it is not an http or https URL. */
  find(url: string, route?: Route): { readonly to: HostPool; readonly path: string } | undefined {
    const prefix = route === undefined ? "" : prefixOf(route);
    // URLs that reach here are canonical almost always: then the pool is found without parsing.
    const pathStart = url.indexOf("/", 8);
    if (pathStart > 0) {
      const known = this.#pools.get(prefix + url.slice(0, pathStart));
      if (known !== undefined) {
        const fragment = url.indexOf("#", pathStart);
        return { to: known, path: fragment < 0 ? url.slice(pathStart) : url.slice(pathStart, fragment) };
      }
    }
    let parsed: URL;
    try {
      parsed = new URL(url);
    } catch {
      return undefined;
    }
    if (parsed.protocol !== "http:" && parsed.protocol !== "https:") return undefined;
    return { to: this.#open(parsed.origin, prefix, route), path: parsed.pathname + parsed.search };
  }

  /** Makes room: closes pools without requests, however recently they were used. */
  closeIdle(): void {
    for (const entry of this.#pools.values()) {
      if (entry.isIdle) this.#retire(entry);
    }
  }

  /** Ends what runs and closes all connections. */
  async destroy(): Promise<void> {
    clearInterval(this.#sweep);
    this.#sweep = undefined;
    const all = [...this.#pools.values(), ...this.#retired.keys()];
    this.#pools.clear();
    await Promise.all([...all.map(({ pool }) => pool.destroy()), ...this.#retired.values()]);
  }

  #open(origin: string, prefix: string, route: Route | undefined): HostPool {
    const key = prefix + origin;
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    if (this.#pools.size >= this.#options.maxPools) this.#closeLeastUsed();
    const { connectionsPerHost, headersTimeoutMs, bodyTimeoutMs, maxHeaderBytes } = this.#options;
    const { connector, tunnels, rates } = this.#deps;
    const http2 = route?.http2 === true;
    const connect =
      route?.proxy === undefined ? connector.asUndici(http2) : tunnels.asUndici(route.proxy, http2);
    const pool = new Pool(origin, {
      connections: connectionsPerHost,
      // undici takes a request that was aborted for one that waits again, and would connect for it.
      connect: (target, callback) => {
        if (opened.isIdle) queueMicrotask(() => callback(new Error("nobody waits for a connection"), null));
        else connect(target, callback);
      },
      // One request a connection, with HTTP/2 too: what goes wrong with one must not meet others.
      pipelining: 1,
      allowH2: http2,
      headersTimeout: headersTimeoutMs,
      bodyTimeout: bodyTimeoutMs,
      maxHeaderSize: maxHeaderBytes,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: MAX_KEEP_ALIVE_MS,
    });
    const opened = new HostPool(pool, key, rates, (ended) => {
      // Somebody waits for a connection, and this pool may hold one that it does not use just now.
      if (connector.isAwaited) this.#retire(ended);
    });
    this.#pools.set(key, opened);
    this.#sweep ??= setInterval(() => this.#closeUnused(), IDLE_MS / 2).unref();
    return opened;
  }

  /** Closes the pool that was unused for longest. When all are in use they are as many as tasks run. */
  #closeLeastUsed(): void {
    let least: HostPool | undefined;
    for (const entry of this.#pools.values()) {
      if (entry.isIdle && (least === undefined || entry.lastUsedAt < least.lastUsedAt)) least = entry;
    }
    if (least !== undefined) this.#retire(least);
  }

  /** HTTP/2 connections among them, which nobody else closes. */
  #closeUnused(): void {
    const before = performance.now() - IDLE_MS;
    for (const entry of this.#pools.values()) {
      if (entry.isIdle && entry.lastUsedAt < before) this.#retire(entry);
    }
    if (this.#pools.size > 0) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
  }

  #retire(entry: HostPool): void {
    if (this.#retired.has(entry)) return;
    if (this.#pools.get(entry.key) === entry) this.#pools.delete(entry.key);
    const closed = entry.pool.close().finally(() => this.#retired.delete(entry));
    this.#retired.set(entry, closed);
  }
}

function prefixOf({ http2, proxy }: Route): string {
  return `${http2 ? "h2" : "h1"} ${proxy?.url ?? ""} `;
}
