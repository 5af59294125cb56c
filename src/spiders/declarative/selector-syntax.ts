/** How two compounds of a selector stand to each other: below, child of, right after, after. */
export type Combinator = " " | ">" | "+" | "~";

export type AttributeOperator = "exists" | "=" | "~=" | "|=" | "^=" | "$=" | "*=";

/** One condition on one element. */
export type SimpleSelector =
  | { readonly kind: "tag"; readonly name: string }
  | { readonly kind: "id"; readonly id: string }
  | { readonly kind: "class"; readonly name: string }
  | {
      readonly kind: "attribute";
      readonly name: string;
      readonly operator: AttributeOperator;
      readonly value: string;
      /** `undefined`: as HTML has it for this attribute. */
      readonly ignoresCase: boolean | undefined;
    }
  | { readonly kind: "not" | "is" | "has"; readonly selectors: readonly ComplexSelector[] }
  | { readonly kind: "contains"; readonly text: string }
  | {
      readonly kind: "nth";
      /** Matches the places `step * n + offset`, n from 0. */
      readonly step: number;
      readonly offset: number;
      readonly ofType: boolean;
      readonly fromEnd: boolean;
    }
  | { readonly kind: "plain"; readonly name: PlainPseudo };

export type ComplexSelector = {
  /** How the first compound stands to the element that is searched from, if it is said. */
  readonly leading?: Combinator;
  readonly compounds: readonly (readonly SimpleSelector[])[];
  /** One less than compounds. */
  readonly combinators: readonly Combinator[];
};

const PLAIN_PSEUDOS = [
  "root",
  "scope",
  "empty",
  "checked",
  "selected",
  "disabled",
  "enabled",
  "link",
] as const;
export type PlainPseudo = (typeof PLAIN_PSEUDOS)[number];

const NTH: Readonly<Record<string, { readonly ofType: boolean; readonly fromEnd: boolean }>> = {
  "nth-child": { ofType: false, fromEnd: false },
  "nth-last-child": { ofType: false, fromEnd: true },
  "nth-of-type": { ofType: true, fromEnd: false },
  "nth-last-of-type": { ofType: true, fromEnd: true },
};
const PLACES: Readonly<Record<string, readonly string[]>> = {
  "first-child": ["nth-child"],
  "last-child": ["nth-last-child"],
  "only-child": ["nth-child", "nth-last-child"],
  "first-of-type": ["nth-of-type"],
  "last-of-type": ["nth-last-of-type"],
  "only-of-type": ["nth-of-type", "nth-last-of-type"],
};
const LISTS: Readonly<Record<string, "not" | "is" | "has">> = {
  not: "not",
  is: "is",
  where: "is",
  matches: "is",
  has: "has",
};

/** Selectors inside each other (`:not(:is(…))`) and parts of all of them. */
const MAX_NESTING = 4;
const MAX_PARTS = 100;
const SPACE = /[ \t\r\n\f]/;
const NAME = /[\w\-\u0080-\uffff]/;

/**
 * Reads a list of selectors (Selectors Level 4, and `:contains()`).
 * @throws Error saying what is wrong, and where
 */
export function parseSelector(text: string): readonly ComplexSelector[] {
  return new SelectorReader(text).read();
}

class SelectorReader {
  readonly #text: string;
  #at = 0;
  #nesting = 0;
  #parts = 0;

  constructor(text: string) {
    this.#text = text;
  }

