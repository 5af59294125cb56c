import { Tokenizer } from "htmlparser2";
import type { PageMetadata } from "../spider.js";

const MAX_SCRIPTS = 100;
const MAX_SCRIPT_CHARACTERS = 262_144;
const MAX_JSON_DEPTH = 64;
const MAX_PROPERTIES = 200;
const MAX_VALUE_CHARACTERS = 10_000;
const READ = new Set(["html", "meta", "link", "title", "script"]);
const ATTRIBUTES = new Set([
  "lang",
  "xml:lang",
  "rel",
  "href",
  "property",
  "name",
  "http-equiv",
  "content",
  "type",
]);
const LONGEST_NAME = 6;
const MAX_ATTRIBUTE_NAME = 16;
/** A language tag (RFC 5646), by its outline. */
const LANGUAGE = /^[a-z]{2,8}(?:-[a-z0-9]{1,8}){0,5}$/i;

export type MetadataInput = {
  readonly text: string;
  /** What a relative canonical URL is relative to. */
  readonly url: string;
  /** `content-language`, if the response has it. */
  readonly language: string | undefined;
};

/** Reads what a page says of itself, in one pass without a tree. Every count and length has a bound. */
export function readMetadata({ text, url, language }: MetadataInput): PageMetadata {
  const openGraph = new Map<string, string>();
  const twitter = new Map<string, string>();
  const named = new Map<string, string>();
  const jsonLd: unknown[] = [];
  let title: string | undefined;
  let lang: string | undefined;
  let canonical: string | undefined;
  let script: string[] | undefined;
  let scriptLength = 0;
  let scripts = 0;
  let titleParts: string[] | undefined;
  const reader = new ElementReader(text, {
    onopentag(name, attributes) {
      if (name === "html") lang ??= attributes.lang ?? attributes["xml:lang"];
      else if (name === "meta") takeMeta(attributes, { openGraph, twitter, named });
      else if (name === "link") {
        const { rel, href } = attributes;
        if (canonical === undefined && href !== undefined && /(?:^|\s)canonical(?:\s|$)/i.test(rel ?? "")) {
          canonical = absolute(href, url);
        }
      } else if (name === "title") titleParts = title === undefined ? [] : undefined;
      else if (name === "script") {
        const isJsonLd = /^\s*application\/ld\+json\s*(?:;|$)/i.test(attributes.type ?? "");
        script = isJsonLd && scripts < MAX_SCRIPTS ? [] : undefined;
        scriptLength = 0;
      }
    },
    ontext(from, start, end) {
      if (titleParts !== undefined && titleParts.length < MAX_PROPERTIES)
        titleParts.push(from.slice(start, end));
      if (script === undefined) return;
      scriptLength += end - start;
      if (scriptLength <= MAX_SCRIPT_CHARACTERS) script.push(from.slice(start, end));
    },
    onclosetag(name) {
      if (name === "title" && titleParts !== undefined) {
        title = shortened(titleParts.join(""));
        titleParts = undefined;
      }
      if (name !== "script" || script === undefined) return;
      const parsed = scriptLength <= MAX_SCRIPT_CHARACTERS ? parseJsonLd(script.join("")) : undefined;
      script = undefined;
      if (parsed === undefined) return;
      scripts += 1;
      jsonLd.push(parsed);
    },
  });
  reader.read();
  const facts = factsOf(jsonLd);
  const found = {
    title: title || openGraph.get("title") || twitter.get("title"),
    description: named.get("description") || openGraph.get("description") || twitter.get("description"),
    canonical,
    language: languageOf(lang) ?? languageOf(named.get("content-language")) ?? languageOf(language),
    author: named.get("author") || named.get("article:author") || facts.author,
    published: named.get("article:published_time") || facts.published || named.get("date"),
    modified: named.get("article:modified_time") || facts.modified || named.get("last-modified"),
  };
  return {
    ...withoutUndefined(found),
    openGraph: Object.fromEntries(openGraph),
    twitter: Object.fromEntries(twitter),
    jsonLd,
  };
}

type Taken = {
  readonly openGraph: Map<string, string>;
  readonly twitter: Map<string, string>;
  readonly named: Map<string, string>;
};

function takeMeta(attributes: Readonly<Record<string, string>>, { openGraph, twitter, named }: Taken): void {
  const name = (attributes.property ?? attributes.name ?? attributes["http-equiv"])?.trim().toLowerCase();
  const { content } = attributes;
  if (name === undefined || content === undefined || name.length > 100) return;
  const isOpenGraph = name.startsWith("og:");
  const [map, key] = isOpenGraph
    ? [openGraph, name.slice(3)]
    : name.startsWith("twitter:")
      ? [twitter, name.slice(8)]
      : [named, name];
  if (key === "__proto__" || map.has(key) || map.size >= MAX_PROPERTIES) return;
  map.set(key, shortened(content));
}

function shortened(value: string): string {
  return value.slice(0, MAX_VALUE_CHARACTERS).replace(/\s+/g, " ").trim();
}

function absolute(href: string, url: string): string | undefined {
  return URL.canParse(href, url) ? new URL(href, url).href : undefined;
}

