import { Parser, Tokenizer } from "htmlparser2";

/** A link as it is written on a page. */
export type ScannedLink = {
  /** Not resolved; may be of any scheme. */
  readonly href: string;
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

/** The elements of which attributes are wanted. */
const ELEMENTS = new Set(["a", "area", "base", "frame", "iframe", "link", "meta"]);
const ATTRIBUTES = new Set(["href", "src", "rel", "name", "content", "http-equiv"]);
const LONGEST_ELEMENT = 6;

/**
 * Finds title and links in one pass over a page's text, without a tree.
 *
 * It listens to htmlparser2's tokenizer, below its parser: no stack of open elements is kept, so that depth
 * costs nothing, and nothing is cut out of the text but what is wanted.
 */
export class LinkScanner {
  readonly #text: string;
  readonly #maxLinks: number;
  #element: string | undefined;
  #attribute: string | undefined;
  #valueStart = -1;
  #valueEnd = -1;
  readonly #attributes = new Map<string, string>();
  #isInTitle = false;
  #title: string | undefined;
  /** The tag being read opens an `svg`; in there a `title` names a drawing. */
  #isSvg = false;
  #svgDepth = 0;
  #baseHref: string | undefined;
  readonly #links: { href: string; nofollow: boolean }[] = [];
  readonly #robotsMeta: string[] = [];
  #isCut = false;

  constructor(text: string, maxLinks: number) {
    this.#text = text;
    this.#maxLinks = maxLinks;
  }

  scan(): PageScan {
    const tokenizer = new Tokenizer({ xmlMode: false, decodeEntities: false }, this);
    tokenizer.write(this.#text);
    tokenizer.end();
    const closesAll = this.#robotsMeta.includes("nofollow") || this.#robotsMeta.includes("none");
    return {
      title: this.#title ?? "",
      ...(this.#baseHref !== undefined && { baseHref: this.#baseHref }),
      links: closesAll ? this.#links.map(({ href }) => ({ href, nofollow: true })) : this.#links,
      robotsMeta: this.#robotsMeta,
      isCut: this.#isCut,
    };
  }

  onopentagname(start: number, end: number): void {
    this.#element = undefined;
    this.#isSvg = false;
    const length = end - start;
    if (length > LONGEST_ELEMENT) return;
    // Names are compared only if their first letter is one of: a b f i l m s t.
    const first = this.#text.charCodeAt(start) | 0x20;
    if (first === 97 && length === 1) this.#element = "a";
    else if (FIRST_LETTERS.has(first)) {
      const name = this.#text.slice(start, end).toLowerCase();
      if (ELEMENTS.has(name)) this.#element = name;
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
    this.#attribute = ATTRIBUTES.has(name) && !this.#attributes.has(name) ? name : undefined;
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
    const raw = this.#text.slice(start, Math.min(end, start + MAX_TITLE_LENGTH));
    this.#title = folded(raw.includes("&") ? decodeText(raw) : raw);
    this.#isInTitle = false;
  }

  onclosetag(start: number, end: number): void {
    this.#isInTitle = false;
    if (this.#svgDepth > 0 && this.#text.slice(start, end).toLowerCase() === "svg") this.#svgDepth -= 1;
  }

  onattribentity(): void {}
  ontextentity(): void {}
  oncdata(): void {}
  oncomment(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}

  #take(element: string): void {
    switch (element) {
      case "a":
      case "area":
        this.#addLink(this.#attributes.get("href"));
        return;
      case "frame":
      case "iframe":
        this.#addLink(this.#attributes.get("src"));
        return;
      case "link":
        this.#takeLink();
        return;
      case "base":
        this.#baseHref ??= this.#attributes.get("href");
        return;
      default:
        this.#takeMeta();
    }
  }

  #takeLink(): void {
    const rel = wordsOf(this.#attributes.get("rel"));
    if (rel.includes("stylesheet")) return;
    if (rel.includes("next") || rel.includes("alternate")) this.#addLink(this.#attributes.get("href"));
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
      this.#addLink(refreshTarget(content));
    }
  }

  #addLink(href: string | undefined): void {
    if (href === undefined) return;
    if (this.#links.length >= this.#maxLinks) {
      this.#isCut = true;
      return;
    }
    const rel = this.#attributes.get("rel");
    this.#links.push({ href, nofollow: rel !== undefined && wordsOf(rel).includes("nofollow") });
  }
}

const FIRST_LETTERS = new Set([..."abfilmst"].map((letter) => letter.charCodeAt(0)));

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
