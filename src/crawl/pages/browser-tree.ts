import type { CheerioAPI, CheerioOptions } from "cheerio";
import type { ChildNode, Document, ParentNode } from "domhandler";
import { TreeFull, type TreeLimits, untilFull } from "./page-tree.js";

type TreeAdapter = NonNullable<CheerioOptions["treeAdapter"]>;
type BrowserParser = { readonly $: CheerioAPI; readonly adapter: TreeAdapter };

/**
 * Open elements beyond which a page is not read on. The standard has a parser look through all of them at every
 * other tag: what a page may cost is this number times the number of its nodes.
 */
const MAX_OPEN_ELEMENTS = 2_048;

/** Fewer nodes than of the page's own tree, because it holds the event loop until it is built. */
export const BROWSER_TREE_DEFAULTS: TreeLimits = { maxDepth: 512, maxNodes: 200_000 };

let parser: Promise<BrowserParser> | undefined;

/**
 * The tree that a browser makes of a page (WHATWG HTML, 13.2.6), by parse5: with the `html`, `body` and `tbody` that
 * the page left out, and everything where its rules put it. The parser is loaded at the first use. Costs about
 * four times what `buildTree` does; cannot be built in slices.
 */
export async function buildBrowserTree(text: string, limits: TreeLimits): Promise<Document> {
  parser ??= loadParser();
  const { $, adapter } = await parser;
  const bounded = new BoundedAdapter(adapter, limits);
  const options: CheerioOptions = { treeAdapter: bounded.adapter, scriptingEnabled: false };
  untilFull(() => $.prototype._parse(text, options as never, true, null));
  return bounded.root;
}

/** Cheerio brings parse5 and its adapter, and hands neither out: it fills the adapter in where options have none. */
async function loadParser(): Promise<BrowserParser> {
  const { load } = await import("cheerio");
  const $ = load("");
  const options: CheerioOptions = {};
  $.prototype._parse("", options as never, true, null);
  if (options.treeAdapter === undefined) throw new Error("cheerio does not say how it builds its trees");
  return { $, adapter: options.treeAdapter };
}

/** Builds a tree that no page can make too deep or too big, nor its making too dear. */
class BoundedAdapter {
  readonly adapter: TreeAdapter;
  readonly #base: TreeAdapter;
  readonly #limits: TreeLimits;
  #root: Document | undefined;
  #nodes = 0;
  #open = 0;

  constructor(base: TreeAdapter, limits: TreeLimits) {
    this.#base = base;
    this.#limits = limits;
    this.adapter = {
      ...base,
      createDocument: () => {
        const document = base.createDocument();
        this.#root ??= document;
        return document;
      },
      createElement: (name, namespace, attributes) => {
        this.#count();
        return base.createElement(name, namespace, attributes);
      },
      createCommentNode: (data) => {
        this.#count();
        return base.createCommentNode(data);
      },
      appendChild: (parent, node) => base.appendChild(this.#placeIn(parent), node),
      insertText: (parent, text) => {
        const place = this.#placeIn(parent);
        if (place.lastChild?.type !== "text") this.#count();
        base.insertText(place, text);
      },
      insertBefore: (parent, node, reference) => insertBefore(parent, node, reference),
      insertTextBefore: (parent, text, reference) => {
        const { prev } = reference;
        if (prev?.type === "text") {
          prev.data += text;
          return;
        }
        this.#count();
        insertBefore(parent, base.createTextNode(text), reference);
      },
      detachNode: (node) => detach(node),
      onItemPush: () => {
        this.#open += 1;
        if (this.#open > MAX_OPEN_ELEMENTS) throw new TreeFull();
      },
      onItemPop: () => {
        this.#open -= 1;
      },
    };
  }

  get root(): Document {
    this.#root ??= this.#base.createDocument();
    return this.#root;
  }

  #count(): void {
    this.#nodes += 1;
    if (this.#nodes > this.#limits.maxNodes) throw new TreeFull();
  }

  /** Where something goes that belongs into `parent`: not there if that is too deep, but beside it. */
  #placeIn(parent: ParentNode): ParentNode {
    const { maxDepth } = this.#limits;
    // Nothing is deeper than twice the number of open elements: a template's content is a level of its own.
    if (this.#open * 2 <= maxDepth) return parent;
    let depth = 0;
    for (let place = parent.parent; place !== null; place = place.parent) depth += 1;
    let place = parent;
    for (; depth > maxDepth && place.parent !== null; depth -= 1) place = place.parent;
    return place;
  }
}

/** Looks for the reference from the end, where it is in a page of any kind: each search for it from the start costs the square. */
function insertBefore(parent: ParentNode, node: ChildNode, reference: ChildNode): void {
  const { prev } = reference;
  if (prev !== null) prev.next = node;
  node.prev = prev;
  reference.prev = node;
  node.next = reference;
  parent.children.splice(parent.children.lastIndexOf(reference), 0, node);
  node.parent = parent;
}

function detach(node: ChildNode): void {
  const { parent, prev, next } = node;
  if (parent === null) return;
  if (prev !== null) prev.next = next;
  if (next !== null) next.prev = prev;
  node.prev = null;
  node.next = null;
  node.parent = null;
  parent.children.splice(parent.children.lastIndexOf(node), 1);
}
