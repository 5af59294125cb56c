import type { DuplicatesMode } from "./content-index.js";
import type { FetchOptions } from "./fetch/fetch-options.js";
import type { ItemOptions } from "./item-options.js";
import type { NodeSelection } from "./node-selection.js";
import type { LinkOptions } from "./pages/link-options.js";
import type { Politeness } from "./politeness.js";
import type { RecrawlOptions } from "./recrawl-options.js";
import type { RenderOptions } from "./render/render-options.js";
import type { Scope } from "./urls/scope-options.js";
import type { UrlOptions } from "./urls/url-options.js";

export { DEFAULT_POLITENESS, type Politeness } from "./politeness.js";

/**
 * A crawl: one run of a spider over URLs, with its scope, limits and counts.
 *
 * `running` and `paused` can change into each other; `closed` was stopped by someone and `resume` goes on
 * where it stopped; `finished` means that no URL is queued or dispatched; `failed` could not go on at all.
 */
export const CRAWL_STATUSES = ["running", "paused", "closed", "finished", "failed"] as const;
export type CrawlStatus = (typeof CRAWL_STATUSES)[number];

/** The standing crawl of URLs that name none. It never finishes. */
export const INBOX = "inbox";

export type CrawlLimits = {
  /** Links followed from a seed at most; a seed has depth 0. */
  readonly maxDepth?: number;
  /** URLs fetched at most, never exceeded. */
  readonly maxPages?: number;
  /** Time from the start after which nothing more is dispatched, in milliseconds. */
  readonly maxDurationMs?: number;
  /** Body bytes fetched after which nothing more is dispatched. */
  readonly maxBytes?: number;
};

/** What a user decides about a crawl. */
export type CrawlSpec = {
  readonly name?: string;
  /** @default "links" */
  readonly spider: string;
  /** The version of the spider's code that it is pinned to; bundled and external spiders have none. */
  readonly spiderVersion?: string;
  readonly seeds: readonly string[];
  /** @default "host" */
  readonly scope: Scope;
  readonly limits: CrawlLimits;
  readonly politeness: Politeness;
  /** What counts as the same URL. @default nothing but the canonical form */
  readonly urls?: UrlOptions;
  /** What counts as a link. */
  readonly links?: LinkOptions;
  /** How it fetches, where that differs from the settings of the process. */
  readonly fetch?: FetchOptions;
  /** 0 (last) to 9 (first): its weight when crawls take turns. @default 5 */
  readonly priority: number;
  /** Whether everything that goes over the wire is kept, to be exported as WARC. @default false */
  readonly archive?: boolean;
  /** @default pages whose request asks for it are rendered */
  readonly render?: RenderOptions;
  /** Set: its URLs are fetched again and again. */
  readonly recrawl?: RecrawlOptions;
  /** What is done with a page whose body was had at another URL. @default "off" */
  readonly duplicates?: DuplicatesMode;
  /** What becomes of its items. @default they are kept, and nobody is told of them */
  readonly items?: ItemOptions;
  /** Its spider runs as a whole, on one node or on each that takes part, instead of reading pages. */
  readonly runs?: true;
  /** Which nodes take part. @default any */
  readonly nodes?: NodeSelection;
  /** Handed to the spider as they are. */
  readonly params: Readonly<Record<string, unknown>>;
};

/** Why a `finished` crawl ended, when not because everything was fetched. */
export const FINISH_REASONS = ["completed", "maxPages", "maxDurationMs", "maxBytes"] as const;
export type FinishReason = (typeof FINISH_REASONS)[number];

/** A crawl as the engine and the dispatcher need it. */
export type Crawl = CrawlSpec & {
  readonly id: string;
  readonly status: CrawlStatus;
  /** Raised whenever the crawl is closed or opened again; tasks of an older one are refused. */
  readonly generation: number;
  /** When it was started, in milliseconds since the epoch. */
  readonly startedAt: number;
};

export type CrawlCounts = {
  readonly queued: number;
  /** Dispatched and not yet ended. */
  readonly active: number;
  readonly done: number;
  readonly failed: number;
  readonly skipped: number;
  readonly items: number;
  /** Items that were not as their spider's schema says, and are kept aside. */
  readonly invalidItems: number;
  readonly files: number;
  /** Body bytes fetched, after decoding. */
  readonly bytes: number;
};

export const NO_COUNTS: CrawlCounts = {
  queued: 0,
  active: 0,
  done: 0,
  failed: 0,
  skipped: 0,
  items: 0,
  invalidItems: 0,
  files: 0,
  bytes: 0,
};
