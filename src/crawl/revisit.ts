import type { RecrawlOptions } from "./recrawl-options.js";

/** By what a server tells whether a representation is the one we know (RFC 9110, 8.8). */
export type Validators = { readonly etag?: string; readonly lastModified?: string };

/** What is kept with a URL from one round to the next. */
export type Revisit = Validators & {
  /** From its last fetch to the next, in milliseconds, before chance changes it. */
  readonly intervalMs: number;
  /** Where redirects had led when the validators were given, if not to the URL itself. */
  readonly validatedUrl?: string;
  /** Of the body that was last read: `contentHash`. */
  readonly contentHash?: string;
  /** Rounds in a row in which it was gone. */
  readonly gone?: number;
};

/** When a URL that has ended is fetched again, in milliseconds since the epoch, and what is kept until then. */
export type NextVisit = { readonly at: number; readonly revisit: Revisit };

/** What a fetch showed of a URL, beyond how it ended. */
export type Visit = Validators & {
  readonly url: string;
  readonly contentHash?: string;
  /** It is what it was the last time: by the server's word, or by its body. */
  readonly isUnchanged: boolean;
};

/** How a URL ended, as far as it matters for the next round. */
export type VisitEnd = {
  readonly state: "done" | "failed" | "skipped";
  /** One of the frontier's `SKIP_REASONS` or `FAIL_REASONS`. */
  readonly reason?: string;
  readonly statusCode?: number;
};

const MAX_VALIDATOR_CHARACTERS = 512;
/** RFC 9110, 8.8.3: perhaps weak, quoted, without quotes or control characters inside. */
const ENTITY_TAG = /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/;

/**
 * The validators of a response that are worth sending back: those that are well-formed, and dates that are not in
 * the future (RFC 9110, 8.8.2.1). Weak entity tags will do: they are compared weakly (13.1.2).
 */
export function validatorsOf(headers: Readonly<Record<string, string>>, now: number): Validators {
  const etag = headers.etag?.trim();
  const lastModified = headers["last-modified"]?.trim();
  return {
    ...(etag !== undefined && etag.length <= MAX_VALIDATOR_CHARACTERS && ENTITY_TAG.test(etag) && { etag }),
    ...(lastModified !== undefined && isPastHttpDate(lastModified, now) && { lastModified }),
  };
}

/**
 * The headers by which a server is asked for a URL only if it is another than we know; undefined when there is
 * nothing to ask by, or the validators are of another URL.
 */
export function conditionsOf(
  revisit: Revisit | undefined,
  url: string,
  taskUrl: string,
): Record<string, string> | undefined {
  if (revisit === undefined || (revisit.validatedUrl ?? taskUrl) !== url) return undefined;
  const { etag, lastModified } = revisit;
  if (etag === undefined && lastModified === undefined) return undefined;
  return {
    ...(etag !== undefined && { "if-none-match": etag }),
    ...(lastModified !== undefined && { "if-modified-since": lastModified }),
  };
}

/**
 * When a URL that has ended is to be fetched again: sooner than the last time if it had changed, later if it had
 * not, or could not be had; undefined if never.
 *
 * A multiplicative change of the interval, bounded, follows how often a page changes without a history of it; that
 * pages change at rates of their own, for which one interval for all is wrong, is what Cho and Garcia-Molina have
 * measured ("The evolution of the Web and implications for an incremental crawler", 2000).
 *
 * What was left out for good stays so: only a robots.txt or a duplicate may be otherwise the next time. A first
 * fetch that finds nothing (404, 410) is a broken link, not a page that went.
 * @param visit undefined unless it is done, and then if nothing is known of what was found: the interval stays
 * @param random from 0 to 1
 */
export function nextVisit(
  options: RecrawlOptions,
  before: Revisit | undefined,
  end: VisitEnd,
  visit: Visit | undefined,
  now: number,
  taskUrl: string,
  random: number,
): NextVisit | undefined {
  const isGone = end.state === "failed" && (end.statusCode === 404 || end.statusCode === 410);
  if (isGone && before === undefined) return undefined;
  const gone = isGone ? (before?.gone ?? 0) + 1 : 0;
  if (gone >= options.goneAfter || !mayComeAgain(end)) return undefined;
  const intervalMs = nextInterval(options, before, end, visit);
  const revisit: Revisit = {
    intervalMs,
    ...(visit === undefined ? kept(before, end) : seen(before, visit, taskUrl)),
    ...(gone > 0 && { gone }),
  };
  return { at: now + Math.round(intervalMs * (1 + options.jitter * (2 * random - 1))), revisit };
}

function mayComeAgain({ state, reason }: VisitEnd): boolean {
  if (state === "skipped") return reason === "robots" || reason === "duplicate";
  // What ended its workers is not given to more of them.
  return reason !== "poison";
}

function nextInterval(
  options: RecrawlOptions,
  before: Revisit | undefined,
  { state }: VisitEnd,
  visit: Visit | undefined,
): number {
  const { initialIntervalMs, factor } = options;
  if (before === undefined) return bounded(initialIntervalMs, options);
  if (state === "done" && visit === undefined) return bounded(before.intervalMs, options);
  const isSame = state !== "done" || visit?.isUnchanged === true;
  return bounded(isSame ? before.intervalMs * factor : before.intervalMs / factor, options);
}

function bounded(intervalMs: number, { minIntervalMs, maxIntervalMs }: RecrawlOptions): number {
  return Math.round(Math.min(maxIntervalMs, Math.max(minIntervalMs, intervalMs)));
}

/**
 * What is known of a URL whose body was not had: what was known, unless its last body was not taken in, and the next
 * one must be had whole.
 */
function kept(before: Revisit | undefined, { reason }: VisitEnd): Partial<Revisit> {
  if (before === undefined || reason === "spider-error" || reason === "duplicate") return {};
  const { intervalMs: _intervalMs, gone: _gone, ...known } = before;
  return known;
}

/** A 304 that says nothing of validators leaves those valid that it was asked with (RFC 9110, 15.4.5). */
function seen(before: Revisit | undefined, visit: Visit, taskUrl: string): Partial<Revisit> {
  const { etag, lastModified, url, isUnchanged } = visit;
  const contentHash = visit.contentHash ?? (isUnchanged ? before?.contentHash : undefined);
  const saysNothing = etag === undefined && lastModified === undefined;
  const hash = contentHash === undefined ? {} : { contentHash };
  if (isUnchanged && visit.contentHash === undefined && saysNothing && before !== undefined) {
    return { ...kept(before, { state: "done" }), ...hash };
  }
  return {
    ...(etag !== undefined && { etag }),
    ...(lastModified !== undefined && { lastModified }),
    ...(!saysNothing && url !== taskUrl && { validatedUrl: url }),
    ...hash,
  };
}

/** IMF-fixdate or one of the two obsolete forms (RFC 9110, 5.6.7), and nothing else that a parser may take. */
const HTTP_DATE =
  /^(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4})$/;

function isPastHttpDate(text: string, now: number): boolean {
  if (!HTTP_DATE.test(text)) return false;
  const at = Date.parse(/GMT$/.test(text) ? text : `${text} GMT`);
  return !Number.isNaN(at) && at <= now;
}
