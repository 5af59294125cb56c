import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ModulesUnderTest, outputsOf } from "../../support/modules-under-test.js";

describe("a module spider", () => {
  let modules: ModulesUnderTest;

  beforeAll(async () => {
    modules = await ModulesUnderTest.start({ pageTimeoutMs: 10_000 });
  });

  afterAll(async () => await modules.dispose());

  it("sees a page as it would in the worker", async () => {
    const spider = await modules.load(`
      export default { name: "facts", async *parse(page) {
        yield { item: {
          url: page.url, status: page.status, depth: page.depth, rendered: page.rendered, header: page.headers["x-own"],
          title: page.title, heading: page.$("h1").text(), text: page.text().length, bytes: page.body.length,
          visible: page.visibleText(), language: page.metadata().language, meta: page.meta,
          crawl: page.crawl.id, params: page.crawl.params, isAborted: page.signal.aborted,
          markdown: await page.markdown(),
        } };
        for (const link of page.links()) yield { request: { url: link, meta: { from: page.url } } };
        yield { file: "/a.pdf" };
      } };`);
    const body =
      '<html lang=de><title>T</title><h1>Héad</h1><p>Some text</p><a href="x">x</a><a href=/y>y</a>';
    const page = modules.page({ body, meta: { a: [1, { b: null }] }, params: { p: 1 } });

    const [first, ...others] = await outputsOf(spider.parse(page));

    expect(first).toEqual({
      item: {
        url: "http://h/dir/page",
        status: 200,
        depth: 1,
        rendered: false,
        header: "yes",
        title: "T",
        heading: "Héad",
        text: body.length,
        bytes: Buffer.byteLength(body),
        visible: page.visibleText(),
        language: "de",
        meta: { a: [1, { b: null }] },
        crawl: "crawl",
        params: { p: 1 },
        isAborted: false,
        markdown: await page.markdown(),
      },
    });
    expect(others).toEqual([
      { request: { url: "http://h/dir/x", meta: { from: "http://h/dir/page" } } },
      { request: { url: "http://h/y", meta: { from: "http://h/dir/page" } } },
      { file: "/a.pdf" },
    ]);
  });
});
