import type { Logger } from "../../lib/logger.js";
import type { Crawl } from "../crawl.js";
import type { CrawlState } from "../crawl-state.js";
import { type NamedMeta, namedMetasOf } from "../robots/robots-meta.js";
import type { Article, Page, PageLinksOptions, PageMetadata, SpiderCrawl } from "../spider.js";
import type { Task } from "../task.js";
import { type CanonicalUrl, canonicalUrl } from "../urls/url.js";
import { DOCUMENT_BOUNDS, type DocumentResults } from "./document-job.js";
import type { Documents } from "./documents.js";
import { parseLinkHeader } from "./link-header.js";
import { type LinkKind, type LinkOptions, type LinkPlan, linkPlanOf } from "./link-options.js";
import { linkElementKinds } from "./link-scanner.js";
import { readMetadata } from "./page-metadata.js";
import { type ParsedPage, type ParsedSelector, parseHtml, type TreeKind } from "./parser.js";
import { VisibleText } from "./visible-text.js";

const CANONICAL: ReadonlySet<LinkKind> = new Set(["canonical"]);
const HTML_TYPES = new Set(["text/html", "application/xhtml+xml"]);

export type PageViewInput = {
  readonly task: Pick<Task, "depth" | "request">;
  readonly crawl: Pick<Crawl, "id" | "params" | "links">;
  readonly url: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Without parameters, in lower case. */
  readonly contentType: string | undefined;
  readonly body: Buffer;
  readonly state: CrawlState;
  /** It is what a browser made of it. */
  readonly rendered?: true;
  readonly documents: Pick<Documents, "read">;
  /** Asked for one when the spider logs. */
  readonly log: () => Logger;
  readonly signal: AbortSignal;
};

/** What a page is made of, beside its body: plain data, for who shows it to a spider in another process. */
export type PageParts = {
  readonly url: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly contentType: string | undefined;
  readonly depth: number;
  readonly rendered: boolean;
  readonly meta: Readonly<Record<string, unknown>>;
  /** What counts as a link in its crawl. */
  readonly links: LinkOptions | undefined;
};

/** A fetched page as its spider sees it. Nothing is parsed before it is asked for, and then once. */
export class PageView implements Page {
  readonly url: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly #input: PageViewInput;
  #parsed: ParsedPage | undefined;
  #links: string[] | undefined;
  #resolved: Map<string, CanonicalUrl> | undefined;
  readonly #plan: LinkPlan;
  #visibleText: string | undefined;
  #metadata: PageMetadata | undefined;
  #article: Promise<Article | undefined> | undefined;
  #markdown: Promise<string> | undefined;
  #log: Logger | undefined;

  constructor(input: PageViewInput) {
    this.#input = input;
    this.#plan = linkPlanOf(input.crawl.links);
    this.url = input.url;
    this.status = input.status;
    this.headers = input.headers;
  }

  /** Does now, in slices, what a spider will ask for: the scan of a big page, and the tree that it declares. */
  async prepare(tree: TreeKind | undefined, isBig: boolean): Promise<void> {
    const isScanned = isBig && this.#isHtml;
    const isBuilt = tree === "browser" || (tree === "page" && isBig);
    await this.#document.prepare({
      ...(isScanned && { kinds: this.#plan.scanned }),
      ...(isBuilt && { tree }),
    });
  }

  get parts(): PageParts {
    const { contentType, crawl } = this.#input;
    const { url, status, headers, depth, rendered, meta } = this;
    return { url, status, headers, contentType, depth, rendered, meta, links: crawl.links };
  }

  get depth(): number {
    return this.#input.task.depth;
  }

  get rendered(): boolean {
    return this.#input.rendered === true;
  }

  get title(): string {
    return this.#isHtml ? this.#document.scan(this.#plan.scanned).title : "";
  }

  get body(): Buffer {
    return this.#input.body;
  }

  text(): string {
    return this.#document.text;
  }

