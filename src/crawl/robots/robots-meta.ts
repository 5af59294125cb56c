import { Tokenizer } from "htmlparser2";

/** A `meta` element that has a name. */
export type NamedMeta = { readonly name: string; readonly content: string };

/** What is read of each, and how many are at most. */
const MAX_CHARACTERS = 10_000;
const MAX_METAS = 500;

/**
 * The named `meta` elements of a page, in their order. Like the scanner for links it listens to the tokenizer, so that
 * neither comments, scripts nor a page's depth can lead it astray.
 */
export function namedMetasOf(text: string): readonly NamedMeta[] {
  const scan = new MetaScan(text);
  const tokenizer = new Tokenizer({ xmlMode: false, decodeEntities: false }, scan);
  tokenizer.write(text);
  tokenizer.end();
  return scan.metas;
}

class MetaScan {
  readonly metas: NamedMeta[] = [];
  readonly #text: string;
  #isMeta = false;
  #attribute = "";
  #valueStart = -1;
  #valueEnd = -1;
  #name: string | undefined;
  #content: string | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  onopentagname(start: number, end: number): void {
    this.#isMeta =
      end - start === 4 &&
      this.metas.length < MAX_METAS &&
      this.#text.slice(start, end).toLowerCase() === "meta";
    this.#name = undefined;
    this.#content = undefined;
  }

  onattribname(start: number, end: number): void {
    if (!this.#isMeta) return;
    this.#attribute = end - start <= 7 ? this.#text.slice(start, end).toLowerCase() : "";
    this.#valueStart = -1;
  }

  onattribdata(start: number, end: number): void {
    if (this.#valueStart < 0) this.#valueStart = start;
    this.#valueEnd = end;
  }

  onattribend(): void {
    if (!this.#isMeta || this.#valueStart < 0) return;
    const end = Math.min(this.#valueEnd, this.#valueStart + MAX_CHARACTERS);
    // Of a repeated attribute the first counts (WHATWG HTML, 13.2.5.33).
    if (this.#attribute === "name") this.#name ??= this.#text.slice(this.#valueStart, end);
    else if (this.#attribute === "content") this.#content ??= this.#text.slice(this.#valueStart, end);
  }

  onopentagend(): void {
    if (this.#isMeta && this.#name !== undefined && this.#content !== undefined) {
      this.metas.push({ name: this.#name, content: this.#content });
    }
    this.#isMeta = false;
  }

  onselfclosingtag(): void {
    this.onopentagend();
  }

  onclosetag(): void {}
  ontext(): void {}
  ontextentity(): void {}
  onattribentity(): void {}
  oncdata(): void {}
  oncomment(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}
}
