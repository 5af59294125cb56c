import type { Logger } from "../lib/logger.js";
import type { Crawl } from "./crawl.js";
import { type ParsedPage, type ParsedSelector, parseHtml } from "./parser.js";
import type { Page } from "./spider.js";
import type { Task } from "./task.js";
import { type CanonicalUrl, canonicalUrl } from "./url.js";

const HTML_TYPES = new Set(["text/html", "application/xhtml+xml"]);

export type PageViewInput = {
  readonly task: Task;
  readonly crawl: Crawl;
  readonly url: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Without parameters, in lower case. */
  readonly contentType: string | undefined;
  readonly body: Buffer;
  readonly log: Logger;
  readonly signal: AbortSignal;
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

  constructor(input: PageViewInput) {
    this.#input = input;
    this.url = input.url;
    this.status = input.status;
    this.headers = input.headers;
  }

  get depth(): number {
    return this.#input.task.depth;
  }

  get title(): string {
    return this.#isHtml ? this.#document.scan().title : "";
  }

  text(): string {
    return this.#document.text;
  }

  links(): readonly string[] {
    if (this.#links !== undefined) return this.#links;
    this.#links = [];
    this.#resolved = new Map();
    if (!this.#isHtml) return this.#links;
    const { links, baseHref } = this.#document.scan();
    const base = (baseHref === undefined ? undefined : canonicalUrl(baseHref, this.url)?.url) ?? this.url;
    for (const { href, nofollow } of links) {
      if (nofollow) continue;
      const target = canonicalUrl(href, base);
      if (target === undefined || this.#resolved.has(target.url)) continue;
      this.#resolved.set(target.url, target);
      this.#links.push(target.url);
    }
    return this.#links;
  }

  /** The canonical form of a URL that `links` gave, so that it need not be worked out twice. */
  resolved(url: string): CanonicalUrl | undefined {
    return this.#resolved?.get(url);
  }

  get $(): ParsedSelector {
    return this.#document.$;
  }

  get meta(): Readonly<Record<string, unknown>> {
    return this.#input.task.request?.meta ?? {};
  }

  get crawl(): { readonly id: string; readonly params: Readonly<Record<string, unknown>> } {
    return { id: this.#input.crawl.id, params: this.#input.crawl.params };
  }

  get log(): Logger {
    return this.#input.log.child({ crawl: this.#input.crawl.id, url: this.url });
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
