import { defineSpider, type Page } from "warren-crawler/spider";
import { z } from "zod";

const chapter = z.strictObject({
  section: z.string().min(1),
  title: z.string().min(1),
  words: z.int().min(1),
  /** The number of the chapter among all that were read, in the order in which they were. */
  number: z.int().min(1),
});

/** The chapters of the demo site: the home page lists sections, a section lists chapters. */
export default defineSpider({
  name: "chapters",
  // Where `node scripts/demo-site.mjs --port 8000` serves it; `--seed URL` says otherwise.
  seeds: ["http://127.0.0.1:8000/"],
  settings: { scope: "host", limits: { maxDepth: 3 }, politeness: { delayMs: 0 } },
  item: chapter,

  *parse(page) {
    for (const url of page.links()) {
      if (/\/\w+\/$/.test(new URL(url).pathname)) yield { request: { url, callback: "section" } };
    }
  },

  callbacks: {
    *section(page) {
      const section = page.$("h1").text();
      for (const url of page.links()) {
        const isBelow = url.startsWith(page.url) && /\/\w+$/.test(url);
        if (isBelow) yield { request: { url, callback: "chapter", meta: { section } } };
      }
    },

    async *chapter(page) {
      const number = await page.crawl.state.add("chapters");
      page.log.info({ number }, "a chapter");
      yield {
        item: {
          section: String(page.meta.section),
          title: page.$("h1").text(),
          words: wordsOf(page),
          number,
        },
      };
    },
  },

  async close({ crawl, log }) {
    log.info({ chapters: await crawl.state.get("chapters") }, "done here");
  },
});

function wordsOf(page: Page): number {
  return page
    .$("p")
    .text()
    .split(/\s+/)
    .filter((word) => word !== "").length;
}
