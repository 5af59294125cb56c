import type { Article } from "../spider.js";
import { buildBrowserTree } from "./browser-tree.js";
import { DOCUMENT_BOUNDS } from "./document-job.js";
import { selectorOver } from "./page-tree.js";
import { VisibleText } from "./visible-text.js";

/** Nothing of these is read, and some of them are long. */
const UNREAD = "script, style, noscript, template, iframe, object, embed, svg, canvas, link";

/**
 * The article of a page as a browser's reader view has it, by Mozilla's Readability; undefined if it finds none.
 * May take seconds: for a thread that can be ended.
 */
export async function readArticle(text: string, url: string): Promise<Article | undefined> {
  const { Readability } = await import("@mozilla/readability");
  const document = await documentOf(text, url, "noscript, iframe, object, embed, canvas");
  const found = new Readability(document, { maxElemsToParse: DOCUMENT_BOUNDS.maxNodes }).parse();
  const content = found?.content ?? "";
  // Readability's own text runs paragraphs into each other.
  const plain = new VisibleText(content).read();
  if (found == null || plain === "") return undefined;
  return {
    title: found.title?.trim() ?? "",
    ...given("byline", found.byline),
    ...given("published", found.publishedTime),
    ...given("lang", found.lang),
    ...given("siteName", found.siteName),
    ...given("excerpt", found.excerpt),
    text: plain,
    html: content,
    markdown: await markdownOf(content),
  };
}

/** Markdown of the page's article, or of all that it shows if it has none. */
export async function writeMarkdown(text: string, url: string): Promise<string> {
  const article = await readArticle(text, url);
  if (article !== undefined) return article.markdown;
  const document = await documentOf(text, url, UNREAD);
  return markdownOf(document.body?.innerHTML ?? "");
}

/** A document that no page can make too deep or too big, with its links absolute. */
async function documentOf(text: string, url: string, unwanted: string) {
  const { maxMarkup, maxNodes, maxDepth } = DOCUMENT_BOUNDS;
  // Readability expects what a browser would give it: many pages leave out their `body`.
  const tree = await buildBrowserTree(text.slice(0, maxMarkup), { maxNodes, maxDepth });
  const $ = selectorOver(tree);
  $(unwanted).remove();
  const stated = $("base[href]").attr("href") ?? "";
  const base = URL.canParse(stated, url) ? new URL(stated, url).href : url;
  for (const [selector, name] of [
    ["a[href]", "href"],
    ["img[src]", "src"],
  ] as const) {
    $(selector).each((_index, element) => {
      const value = $(element).attr(name) ?? "";
      if (URL.canParse(value, base)) $(element).attr(name, new URL(value, base).href);
    });
  }
  const { parseHTML } = await import("linkedom");
  return parseHTML($.html()).document;
}

async function markdownOf(html: string): Promise<string> {
  const [{ default: Turndown }, { parseHTML }] = await Promise.all([import("turndown"), import("linkedom")]);
  const { document } = parseHTML(`<html><body><div id="root">${html}</div></body></html>`);
  const turndown = new Turndown({ headingStyle: "atx", codeBlockStyle: "fenced", bulletListMarker: "-" });
  const root = document.getElementById("root");
  return root === null ? "" : turndown.turndown(root).trim();
}

function given<Name extends string>(
  name: Name,
  value: string | null | undefined,
): Partial<Record<Name, string>> {
  const text = value?.trim() ?? "";
  return text === "" ? {} : ({ [name]: text.slice(0, 1_000) } as Partial<Record<Name, string>>);
}
