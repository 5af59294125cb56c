import type { RenderRequest } from "../lib/render-request.js";
import type { Crawl } from "./crawl.js";
import type { NewUrl, SkipReason, UrlKind, UrlRequest } from "./frontier.js";
import { RecentKeys } from "./recent-keys.js";
import { asksToRender } from "./render-options.js";
import { type CompiledScope, compileScope } from "./scope.js";
import type { SpiderRequest } from "./spider.js";
import { type CanonicalUrl, canonicalUrl } from "./url.js";
import { UrlIdentity } from "./url-identity.js";

/** The page on which URLs are found. */
export type FoundOn = { readonly url: string; readonly depth: number };

const REMEMBERED_CANONICALS = 20_000;

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

  /** @param rememberedUrls how many URLs are remembered at most; 0 remembers none */
  constructor(crawl: Crawl, rememberedUrls: number) {
    this.#crawl = crawl;
    this.#scope = compileScope(crawl.scope, crawl.seeds);
    this.#identity = new UrlIdentity(crawl);
    this.#seen = rememberedUrls > 0 ? new RecentKeys(rememberedUrls) : undefined;
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
    const skip = this.#skipReason(target, kind, depth);
    const rank = kind === "file" ? depth + 0.5 : skip === "depth" ? depth + 0.9 : depth;
    if (seenAt !== undefined && seenAt <= rank) return undefined;
    seen?.set(key, rank);
    return {
      id: this.#identity.idOf(target, request),
      crawl: this.#crawl.id,
      url: target.url,
      host: target.host,
      kind,
      depth,
      priority: plain ? 5 : (wanted.priority ?? 5),
      parent: on.url,
      ...(request !== undefined && { request }),
      ...(skip !== undefined && { skip }),
    };
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
  const { method, headers, body, meta, render } = wanted;
  const isPlain = method === undefined && headers === undefined && body === undefined && meta === undefined;
  if (isPlain && render === undefined) return undefined;
  return {
    ...(method !== undefined && { method }),
    ...(headers !== undefined && { headers }),
    ...(body !== undefined && { body }),
    ...(meta !== undefined && { meta }),
    ...(render !== undefined && { render }),
  };
}
