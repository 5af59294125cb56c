import { Parser } from "htmlparser2";
import { MAX_URL_LENGTH } from "../urls/url.js";
import type { ListedExtra } from "./sitemap-options.js";

/** A URL as a sitemap or feed lists it, as it is written there. */
export type ListedUrl = {
  readonly url: string;
  readonly kind: "page" | "file" | "sitemap";
  /** When the page changed last, as it is written there. */
  readonly lastModified?: string;
  /** 0 to 1, as a sitemap says. */
  readonly priority?: number;
};

/** `sitemap` and `index` by sitemaps.org; `rss` is RSS of any version. */
export type XmlListingKind = "sitemap" | "index" | "rss" | "atom";

export type XmlListingOptions = {
  readonly extras: ReadonlySet<ListedExtra>;
  readonly onListed: (listed: ListedUrl) => void;
};

/** It is no XML that could list anything: nested too deep, or without end. */
export class MalformedListing extends Error {}

/** What the elements of a document are about, by their namespace. */
type Space = "main" | "atom" | "image" | "video" | "xhtml" | "dates" | "rdf" | "other";

const SPACES: readonly (readonly [RegExp, Space])[] = [
  [/google\.com\/schemas\/sitemap-image/i, "image"],
  [/google\.com\/schemas\/sitemap-video/i, "video"],
  [/google\.com\/schemas\/sitemap-/i, "other"],
  [/schemas\/sitemap/i, "main"],
  [/w3\.org\/1999\/xhtml/i, "xhtml"],
  [/w3\.org\/2005\/atom|purl\.org\/atom/i, "atom"],
  [/22-rdf-syntax-ns/i, "rdf"],
  [/purl\.org\/rss\/1\.0\/?$|netscape\.com\/rdf/i, "main"],
  [/purl\.org\/dc\//i, "dates"],
];
/** For prefixes that nobody declared, which happens. */
const USUAL_PREFIXES: Readonly<Record<string, Space>> = {
  image: "image",
  video: "video",
  xhtml: "xhtml",
  atom: "atom",
  dc: "dates",
  rdf: "rdf",
};

const ROOTS: Readonly<Record<string, XmlListingKind>> = {
  urlset: "sitemap",
  sitemapindex: "index",
  rss: "rss",
  RDF: "rss",
  feed: "atom",
};
const ENTRIES: Readonly<Record<XmlListingKind, string>> = {
  sitemap: "url",
  index: "sitemap",
  rss: "item",
  atom: "entry",
};

const MAX_DEPTH = 64;
/** Characters without any element, text or comment coming to its end: a tag or comment without end. */
const MAX_GAP = 1_048_576;
/** Of one element's text so much is kept, white space around a URL included. */
const MAX_TEXT = MAX_URL_LENGTH + 1_000;
/** Images, alternates and the like of one entry; sitemaps may name 1,000 images a page. */
const MAX_PER_ENTRY = 1_000;

type OpenElement = { readonly name: string; readonly space: Space; readonly prefixes?: Map<string, Space> };

/** What is known so far of the entry that is being read. */
type Entry = {
  /** Of how many elements it is the innermost. */
  readonly depth: number;
  urls: string[];
  /** A feed's entry that has no link is perhaps named by its URL. */
  guid?: string;
  lastModified?: string;
  priority?: number;
  files: string[];
  alternates: string[];
};

/**
 * Reads sitemaps, RSS and Atom piece by piece: of what was read, only the entry that is open is held.
 *
 * Namespaces are looked at where they are declared, and forgiven where they are missing or misspelt. Entities are XML's
 * own five and numbers: what a document declares itself is not looked at, be it a file, a URL or a bomb.
 */
export class XmlListing {
  readonly #options: XmlListingOptions;
  readonly #parser: Parser;
  readonly #open: OpenElement[] = [];
  #kind: XmlListingKind | undefined;
  #ownSpace: Space = "main";
  #entry: Entry | undefined;
  #text: string | undefined;
  #gap = 0;

  constructor(options: XmlListingOptions) {
    this.#options = options;
    const sign = () => {
      this.#gap = 0;
    };
    this.#parser = new Parser(
      {
        onopentag: (name, attributes) => this.#opened(name, attributes),
        onclosetag: () => this.#closed(),
        ontext: (text) => {
          this.#gap = 0;
          if (this.#text !== undefined && this.#text.length < MAX_TEXT) this.#text += text;
        },
        oncomment: sign,
        onprocessinginstruction: sign,
      },
      { xmlMode: true, decodeEntities: true },
    );
  }

  /** What it is; undefined before its root was read, or when it is none of them. */
  get kind(): XmlListingKind | undefined {
    return this.#kind;
  }

  /** @throws MalformedListing */
  write(text: string): void {
    this.#gap += text.length;
    if (this.#gap > MAX_GAP) throw new MalformedListing(`nothing comes to its end in ${MAX_GAP} characters`);
    this.#parser.write(text);
  }

  /** @throws MalformedListing */
  end(): void {
    this.#parser.end();
    this.#endEntry();
  }

  #opened(qualified: string, attributes: Readonly<Record<string, string>>): void {
    this.#gap = 0;
    if (this.#open.length >= MAX_DEPTH)
      throw new MalformedListing(`elements in more than ${MAX_DEPTH} others`);
    const prefixes = declaredIn(attributes);
    const colon = qualified.indexOf(":");
    const prefix = colon < 0 ? "" : qualified.slice(0, colon);
    const name = qualified.slice(colon + 1);
    const space = prefixes?.get(prefix) ?? this.#spaceOf(prefix);
    this.#open.push({ name, space, ...(prefixes !== undefined && { prefixes }) });
    if (this.#open.length === 1) {
      this.#kind = Object.hasOwn(ROOTS, name) ? ROOTS[name] : undefined;
      this.#ownSpace = space === "atom" && this.#kind === "atom" ? "atom" : "main";
    } else if (this.#kind !== undefined) {
      this.#within(this.#kind, name, space, attributes);
    }
  }

  #within(
    kind: XmlListingKind,
    name: string,
    space: Space,
    attributes: Readonly<Record<string, string>>,
  ): void {
    const isOwn = space === this.#ownSpace;
    if (isOwn && name === ENTRIES[kind]) {
      // One that was not closed ends where the next begins.
      this.#endEntry();
      this.#entry = { depth: this.#open.length, urls: [], files: [], alternates: [] };
      return;
    }
    const entry = this.#entry;
    if (entry === undefined) return;
    this.#text = undefined;
    if (space === "xhtml" && name === "link") {
      if (attributes.rel === "alternate") put(entry.alternates, attributes.href);
    } else if (kind === "atom" && isOwn && name === "link") {
      takeAtomLink(entry, attributes);
    } else if (kind === "rss" && isOwn && name === "enclosure") {
      put(entry.files, attributes.url);
    } else if (kind === "rss" && isOwn && name === "guid" && attributes.isPermaLink === "false") {
      return;
    } else {
      this.#text = "";
    }
  }

  #closed(): void {
    this.#gap = 0;
    const element = this.#open.pop();
    const text = this.#text?.trim();
    this.#text = undefined;
    const entry = this.#entry;
    if (element === undefined || entry === undefined || this.#kind === undefined) return;
    if (this.#open.length < entry.depth) this.#endEntry();
    else if (text !== undefined && text !== "") this.#takeText(entry, element, text);
  }

  #takeText(entry: Entry, { name, space }: OpenElement, text: string): void {
    const isDirect = this.#open.length === entry.depth;
    const { extras } = this.#options;
    if (space === this.#ownSpace && isDirect) {
      switch (`${this.#kind}.${name}`) {
        case "sitemap.loc":
        case "index.loc":
        case "rss.link":
          put(entry.urls, text);
          break;
        case "rss.guid":
          entry.guid = text;
          break;
        case "sitemap.priority":
          entry.priority = Number(text);
          break;
        case "sitemap.lastmod":
        case "index.lastmod":
        case "rss.pubDate":
        case "atom.updated":
          entry.lastModified = text;
          break;
        default:
      }
    } else if (space === "dates" && name === "date" && isDirect) {
      entry.lastModified ??= text;
    } else if (space === "image" && name === "loc" && extras.has("images")) {
      put(entry.files, text);
    } else if (space === "video" && name === "content_loc" && extras.has("videos")) {
      put(entry.files, text);
    }
  }

  #endEntry(): void {
    const entry = this.#entry;
    const kind = this.#kind;
    this.#entry = undefined;
    if (entry === undefined || kind === undefined) return;
    const { extras, onListed } = this.#options;
    const { lastModified, priority, files, alternates, guid } = entry;
    const isFeed = kind === "rss" || kind === "atom";
    const urls = entry.urls.length === 0 && guid !== undefined ? [guid] : entry.urls;
    // A page of a sitemap has one address, an entry of a feed may have several.
    for (const url of isFeed ? urls : urls.slice(0, 1)) {
      onListed({
        url,
        kind: kind === "index" ? "sitemap" : "page",
        ...(lastModified !== undefined && { lastModified }),
        ...(priority !== undefined && priority >= 0 && priority <= 1 && { priority }),
      });
    }
    if (extras.has("alternates")) for (const url of alternates) onListed({ url, kind: "page" });
    if (!isFeed || extras.has("enclosures")) for (const url of files) onListed({ url, kind: "file" });
  }

  #spaceOf(prefix: string): Space {
    for (let index = this.#open.length - 1; index >= 0; index -= 1) {
      const space = this.#open[index]?.prefixes?.get(prefix);
      if (space !== undefined) return space;
    }
    if (prefix === "") return "main";
    return Object.hasOwn(USUAL_PREFIXES, prefix) ? (USUAL_PREFIXES[prefix] ?? "other") : "other";
  }
}

/** The prefixes that an element declares; undefined when it declares none, as most do. */
function declaredIn(attributes: Readonly<Record<string, string>>): Map<string, Space> | undefined {
  let prefixes: Map<string, Space> | undefined;
  for (const [name, uri] of Object.entries(attributes)) {
    if (!name.startsWith("xmlns")) continue;
    if (name.length > 5 && name[5] !== ":") continue;
    const prefix = name.slice(6);
    const known = SPACES.find(([pattern]) => pattern.test(uri.slice(0, 500)))?.[1];
    prefixes ??= new Map();
    // Whoever misspells the namespace of all elements means them still.
    prefixes.set(prefix, known ?? (prefix === "" ? "main" : "other"));
  }
  return prefixes;
}

function takeAtomLink(entry: Entry, { rel = "alternate", href }: Readonly<Record<string, string>>): void {
  if (rel === "alternate") put(entry.urls, href);
  else if (rel === "enclosure") put(entry.files, href);
}

function put(urls: string[], url: string | undefined): void {
  if (url !== undefined && urls.length < MAX_PER_ENTRY) urls.push(url);
}
