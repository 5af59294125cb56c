import type { Crawl } from "./crawl.js";
import { statusInWords } from "./fetch/status-words.js";
import type {
  Ending,
  FailReason,
  Frontier,
  NewUrl,
  QueuedUrl,
  RedirectTarget,
  SkipReason,
} from "./frontier.js";
import { FAIL_REASONS } from "./frontier.js";
import { keptAs } from "./item-keeping.js";
import { maxAttemptsFor, retryAfterMs, retryClassOf, retryDelayMs, type TaskLimits } from "./limits.js";
import { LinkAdmission } from "./link-admission.js";
import { nextVisit } from "./revisit.js";
import type { SpiderRequest } from "./spider.js";
import type { TaskEnd } from "./task.js";
import type { TaskResult } from "./task-result.js";
import { canonicalUrl } from "./urls/url.js";

/** How a worker in another language may say that a page failed. `expired`: it was not tried, for it was too late. */
export const FOREIGN_ERROR_CODES = [
  "network",
  "timeout",
  "too-large",
  "too-many-redirects",
  "decode",
  "spider-error",
  "expired",
] as const;
export type ForeignErrorCode = (typeof FOREIGN_ERROR_CODES)[number];

/** What a worker in another language found behind the URL of a task. */
export type ForeignResult = {
  /** Who fetched it, on every record. */
  readonly node: string;
  /** Of the response. */
  readonly statusCode?: number;
  /** Of the response, where its status asks for one. */
  readonly retryAfter?: string;
  /** The `Location` of a redirect that was not followed. */
  readonly redirect?: string;
  /** Where redirects that were followed have led. */
  readonly url?: string;
  readonly contentType?: string;
  /** Body bytes. */
  readonly bytes?: number;
  /** As they stand on the page: relative ones are resolved here. */
  readonly links?: readonly SpiderRequest[];
  readonly items?: readonly Readonly<Record<string, unknown>>[];
  readonly error?: { readonly code: ForeignErrorCode; readonly message: string };
};

export type ForeignResultDeps = {
  readonly claims: Pick<Frontier, "claim">;
  readonly limits: TaskLimits;
  /** In milliseconds since the epoch. */
  readonly now: number;
};

type Outcome = { readonly statusCode?: number; readonly counts: boolean; readonly backoffUntil?: number } & (
  | { readonly state: "done"; readonly finalUrl: string }
  | { readonly state: "failed"; readonly reason: FailReason; readonly error: string }
  | { readonly state: "skipped"; readonly reason: SkipReason; readonly error: string }
  | {
      readonly state: "queued";
      readonly reason: string;
      readonly readyAt: number;
      readonly host?: string;
      readonly target?: RedirectTarget;
    }
);

/** Wait of a task that was handed back because it was too late to begin, in milliseconds. */
const EXPIRED_WAIT_MS = 1_000;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const RETRIED_CODES: ReadonlySet<ForeignErrorCode> = new Set(["network", "timeout"]);

/** What of a URL its records are made of: a task has it as well. */
export type ResultUrl = Pick<
  QueuedUrl,
  "id" | "crawl" | "url" | "host" | "depth" | "request" | "target" | "attempts" | "round" | "revisit"
>;

/**
 * Puts what another's worker found into the records that our own engine makes of a page: the same rules for
 * scope, depth, redirects, statuses and attempts, so that nobody can tell afterwards who fetched it.
 */
export async function toTaskResult(
  found: ForeignResult,
  url: ResultUrl,
  token: string,
  crawl: Crawl,
  deps: ForeignResultDeps,
): Promise<TaskResult> {
  const admission = new LinkAdmission(crawl, { now: () => deps.now });
  const outcome = await judge(found, url, admission, deps);
  const result = comingAgain(bare(outcome, url, token, deps.now), url, crawl, deps.now);
  if (outcome.state !== "done") return result;
  const recordId = `${url.id}.${url.round}`;
  const { finalUrl, statusCode = 200 } = outcome;
  const items = (found.items ?? []).map((data, index) => ({
    id: `${recordId}.${index}`,
    crawl: url.crawl,
    url: finalUrl,
    at: deps.now,
    spider: url.request?.spider ?? crawl.spider,
    version: "1",
    node: found.node,
    data,
  }));
  const page = {
    id: recordId,
    crawl: url.crawl,
    url: url.url,
    ...(finalUrl !== url.url && { finalUrl }),
    statusCode,
    ...(found.contentType !== undefined && { contentType: found.contentType }),
    bytes: found.bytes ?? 0,
    depth: url.depth,
    at: deps.now,
    node: found.node,
  };
  const links = linksOf(found.links ?? [], { url: finalUrl, depth: url.depth }, admission);
  return {
    ...result,
    ending: { ...result.ending, items: items.length } as Ending,
    pages: [page],
    items: keptAs({ items, files: [] }, crawl).items,
    links,
  };
}

