import type { Clock } from "../lib/clock.js";
import type { Crawl } from "./crawl.js";
import { FAIL_REASONS, type FailReason, type Frontier, type QueuedUrl, type SkipReason } from "./frontier.js";
import { keptAs } from "./item-keeping.js";
import type { TaskLimits } from "./limits.js";
import { LinkAdmission } from "./link-admission.js";
import { AttemptJudge, type Outcome } from "./outcome.js";
import { isRedirect, nextHop, RedirectJudge } from "./redirect-judge.js";
import { nextVisit } from "./revisit.js";
import type { SpiderRequest } from "./spider.js";
import { type Findings, nothingFound, type TaskResult, TaskResults } from "./task-result.js";
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

/** Wait of a task that was handed back because it was too late to begin, in milliseconds. */
const EXPIRED_WAIT_MS = 1_000;

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
  const { now } = deps;
  const admission = new LinkAdmission(crawl, { now: () => now });
  const fetched = url.target?.url ?? url.url;
  // It may have followed redirects by itself.
  const finalUrl = (found.url === undefined ? undefined : canonicalUrl(found.url, fetched))?.url ?? fetched;
  const outcome = await new ForeignJudge(url, admission, deps).judge(found, finalUrl);
  const findings = nothingFound();
  if (outcome.state === "done") gather(found, { url, crawl, finalUrl, admission, findings, now });
  // What its page was like the last time only its worker knows: so it comes again at a steady interval.
  const next =
    crawl.recrawl === undefined || outcome.state === "queued"
      ? undefined
      : nextVisit(crawl.recrawl, url.revisit, outcome, undefined, now, url.url, Math.random());
  return new TaskResults({ node: found.node, areRemembered: true }).of(
    { ...url, token },
    keptAs(findings, crawl),
    outcome,
    next,
  );
}

/** Why a page is not to be fetched, as far as can be told without fetching it. */
export type Objection = {
  readonly reason: "robots" | "address" | "network";
  readonly error: string;
  /** robots.txt could not be had, and may be the next time: how it counts if it never is. */
  readonly mayPass?: FailReason | Extract<SkipReason, "robots">;
};

/** The end of a task whose page was not fetched, because something speaks against it. */
export function toObjectedResult(
  { reason, error, mayPass }: Objection,
  url: ResultUrl,
  token: string,
  deps: Omit<ForeignResultDeps, "claims">,
): TaskResult {
  const facts = { endedAt: deps.now, counts: false, error };
  let outcome: Outcome;
  if (mayPass !== undefined) {
    const failReason = FAIL_REASONS.find((known) => known === mayPass);
    outcome = new AttemptJudge(clockAt(deps.now), deps.limits).withoutRobots(
      url,
      deps.now,
      error,
      failReason,
    );
  } else if (reason === "network") outcome = { ...facts, state: "failed", reason };
  else outcome = { ...facts, state: "skipped", reason };
  const { id, crawl, host, attempts } = url;
  return new TaskResults({ areRemembered: true }).of(
    { id, crawl, host, attempts, token },
    nothingFound(),
    outcome,
  );
}

/** Judges what another's worker says of a URL as ours are judged. */
class ForeignJudge {
  readonly #url: ResultUrl;
  readonly #now: number;
  readonly #attempts: AttemptJudge;
  readonly #redirects: RedirectJudge;

  constructor(url: ResultUrl, admission: LinkAdmission, { claims, limits, now }: ForeignResultDeps) {
    this.#url = url;
    this.#now = now;
    this.#attempts = new AttemptJudge(clockAt(now), limits);
    this.#redirects = new RedirectJudge({ admission, claims, maxRedirects: limits.maxRedirects });
  }

