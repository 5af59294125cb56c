import type { Dispatch, EndState, RedirectTarget, UrlKind, UrlRequest, UrlState } from "../crawl/frontier.js";
import type { Revisit } from "../crawl/revisit.js";
import type { Suspicion } from "../crawl/suspicion.js";

/** A URL of the frontier as it is stored; what is absent is not written. Instants in ms since the epoch. */
export type UrlDocument = {
  /** `<crawl>:<fingerprint>`. */
  readonly _id: string;
  readonly crawl: string;
  readonly url: string;
  readonly host: string;
  readonly shard: number;
  readonly state: UrlState;
  readonly kind: UrlKind;
  readonly depth: number;
  readonly priority: number;
  readonly readyAt: number;
  readonly attempts: number;
  /** Absent: 0. */
  readonly round?: number;
  readonly parent?: string;
  /** As JSON text: what it carries may have members with names that MongoDB refuses. */
  readonly request?: string;
  readonly target?: RedirectTarget;
  /** While it is dispatched. */
  readonly dispatch?: Dispatch;
  /** The token of its last dispatch whose end was to be remembered. */
  readonly endedBy?: string;
  readonly statusCode?: number;
  readonly reason?: string;
  readonly error?: string;
  /** Of a URL that is done; absent: 0. */
  readonly items?: number;
  readonly invalidItems?: number;
  readonly files?: number;
  /** The node that had it last, unless it is done. */
  readonly node?: string;
  /** When the crawl first heard of it. */
  readonly foundAt?: number;
  /** What became of its earlier dispatches, the latest last: so many at most as `MAX_PAST_EVENTS` says. */
  readonly past?: readonly PastEvent[];
  /** While it is open and workers were lost that had it. */
  readonly suspicion?: Suspicion;
  /** The URL whose redirect led here, when this one was recorded for that alone. */
  readonly claimedBy?: string;
  /** While it has ended and is to be fetched again: when. */
  readonly nextVisitAt?: number;
  readonly revisit?: Revisit;
  /** Of one that was opened again: how it had ended. */
  readonly was?: EndState;
  /**
   * When its state last changed. Its fraction of a millisecond is random and marks all that were changed by
   * one batch, so that a batch that came through in part, or was repeated, can be told from others.
   */
  readonly at: number;
};

/** An end of a dispatch that did not end the URL. */
export type PastEvent = {
  /** In milliseconds since the epoch. */
  readonly at: number;
  /** For people. */
  readonly what: string;
  readonly statusCode?: number;
  readonly node?: string;
  /** It was to wait until then. */
  readonly until?: number;
};

/** Of one URL; a URL that is tried again and again leaves no more than its last ones. */
export const MAX_PAST_EVENTS = 12;

/** Random fractions have 12 bits: that many fit a double beside milliseconds since the epoch. */
const FRACTIONS = 4_096;

export function markedInstant(now: number): number {
  return Math.floor(now) + Math.floor(Math.random() * FRACTIONS) / FRACTIONS;
}

export function requestOf(text: string): UrlRequest {
  return JSON.parse(text) as UrlRequest;
}
