import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defineSpider } from "../../../src/crawl/spider.js";
import { documentsUnderTest, pdfOf } from "../../support/documents-under-test.js";
import { crawlStandalone } from "../../support/standalone-under-test.js";
import { WildSite } from "../../support/wild-site.js";

let site: WildSite;
const documents = documentsUnderTest();
beforeAll(async () => {
  site = await WildSite.start();
});
afterAll(async () => {
  await site.close();
  await documents.stop();
});

const paragraph =
  "<p>This is a paragraph of the story, with commas, and long enough to be read by someone.</p>";
const PDF = pdfOf(["BT /F1 24 Tf 72 700 Td (Hello world) Tj ET"]);

describe("the spider `article`", () => {
  it("follows links, and yields one item for each page with an article", async () => {
    site.page("/", '<p><a href="/story">story</a><a href="/none">none</a>');
    site.page("/none", "<p>");
    site.page(
      "/story",
      `<html lang="en"><title>Story</title><meta name="author" content="Ann">
       <script type="application/ld+json">{"datePublished":"2026-01-02"}</script>
       <article>${paragraph.repeat(8)}</article>`,
    );
    const { items, counts } = await crawlStandalone({ spider: "article", seeds: [site.url] }, { documents });
    expect(counts).toMatchObject({ done: 3, failed: 0 });
    const stories = items.filter(({ url }) => url.endsWith("/story"));
    expect(stories).toHaveLength(1);
    expect(stories[0]?.data).toMatchObject({
      title: "Story",
      byline: "Ann",
      published: "2026-01-02",
      lang: "en",
    });
    expect(stories[0]?.data.text).toContain("a paragraph of the story");
    expect(items.some(({ url }) => url.endsWith("/none"))).toBe(false);
  });

  it("goes on past a page whose article takes too long, and says so", async () => {
    site.page("/", '<p><a href="/long">long</a>');
    site.page("/long", "<br>".repeat(50_000));
    const impatient = documentsUnderTest({ timeoutMs: 1 });
    try {
      const { counts, log } = await crawlStandalone(
        { spider: "article", seeds: [site.url] },
        { documents: impatient },
      );
      expect(counts).toMatchObject({ done: 2, failed: 0 });
      expect(log.filter(({ msg }) => msg === "page without its article")).toHaveLength(2);
    } finally {
      await impatient.stop();
    }
  });
});

describe("a spider", () => {
  it("has the text of a PDF that was stored", async () => {
    site.page("/", '<a href="/a.pdf">a</a><a href="/b.pdf">b</a>');
    site.page("/a.pdf", { body: PDF, headers: { "content-type": "application/pdf" } });
    site.page("/b.pdf", { body: PDF.subarray(0, 200), headers: { "content-type": "application/pdf" } });
    const reader = defineSpider({
      name: "reader",
      fileTypes: ["application/pdf"],
      *parse(page) {
        for (const url of page.links()) yield { file: url };
      },
      async *file(file) {
        const text = await file.text().catch((error: { reason?: string }) => error.reason);
        yield { item: { name: file.name, text, foundOn: file.foundOn } };
      },
    });
    const { items } = await crawlStandalone(
      { spider: "reader", seeds: [site.url] },
      { spiders: [reader], documents },
    );
    const byName = items.map(({ data }) => data).sort((a, b) => (String(a.name) < String(b.name) ? -1 : 1));
    expect(byName).toEqual([
      { name: "a.pdf", text: "Hello world", foundOn: site.url },
      { name: "b.pdf", text: "broken", foundOn: site.url },
    ]);
  });

  it("has the tree that it declares, its text and its metadata, on pages big and small", async () => {
    const rows = "<tr><td>cell</td></tr>".repeat(1_000);
    site.page("/", `<title>Rows</title><meta name=description content=many><table>${rows}</table>`);
    for (const bigPageBytes of [1_024, 1_048_576]) {
      for (const tree of ["page", "browser"] as const) {
        const reader = defineSpider({
          name: "reader",
          tree,
          *parse(page) {
            const { description } = page.metadata();
            const lines = page.visibleText().split("\n").length;
            yield { item: { title: page.title, bodies: page.$("tbody").length, description, lines } };
          },
        });
        const { items } = await crawlStandalone(
          { spider: "reader", seeds: [site.url] },
          { spiders: [reader], limits: { bigPageBytes }, documents },
        );
        const bodies = tree === "browser" ? 1 : 0;
        expect(items.map(({ data }) => data)).toEqual([
          { title: "Rows", bodies, description: "many", lines: 1_000 },
        ]);
      }
    }
  });
});