  read(): readonly ComplexSelector[] {
    const list = this.#list();
    if (this.#at < this.#text.length) throw this.#fault(`"${this.#peek()}" is not expected`);
    return list;
  }

  #list(): readonly ComplexSelector[] {
    const list = [this.#complex()];
    while (this.#peek() === ",") {
      this.#at += 1;
      list.push(this.#complex());
    }
    return list;
  }

  #complex(): ComplexSelector {
    this.#skipSpace();
    const leading = this.#combinator();
    const compounds = [this.#compound()];
    const combinators: Combinator[] = [];
    for (;;) {
      const isApart = this.#skipSpace();
      const next = this.#peek();
      if (next === "" || next === "," || next === ")") break;
      const combinator = this.#combinator() ?? (isApart ? " " : undefined);
      if (combinator === undefined) throw this.#fault(`"${next}" is not expected`);
      combinators.push(combinator);
      compounds.push(this.#compound());
    }
    return { compounds, combinators, ...(leading !== undefined && { leading }) };
  }

  #combinator(): Combinator | undefined {
    const next = this.#peek();
    if (next !== ">" && next !== "+" && next !== "~") return undefined;
    this.#at += 1;
    this.#skipSpace();
    return next;
  }

  #compound(): readonly SimpleSelector[] {
    const simple: SimpleSelector[] = [];
    if (this.#peek() === "*") {
      this.#at += 1;
      simple.push({ kind: "is", selectors: [] });
      this.#count();
    } else if (this.#isName()) {
      simple.push({ kind: "tag", name: this.#name() });
      this.#count();
    }
    for (;;) {
      const next = this.#peek();
      if (next === "#") simple.push({ kind: "id", id: this.#nameAfter() });
      else if (next === ".") simple.push({ kind: "class", name: this.#nameAfter() });
      else if (next === "[") simple.push(this.#attribute());
      else if (next === ":") simple.push(...this.#pseudo());
      else break;
      this.#count();
    }
    if (simple.length === 0) {
      const found = this.#peek();
      throw this.#fault(found === "" ? "ends where a selector must follow" : `"${found}" begins no selector`);
    }
    // `*` says nothing.
    return simple.filter((test) => test.kind !== "is" || test.selectors.length > 0);
  }

  #attribute(): SimpleSelector {
    this.#at += 1;
    this.#skipSpace();
    const name = this.#name();
    this.#skipSpace();
    let operator: AttributeOperator = "exists";
    let value = "";
    let ignoresCase: boolean | undefined;
    const sign = /^(?:[~|^$*]?=)/.exec(this.#text.slice(this.#at, this.#at + 2))?.[0];
    if (sign !== undefined) {
      operator = sign as AttributeOperator;
      this.#at += sign.length;
      this.#skipSpace();
      value = this.#isQuote() ? this.#string() : this.#name();
      this.#skipSpace();
      const flag = this.#peek().toLowerCase();
      if (flag === "i" || flag === "s") {
        ignoresCase = flag === "i";
        this.#at += 1;
        this.#skipSpace();
      }
    }
    this.#expect("]");
    return { kind: "attribute", name, operator, value, ignoresCase };
  }

  #pseudo(): readonly SimpleSelector[] {
    this.#at += 1;
    if (this.#peek() === ":") {
      throw this.#fault('pseudo-elements are not known here: what is taken of an element is said by "attr"');
    }
    const name = this.#name().toLowerCase();
    const list = LISTS[name];
    const nth = NTH[name];
    if (list !== undefined) {
      this.#open(name);
      this.#nesting += 1;
      if (this.#nesting > MAX_NESTING) throw this.#fault(`is nested deeper than ${MAX_NESTING}`);
      const selectors = this.#list();
      this.#nesting -= 1;
      this.#expect(")");
      const led = list === "has" ? undefined : selectors.find(({ leading }) => leading !== undefined);
      if (led !== undefined) throw this.#fault(`":${name}()" must not begin with "${led.leading}"`);
      return [{ kind: list, selectors }];
    }
    if (nth !== undefined) {
      this.#open(name);
      return [{ kind: "nth", ...this.#formula(), ...nth }];
    }
    const places = PLACES[name];
    if (places !== undefined) {
      return places.flatMap((place) => {
        const which = NTH[place];
        return which === undefined ? [] : [{ kind: "nth" as const, step: 0, offset: 1, ...which }];
      });
    }
    if (name === "contains") {
      this.#open(name);
      this.#skipSpace();
      const text = this.#isQuote() ? this.#string() : this.#bareText();
      this.#skipSpace();
      this.#expect(")");
      if (text === "") throw this.#fault('":contains()" needs a text');
      return [{ kind: "contains", text }];
    }
    const plain = PLAIN_PSEUDOS.find((known) => known === (name === "any-link" ? "link" : name));
    if (plain === undefined) throw this.#fault(`":${name}" is not known here`);
    return [{ kind: "plain", name: plain }];
  }

  /** `odd`, `even`, `3`, `2n+1`, `-n + 3`; up to the closing parenthesis. */
  #formula(): { step: number; offset: number } {
    const end = this.#text.indexOf(")", this.#at);
    const written = this.#text.slice(this.#at, end < 0 ? undefined : end).trim();
    const formula = written.toLowerCase().replace(/[ \t\r\n\f]+/g, "");
    const found = /^(?:(?<step>[+-]?\d{0,9})n(?<plus>[+-]\d{1,9})?|(?<only>[+-]?\d{1,9}))$/.exec(
      formula === "odd" ? "2n+1" : formula === "even" ? "2n" : formula,
    );
    if (end < 0 || found?.groups === undefined) {
      throw this.#fault(`"${written}" is no place such as 3, odd or 2n+1`);
    }
    this.#at = end + 1;
    const { step = "", plus, only } = found.groups;
    if (only !== undefined) return { step: 0, offset: Number(only) };
    const factor = step === "" || step === "+" ? 1 : step === "-" ? -1 : Number(step);
    return { step: factor, offset: Number(plus ?? 0) };
  }

  #bareText(): string {
    const end = this.#text.indexOf(")", this.#at);
    if (end < 0) throw this.#fault('")" is missing');
    const text = this.#text.slice(this.#at, end).trim();
    this.#at = end;
    return text;
  }

  #string(): string {
    const quote = this.#peek();
    this.#at += 1;
    let value = "";
    for (;;) {
      const next = this.#peek();
      if (next === "") throw this.#fault(`${quote} is not closed`);
      if (next === quote) {
        this.#at += 1;
        return value;
      }
      value += this.#character();
    }
  }

  #nameAfter(): string {
    this.#at += 1;
    return this.#name();
  }

  #name(): string {
    let name = "";
    while (this.#isName()) name += this.#character();
    if (name === "") throw this.#fault("a name is missing");
    if (this.#peek() === "|" && this.#text[this.#at + 1] !== "=") {
      throw this.#fault("namespaces are not known here");
    }
    return name;
  }

  /** One character, or what an escape stands for (CSS Syntax Level 3, 4.3.7). */
  #character(): string {
    const next = this.#peek();
    this.#at += 1;
    if (next !== "\\") return next;
    const code = /^[0-9a-f]{1,6}/i.exec(this.#text.slice(this.#at, this.#at + 6))?.[0];
    if (code === undefined) {
      const escaped = this.#peek();
      if (escaped === "") throw this.#fault("ends in a backslash");
      this.#at += 1;
      return escaped;
    }
    this.#at += code.length;
    if (SPACE.test(this.#peek())) this.#at += 1;
    const point = Number.parseInt(code, 16);
    return point === 0 || point > 0x10ffff ? "\ufffd" : String.fromCodePoint(point);
  }

  #isName(): boolean {
    const next = this.#peek();
    return next === "\\" || NAME.test(next);
  }

  #isQuote(): boolean {
    return this.#peek() === '"' || this.#peek() === "'";
  }

  #open(name: string): void {
    if (this.#peek() !== "(") throw this.#fault(`":${name}" needs "("`);
    this.#at += 1;
  }

  #expect(character: string): void {
    if (this.#peek() !== character) throw this.#fault(`"${character}" is missing`);
    this.#at += 1;
  }

  #skipSpace(): boolean {
    const began = this.#at;
    while (SPACE.test(this.#peek())) this.#at += 1;
    return this.#at > began;
  }

  #peek(): string {
    return this.#text[this.#at] ?? "";
  }

  #count(): void {
    this.#parts += 1;
    if (this.#parts > MAX_PARTS) throw this.#fault(`has more than ${MAX_PARTS} parts`);
  }

  #fault(what: string): Error {
    return new Error(`${what}, at character ${this.#at + 1}`);
  }
}