function languageOf(stated: string | undefined): string | undefined {
  const first = stated?.slice(0, 100).split(",")[0]?.trim().replaceAll("_", "-");
  return first !== undefined && LANGUAGE.test(first) ? first : undefined;
}

/** Its JSON, if it is that and no deeper than it may be: what comes after must be able to go through it. */
function parseJsonLd(text: string): unknown {
  let depth = 0;
  let isString = false;
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index];
    if (isString) {
      if (character === "\\") index += 1;
      else if (character === '"') isString = false;
    } else if (character === '"') isString = true;
    else if (character === "{" || character === "[") {
      depth += 1;
      if (depth > MAX_JSON_DEPTH) return undefined;
    } else if (character === "}" || character === "]") depth -= 1;
  }
  try {
    // Some wrap it in a comment, as scripts once were.
    return JSON.parse(
      text.replace(/^\s*(?:<!--|\/\*<!\[CDATA\[\*\/)|(?:-->|\/\*\]\]>\*\/)\s*$/g, ""),
    ) as unknown;
  } catch {
    return undefined;
  }
}

type Facts = { author?: string; published?: string; modified?: string };

/** What JSON-LD says of an article (schema.org), wherever in it that stands. */
function factsOf(jsonLd: readonly unknown[]): Facts {
  const facts: Facts = {};
  const open: unknown[] = [...jsonLd].reverse();
  for (let looked = 0; open.length > 0 && looked < 10_000; looked += 1) {
    const value = open.pop();
    if (Array.isArray(value)) {
      for (const one of value.slice(0, 1_000).reverse()) open.push(one);
      continue;
    }
    if (typeof value !== "object" || value === null) continue;
    const {
      author,
      datePublished,
      dateModified,
      "@graph": graph,
    } = value as Readonly<Record<string, unknown>>;
    const name = nameOf(author);
    if (name !== undefined) facts.author ??= name;
    if (typeof datePublished === "string") facts.published ??= shortened(datePublished);
    if (typeof dateModified === "string") facts.modified ??= shortened(dateModified);
    if (graph !== undefined) open.push(graph);
  }
  return facts;
}

function nameOf(author: unknown): string | undefined {
  const first: unknown = Array.isArray(author) ? author[0] : author;
  if (typeof first === "string") return shortened(first) || undefined;
  if (typeof first !== "object" || first === null || !("name" in first)) return undefined;
  return typeof first.name === "string" ? shortened(first.name) || undefined : undefined;
}

type Given = { readonly [Name in keyof PageMetadata]?: PageMetadata[Name] | undefined };

function withoutUndefined(given: Given): Partial<PageMetadata> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== ""));
}

/** Hands on the few elements that are wanted: how they lie in each other is of no interest, and depth costs nothing. */
class ElementReader {
  readonly #text: string;
  readonly #handler: ElementHandler;
  #element: string | undefined;
  #attributes: Record<string, string> = {};
  #attribute: string | undefined;
  #value = "";

  constructor(text: string, handler: ElementHandler) {
    this.#text = text;
    this.#handler = handler;
  }

  read(): void {
    const tokenizer = new Tokenizer({ xmlMode: false, decodeEntities: true }, this);
    tokenizer.write(this.#text);
    tokenizer.end();
  }

  onopentagname(start: number, end: number): void {
    const name = end - start > LONGEST_NAME ? "" : this.#text.slice(start, end).toLowerCase();
    this.#element = READ.has(name) ? name : undefined;
    this.#attributes = {};
  }

  onattribname(start: number, end: number): void {
    if (this.#element === undefined) return;
    const name = this.#text.slice(start, Math.min(end, start + MAX_ATTRIBUTE_NAME)).toLowerCase();
    this.#attribute = ATTRIBUTES.has(name) && this.#attributes[name] === undefined ? name : undefined;
    this.#value = "";
  }

  onattribdata(start: number, end: number): void {
    if (this.#element !== undefined && this.#attribute !== undefined)
      this.#value += this.#text.slice(start, end);
  }

  onattribentity(codepoint: number): void {
    if (this.#attribute !== undefined) this.#value += String.fromCodePoint(codepoint);
  }

  onattribend(): void {
    if (this.#element !== undefined && this.#attribute !== undefined) {
      this.#attributes[this.#attribute] = this.#value;
    }
    this.#attribute = undefined;
  }

  onopentagend(): void {
    if (this.#element !== undefined) this.#handler.onopentag(this.#element, this.#attributes);
    this.#element = undefined;
  }

  onselfclosingtag(): void {
    this.onopentagend();
  }

  onclosetag(start: number, end: number): void {
    if (end - start <= LONGEST_NAME) this.#handler.onclosetag(this.#text.slice(start, end).toLowerCase());
  }

  ontext(start: number, end: number): void {
    this.#handler.ontext(this.#text, start, end);
  }

  ontextentity(codepoint: number): void {
    const character = String.fromCodePoint(codepoint);
    this.#handler.ontext(character, 0, character.length);
  }

  oncdata(): void {}
  oncomment(): void {}
  ondeclaration(): void {}
  onprocessinginstruction(): void {}
  onend(): void {}
}

type ElementHandler = {
  onopentag(name: string, attributes: Readonly<Record<string, string>>): void;
  ontext(text: string, start: number, end: number): void;
  onclosetag(name: string): void;
};
