import type { FailReason, Frontier, QueuedUrl, SkipReason } from "./frontier.js";
import type { LinkAdmission } from "./link-admission.js";
import type { Outcome } from "./outcome.js";
import { type CanonicalUrl, canonicalUrl } from "./urls/url.js";

/** The URL that redirects are followed from. */
export type RedirectedUrl = Pick<QueuedUrl, "id" | "url" | "depth" | "request">;

/** What a server answered with, or a page did once a browser had it. */
export type Redirect = {
  readonly statusCode: number;
  /** The URL that was fetched. */
  readonly from: string;
  /** As it was written, perhaps relative. */
  readonly location: string;
  /** Redirects followed so far. */
  readonly hops: number;
  /** One before has turned another method into GET. */
  readonly asGet: boolean;
};

/** Where it goes on, or how the URL ends by it. */
export type RedirectVerdict = NextHop | { readonly kind: "end"; readonly end: RedirectEnd };

type NextHop = {
  readonly kind: "follow";
  readonly target: CanonicalUrl;
  readonly hops: number;
  readonly asGet: boolean;
};

type RedirectEnd =
  | { readonly state: "failed"; readonly reason: FailReason; readonly error: string }
  | { readonly state: "skipped"; readonly reason: SkipReason; readonly error: string };

export type RedirectJudgeParts = {
  readonly admission: LinkAdmission;
  readonly claims: Pick<Frontier, "claim">;
  readonly maxRedirects: number;
};

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_SHOWN_CHARACTERS = 200;

/** Whether a status is one of redirects that are followed, if a `Location` comes with it. */
export function isRedirect(statusCode: number): boolean {
  return REDIRECTS.has(statusCode);
}

/** The next hop of a redirect is a fetch like any other: it waits for its lane. */
export function nextHop(
  { target, hops, asGet }: NextHop,
  facts: { readonly endedAt: number; readonly statusCode: number },
): Outcome {
  return {
    ...facts,
    counts: false,
    state: "queued",
    reason: `redirected to ${target.url}`,
    readyAt: facts.endedAt,
    host: target.host,
    target: { url: target.url, hops, ...(asGet && { asGet }) },
  };
}

/** Decides about the redirects of a crawl's URLs, whoever fetched them. */
export class RedirectJudge {
  readonly #parts: RedirectJudgeParts;

  constructor(parts: RedirectJudgeParts) {
    this.#parts = parts;
  }

  async judge(url: RedirectedUrl, redirect: Redirect): Promise<RedirectVerdict> {
    const { statusCode, from, location } = redirect;
    const { maxRedirects } = this.#parts;
    const hops = redirect.hops + 1;
    const shown = location.slice(0, MAX_SHOWN_CHARACTERS);
    if (hops > maxRedirects) {
      return failed("too-many-redirects", `more than ${maxRedirects} redirects, the last to ${shown}`);
    }
    const target = canonicalUrl(location, from);
    if (target === undefined) {
      return failed("http-status", `redirect to something that is no http(s) URL: ${shown}`);
    }
    const refusal = await this.refusalOf(target, from, url);
    if (refusal !== undefined) {
      const error = `redirect to ${target.url}`;
      return { kind: "end", end: { state: "skipped", reason: refusal, error } };
    }
    const turnsToGet =
      statusCode === 303 || ((statusCode === 301 || statusCode === 302) && url.request?.method === "POST");
    return { kind: "follow", target, hops, asGet: redirect.asGet || turnsToGet };
  }

  /** Why where a redirect leads is not to be fetched for this URL; undefined if nothing speaks against it. */
  async refusalOf(target: CanonicalUrl, from: string, url: RedirectedUrl): Promise<SkipReason | undefined> {
    const { admission, claims } = this.#parts;
    // A sitemap need not be in the crawl's scope; it may move about its host.
    const isFree = url.request?.sitemap !== undefined && target.hostname === new URL(from).hostname;
    if (!isFree && !admission.includes(target)) return "scope";
    const asUrl = admission.targetOf(target, url.depth, url.url, url.request?.render);
    return asUrl.id === url.id || (await claims.claim(asUrl, url.id)) ? undefined : "duplicate";
  }
}

function failed(reason: FailReason, error: string): RedirectVerdict {
  return { kind: "end", end: { state: "failed", reason, error } };
}