/** Why a page is not to be fetched, as far as can be told without fetching it. */
export type Objection = {
  readonly reason: "robots" | "address" | "network";
  readonly error: string;
  /** It may be otherwise the next time: how it counts if it never is. */
  readonly mayPass?: FailReason | SkipReason;
};

/** The end of a task whose page was not fetched, because something speaks against it. */
export function toObjectedResult(
  { reason, error, mayPass }: Objection,
  url: ResultUrl,
  token: string,
  deps: Omit<ForeignResultDeps, "claims">,
): TaskResult {
  if (reason === "network") {
    return bare({ counts: false, state: "failed", reason, error }, url, token, deps.now);
  }
  const skipped = { counts: false, state: "skipped", reason, error } as const;
  if (mayPass === undefined) return bare(skipped, url, token, deps.now);
  const otherwise = (FAIL_REASONS as readonly string[]).includes(mayPass)
    ? ({ counts: true, state: "failed", reason: mayPass as FailReason, error } as const)
    : ({ ...skipped, counts: true } as const);
  return bare(tryAgain(otherwise, url, deps), url, token, deps.now);
}

/** What its page was like the last time only its worker knows: so it comes again at a steady interval. */
function comingAgain(result: TaskResult, url: ResultUrl, { recrawl }: Crawl, now: number): TaskResult {
  const { ending, end } = result;
  if (recrawl === undefined || ending.state === "queued") return result;
  const next = nextVisit(recrawl, url.revisit, ending, undefined, now, url.url, Math.random());
  if (next === undefined) return result;
  return { ...result, ending: { ...ending, nextVisit: next }, end: { ...end, nextVisitAt: next.at } };
}

/** A result that brings nothing but the end of its task. */
function bare(outcome: Outcome, url: ResultUrl, token: string, now: number): TaskResult {
  const identity = { id: url.id, crawl: url.crawl, token };
  const { statusCode, backoffUntil } = outcome;
  const common = {
    ...identity,
    attempts: url.attempts + (outcome.counts ? 1 : 0),
    isRemembered: true as const,
    ...(statusCode !== undefined && { statusCode }),
  };
  const ending: Ending =
    outcome.state === "queued"
      ? {
          ...common,
          state: "queued",
          reason: outcome.reason,
          readyAt: outcome.readyAt,
          ...(outcome.host !== undefined && { host: outcome.host }),
          ...(outcome.target !== undefined && { target: outcome.target }),
        }
      : {
          ...common,
          state: outcome.state,
          ...(outcome.state !== "done" && { reason: outcome.reason, error: outcome.error }),
          items: 0,
          files: 0,
        };
  const end: TaskEnd = {
    ...identity,
    host: url.host,
    endedAt: now,
    ...(outcome.state === "queued" && {
      queuedAgain: { readyAt: outcome.readyAt, host: outcome.host ?? url.host },
    }),
    ...(backoffUntil !== undefined && { backoffUntil }),
  };
  return {
    ending,
    end,
    pages: [],
    items: [],
    files: [],
    links: [],
    hostState: { host: url.host, lastEndedAt: now, ...(backoffUntil !== undefined && { backoffUntil }) },
  };
}

async function judge(
  found: ForeignResult,
  url: ResultUrl,
  admission: LinkAdmission,
  deps: ForeignResultDeps,
): Promise<Outcome> {
  const { error, statusCode } = found;
  const { now } = deps;
  if (error?.code === "expired") {
    // Not at once: a worker whose clock is wrong would get it again and again.
    return {
      state: "queued",
      counts: false,
      reason: "waited too long to begin",
      readyAt: now + EXPIRED_WAIT_MS,
    };
  }
  const facts = { counts: true, ...(statusCode !== undefined && { statusCode }) };
  // An error that nobody classified says less than a status that failed.
  if (
    error !== undefined &&
    (error.code !== "spider-error" || statusCode === undefined || isGood(statusCode))
  ) {
    const failure = { ...facts, state: "failed", reason: error.code, error: error.message } as const;
    return RETRIED_CODES.has(error.code) ? tryAgain(failure, url, deps) : failure;
  }
  if (statusCode !== undefined && REDIRECTS.has(statusCode) && found.redirect !== undefined) {
    return followRedirect(found.redirect, statusCode, url, admission, deps);
  }
  if (statusCode !== undefined && !isGood(statusCode)) {
    return badStatus(statusCode, found.retryAfter, url, deps);
  }
  const fetched = url.target?.url ?? url.url;
  const last = found.url === undefined ? undefined : canonicalUrl(found.url, fetched);
  if (last === undefined || last.url === fetched) return { ...facts, state: "done", finalUrl: fetched };
  // It followed redirects by itself: what they led to is still this crawl's business.
  const refusal = await refusalOf(last, url, admission, deps);
  return refusal === undefined
    ? { ...facts, state: "done", finalUrl: last.url }
    : { ...facts, state: "skipped", ...refusal };
}

