import type { CheerioAPI } from "cheerio";
import { canonicalUrl } from "../urls/url.js";
import { decodeText } from "./charset.js";
import { DEFAULT_KINDS, type LinkKind } from "./link-options.js";
import { LinkScanner, type PageScan } from "./link-scanner.js";
import { buildTree, buildTreeInSlices, selectorOver, TREE_DEFAULTS, type TreeLimits } from "./page-tree.js";
import { TimeSlices } from "./time-slices.js";

export type { PageScan, ScannedLink } from "./link-scanner.js";

/** Cheerio's `$` over one page. */
export type ParsedSelector = CheerioAPI;

/**
 * Whose tree `$` is over. `page`: htmlparser2's, which holds what the page says, and not the `html`, `body` or `tbody`
 * that a browser adds where they were left out. `browser`: parse5's, which is a browser's; it costs four times as much.
 */
export type TreeKind = "page" | "browser";

export type ParseOptions = {
  /** The page's own URL, which its links are relative to. */
  readonly url: string;
  /** Its `content-type` header, parameters included. */
  readonly contentType?: string;
  /** Links taken from it at most. @default 10_000 */
  readonly maxLinks?: number;
  readonly limits?: Partial<TreeLimits>;
};

export const DEFAULT_MAX_LINKS = 10_000;

/** A page's body, looked at no further than it is asked for, and each way once. */
export class ParsedPage {
  readonly #body: Buffer;
  readonly #options: ParseOptions;
  #text: string | undefined;
  #scan: PageScan | undefined;
  #scannedKinds: ReadonlySet<LinkKind> | undefined;
  #links: readonly string[] | undefined;
  #$: ParsedSelector | undefined;

  constructor(body: Buffer, options: ParseOptions) {
    this.#body = body;
    this.#options = options;
  }

  /** Decoded as a browser would. */
  get text(): string {
    this.#text ??= decodeText(this.#body, this.#options.contentType);
    return this.#text;
  }

  /**
   * Title and links as they are written, from one pass without a tree; from another one if kinds of links are wanted
   * that were not wanted before.
   */
  scan(kinds: ReadonlySet<LinkKind> = DEFAULT_KINDS): PageScan {
    if (this.#scan === undefined || !includesAll(this.#scannedKinds, kinds)) {
      const { maxLinks = DEFAULT_MAX_LINKS } = this.#options;
      this.#scan = new LinkScanner(this.text, maxLinks, kinds).scan();
      this.#scannedKinds = kinds;
    }
    return this.#scan;
  }

  /** Its http and https links: absolute, in their order, each once, without those marked `nofollow`. */
  links(): readonly string[] {
    if (this.#links === undefined) {
      const { baseHref, links } = this.scan();
      const { url } = this.#options;
      const base = baseHref === undefined ? url : (canonicalUrl(baseHref, url)?.url ?? url);
      const found = new Set<string>();
      for (const { href, nofollow } of links) {
        const link = nofollow ? undefined : canonicalUrl(href, base)?.url;
        if (link !== undefined) found.add(link);
      }
      this.#links = [...found];
    }
    return this.#links;
  }

  /** Cheerio's `$`, over htmlparser2's tree unless another was prepared. */
  get $(): ParsedSelector {
    this.#$ ??= selectorOver(buildTree(this.text, this.#limits));
    return this.#$;
  }

  /** Does now, in slices, what `scan` and a tree of the page would do at once. */
  async prepare(wanted: { readonly kinds?: ReadonlySet<LinkKind>; readonly tree?: TreeKind }): Promise<void> {
    const slices = new TimeSlices();
    const { kinds, tree } = wanted;
    if (kinds !== undefined) {
      const { maxLinks = DEFAULT_MAX_LINKS } = this.#options;
      this.#scan = await new LinkScanner(this.text, maxLinks, kinds).scanInSlices(slices);
      this.#scannedKinds = kinds;
    }
    if (tree === "page") {
      this.#$ = selectorOver(await buildTreeInSlices(this.text, this.#limits, slices));
    } else if (tree === "browser") {
      const { BROWSER_TREE_DEFAULTS, buildBrowserTree } = await import("./browser-tree.js");
      const limits = { ...BROWSER_TREE_DEFAULTS, ...this.#options.limits };
      this.#$ = selectorOver(await buildBrowserTree(this.text, limits));
    }
  }

  get #limits(): TreeLimits {
    return { ...TREE_DEFAULTS, ...this.#options.limits };
  }
}

function includesAll(known: ReadonlySet<LinkKind> | undefined, kinds: ReadonlySet<LinkKind>): boolean {
  return known === kinds || (known !== undefined && [...kinds].every((kind) => known.has(kind)));
}

export function parseHtml(body: Buffer, options: ParseOptions): ParsedPage {
  return new ParsedPage(body, options);
}
