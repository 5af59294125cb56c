import { Parser, Tokenizer } from "htmlparser2";
import { DEFAULT_KINDS, type LinkKind } from "./link-options.js";
import { srcsetUrls } from "./srcset.js";
import { SLICE_CHARACTERS, type TimeSlices } from "./time-slices.js";

/** A link as it is written on a page. */
export type ScannedLink = {
  /** Not resolved; may be of any scheme. */
  readonly href: string;
  readonly kind: LinkKind;
  /** Marked so by its `rel`, or by the page for all its links. */
  readonly nofollow: boolean;
};

export type PageScan = {
  /** The document's title, white space folded; empty when there is none. */
  readonly title: string;
  /** What links are relative to, if the page says so; not resolved. */
  readonly baseHref?: string;
  /** In their order, repeated ones included. */
  readonly links: readonly ScannedLink[];
  /** What `<meta name="robots">` says, in lower case; empty when it says nothing. */
  readonly robotsMeta: readonly string[];
  /** There were more links than were wanted. */
  readonly isCut: boolean;
};

const MAX_TITLE_LENGTH = 10_000;

/** The elements on which links of a kind stand, and their attributes. */
const PLACES: Readonly<Record<LinkKind, readonly [elements: string, attributes: string]>> = {
  anchor: ["a area", "href rel"],
  frame: ["frame iframe", "src rel"],
  refresh: ["meta", "content http-equiv"],
  next: ["link", "href rel"],
  alternate: ["link", "href rel hreflang"],
  hreflang: ["link", "href rel hreflang"],
  canonical: ["link", "href rel"],
  form: ["form", "action method rel"],
  image: ["img source input video", "src srcset type poster"],
  embed: ["script link object embed audio video source track", "src href rel data"],
};

/** What a scan looks at: elements, attributes, and the first letters of the elements. */
type Focus = {
  readonly kinds: ReadonlySet<LinkKind>;
  readonly hasAnchors: boolean;
  readonly elements: ReadonlySet<string>;
  readonly attributes: ReadonlySet<string>;
  readonly firstLetters: ReadonlySet<number>;
};

const LONGEST_ELEMENT = 6;

function focusOn(kinds: ReadonlySet<LinkKind>): Focus {
  const elements = new Set(["base", "meta"]);
  const attributes = new Set(["href", "name", "content"]);
  for (const kind of kinds) {
    const [names, wanted] = PLACES[kind];
    for (const name of names.split(" ")) elements.add(name);
    for (const name of wanted.split(" ")) attributes.add(name);
  }
  const firstLetters = new Set([...elements, "svg", "title"].map((name) => name.charCodeAt(0)));
  return { kinds, hasAnchors: kinds.has("anchor"), elements, attributes, firstLetters };
}

/** By the set they were made of: a crawl has the same for all its pages. */
const foci = new WeakMap<ReadonlySet<LinkKind>, Focus>();

function focusOf(kinds: ReadonlySet<LinkKind>): Focus {
  let focus = foci.get(kinds);
  if (focus === undefined) {
    focus = focusOn(kinds);
    foci.set(kinds, focus);
  }
  return focus;
}

/** What a browser loads for a link element of one of these relations. */
const LOADED_RELATIONS = new Set([
  ...["stylesheet", "icon", "apple-touch-icon", "apple-touch-icon-precomposed", "mask-icon"],
  ...["preload", "modulepreload", "manifest"],
]);

/**
 * Finds title and links in one pass over a page's text, without a tree.
 *
 * It listens to htmlparser2's tokenizer, below its parser: no stack of open elements is kept, so that depth
 * costs nothing, and nothing is cut out of the text but what is wanted.
 */
export class LinkScanner {
  readonly #text: string;
  readonly #maxLinks: number;
  readonly #focus: Focus;
  #element: string | undefined;
  #attribute: string | undefined;
  #valueStart = -1;
  #valueEnd = -1;
  readonly #attributes = new Map<string, string>();
  #isInTitle = false;
  #titleStart = -1;
  #titleEnd = -1;
  #title: string | undefined;
  /** The tag being read opens an `svg`; in there a `title` names a drawing. */
  #isSvg = false;
  #svgDepth = 0;
  #baseHref: string | undefined;
  readonly #links: ScannedLink[] = [];
  readonly #robotsMeta: string[] = [];
  #isCut = false;

  /** @param kinds the kinds of links that are wanted; the same set for many pages costs least */
  constructor(text: string, maxLinks: number, kinds: ReadonlySet<LinkKind> = DEFAULT_KINDS) {
    this.#text = text;
    this.#maxLinks = maxLinks;
    this.#focus = focusOf(kinds);
  }

