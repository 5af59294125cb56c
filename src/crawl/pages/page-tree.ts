import type { Cheerio, CheerioAPI } from "cheerio";
import { load } from "cheerio/slim";
import { type AnyNode, type ChildNode, type Document, DomHandler, Element } from "domhandler";
import { Parser } from "htmlparser2";
import { SLICE_CHARACTERS, type TimeSlices } from "./time-slices.js";

export type TreeLimits = {
  /** Elements inside each other; deeper ones become siblings. Browsers stop at 512 as well. @default 512 */
  readonly maxDepth: number;
  /** Elements, texts and comments in all; what comes after them is left out. @default 500_000 */
  readonly maxNodes: number;
};

export const TREE_DEFAULTS: TreeLimits = { maxDepth: 512, maxNodes: 500_000 };

/** Open elements beyond which a page is not read on: the parser's own list of them costs the square. */
const MAX_OPEN_ELEMENTS = 8_192;

/** Ends the parsing of a page whose tree is as big as it may get. */
export class TreeFull extends Error {}

/** Builds a tree that no page can make too deep or too big. */
class BoundedDomHandler extends DomHandler {
  readonly #limits: TreeLimits;
  #nodes = 0;
  /** Open elements that are not on the stack, because it is full. */
  #flattened = 0;

  constructor(limits: TreeLimits) {
    super();
    this.#limits = limits;
  }

  override onopentag(name: string, attributes: Record<string, string>): void {
    if (this.#flattened === 0 && this.tagStack.length <= this.#limits.maxDepth) {
      super.onopentag(name, attributes);
      return;
    }
    this.#flattened += 1;
    if (this.#flattened > MAX_OPEN_ELEMENTS) throw new TreeFull();
    this.addNode(new Element(name, attributes));
  }

  override onclosetag(): void {
    if (this.#flattened === 0) {
      super.onclosetag();
      return;
    }
    this.#flattened -= 1;
    this.lastNode = null;
  }

  protected override addNode(node: ChildNode): void {
    this.#nodes += 1;
    if (this.#nodes > this.#limits.maxNodes) throw new TreeFull();
    super.addNode(node);
    // Whatever follows is not part of this text.
    if (node instanceof Element) this.lastNode = null;
  }
}

/** The tree of a page, as htmlparser2 reads it: what the page says, without the elements it left out. */
export function buildTree(text: string, limits: TreeLimits): Document {
  const handler = new BoundedDomHandler(limits);
  const parser = new Parser(handler);
  untilFull(() => parser.end(text));
  return handler.root;
}

/** The same tree, built with rests. */
export async function buildTreeInSlices(
  text: string,
  limits: TreeLimits,
  slices: TimeSlices,
): Promise<Document> {
  const handler = new BoundedDomHandler(limits);
  const parser = new Parser(handler);
  for (let at = 0; at < text.length; at += SLICE_CHARACTERS) {
    if (untilFull(() => parser.write(text.slice(at, at + SLICE_CHARACTERS)))) return handler.root;
    await slices.rest();
  }
  untilFull(() => parser.end());
  return handler.root;
}

/** @returns whether the tree was full before the end */
export function untilFull(parse: () => void): boolean {
  try {
    parse();
    return false;
  } catch (error) {
    if (!(error instanceof TreeFull)) throw error;
    return true;
  }
}

/**
 * Cheerio's `$`, made once: `load` makes a class and a dozen closures each time, which costs more than many
 * a page's tree and keeps the tree alive for longer. Written as HTML, with characters as themselves.
 */
const shared: CheerioAPI = load("", { xml: { xmlMode: false, encodeEntities: "utf8" } });

// A selector given to a method (`add`, `index`, `appendTo`, …) is looked up in the page of the selection it is
// called on; as cheerio has it, it would be in the shared, empty document.
shared.fn._make = function make<T>(
  this: Cheerio<unknown>,
  dom: ArrayLike<T> | T | string,
  context?: Parameters<CheerioAPI>[1],
): Cheerio<T> {
  const made = shared(dom as string, context, this._root ?? undefined) as unknown as Cheerio<T>;
  made.prevObject = this;
  return made;
};

/** A `$` over one tree, of either kind, which behaves as if the tree had been loaded into it. */
export function selectorOver(tree: Document): CheerioAPI {
  const root: Cheerio<Document> = shared(tree);
  root._root = root;
  const select = (
    selector?: Parameters<CheerioAPI>[0],
    context?: Parameters<CheerioAPI>[1],
    otherRoot?: Parameters<CheerioAPI>[2],
    options?: Parameters<CheerioAPI>[3],
  ): Cheerio<AnyNode> => shared(selector, context, otherRoot ?? root, options);
  const { html, xml, text, parseHTML, contains, merge, extract, fn, _options } = shared;
  return Object.assign(select, {
    html,
    xml,
    text,
    parseHTML,
    root: shared.root,
    contains,
    merge,
    extract,
    load: shared.load,
    fn,
    prototype: fn,
    _root: tree,
    _options,
  }) as unknown as CheerioAPI;
}
