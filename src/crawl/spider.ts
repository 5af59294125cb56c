import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Logger } from "../lib/logger.js";
import type { RenderRequest } from "../lib/render-request.js";
import type { CrawlSpec } from "./crawl.js";
import type { CrawlState } from "./crawl-state.js";
import type { LinkKind } from "./pages/link-options.js";
import type { ParsedSelector, TreeKind } from "./pages/parser.js";

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
      /** Another spider that reads its page. @default the one that asks for it */
      readonly spider?: string;
      /** The one of the spider's `callbacks` that its page is for. @default `parse` */
      readonly callback?: string;
    };

/** What a spider yields: an item, a request to follow, or a file to store. URLs may be relative to the page. */
export type SpiderOutput<Item = Record<string, unknown>> =
  | { readonly item: Item }
  | { readonly request: SpiderRequest }
  | { readonly file: SpiderRequest }
  | InvalidItem;

/** An item that was refused where the spider runs; for spiders whose code runs in a process of its own. */
export type InvalidItem = {
  readonly invalidItem: {
    readonly data: unknown;
    /** What is wrong with it, for people: `price: must be a number`. */
    readonly reasons: readonly string[];
  };
};

export type PageLinksOptions = {
  /** `page.links({ kinds: ["image"] })` @default what the crawl's `links` say */
  readonly kinds?: readonly LinkKind[];
};

/** The article of a page, as a browser's reader view has it. */
export type Article = {
  readonly title: string;
  /** Who wrote it, as it says. */
  readonly byline?: string;
  /** When it was published, as it says. */
  readonly published?: string;
  readonly lang?: string;
  readonly siteName?: string;
  readonly excerpt?: string;
  readonly text: string;
  /** Not safe to show as it is: what the page's author wrote, without scripts that are known as such. */
  readonly html: string;
  readonly markdown: string;
};

/** What a page says of itself. What it does not say is absent. */
export type PageMetadata = {
  readonly title?: string;
  readonly description?: string;
  /** The URL it says it should go by. */
  readonly canonical?: string;
  /** As a language tag: `en`, `pt-BR`. By the page, or else by its header. */
  readonly language?: string;
  readonly author?: string;
  /** As they are written, mostly in ISO 8601. */
  readonly published?: string;
  readonly modified?: string;
  /** `og:title` is `title`; of repeated ones the first. */
  readonly openGraph: Readonly<Record<string, string>>;
  /** `twitter:card` is `card`. */
  readonly twitter: Readonly<Record<string, string>>;
  /** Those that are valid JSON, in their order; 100 at most, of 256 KiB each, 64 levels deep. */
  readonly jsonLd: readonly unknown[];
};

/** The text of a PDF. */
export type PdfText = {
  /** All of it, pages parted by an empty line. */
  readonly text: string;
  readonly pages: readonly string[];
  readonly pageCount: number;
  /** There was more than is read: 2,000 pages, 4 million characters. */
  readonly isCut: boolean;
  readonly title?: string;
  readonly author?: string;
};

/** The crawl that a spider works for. */
export type SpiderCrawl = {
  readonly id: string;
  /** As they were given when the crawl was made. */
  readonly params: Readonly<Record<string, unknown>>;
  /** Values that all nodes share, kept as long as the crawl. */
  readonly state: CrawlState;
};

/** What the hooks of a spider are given. */
export type SpiderContext = {
  readonly crawl: SpiderCrawl;
  /** The node's id. */
  readonly node: string;
  readonly log: Logger;
};

/** What the crawls of a spider are like where they do not say so themselves; members as those of a crawl. */
export type SpiderSettings = {
  readonly [Group in SettingsGroup]?: Partial<NonNullable<CrawlSpec[Group]>>;
};

type SettingsGroup =
  | "scope"
  | "limits"
  | "politeness"
  | "urls"
  | "links"
  | "fetch"
  | "render"
  | "recrawl"
  | "duplicates";

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
  /** The body, its content codings undone. */
  readonly body: Uint8Array;
  /** The body as text, decoded as a browser would. */
  text(): string;
  /**
   * The links of the page, absolute, each once: those that the crawl follows, or those of some kinds, `Link:` headers
   * included. Without those marked `nofollow`, unless the crawl follows them. Costs no tree.
   */
  links(options?: PageLinksOptions): readonly string[];
  /** Cheerio's `$` over this page. The tree is built at the first use and costs most of a page's time. */
  readonly $: ParsedSelector;
  /** The text that it shows: no scripts, styles or comments; a line for each block. Costs no tree. */
  visibleText(): string;
  /** What it says of itself: meta elements, Open Graph, JSON-LD. Costs no tree. */
  metadata(): PageMetadata;
  /**
   * Its article; undefined if it has none. Made in another thread, of the first 2 million characters.
   * @throws DocumentError if it takes too long or too much
   */
  article(): Promise<Article | undefined>;
  /** Its article as Markdown, or else all that it shows. @throws DocumentError as `article` */
  markdown(): Promise<string>;
  /** What the request that led here carried. */
  readonly meta: Readonly<Record<string, unknown>>;
  readonly crawl: SpiderCrawl;
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
  /**
   * The text of a PDF, read in another thread.
   * @throws DocumentError if it is none, is larger than 32 MiB, broken or encrypted, or takes too long or too much
   */
  pdf(): Promise<PdfText>;
  /** The text of a PDF, or of a text file. @throws DocumentError as `pdf`, and for any other file */
  text(): Promise<string>;
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
   * that a browser adds and moves (at four times the cost). The tree of a big page is then built before `parse` is called,
   * the page's own in slices.
   * @default "page", built when it is asked for
   */
  readonly tree?: TreeKind;
  readonly settings?: SpiderSettings;
  /**
   * What its items must be like, as a schema of any library that speaks Standard Schema (zod, valibot, arktype).
   * Items are stored as the schema gives them back; those that it refuses are counted, and kept aside with the reasons.
   */
  readonly item?: StandardSchemaV1<unknown, Item>;
  /**
   * It ends each page in time by itself. For spiders whose pages wait for a process that runs them, and may be begun anew
   * in another; of all others the engine ends what takes too long.
   */
  readonly keepsTime?: true;
  parse(page: Page): Outputs<Item>;
  /** What is called instead of `parse` for the page of a request with that `callback`. */
  readonly callbacks?: Readonly<Record<string, (page: Page) => Outputs<Item>>>;
  /** Called for each stored file. */
  file?(file: SpiderFile): Outputs<Item>;
  /** Called once in each process that works for a crawl, before its first page there. What it throws fails that page. */
  open?(context: SpiderContext): Promise<void> | void;
  /**
   * Called once in such a process, when the crawl is over or was closed, or nothing of it came here for some time; what
   * comes later is opened anew.
   */
  close?(context: SpiderContext): Promise<void> | void;
  /** Told of each page that the spider failed on; what it throws changes nothing. */
  error?(error: Error, page: { readonly url: string }, context: SpiderContext): Promise<void> | void;
}

/** Gives a spider its types: `export default defineSpider({ name: "books", async *parse(page) { … } })`. */
export function defineSpider<Item extends Record<string, unknown> = Record<string, unknown>>(
  spider: Spider<Item>,
): Spider<Item> {
  return spider;
}
