import type { Logger } from "../lib/logger.js";
import type { RenderRequest } from "../lib/render-request.js";
import type { LinkKind } from "./link-options.js";
import type { ParsedSelector, TreeKind } from "./parser.js";
import type { UrlOptions } from "./url-options.js";

/** A further request. A string, or an object for anything but a plain GET. */
export type SpiderRequest =
  | string
  | {
      readonly url: string;
      readonly method?: "GET" | "HEAD" | "POST";
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
      /** Kept with the URL and handed back on its page; 16 KiB of JSON at most. */
      readonly meta?: Readonly<Record<string, unknown>>;
      /**
       * Whether its page is rendered by a browser before the spider gets it, and how. A page that was fetched without
       * can be asked for again with it.
       */
      readonly render?: RenderRequest;
      /** 0 (last) to 9 (first) within the crawl. */
      readonly priority?: number;
    };

/** What a spider yields: an item, a request to follow, or a file to store. URLs may be relative to the page. */
export type SpiderOutput<Item = Record<string, unknown>> =
  | { readonly item: Item }
  | { readonly request: SpiderRequest }
  | { readonly file: SpiderRequest };

export type PageLinksOptions = {
  /** `page.links({ kinds: ["image"] })` @default what the crawl's `links` say */
  readonly kinds?: readonly LinkKind[];
};

/** One fetched page, as a spider sees it. */
export interface Page {
  /** Its URL after redirects. */
  readonly url: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly depth: number;
  /** Whether it is the document that a browser made of it. */
  readonly rendered: boolean;
  /** The document's title, white space folded; empty when there is none. Costs no tree. */
  readonly title: string;
  /** The body as text, decoded as a browser would. */
  text(): string;
  /**
   * The links of the page, absolute, each once: those that the crawl follows, or those of some kinds, `Link:` headers
   * included. Without those marked `nofollow`, unless the crawl follows them. Costs no tree.
   */
  links(options?: PageLinksOptions): readonly string[];
  /** Cheerio's `$` over this page. The tree is built at the first use and costs most of a page's time. */
  readonly $: ParsedSelector;
  /** What the request that led here carried. */
  readonly meta: Readonly<Record<string, unknown>>;
  readonly crawl: { readonly id: string; readonly params: Readonly<Record<string, unknown>> };
  readonly log: Logger;
  /** Aborted when the crawl is closed or the page's time is up. */
  readonly signal: AbortSignal;
}

/** A file that was stored. */
export interface SpiderFile {
  readonly url: string;
  /** The id under which it can be had again. */
  readonly id: string;
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly contentType: string;
  /** The page it was found on; its own URL when it was not found on one. */
  readonly foundOn: string;
  readonly meta: Readonly<Record<string, unknown>>;
}

type Outputs<Item> = AsyncIterable<SpiderOutput<Item>> | Iterable<SpiderOutput<Item>>;

/** Code that turns a page into items and links. */
export interface Spider<Item = Record<string, unknown>> {
  readonly name: string;
  /** @default "1" */
  readonly version?: string;
  /** Where a crawl of it begins when it is given no seeds. */
  readonly seeds?: readonly string[];
  /**
   * Content types (without parameters) of the bodies it wants stored as files, told by the response's
   * content type or its first bytes. With none, what it yields as `file` is stored whatever it is.
   */
  readonly fileTypes?: readonly string[];
  /**
   * Says that it uses `page.$`, and over which tree: the `page`'s own, as written, or the `browser`'s, with everything
   * that a browser adds and moves (at twice the cost). The tree of a big page is then built before `parse` is called,
   * the page's own in slices.
   * @default "page", built when it is asked for
   */
  readonly tree?: TreeKind;
  /** What its crawls take for the same URL, where they do not say so themselves. */
  readonly urls?: UrlOptions;
  parse(page: Page): Outputs<Item>;
  /** Called for each stored file. */
  file?(file: SpiderFile): Outputs<Item>;
}

/** Gives a spider its types: `export default defineSpider({ name: "books", async *parse(page) { … } })`. */
export function defineSpider<Item extends Record<string, unknown> = Record<string, unknown>>(
  spider: Spider<Item>,
): Spider<Item> {
  return spider;
}
