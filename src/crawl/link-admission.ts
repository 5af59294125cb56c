import type { RenderRequest } from "../lib/render-request.js";
import type { Crawl } from "./crawl.js";
import type { NewUrl, SkipReason, UrlKind, UrlRequest } from "./frontier.js";
import { RecentKeys } from "./recent-keys.js";
import { asksToRender } from "./render/render-options.js";
import type { SitemapMark } from "./sitemaps/sitemap-options.js";
import type { SpiderRequest } from "./spider.js";
import { type CompiledScope, compileScope } from "./urls/scope.js";
import { type Trap, TrapGuard } from "./urls/trap-guard.js";
import { type CanonicalUrl, canonicalUrl } from "./urls/url.js";
import { UrlIdentity } from "./urls/url-identity.js";

/** The page on which URLs are found. */
export type FoundOn = { readonly url: string; readonly depth: number };

const REMEMBERED_CANONICALS = 20_000;
/** Hosts with traps of which was told. */
const REMEMBERED_TRAPS = 10_000;

/** A trap, told of once for each host and kind. */
export type TrapNotice = Trap & { readonly host: string; readonly url: string; readonly foundOn: string };

export type LinkAdmissionOptions = {
  /** How many URLs are remembered at most. @default 0 */
  readonly rememberedUrls?: number;
  readonly onTrap?: (notice: TrapNotice) => void;
  /** In milliseconds since the epoch. */
  readonly now: () => number;
};

/**
 * Decides which of the URLs that a crawl's pages name go to its frontier.
 *
 * Most links of a page lead where others led before, so those seen lately are remembered (bounded) and cost
 * neither a fingerprint nor a write. What is remembered must have been stored: whoever drops links that came
 * out of here calls `forget`.
 */
export class LinkAdmission {
  readonly #crawl: Crawl;
  readonly #scope: CompiledScope;
  readonly #identity: UrlIdentity;
  /**
   * Canonical form to the smallest depth at which it was let through: as a page; as a file +0.5, since a
   * page at that depth says more; as too deep +0.9, since a file says more than that.
   */
  readonly #seen: RecentKeys | undefined;
  /** Ids of URLs to which pages were left that named them as canonical. */
  #leftTo: RecentKeys | undefined;
  readonly #traps: TrapGuard | undefined;
  readonly #toldTraps = new RecentKeys(REMEMBERED_TRAPS);
  readonly #onTrap: ((notice: TrapNotice) => void) | undefined;

  constructor(crawl: Crawl, { rememberedUrls = 0, onTrap, now }: LinkAdmissionOptions) {
    this.#crawl = crawl;
    this.#scope = compileScope(crawl.scope, crawl.seeds);
    this.#identity = new UrlIdentity(crawl);
    this.#seen = rememberedUrls > 0 ? new RecentKeys(rememberedUrls) : undefined;
    this.#onTrap = onTrap;
    const traps = crawl.links?.traps ?? true;
    // Where no link of a link is followed nothing can be without end, and every link of a page would be looked at.
    if (traps !== false && crawl.limits.maxDepth !== 0) {
      const limits = traps === true ? {} : traps;
      this.#traps = new TrapGuard({ limits, ignoresSessions: crawl.urls?.dropSessionIds === true, now });
    }
  }

  /** A page was skipped in favour of this URL, which must not be skipped in favour of that page. */
  leaveTo(id: string): void {
    this.#leftTo ??= new RecentKeys(REMEMBERED_CANONICALS);
    this.#leftTo.set(id, 1);
  }

  /** Whether a page was skipped in favour of this URL, as far as this process remembers. */
  isLeftTo(id: string): boolean {
    return this.#leftTo?.get(id) !== undefined;
  }

  /** The depth that it goes by. */
  get maxDepth(): number | undefined {
    return this.#crawl.limits.maxDepth;
  }

  forget(): void {
    this.#seen?.clear();
  }

  includes(url: CanonicalUrl): boolean {
    return this.#scope.includes(url);
  }

  /** @param contentType as the server states it, without parameters */
  acceptsType(contentType: string | undefined): boolean {
    return this.#scope.acceptsType(contentType);
  }

