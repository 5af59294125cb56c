/**
 * Classes of failure that another attempt may cure: no connection or a broken one, a name that does not resolve, no
 * answer in time, and statuses (408 and 425 are `status4xx`).
 */
export type RetryClass = "network" | "dns" | "timeout" | "status429" | "status4xx" | "status5xx";

/** How failures of one class are tried again. What is left out is as for all of them. */
export type RetryRule = {
  /** Fetches of the URL in all, whatever the others failed by, after which such a failure is its end. */
  readonly attempts?: number;
  /** Wait before the second attempt, doubled for each further one, in milliseconds. */
  readonly delayMs?: number;
  /** Longest wait, in milliseconds. */
  readonly maxDelayMs?: number;
};

/** Bounds of one task. A user may change each; all have a default. */
export type TaskLimits = {
  /** Body bytes of a page, on the wire and after decoding. @default 16 MiB */
  readonly maxPageBytes: number;
  /** Body bytes from which a page is looked at in slices, so that nothing else waits for it. @default 1 MiB */
  readonly bigPageBytes: number;
  /** Body bytes of a file. @default 256 MiB */
  readonly maxFileBytes: number;
  /** How often a file is gone on with that was cut, within one attempt. @default 5 */
  readonly maxResumes: number;
  /** Redirects followed from one URL. @default 10 */
  readonly maxRedirects: number;
  /** Fetches of a URL that may fail before it counts as failed. @default 3 */
  readonly maxAttempts: number;
  /** Wait before the second attempt, doubled for each further one, in milliseconds. @default 1_000 */
  readonly retryDelayMs: number;
  /** Longest wait between attempts, and longest `Retry-After` obeyed, in milliseconds. @default 600_000 */
  readonly maxRetryDelayMs: number;
  /** Where classes of failure differ from that. */
  readonly retry?: { readonly [Class in RetryClass]?: RetryRule };
  /** Time for a spider to deal with one page, in milliseconds. @default 30_000 */
  readonly spiderTimeoutMs: number;
  /** Items, requests and files from one page: room for each of its links twice, and more. @default 25_000 */
  readonly maxOutputs: number;
  /** URLs taken from one sitemap or feed; sitemaps.org allows as many. @default 50_000 */
  readonly maxListedUrls: number;
  /** Bytes read of one sitemap or feed, unpacked; sitemaps.org allows as many. @default 50 MiB */
  readonly maxListingBytes: number;
  /** Sitemap indexes that may lead to each other. @default 3 */
  readonly maxSitemapNesting: number;
  /** URLs remembered per crawl so that repeated links need not reach the frontier. @default 100_000 */
  readonly rememberedUrls: number;
};

const MiB = 1_048_576;

export const DEFAULT_TASK_LIMITS: TaskLimits = {
  maxPageBytes: 16 * MiB,
  bigPageBytes: MiB,
  maxFileBytes: 256 * MiB,
  maxResumes: 5,
  maxRedirects: 10,
  maxAttempts: 3,
  retryDelayMs: 1_000,
  maxRetryDelayMs: 600_000,
  spiderTimeoutMs: 30_000,
  maxOutputs: 25_000,
  maxListedUrls: 50_000,
  maxListingBytes: 50 * MiB,
  maxSitemapNesting: 3,
  rememberedUrls: 100_000,
};

/** Fetches of a URL after which a failure of this class ends it. */
export function maxAttemptsFor(failure: RetryClass, limits: TaskLimits): number {
  return limits.retry?.[failure]?.attempts ?? limits.maxAttempts;
}

/**
 * The wait before the next attempt, after so many were made, in milliseconds: doubled each time, and up to a quarter
 * longer by chance, so that what failed together is not tried again together.
 */
export function retryDelayMs(
  failure: RetryClass,
  attempts: number,
  limits: TaskLimits,
  random: () => number = Math.random,
): number {
  const { delayMs = limits.retryDelayMs, maxDelayMs = limits.maxRetryDelayMs } =
    limits.retry?.[failure] ?? {};
  const doubledMs = delayMs * 2 ** Math.max(0, attempts - 1);
  return Math.min(maxDelayMs, Math.round(doubledMs * (1 + random() / 4)));
}

/** The class of a status; undefined when it would be the same the next time. */
export function retryClassOf(statusCode: number): RetryClass | undefined {
  if (!isRetriedStatus(statusCode)) return undefined;
  return statusCode === 429 ? "status429" : statusCode < 500 ? "status4xx" : "status5xx";
}

/**
 * Statuses that may be another the next time (RFC 9110, 15.5 and 15.6; RFC 8470 for 425; RFC 6585 for 429). One
 * that is none of HTTP's is taken for a 5xx (RFC 9110, 15).
 */
export function isRetriedStatus(statusCode: number): boolean {
  if (statusCode < 100 || statusCode >= 500) return true;
  return statusCode === 408 || statusCode === 425 || statusCode === 429;
}

/**
 * What a `Retry-After` header asks for, in milliseconds from now; undefined when it is absent or unreadable.
 * Seconds or an HTTP date (RFC 9110, 10.2.3).
 */
export function retryAfterMs(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined;
  const trimmed = header.trim();
  if (/^\d+$/.test(trimmed)) return Number(trimmed) * 1_000;
  const at = Date.parse(trimmed);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
