import type { RenderRequest } from "../lib/render-request.js";
import type { TraceContext } from "../lib/trace-context.js";
import type { NextVisit, Revisit } from "./revisit.js";
import type { SitemapMark } from "./sitemaps/sitemap-options.js";
import type { Beginning, Suspect } from "./suspicion.js";

/**
 * The frontier: all URLs a crawl knows, and their state.
 *
 *             add                dispatch               commit
 *   (unknown) ───▶ queued ──────────────▶ dispatched ──────────▶ done | failed | skipped
 *                    ▲                        │
 *                    └────────────────────────┘  retry, moved, handed back, or never reported (reconciled)
 *
 * An ended URL may be opened for another round, and is queued again then: in a crawl with `recrawl` when its time
 * has come, in any crawl when someone asks for it.
 *
 * Two answers to the interface exist, in memory and in MongoDB, and share one suite of tests. Everything is
 * done in batches: a call costs a round trip, a URL does not.
 */
export const URL_STATES = ["queued", "dispatched", "done", "failed", "skipped"] as const;
export type UrlState = (typeof URL_STATES)[number];
export type EndState = "done" | "failed" | "skipped";

export const SKIP_REASONS = [
  "robots",
  "scope",
  "address",
  "depth",
  "limit",
  "type",
  "closed",
  "duplicate",
] as const;
export type SkipReason = (typeof SKIP_REASONS)[number];

export const FAIL_REASONS = [
  "http-status",
  "network",
  "timeout",
  "too-large",
  "too-many-redirects",
  "decode",
  "spider-error",
  "poison",
] as const;
export type FailReason = (typeof FAIL_REASONS)[number];

/** `page`: parsed by the spider. `file`: kept if it is of a type the spider wants, never parsed for links. */
export type UrlKind = "page" | "file";

/** What a request asks for beyond a plain GET. */
export type UrlRequest = {
  readonly method?: "GET" | "HEAD" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** The spider that reads its page, when not the crawl's. */
  readonly spider?: string;
  /** Kept with the URL and handed to the spider on its page. */
  readonly meta?: Readonly<Record<string, unknown>>;
  /** The one of its spider's `callbacks` that reads its page. */
  readonly callback?: string;
  /** Set: it is a sitemap, and no page. */
  readonly sitemap?: SitemapMark;
  /** Whether and how its page is to be rendered, when that is not the crawl's to say. */
  readonly render?: RenderRequest;
  /** The trace in which it was handed in. */
  readonly trace?: TraceContext;
};

/** Where a redirect has led so far; the URL keeps its identity, the lane follows the target's host. */
export type RedirectTarget = {
  readonly url: string;
  readonly hops: number;
  /** Set when the redirect turned another method into GET (RFC 9110, 15.4). */
  readonly asGet?: true;
};

/** A URL on its way into the frontier. */
export type NewUrl = {
  /** `<crawl>:<fingerprint>`. */
  readonly id: string;
  readonly crawl: string;
  readonly url: string;
  /** Host name, with its port unless it is the scheme's own: the key of its lane. */
  readonly host: string;
  readonly kind: UrlKind;
  readonly depth: number;
  /** 0 (last) to 9 (first) within its crawl. */
  readonly priority: number;
  /** The URL of the page it was found on. */
  readonly parent?: string;
  readonly request?: UrlRequest;
  /** Set: recorded as skipped at once, for this reason, and never fetched. */
  readonly skip?: SkipReason;
  /** With `skip`: what exactly speaks against it, for people. */
  readonly error?: string;
};

/** A URL that waits for its turn. */
export type QueuedUrl = {
  readonly id: string;
  readonly crawl: string;
  readonly url: string;
  readonly host: string;
  readonly kind: UrlKind;
  readonly depth: number;
  readonly priority: number;
  readonly parent?: string;
  readonly request?: UrlRequest;
  readonly target?: RedirectTarget;
  /** Not before this instant, in milliseconds since the epoch. */
  readonly readyAt: number;
  /** Fetches that were tried and counted. */
  readonly attempts: number;
  /** How often the URL was opened again after it had ended. */
  readonly round: number;
  /** What is known of it from earlier rounds. */
  readonly revisit?: Revisit;
  /** Set: workers were lost that had it. */
  readonly suspect?: Suspect;
};

/** The right to fetch one URL once. Written with the state, carried by the task, checked at commit. */
export type Dispatch = {
  /** Unique for each batch of dispatches: `<shard's epoch>.<dispatcher>.<number>`. */
  readonly token: string;
  readonly generation: number;
  readonly dispatchedAt: number;
  /** No fetch may start after this instant, in milliseconds since the epoch. */
  readonly notAfter: number;
};

/** A URL whose fetch may be under way. */
export type DispatchedUrl = {
  readonly id: string;
  readonly crawl: string;
  readonly host: string;
  /** The spider that reads its page, when not the crawl's. */
  readonly spider?: string;
  readonly dispatch: Dispatch;
};