async function followRedirect(
  location: string,
  statusCode: number,
  url: ResultUrl,
  admission: LinkAdmission,
  deps: ForeignResultDeps,
): Promise<Outcome> {
  const facts = { statusCode, counts: true };
  const hops = (url.target?.hops ?? 0) + 1;
  if (hops > deps.limits.maxRedirects) {
    const error = `more than ${deps.limits.maxRedirects} redirects, the last to ${location.slice(0, 200)}`;
    return { ...facts, state: "failed", reason: "too-many-redirects", error };
  }
  const target = canonicalUrl(location, url.target?.url ?? url.url);
  if (target === undefined) {
    const error = `redirect to something that is no http(s) URL: ${location.slice(0, 200)}`;
    return { ...facts, state: "failed", reason: "http-status", error };
  }
  const refusal = await refusalOf(target, url, admission, deps);
  if (refusal !== undefined) return { ...facts, state: "skipped", ...refusal };
  const isPost = url.request?.method === "POST";
  const asGet =
    url.target?.asGet === true ||
    statusCode === 303 ||
    ((statusCode === 301 || statusCode === 302) && isPost);
  return {
    ...facts,
    counts: false,
    state: "queued",
    reason: `redirected to ${target.url}`,
    readyAt: deps.now,
    host: target.host,
    target: { url: target.url, hops, ...(asGet && { asGet: true as const }) },
  };
}

/** Why where a redirect leads is not to be fetched for this URL; undefined if nothing speaks against it. */
async function refusalOf(
  target: NonNullable<ReturnType<typeof canonicalUrl>>,
  url: ResultUrl,
  admission: LinkAdmission,
  { claims }: ForeignResultDeps,
): Promise<{ readonly reason: SkipReason; readonly error: string } | undefined> {
  const error = `redirect to ${target.url}`;
  if (!admission.includes(target)) return { reason: "scope", error };
  const asUrl = admission.targetOf(target, url.depth, url.url);
  if (asUrl.id === url.id || (await claims.claim(asUrl, url.id))) return undefined;
  return { reason: "duplicate", error };
}

function badStatus(
  statusCode: number,
  retryAfter: string | undefined,
  url: ResultUrl,
  deps: ForeignResultDeps,
): Outcome {
  const error = statusInWords(statusCode);
  const failure = { statusCode, counts: true, state: "failed", reason: "http-status", error } as const;
  const retryClass = retryClassOf(statusCode);
  if (retryClass === undefined) return failure;
  const outcome = tryAgain(failure, url, deps);
  if (statusCode !== 429 && statusCode !== 503) return outcome;
  const { limits, now } = deps;
  const asked = retryAfterMs(retryAfter, now) ?? retryDelayMs(retryClass, url.attempts + 1, limits);
  const backoffUntil = now + Math.min(asked, limits.maxRetryDelayMs);
  if (outcome.state !== "queued") return { ...outcome, backoffUntil };
  return { ...outcome, backoffUntil, readyAt: Math.max(outcome.readyAt, backoffUntil) };
}

/** Another attempt after a wait, or this failure if there were enough. */
function tryAgain(
  failure: Extract<Outcome, { state: "failed" | "skipped" }>,
  url: ResultUrl,
  { limits, now }: Omit<ForeignResultDeps, "claims">,
): Outcome {
  const attempts = url.attempts + 1;
  const { statusCode } = failure;
  const retryClass =
    (statusCode === undefined ? undefined : retryClassOf(statusCode)) ??
    (failure.reason === "timeout" ? "timeout" : "network");
  if (attempts >= maxAttemptsFor(retryClass, limits)) return failure;
  return {
    state: "queued",
    counts: true,
    ...(statusCode !== undefined && { statusCode }),
    reason: failure.error,
    readyAt: now + retryDelayMs(retryClass, attempts, limits),
  };
}

function linksOf(
  links: readonly SpiderRequest[],
  on: { url: string; depth: number },
  admission: LinkAdmission,
): readonly NewUrl[] {
  const admitted = new Map<string, NewUrl>();
  for (const link of links) {
    const url = admission.admit(link, "page", on);
    if (url !== undefined) admitted.set(url.id, url);
  }
  return [...admitted.values()];
}

function isGood(statusCode: number): boolean {
  return statusCode === 304 || (statusCode >= 200 && statusCode <= 299);
}
