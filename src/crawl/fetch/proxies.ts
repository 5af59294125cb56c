import { LRUCache } from "lru-cache";
import type { Clock } from "../../lib/clock.js";

/** A proxy as it is connected to. */
export type HttpProxy = {
  /** Its URL, user and password included: what tells it from others. Never to be shown. */
  readonly url: string;
  readonly protocol: "http:" | "https:";
  /** Name or address, without brackets. */
  readonly hostname: string;
  readonly port: string;
  /** What `proxy-authorization` says. */
  readonly authorization?: string;
  /** Its URL as it may be shown and logged. */
  readonly label: string;
};

/** How long a proxy that failed is set aside at first, in milliseconds; doubled by each further failure. */
const FIRST_ASIDE_MS = 1_000;
const LONGEST_ASIDE_MS = 300_000;
/** Proxies whose health is remembered. */
const MAX_PROXIES = 10_000;
/** Hosts of which is remembered whose turn it is. */
const MAX_HOSTS = 10_000;

type Health = { failures: number; asideUntil: number };

/** The proxy that a URL stands for. The URL was checked before: http or https, with a host. */
export function proxyOf(url: string): HttpProxy {
  const { protocol, hostname, port, username, password, host } = new URL(url);
  const isTls = protocol === "https:";
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return {
    url,
    protocol: isTls ? "https:" : "http:",
    hostname: hostname.replace(/^\[(.*)\]$/, "$1"),
    port: port === "" ? (isTls ? "443" : "80") : port,
    ...(username !== "" && { authorization: `Basic ${Buffer.from(credentials).toString("base64")}` }),
    label: `${protocol}//${host}`,
  };
}

/**
 * Whose turn it is among proxies, and which of them are well. Each host is served by a crawl's proxies in
 * turn; one that fails is set aside, for longer each time, and tried again after that. The health of a proxy is
 * the same for all crawls that use it.
 */
export class ProxyRotation {
  readonly #clock: Clock;
  readonly #health = new LRUCache<string, Health>({ max: MAX_PROXIES });
  readonly #turns = new LRUCache<string, number>({ max: MAX_HOSTS });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * All of them, in the order in which they are to be tried for this host: those that are well, from the one
   * whose turn it is, and then those set aside, from the one whose time is over first.
   */
  inOrder(proxies: readonly HttpProxy[], host: string): readonly HttpProxy[] {
    const turn = this.#turns.get(host) ?? 0;
    this.#turns.set(host, (turn + 1) % Math.max(1, proxies.length));
    const now = this.#clock.monotonic();
    const rotated = [...proxies.slice(turn), ...proxies.slice(0, turn)];
    const asideUntil = (proxy: HttpProxy) => this.#health.get(proxy.url)?.asideUntil ?? 0;
    const well = rotated.filter((proxy) => asideUntil(proxy) <= now);
    const aside = rotated.filter((proxy) => asideUntil(proxy) > now);
    return [...well, ...aside.sort((one, other) => asideUntil(one) - asideUntil(other))];
  }

  /** A connection through it was made. */
  worked(proxy: HttpProxy): void {
    this.#health.delete(proxy.url);
  }

  /** It could not be reached, or would not do it. */
  failed(proxy: HttpProxy): void {
    const now = this.#clock.monotonic();
    const health = this.#health.get(proxy.url) ?? { failures: 0, asideUntil: 0 };
    // Many fetches may fail at once by one fault of it: that is one failure.
    if (health.asideUntil > now) return;
    const asideMs = Math.min(LONGEST_ASIDE_MS, FIRST_ASIDE_MS * 2 ** health.failures);
    this.#health.set(proxy.url, { failures: health.failures + 1, asideUntil: now + asideMs });
  }
}