/** How a dispatch ended. Applied only while that dispatch is the current one. */
export type Ending = {
  readonly id: string;
  readonly crawl: string;
  readonly token: string;
  /** Fetches tried and counted, this one included if it counts. */
  readonly attempts: number;
  readonly statusCode?: number;
  /** The node that had it, unless it is done: then its page says so. */
  readonly node?: string;
  /** The token stays with the URL, so that the same end can be told when it is reported again. */
  readonly isRemembered?: true;
} & (
  | {
      readonly state: EndState;
      /** Absent when done. */
      readonly reason?: SkipReason | FailReason;
      /** What happened, for people. */
      readonly error?: string;
      readonly items: number;
      /** Absent: 0. */
      readonly invalidItems?: number;
      readonly files: number;
      /** It was found as it had been: what its page gave before still counts as what it gives. */
      readonly isUnchanged?: true;
      /** Set: it is to be fetched again. */
      readonly nextVisit?: NextVisit;
    }
  | {
      readonly state: "queued";
      /** Why it waits again, for people. */
      readonly reason?: string;
      readonly readyAt: number;
      /** Moved: a redirect led to another lane. */
      readonly host?: string;
      readonly target?: RedirectTarget;
      /**
       * `raised`: its message came again, so that the worker that had it may be lost. `survived`: the worker that
       * began it as a suspect lives.
       */
      readonly suspicion?: "raised" | "survived";
    }
);

export type AddResult = {
  /** Those that were not known before (or are open again at a smaller depth), and now wait. */
  readonly queued: readonly NewUrl[];
  /** Those that were recorded as skipped. */
  readonly skipped: number;
  /** Those that were known already. */
  readonly known: number;
};

/** A crawl's URLs on one host. */
export type CrawlHost = { readonly crawl: string; readonly host: string };

export type QueuedHost = CrawlHost & { readonly shard: number };

export type QueuedBatch = {
  /** Ready now, in the order in which they should run: priority, then age. */
  readonly urls: readonly QueuedUrl[];
  /** When `urls` holds fewer than were asked for: the instant at which the next one will be ready. */
  readonly nextReadyAt?: number;
};

export interface Frontier {
  /**
   * Adds what is unknown. A URL found again at a smaller depth takes that depth while it is queued; one
   * that was skipped for its `depth` or `type` waits again if it may now be followed.
   */
  add(urls: readonly NewUrl[]): Promise<AddResult>;
  /** Hosts of these shards with URLs queued for these crawls, whether ready or not. */
  queuedHosts(shards: readonly number[], crawls: readonly string[]): Promise<readonly QueuedHost[]>;
  /** The next queued URLs of one crawl on one host, `limit` at most. */
  queued(of: CrawlHost, limit: number, now: number): Promise<QueuedBatch>;
  /** All URLs of these shards that are dispatched. */
  dispatched(shards: readonly number[]): Promise<readonly DispatchedUrl[]>;
  /** Marks queued URLs as dispatched; returns the ids for which that was so. */
  dispatch(ids: readonly string[], dispatch: Dispatch): Promise<ReadonlySet<string>>;
  /** Applies endings whose dispatch is still the current one; returns their ids. */
  commit(endings: readonly Ending[]): Promise<ReadonlySet<string>>;
  /**
   * Queues again those of these ids whose dispatch still has one of these tokens. For dispatches whose end
   * nobody reported, or that were never published.
   */
  revoke(ids: readonly string[], tokens: readonly string[], readyAt: number): Promise<number>;
  /**
   * Records that a redirect of `by` leads to this URL, so that it is not fetched again on its own.
   * @returns false when the URL was known already, and not through `by`
   */
  claim(target: NewUrl, by: string): Promise<boolean>;
  /**
   * Notes that a node is about to run a suspect, while its dispatch is the current one. The note goes with the end of
   * the dispatch, or when the node vouches for it.
   */
  begin(start: SuspectStart): Promise<Beginning>;
  /** Whoever had these dispatches lives: that their messages come again is nothing against the URLs. */
  vouch(dispatches: readonly { readonly id: string; readonly token: string }[]): Promise<void>;
}

export type SuspectStart = {
  readonly id: string;
  readonly token: string;
  readonly node: string;
  /** Deaths from which on it is not begun any more. */
  readonly maxCrashes: number;
};

/** URLs that were opened for another round: they are queued. */
export type Opened = {
  readonly urls: readonly OpenedUrl[];
  /** When the next one comes due, of those asked about; absent when none waits, or more are due now. */
  readonly nextDueAt?: number;
  /** There may be more: asking again goes on after this id, or, for those that are due, from the start. */
  readonly more?: string;
};

/** `was`: how it had ended. */
export type OpenedUrl = CrawlHost & { readonly id: string; readonly was: EndState };

/** Which ended URLs of a crawl are wanted again: some by id, or all that ended before an instant. */
export type Wanted = { readonly ids: readonly string[] } | { readonly endedBefore: number };

/**
 * The rounds of URLs: opens ended ones again. Such a URL is queued with a round of its own, no attempts and no
 * redirect target; what was known of it stays with it.
 */
export interface Rounds {
  /** Opens URLs of these shards and this crawl whose next visit is due, `limit` at most. */
  openDue(crawl: string, shards: readonly number[], now: number, limit: number): Promise<Opened>;
  /**
   * Opens URLs before their time, whether or not they had one; looks at `limit` of them at most, those after an id if
   * one is given. Opened is what was done or failed, or was skipped for a reason that may be otherwise now: `robots`,
   * `address`, `type`, `limit`, `closed`. By age what is `poison` stays ended.
   */
  open(crawl: string, wanted: Wanted, limit: number, after?: string): Promise<Opened>;
  /** Whether any URL of a crawl is to be fetched again. */
  hasNextVisits(crawl: string): Promise<boolean>;
}

/** Reasons of a skipped URL that may be otherwise when someone asks for it once more. */
export const REOPENED_SKIPS: readonly SkipReason[] = ["robots", "address", "type", "limit", "closed"];