  /** @param finalUrl where it has followed redirects by itself */
  async judge(found: ForeignResult, finalUrl: string): Promise<Outcome> {
    const { error, statusCode, redirect, retryAfter } = found;
    const endedAt = this.#now;
    if (error?.code === "expired") {
      // Not at once: a worker whose clock is wrong would get it again and again.
      const readyAt = endedAt + EXPIRED_WAIT_MS;
      return { state: "queued", endedAt, counts: false, reason: "waited too long to begin", readyAt };
    }
    // An error that nobody classified says less than a status that failed.
    const saysMore = error?.code !== "spider-error" || statusCode === undefined || isGood(statusCode);
    if (error !== undefined && saysMore) return this.#failed(error.code, error.message, statusCode);
    if (statusCode !== undefined && isRedirect(statusCode) && redirect !== undefined) {
      return this.#redirected(redirect, statusCode);
    }
    if (statusCode !== undefined && !isGood(statusCode)) {
      const headers = { ...(retryAfter !== undefined && { "retry-after": retryAfter }) };
      return this.#attempts.badStatus({ statusCode, headers }, this.#url);
    }
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    const refusal = await this.#refusalOf(finalUrl);
    if (refusal === undefined) return { ...facts, state: "done" };
    return { ...facts, state: "skipped", reason: refusal, error: `redirect to ${finalUrl}` };
  }

  #failed(
    code: Exclude<ForeignErrorCode, "expired">,
    message: string,
    statusCode: number | undefined,
  ): Outcome {
    const failure = { state: "failed", reason: code, error: message } as const;
    // How its worker's network is says nothing of the host: the failure is the URL's alone.
    if (code === "network" || code === "timeout") {
      return this.#attempts.tryAgain(code, this.#url, this.#now, failure, statusCode);
    }
    const facts = { endedAt: this.#now, counts: true, ...(statusCode !== undefined && { statusCode }) };
    return { ...facts, ...failure };
  }

  /** The next hop is a task of its own. */
  async #redirected(location: string, statusCode: number): Promise<Outcome> {
    const { target, url } = this.#url;
    const verdict = await this.#redirects.judge(this.#url, {
      statusCode,
      from: target?.url ?? url,
      location,
      hops: target?.hops ?? 0,
      asGet: target?.asGet === true,
    });
    const facts = { endedAt: this.#now, statusCode };
    return verdict.kind === "end" ? { ...facts, counts: true, ...verdict.end } : nextHop(verdict, facts);
  }

  /** What its redirects led to is still its crawl's business. */
  async #refusalOf(finalUrl: string): Promise<SkipReason | undefined> {
    const fetched = this.#url.target?.url ?? this.#url.url;
    const target = finalUrl === fetched ? undefined : canonicalUrl(finalUrl);
    return target === undefined ? undefined : this.#redirects.refusalOf(target, fetched, this.#url);
  }
}

type Gathering = {
  readonly url: ResultUrl;
  readonly crawl: Crawl;
  readonly finalUrl: string;
  readonly admission: LinkAdmission;
  /** Takes what was found. */
  readonly findings: Findings;
  readonly now: number;
};

function gather(found: ForeignResult, { url, crawl, finalUrl, admission, findings, now }: Gathering): void {
  const id = `${url.id}.${url.round}`;
  const { node, statusCode = 200, contentType, bytes = 0, items = [], links = [] } = found;
  findings.pages.push({
    id,
    crawl: url.crawl,
    url: url.url,
    ...(finalUrl !== url.url && { finalUrl }),
    statusCode,
    ...(contentType !== undefined && { contentType }),
    bytes,
    depth: url.depth,
    at: now,
    node,
  });
  const spider = url.request?.spider ?? crawl.spider;
  for (const [index, data] of items.entries()) {
    const about = { id: `${id}.${index}`, crawl: url.crawl, url: finalUrl, at: now };
    findings.items.push({ ...about, spider, version: "1", node, data });
  }
  for (const link of links) {
    const admitted = admission.admit(link, "page", { url: finalUrl, depth: url.depth });
    if (admitted !== undefined) findings.links.set(admitted.id, admitted);
  }
}

function clockAt(now: number): Pick<Clock, "now"> {
  return { now: () => now };
}

function isGood(statusCode: number): boolean {
  return statusCode === 304 || (statusCode >= 200 && statusCode <= 299);
}
