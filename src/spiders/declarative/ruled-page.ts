import { Document, isTag } from "domhandler";
import type { Page } from "../../crawl/spider.js";
import { canonicalUrl } from "../../crawl/urls/url.js";
import type { PageFact } from "./declaration.js";
import { folded } from "./element-text.js";
import { jsonLdOf } from "./json-path.js";
import { PageBudget } from "./page-budget.js";
import { attributeOf, below, type Scope } from "./selector.js";
import { TreeIndex } from "./tree-index.js";

/** A page as rules look at it: its tree, its base URL, its facts, and what may be spent on it. */
export class RuledPage {
  readonly page: Page;
  readonly budget = new PageBudget();
  #root: Document | undefined;
  #index: TreeIndex | undefined;
  #base: string | undefined;

  constructor(page: Page) {
    this.page = page;
  }

  /** Of what is no markup, an empty one. */
  get root(): Document {
    this.#root ??= isMarkup(this.page.headers["content-type"]) ? documentOf(this.page) : new Document([]);
    return this.#root;
  }

  get index(): TreeIndex {
    this.#index ??= new TreeIndex(this.root, this.budget);
    return this.#index;
  }

  /** An http(s) URL as it is fetched; undefined if it is none. */
  absolute(href: string): string | undefined {
    this.#base ??= this.#readBase();
    return canonicalUrl(href.trim(), this.#base)?.url;
  }

  htmlOf(scope: Scope, isOuter: boolean): string {
    const { $ } = this.page;
    const html = isOuter || !isTag(scope) ? $.html(scope) : ($(scope).html() ?? "");
    this.budget.spend(Math.ceil(html.length / 4));
    return html;
  }

  fact(name: PageFact): unknown {
    const { page } = this;
    switch (name) {
      case "url":
        return page.url;
      case "status":
        return page.status;
      case "depth":
        return page.depth;
      case "contentType":
        return page.headers["content-type"];
      case "title":
        return page.title === "" ? undefined : page.title;
      case "text":
        return folded(page.visibleText(), this.budget);
      default:
        return page.metadata()[name];
    }
  }

  jsonLd(type: string | undefined): unknown {
    return jsonLdOf(this.page.metadata().jsonLd, type);
  }

  #readBase(): string {
    const { url } = this.page;
    for (const element of below(this.root, this.budget)) {
      // It is for the head; who looked for it in all of a page without one would look at all of it.
      if (element.name === "body") break;
      const href = element.name === "base" ? attributeOf(element, "href") : undefined;
      if (href !== undefined) return canonicalUrl(href.trim(), url)?.url ?? url;
    }
    return url;
  }
}

function isMarkup(contentType: string | undefined): boolean {
  if (contentType === undefined) return true;
  const type = contentType.split(";", 1)[0]?.trim().toLowerCase() ?? "";
  return type === "" || /^text\/(?:html|xml|plain)$|^application\/(?:xhtml\+xml|xml)$|\+xml$/.test(type);
}

function documentOf(page: Page): Document {
  const [root] = page.$.root().get();
  return root ?? new Document([]);
}
