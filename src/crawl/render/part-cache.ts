import { LRUCache } from "lru-cache";
import type { Clock } from "../../lib/clock.js";
import type { Fetched } from "../fetch/fetcher.js";

/** What a rendered page got for one of its requests. */
export type PagePart = Pick<Fetched, "statusCode" | "headers" | "setCookies"> & { readonly body: Buffer };

export type PartCacheOptions = {
  /** Bytes held. @default 64 MiB */
  readonly maxBytes: number;
  /** Longest use of a response, whatever its server allows, in milliseconds. @default 3_600_000 */
  readonly maxAgeMs: number;
  /** Use of a response of which its server says nothing, in milliseconds. @default 300_000 */
  readonly defaultAgeMs: number;
};

export const PART_CACHE_DEFAULTS: PartCacheOptions = {
  maxBytes: 64 * 2 ** 20,
  maxAgeMs: 3_600_000,
  defaultAgeMs: 300_000,
};

/** Kinds of requests whose answers are the same for every page, as the browser calls them. */
const SHARED_TYPES: ReadonlySet<string> = new Set(["script", "stylesheet", "font", "image"]);
/** Request headers by which a response may differ and be kept all the same: ours are the same for all pages. */
const HARMLESS_VARY = /^(accept|accept-encoding|accept-language|user-agent|sec-[\w-]+)$/;

/**
 * Scripts, style sheets and the like that pages of one crawl have in common, so that a host is not asked for them with
 * each page. By the rules of RFC 9111 for a private cache, less what would need a request: nothing is revalidated.
 */
export class PartCache {
  readonly #options: PartCacheOptions;
  readonly #clock: Clock;
  readonly #parts: LRUCache<string, { readonly part: PagePart; readonly until: number }>;

  constructor(clock: Clock, options: Partial<PartCacheOptions> = {}) {
    this.#clock = clock;
    this.#options = { ...PART_CACHE_DEFAULTS, ...options };
    const { maxBytes } = this.#options;
    this.#parts = new LRUCache({
      maxSize: maxBytes,
      maxEntrySize: maxBytes / 4,
      sizeCalculation: ({ part }) => part.body.length + 1_024,
    });
  }

  /** What may be used for a GET of this kind in this crawl. */
  get(crawl: string, type: string, url: string): PagePart | undefined {
    if (!SHARED_TYPES.has(type)) return undefined;
    const key = keyOf(crawl, url);
    const kept = this.#parts.get(key);
    if (kept === undefined || kept.until > this.#clock.monotonic()) return kept?.part;
    this.#parts.delete(key);
    return undefined;
  }

  /** Keeps an answer to a GET, if it may be used again. */
  keep(crawl: string, type: string, url: string, part: PagePart): void {
    if (!SHARED_TYPES.has(type) || part.statusCode !== 200 || part.setCookies !== undefined) return;
    const ageMs = this.#ageMsOf(part.headers);
    if (ageMs <= 0) return;
    this.#parts.set(keyOf(crawl, url), { part, until: this.#clock.monotonic() + ageMs });
  }

  #ageMsOf(headers: Fetched["headers"]): number {
    const vary = (headers.vary ?? "").toLowerCase().split(",");
    if (!vary.every((name) => name.trim() === "" || HARMLESS_VARY.test(name.trim()))) return 0;
    const { maxAgeMs, defaultAgeMs } = this.#options;
    const control = headers["cache-control"]?.toLowerCase() ?? "";
    if (/\bno-(store|cache)\b/.test(control)) return 0;
    const seconds = /(?:^|[\s,])max-age="?(\d{1,10})/.exec(control)?.[1];
    if (seconds !== undefined) return Math.min(maxAgeMs, Number(seconds) * 1_000);
    return headers.pragma?.includes("no-cache") === true ? 0 : defaultAgeMs;
  }
}

function keyOf(crawl: string, url: string): string {
  return `${crawl} ${url}`;
}