  /**
   * A URL found on a page as it goes to the frontier, perhaps to be recorded as skipped; undefined when it
   * was let through before, or is not an http(s) URL.
   * @param resolved the URL in canonical form, if the caller has it
   */
  admit(wanted: SpiderRequest, kind: UrlKind, on: FoundOn, resolved?: CanonicalUrl): NewUrl | undefined {
    const plain = typeof wanted === "string";
    const target = resolved ?? canonicalUrl(plain ? wanted : wanted.url, on.url);
    if (target === undefined) return undefined;
    const depth = on.depth + 1;
    const request = plain ? undefined : requestOf(wanted);
    const seen = request?.method === undefined || request.method === "GET" ? this.#seen : undefined;
    const ownKey = this.#identity.keyOf(target);
    const key = asksToRender(request?.render) ? `${ownKey}\nrendered` : ownKey;
    const seenAt = seen?.get(key);
    // Nearly all links end here.
    if (seenAt !== undefined && seenAt <= depth) return undefined;
    let skip = this.#skipReason(target, kind, depth);
    const trap = skip === undefined ? this.#traps?.trapOf(target, on.url) : undefined;
    if (trap !== undefined) {
      skip = "limit";
      this.#tellOf(trap, target, on);
    }
    const rank = kind === "file" ? depth + 0.5 : skip === "depth" ? depth + 0.9 : depth;
    if (seenAt !== undefined && seenAt <= rank) return undefined;
    seen?.set(key, rank);
    return {
      id: this.#identity.idOfKey(key, request),
      crawl: this.#crawl.id,
      url: target.url,
      host: target.host,
      kind,
      depth,
      priority: plain ? 5 : (wanted.priority ?? 5),
      parent: on.url,
      ...(request !== undefined && { request }),
      ...(skip !== undefined && { skip }),
      ...(trap !== undefined && { error: `trap "${trap.kind}": ${trap.rule}` }),
    };
  }

  #tellOf(trap: Trap, { host, url }: CanonicalUrl, on: FoundOn): void {
    if (this.#onTrap === undefined) return;
    const key = `${trap.kind} ${host}`;
    if (this.#toldTraps.get(key) !== undefined) return;
    this.#toldTraps.set(key, 1);
    this.#onTrap({ ...trap, host, url, foundOn: on.url });
  }

  /** A sitemap, as a URL of this crawl; its scope is for what sitemaps list, and not for them. */
  sitemapOf(target: CanonicalUrl, depth: number, parent: string, mark: SitemapMark): NewUrl {
    return { ...this.targetOf(target, depth, parent), request: { sitemap: mark } };
  }

  /** What a redirect of a task leads to, as a URL of this crawl of its own; rendered if the task's page is to be. */
  targetOf(target: CanonicalUrl, depth: number, parent: string, render?: RenderRequest): NewUrl {
    const request = render !== undefined && asksToRender(render) ? { render } : undefined;
    return {
      id: this.#identity.idOf(target, request),
      crawl: this.#crawl.id,
      url: target.url,
      host: target.host,
      kind: "page",
      depth,
      priority: 5,
      parent,
      ...(request !== undefined && { request }),
    };
  }

  #skipReason(url: CanonicalUrl, kind: UrlKind, depth: number): SkipReason | undefined {
    if (!this.#scope.includes(url)) return "scope";
    const { maxDepth } = this.#crawl.limits;
    if (kind === "page" && maxDepth !== undefined && depth > maxDepth) return "depth";
    return undefined;
  }
}

function requestOf(wanted: Exclude<SpiderRequest, string>): UrlRequest | undefined {
  const { method, headers, body, meta, render, callback, spider } = wanted;
  const isPlain = method === undefined && headers === undefined && body === undefined && meta === undefined;
  if (isPlain && render === undefined && callback === undefined && spider === undefined) return undefined;
  return {
    ...(method !== undefined && { method }),
    ...(headers !== undefined && { headers }),
    ...(body !== undefined && { body }),
    ...(meta !== undefined && { meta }),
    ...(render !== undefined && { render }),
    ...(spider !== undefined && { spider }),
    ...(callback !== undefined && { callback }),
  };
}
