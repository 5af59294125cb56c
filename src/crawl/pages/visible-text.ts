import { Tokenizer } from "htmlparser2";

/** Elements whose text is not shown, and which end where their end tag is. */
const UNSEEN = new Set([
  ...["script", "style", "noscript", "template", "title", "textarea", "svg", "math", "canvas", "iframe"],
  ...["object", "audio", "video", "select", "datalist", "dialog", "head"],
]);
/** What is hidden by its attribute counts in those that need an end tag: of others nobody knows where they end. */
const HIDEABLE = new Set(["div", "section", "article", "aside", "span", "ul", "ol", "table", "nav", "form"]);
/** What begins a new line, and ends one. */
const BLOCKS = new Set([
  ...[
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "caption",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
  ],
  ...[
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
  ],
  ...[
    "legend",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "tbody",
    "tfoot",
    "thead",
  ],
  ...["tr", "ul", "option", "center"],
]);
const CELLS = new Set(["td", "th"]);
/** An element that only a page without a body ends with: `head` needs no end tag. */
const ENDS_HEAD = new Set(["body", "p", "div", "h1", "h2", "main", "header", "article", "table", "ul", "a"]);
const LONGEST_NAME = 10;

/**
 * The text that a page shows, in one pass without a tree: a line for each block, white space folded, no empty lines.
 * Nothing is known of style sheets: what they hide is there.
 */
export class VisibleText {
  readonly #text: string;
  readonly #lines: string[] = [];
  #line: string[] = [];
  #name = "";
  #isHidden = false;
  /** The element that nothing is taken from, and how many of its name are open in it. */
  #unseen = "";
  #unseenDepth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  read(): string {
    const tokenizer = new Tokenizer({ xmlMode: false, decodeEntities: true }, this);
    tokenizer.write(this.#text);
    tokenizer.end();
    this.#endLine();
    return this.#lines.join("\n");
  }

  onopentagname(start: number, end: number): void {
    this.#name = this.#nameAt(start, end);
    this.#isHidden = false;
  }

  onattribname(start: number, end: number): void {
    if (end - start === 6 && this.#text.slice(start, end).toLowerCase() === "hidden") this.#isHidden = true;
  }

  onopentagend(): void {
    const name = this.#name;
    if (this.#unseen === "head" && ENDS_HEAD.has(name)) this.#unseenDepth = 0;
    if (this.#unseenDepth > 0) {
      if (name === this.#unseen) this.#unseenDepth += 1;
      return;
    }
    this.#part(name);
    if (!UNSEEN.has(name) && !(this.#isHidden && HIDEABLE.has(name))) return;
    this.#unseen = name;
    this.#unseenDepth = 1;
  }

  onselfclosingtag(): void {
    // Only of foreign elements is the slash anything (WHATWG HTML, 13.2.5.40).
    if (this.#name === "svg" || this.#name === "math") return;
    if (this.#unseenDepth > 0 && this.#unseen === "svg") return;
    this.onopentagend();
  }

  onclosetag(start: number, end: number): void {
    const name = this.#nameAt(start, end);
    if (this.#unseenDepth === 0) this.#part(name);
    else if (name === this.#unseen) this.#unseenDepth -= 1;
  }

  ontext(start: number, end: number): void {
    if (this.#unseenDepth === 0) this.#line.push(this.#text.slice(start, end));
  }

  ontextentity(codepoint: number): void {
    if (this.#unseenDepth === 0) this.#line.push(String.fromCodePoint(codepoint));
  }

  onattribdata(): void {}
  onattribend(): void {}
  onattribentity(): void {}
  oncdata(): void {}
  oncomment(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}

  #nameAt(start: number, end: number): string {
    return end - start > LONGEST_NAME ? "" : this.#text.slice(start, end).toLowerCase();
  }

  #part(name: string): void {
    if (BLOCKS.has(name)) this.#endLine();
    else if (CELLS.has(name)) this.#line.push(" ");
  }

  #endLine(): void {
    if (this.#line.length === 0) return;
    const line = this.#line.join("").replace(/\s+/g, " ").trim();
    this.#line = [];
    if (line !== "") this.#lines.push(line);
  }
}
