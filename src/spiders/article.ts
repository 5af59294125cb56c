import { defineSpider } from "../crawl/spider.js";

export type ArticleItem = {
  title: string;
  byline?: string;
  /** As the page states it, mostly in ISO 8601. */
  published?: string;
  lang?: string;
  text: string;
  markdown: string;
};

/** Has its kind of error told by its code, so that no class of the engine is needed here. */
function isUnreadable(error: unknown): error is Error {
  return error instanceof Error && "code" in error && error.code === "DOCUMENT";
}

/** Follows every link in scope; one item for each page that has an article. */
export const article = defineSpider<ArticleItem>({
  name: "article",
  async *parse(page) {
    for (const url of page.links()) yield { request: url };
    const found = await page.article().catch((error: unknown) => {
      if (!isUnreadable(error) || page.signal.aborted) throw error;
      page.log.warn({ error: error.message }, "page without its article");
      return undefined;
    });
    if (found === undefined) return;
    const { title, text, markdown } = found;
    const { author, published = found.published, language = found.lang } = page.metadata();
    const byline = found.byline ?? author;
    yield {
      item: {
        title: title === "" ? page.title : title,
        ...(byline !== undefined && { byline }),
        ...(published !== undefined && { published }),
        ...(language !== undefined && { lang: language }),
        text,
        markdown,
      },
    };
  },
});