  scan(): PageScan {
    const tokenizer = this.#tokenizer();
    tokenizer.write(this.#text);
    return this.#end(tokenizer);
  }

  /** The same, with rests: what it tells of places counts from the beginning of the text all the same. */
  async scanInSlices(slices: TimeSlices): Promise<PageScan> {
    const tokenizer = this.#tokenizer();
    for (let at = 0; at < this.#text.length; at += SLICE_CHARACTERS) {
      tokenizer.write(this.#text.slice(at, at + SLICE_CHARACTERS));
      await slices.rest();
    }
    return this.#end(tokenizer);
  }

  #tokenizer(): Tokenizer {
    return new Tokenizer({ xmlMode: false, decodeEntities: false }, this);
  }

  #end(tokenizer: Tokenizer): PageScan {
    tokenizer.end();
    this.#endTitle();
    const closesAll = this.#robotsMeta.includes("nofollow") || this.#robotsMeta.includes("none");
    return {
      title: this.#title ?? "",
      ...(this.#baseHref !== undefined && { baseHref: this.#baseHref }),
      links: closesAll ? this.#links.map((link) => ({ ...link, nofollow: true })) : this.#links,
      robotsMeta: this.#robotsMeta,
      isCut: this.#isCut,
    };
  }

  onopentagname(start: number, end: number): void {
    this.#element = undefined;
    this.#isSvg = false;
    const length = end - start;
    if (length > LONGEST_ELEMENT) return;
    const focus = this.#focus;
    // Names are compared only if they begin as one that is wanted.
    const first = this.#text.charCodeAt(start) | 0x20;
    if (first === 97 && length === 1) {
      if (focus.hasAnchors) this.#element = "a";
    } else if (focus.firstLetters.has(first)) {
      const name = this.#text.slice(start, end).toLowerCase();
      if (focus.elements.has(name)) this.#element = name;
      else if (name === "title") this.#isInTitle = this.#title === undefined && this.#svgDepth === 0;
      else if (name === "svg") {
        this.#isSvg = true;
        this.#svgDepth += 1;
      }
    }
    if (this.#element !== undefined) this.#attributes.clear();
  }

  onattribname(start: number, end: number): void {
    if (this.#element === undefined) return;
    const name = this.#text.slice(start, end).toLowerCase();
    // Of a repeated attribute the first counts (WHATWG HTML, 13.2.5.33).
    this.#attribute = this.#focus.attributes.has(name) && !this.#attributes.has(name) ? name : undefined;
    this.#valueStart = -1;
  }

  onattribdata(start: number, end: number): void {
    if (this.#valueStart < 0) this.#valueStart = start;
    this.#valueEnd = end;
  }

  onattribend(): void {
    if (this.#element === undefined || this.#attribute === undefined) return;
    const raw = this.#valueStart < 0 ? "" : this.#text.slice(this.#valueStart, this.#valueEnd);
    this.#attributes.set(this.#attribute, raw.includes("&") ? decodeAttribute(raw) : raw);
    this.#attribute = undefined;
  }

  onopentagend(): void {
    if (this.#element !== undefined) this.#take(this.#element);
    this.#element = undefined;
  }

  onselfclosingtag(): void {
    if (this.#isSvg) this.#svgDepth -= 1;
    this.onopentagend();
  }

  ontext(start: number, end: number): void {
    if (!this.#isInTitle) return;
    if (this.#titleStart < 0) this.#titleStart = start;
    this.#titleEnd = end;
  }

  onclosetag(start: number, end: number): void {
    if (this.#isInTitle) this.#endTitle();
    if (this.#svgDepth > 0 && this.#text.slice(start, end).toLowerCase() === "svg") this.#svgDepth -= 1;
  }

  onattribentity(): void {}
  ontextentity(): void {}
  oncdata(): void {}
  oncomment(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}

  #endTitle(): void {
    this.#isInTitle = false;
    if (this.#titleStart < 0 || this.#title !== undefined) return;
    const end = Math.min(this.#titleEnd, this.#titleStart + MAX_TITLE_LENGTH);
    const raw = this.#text.slice(this.#titleStart, end);
    const whole = raw.includes("&") ? decodeText(raw) : raw;
    // A NUL in a title stands for a character that was lost (WHATWG HTML, 13.2.5.2).
    this.#title = folded(whole.includes("\0") ? whole.replaceAll("\0", "\ufffd") : whole);
  }

  #take(element: string): void {
    switch (element) {
      case "a":
      case "area":
        this.#add("anchor", this.#attributes.get("href"));
        return;
      case "frame":
      case "iframe":
        this.#add("frame", this.#attributes.get("src"));
        return;
      case "link":
        this.#takeLink();
        return;
      case "base":
        this.#baseHref ??= this.#attributes.get("href");
        return;
      case "meta":
        this.#takeMeta();
        return;
      case "form":
        this.#takeForm();
        return;
      case "object":
        this.#addIfWanted("embed", this.#attributes.get("data"));
        return;
      case "img":
      case "source":
      case "input":
      case "video":
        this.#takeImage(element);
        return;
      default:
        this.#addIfWanted("embed", this.#attributes.get("src"));
    }
  }

  #takeLink(): void {
    const rel = wordsOf(this.#attributes.get("rel"));
    const kind = linkElementKinds(rel, this.#attributes.has("hreflang")).find((one) =>
      this.#focus.kinds.has(one),
    );
    if (kind !== undefined) this.#add(kind, this.#attributes.get("href"));
  }

  #takeForm(): void {
    const method = this.#attributes.get("method")?.trim().toLowerCase();
    // Whatever is neither of these is sent by GET (WHATWG HTML, 4.10.19.6).
    if (method === "post" || method === "dialog") return;
    this.#add("form", this.#attributes.get("action"));
  }

  #takeImage(element: string): void {
    const src = this.#attributes.get("src");
    if (element === "img") this.#addIfWanted("image", src);
    else if (element !== "input") this.#addIfWanted("embed", src);
    else if (this.#attributes.get("type")?.trim().toLowerCase() === "image") this.#addIfWanted("image", src);
    if (element === "video") this.#addIfWanted("image", this.#attributes.get("poster"));
    const srcset = element === "img" || element === "source" ? this.#attributes.get("srcset") : undefined;
    if (srcset === undefined || !this.#focus.kinds.has("image")) return;
    for (const url of srcsetUrls(srcset)) this.#add("image", url);
  }

  #takeMeta(): void {
    const content = this.#attributes.get("content");
    if (content === undefined) return;
    if (this.#attributes.get("name")?.trim().toLowerCase() === "robots") {
      this.#robotsMeta.push(
        ...content
          .toLowerCase()
          .split(/[\s,]+/)
          .filter((word) => word !== ""),
      );
    }
    if (this.#attributes.get("http-equiv")?.trim().toLowerCase() === "refresh") {
      this.#add("refresh", refreshTarget(content));
    }
  }

  #addIfWanted(kind: LinkKind, href: string | undefined): void {
    // An empty address of something that is loaded is none (WHATWG HTML), and not the page itself.
    if (this.#focus.kinds.has(kind) && href !== undefined && href.trim() !== "") this.#add(kind, href);
  }

  #add(kind: LinkKind, href: string | undefined): void {
    if (href === undefined) return;
    if (this.#links.length >= this.#maxLinks) {
      this.#isCut = true;
      return;
    }
    const rel = this.#attributes.get("rel");
    this.#links.push({ href, kind, nofollow: rel !== undefined && wordsOf(rel).includes("nofollow") });
  }
}

/** Which kinds a link of these relations may be, in a link element or a `Link:` header; the first that is wanted counts. */
export function linkElementKinds(rel: readonly string[], hasLanguage: boolean): readonly LinkKind[] {
  // An alternate style sheet is no page.
  if (rel.some((relation) => LOADED_RELATIONS.has(relation))) {
    return rel.includes("stylesheet") ? ["embed"] : ["embed", ...pageKinds(rel, hasLanguage)];
  }
  return pageKinds(rel, hasLanguage);
}

function pageKinds(rel: readonly string[], hasLanguage: boolean): LinkKind[] {
  const kinds: LinkKind[] = [];
  if (rel.includes("canonical")) kinds.push("canonical");
  if (rel.includes("next")) kinds.push("next");
  if (rel.includes("alternate")) kinds.push(hasLanguage ? "hreflang" : "alternate");
  return kinds;
}

function wordsOf(text: string | undefined): readonly string[] {
  return text === undefined ? [] : text.toLowerCase().split(/[\s,]+/);
}

/** Where a refresh leads (WHATWG HTML, 4.2.5.3); undefined when it loads the page again. */
function refreshTarget(content: string): string | undefined {
  const found = /^\s*[\d.]*\s*[;,\s]\s*(?:url\s*=\s*)?(.*)$/is.exec(content);
  const rest = found?.[1]?.trim() ?? "";
  const quote = rest[0];
  if (quote !== '"' && quote !== "'") return rest === "" ? undefined : rest;
  const end = rest.indexOf(quote, 1);
  return rest.slice(1, end < 0 ? undefined : end);
}

function folded(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

/** Character references are rare in what is wanted: they are left to the parser that knows them all. */
function decodeAttribute(raw: string): string {
  let decoded = raw;
  const parser = new Parser({
    onattribute(_name, value) {
      decoded = value;
    },
  });
  parser.end(`<a b="${raw.replaceAll('"', "&quot;")}">`);
  return decoded;
}

function decodeText(raw: string): string {
  let decoded = "";
  const parser = new Parser({
    ontext(text) {
      decoded += text;
    },
  });
  parser.end(`<title>${raw}</title>`);
  return decoded;
}