  links(options?: PageLinksOptions): readonly string[] {
    const { followed, hasHeaders, followsNofollow } = this.#plan;
    if (options?.kinds !== undefined) {
      return [...this.#collect(new Set(options.kinds), true, followsNofollow).keys()];
    }
    if (this.#links === undefined) {
      this.#resolved = this.#collect(followed, hasHeaders, followsNofollow);
      this.#links = [...this.#resolved.keys()];
    }
    return this.#links;
  }

  /** The canonical form of a URL that `links` gave, so that it need not be worked out twice. */
  resolved(url: string): CanonicalUrl | undefined {
    return this.#resolved?.get(url);
  }

  /** The one URL that the page, or a header that came with it, says it should go by; undefined if they name several. */
  canonical(): CanonicalUrl | undefined {
    const [first, second] = this.#collect(CANONICAL, true, true).values();
    return second === undefined ? first : undefined;
  }

  /** Links of these kinds in their order, those of headers first, by the URL that is fetched. */
  #collect(
    kinds: ReadonlySet<LinkKind>,
    hasHeaders: boolean,
    hasNofollow: boolean,
  ): Map<string, CanonicalUrl> {
    const found = new Map<string, CanonicalUrl>();
    if (hasHeaders && this.headers.link !== undefined) {
      for (const { href, rel, hasLanguage } of parseLinkHeader(this.headers.link)) {
        if (!linkElementKinds(rel, hasLanguage).some((kind) => kinds.has(kind))) continue;
        const target = hasNofollow || !rel.includes("nofollow") ? canonicalUrl(href, this.url) : undefined;
        if (target !== undefined) found.set(target.url, target);
      }
    }
    if (!this.#isHtml) return found;
    const { scanned } = this.#plan;
    const isScanned = kinds === scanned || [...kinds].every((kind) => scanned.has(kind));
    const { links, baseHref } = this.#document.scan(isScanned ? scanned : kinds);
    const base = (baseHref === undefined ? undefined : canonicalUrl(baseHref, this.url)?.url) ?? this.url;
    const hasOthers = isScanned && kinds !== scanned;
    for (const { href, kind, nofollow } of links) {
      if ((nofollow && !hasNofollow) || (hasOthers && !kinds.has(kind))) continue;
      const target = canonicalUrl(href, base);
      if (target !== undefined && !found.has(target.url)) found.set(target.url, target);
    }
    return found;
  }

  /** Its named `meta` elements; none if it is no HTML. */
  namedMetas(): readonly NamedMeta[] {
    return this.#isHtml ? namedMetasOf(this.text()) : [];
  }

  get $(): ParsedSelector {
    return this.#document.$;
  }

  visibleText(): string {
    if (!this.#isHtml) return this.text();
    this.#visibleText ??= new VisibleText(this.text()).read();
    return this.#visibleText;
  }

  metadata(): PageMetadata {
    this.#metadata ??= readMetadata({
      text: this.#isHtml ? this.text() : "",
      url: this.url,
      language: this.headers["content-language"],
    });
    return this.#metadata;
  }

  article(): Promise<Article | undefined> {
    this.#article ??= this.#isHtml ? this.#read("article") : Promise.resolve(undefined);
    return this.#article;
  }

  markdown(): Promise<string> {
    this.#markdown ??= this.#isHtml ? this.#read("markdown") : Promise.resolve(this.text());
    return this.#markdown;
  }

  #read<Kind extends "article" | "markdown">(kind: Kind): Promise<DocumentResults[Kind]> {
    const { documents, signal } = this.#input;
    // No more of it is sent to the other thread than is read there.
    const text = this.text().slice(0, DOCUMENT_BOUNDS.maxMarkup);
    return documents.read({ kind, text, url: this.url } as const, this.url, signal) as Promise<
      DocumentResults[Kind]
    >;
  }

  get meta(): Readonly<Record<string, unknown>> {
    return this.#input.task.request?.meta ?? {};
  }

  get crawl(): SpiderCrawl {
    const { crawl, state } = this.#input;
    return { id: crawl.id, params: crawl.params, state };
  }

  get log(): Logger {
    this.#log ??= this.#input.log();
    return this.#log;
  }

  get signal(): AbortSignal {
    return this.#input.signal;
  }

  get #isHtml(): boolean {
    const { contentType } = this.#input;
    return contentType === undefined || HTML_TYPES.has(contentType);
  }

  get #document(): ParsedPage {
    const { body, headers } = this.#input;
    const contentType = headers["content-type"];
    this.#parsed ??= parseHtml(body, {
      url: this.url,
      ...(contentType !== undefined && { contentType }),
    });
    return this.#parsed;
  }
}
