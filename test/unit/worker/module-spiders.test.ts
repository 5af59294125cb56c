import { writeFile } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { SpiderUnavailableError } from "../../../src/crawl/errors.js";
import { FileView } from "../../../src/crawl/pages/file-view.js";
import type { ModuleSpider } from "../../../src/worker/modules/index.js";
import { importSpider } from "../../../src/worker/modules/module-entry.js";
import { ModulesUnderTest, outputsOf } from "../../support/modules-under-test.js";
import { WILD_MODULE } from "../../support/wild-module.js";

const PATIENCE = { timeout: 10_000 };

describe("a module spider", () => {
  let modules: ModulesUnderTest;

  beforeAll(async () => {
    modules = await ModulesUnderTest.start({ pageTimeoutMs: 10_000, maxLogLines: 20, maxOutputs: 3_000 });
  });

  afterEach(() => {
    modules.lines.length = 0;
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
    await spider.stop();
  });

  it("says what it is, and what its items are like", async () => {
    const spider = await modules.load(`
      import { defineSpider } from "warren-crawler/spider";
      import { z } from "zod";
      export default defineSpider({
        name: "shop", seeds: ["http://h/"], fileTypes: ["application/pdf"], tree: "browser",
        settings: { politeness: { delayMs: 5 } },
        item: z.object({ price: z.number() }),
        *parse() {}, callbacks: { *product() {} }, open() {}, *file() {},
      });`);

    expect(spider).toMatchObject({
      name: "shop",
      version: "7",
      seeds: ["http://h/"],
      fileTypes: ["application/pdf"],
      settings: { politeness: { delayMs: 5 } },
    });
    expect(spider.describe()).toMatchObject({
      name: "shop",
      tree: "browser",
      callbacks: ["product"],
      hooks: ["file", "open"],
      itemSchema: { type: "object", properties: { price: { type: "number" } }, required: ["price"] },
    });
    expect(spider.error).toBeUndefined();
    await spider.stop();
  });

  it("has its items checked where it runs, and keeps those aside that are refused", async () => {
    const spider = await modules.load(`
      import { z } from "zod";
      export default { name: "checked", item: z.object({ price: z.coerce.number(), at: z.date().optional() }),
        *parse() {
          yield { item: { price: "5", at: new Date(7), more: 1 } };
          yield { item: { price: "five" } };
        },
        callbacks: { async *late() { for (const price of [1, "x", 2]) yield { item: { price } }; } } };`);
    const invalid = (price: string) => ({
      invalidItem: { data: { price }, reasons: [expect.stringMatching(/^price: .*number/)] },
    });

    expect(await outputsOf(spider.parse(modules.page()))).toEqual([
      { item: { price: 5, at: new Date(7) } },
      invalid("five"),
    ]);
    expect(await outputsOf(spider.callbacks.late?.(modules.page()) ?? [])).toEqual([
      { item: { price: 1 } },
      invalid("x"),
      { item: { price: 2 } },
    ]);
    await spider.stop();
  });

  it("opens and closes a crawl once in each of its processes, and is told of errors", async () => {
    const spider = await modules.load(`
      let opened = 0;
      export default { name: "hooked",
        async open({ crawl, node, log }) {
          await crawl.state.add("opened");
          opened += crawl.params.by;
          log.info({ node }, "open");
        },
        async close({ crawl, log }) { await crawl.state.add("closed"); log.info("closed"); },
        async error(error, page, { crawl }) { await crawl.state.set("error", [error.name, error.message, page.url]); },
        async *parse({ crawl: { state } }) {
          while (await state.get("opened") < 2) await new Promise((go) => setTimeout(go, 5));
          yield { item: { opened, pid: process.pid } };
        },
      };`);
    const context = modules.context("crawl", { by: 3 });
    spider.open(context);

    const pages = await Promise.all(
      Array.from({ length: 40 }, () => outputsOf(spider.parse(modules.page()))),
    );
    await spider.error?.(new RangeError("too far"), { url: "http://h/x" }, context);
    await spider.close(context);

    const items = pages.flat().map((output) => ("item" in output ? output.item : {}));
    const pids = new Set(items.map(({ pid }) => pid));
    expect(items.every(({ opened }) => opened === 3)).toBe(true);
    expect(pids.size).toBe(2);
    expect(pids).toEqual(new Set(spider.pids));
    const state = modules.state();
    expect(await state.get("opened")).toBe(2);
    expect(await state.get("closed")).toBe(2);
    expect(await state.get("error")).toEqual(["RangeError", "too far", "http://h/x"]);
    expect(modules.lines).toContainEqual(expect.objectContaining({ msg: "open", node: "node-1" }));

    // What comes later is opened anew.
    spider.open(context);
    await outputsOf(spider.parse(modules.page()));
    expect(await state.get("opened")).toBe(3);
    await spider.stop();
  });

  it("fails the page for which its crawl cannot be opened, and tries again for the next", async () => {
    const spider = await modules.load(`
      let tries = 0;
      export default { name: "opening", open() { tries += 1; if (tries === 1) throw new Error("no key"); },
        *parse() { yield { item: { tries } }; } };`);

    await expect(outputsOf(spider.parse(modules.page()))).rejects.toThrow("could not be opened: no key");
    expect(await outputsOf(spider.parse(modules.page()))).toEqual([{ item: { tries: 2 } }]);
    await spider.stop();
  });

  it("keeps values for the crawl, and is told what cannot be kept", async () => {
    await modules.state().delete("sum");
    const spider = await modules.load(`
      export default { name: "counting", async *parse({ crawl: { state } }) {
        await state.set("a", { b: [1] });
        await state.set("gone", 1);
        await state.delete("gone");
        const error = await state.set("a", () => {}).catch((error) => error);
        const large = await state.set("a", "x".repeat(20_000)).catch((error) => error);
        yield { item: { a: await state.get("a"), gone: await state.get("gone"), sum: await state.add("sum", 2),
          one: await state.add("sum"), error: error.message, code: large.code } };
      } };`);

    const [output] = await outputsOf(spider.parse(modules.page()));

    expect(output).toEqual({
      item: {
        a: { b: [1] },
        sum: 2,
        one: 3,
        error: expect.stringContaining("could not be cloned"),
        code: "CRAWL_STATE",
      },
    });
    await spider.stop();
  });

  describe("that does all kinds of things", () => {
    let spider: ModuleSpider;

    beforeAll(async () => {
      spider = await modules.load(WILD_MODULE);
    });

    afterAll(async () => await spider.stop());

    it("logs what its pages log, each with its page, and no more than so much", async () => {
      const page = (body: string) => modules.page({ url: `http://h/${body}`, body });

      await outputsOf(spider.parse(page("log 3")));
      expect(modules.lines).toEqual(
        [0, 1, 2].map((i) => expect.objectContaining({ i, msg: "line", url: "http://h/log 3" })),
      );
      modules.lines.length = 0;
      await outputsOf(spider.parse(page("log 5000")));
      expect(modules.lines).toHaveLength(21);
      expect(modules.lines.at(-1)).toMatchObject({
        level: "warn",
        msg: "4980 more lines dropped",
        dropped: 4_980,
      });
      modules.lines.length = 0;
      await outputsOf(spider.parse(page("print 200000")));
      await outputsOf(spider.parse(page("fine")));
      await expect.poll(() => modules.lines.length, PATIENCE).toBeGreaterThan(20);
      expect(modules.lines[0]).toMatchObject({ level: "info", msg: "line 0", stream: "stdout" });
      expect(modules.lines.length).toBeLessThan(100);
    });

    it("tells of a rejected promise that nobody waits for, and goes on", async () => {
      expect(await outputsOf(spider.parse(modules.page({ body: "rejected" })))).toHaveLength(1);
      expect(modules.lines).toContainEqual(
        expect.objectContaining({
          level: "error",
          msg: "a promise was rejected that nobody waits for: left alone",
          url: "http://h/dir/page",
        }),
      );
    });

    it("takes one page down with it that ends its process, and no other", async () => {
      const bodies = ["fine", "fine", "fine", "exit 3", "fine", "fine", "fine", "fine"];

      const results = await Promise.allSettled(
        bodies.map((body) => outputsOf(spider.parse(modules.page({ body })))),
      );

      expect(results.map(({ status }) => status)).toEqual(
        bodies.map((body) => (body === "fine" ? "fulfilled" : "rejected")),
      );
      expect(results[3]).toMatchObject({ reason: { message: "ended its process with exit code 3" } });
    });
  });

  it("is told when a page is given up", async () => {
    const spider = await modules.load(`
      export default { name: "told", async *parse(page) {
        await page.crawl.state.set("waits", true);
        await new Promise((go) => page.signal.addEventListener("abort", go));
        await page.crawl.state.set("reason", page.signal.reason.message);
      } };`);
    const outputs = spider.parse(modules.page());
    await expect.poll(() => modules.state().get("waits"), PATIENCE).toBe(true);

    outputs.giveUp();

    await expect(outputs.all).rejects.toThrow("the task was stopped");
    await expect.poll(() => modules.state().get("reason"), PATIENCE).toBe("the task was stopped");
    await spider.stop();
  });

  it("is shown stored files, and reads their text in the worker", async () => {
    const spider = await modules.load(`
      export default { name: "filed", *parse() {},
        async *file(file) { yield { item: { ...file, text: await file.text() } }; } };`);
    spider.open(modules.context());
    const record = {
      id: "f.0",
      crawl: "crawl",
      url: "http://h/f.txt",
      name: "f.txt",
      contentType: "text/plain",
    };
    const content = { contentId: "c", bytes: 6, sha256: "a1" };
    const file = new FileView({
      record: { ...record, ...content, at: 0 },
      url: record.url,
      foundOn: "http://h/",
      meta: { a: 1 },
      files: { open: async () => Readable.from([Buffer.from("Grüß")]) },
      documents: modules.documents,
      signal: new AbortController().signal,
    });

    expect(await outputsOf(spider.file?.(file) ?? [])).toEqual([
      {
        item: {
          ...{ url: record.url, id: "f.0", name: "f.txt", bytes: 6, sha256: "a1", contentType: "text/plain" },
          ...{ foundOn: "http://h/", meta: { a: 1 }, text: "Grüß" },
        },
      },
    ]);
    await spider.stop();
  });

  it("ends processes that have nothing to do, and closes what is open in those that it ends", async () => {
    const quick = await ModulesUnderTest.start({ idleMs: 100 });
    const spider = await quick.load(`
      export default { name: "idle", async close({ crawl }) { await crawl.state.add("closed"); },
        *parse() { yield { item: { pid: process.pid } }; } };`);
    spider.open(quick.context());
    await outputsOf(spider.parse(quick.page()));
    await spider.close(quick.context());
    await expect.poll(() => spider.pids, PATIENCE).toEqual([]);

    expect(await outputsOf(spider.parse(quick.page()))).toHaveLength(1);
    await spider.stop();
    expect(spider.pids).toEqual([]);
    expect(await quick.state().get("closed")).toBe(2);
    await quick.dispose();
  });

  it("blames no page for what one before it has left running", async () => {
    const quick = await ModulesUnderTest.start({ pageTimeoutMs: 500, processes: 1 });
    const spider = await quick.load(`
      export default { name: "late", *parse(page) {
        if (page.text() === "later") setTimeout(() => { page.crawl.state.set("loops", true); for (;;); }, 50);
        yield { item: { url: page.url } };
      } };`);
    await outputsOf(spider.parse(quick.page({ body: "later" })));
    await expect.poll(() => quick.state().get("loops"), PATIENCE).toBe(true);

    expect(await outputsOf(spider.parse(quick.page()))).toHaveLength(1);
    await quick.dispose();
  });

  it("sees nothing of the worker's environment that could be a secret", async () => {
    process.env.AMQP_URL = "amqp://user:secret@h";
    try {
      const spider = await modules.load(`
        import { readFileSync } from "node:fs";
        export default { name: "curious", *parse() {
          yield { item: { names: Object.keys(process.env), own: readFileSync("/proc/self/environ", "utf8"), cwd: process.cwd() } };
        } };`);
      const [output] = await outputsOf(spider.parse(modules.page()));
      const { names, own, cwd } = (output as { item: { names: string[]; own: string; cwd: string } }).item;
      const allowed = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "NODE_EXTRA_CA_CERTS"];
      expect(names.filter((name) => !allowed.includes(name))).toEqual([]);
      expect(own).not.toContain("secret");
      expect(cwd).toContain(modules.folder);
      await spider.stop();
    } finally {
      delete process.env.AMQP_URL;
    }
  });

  it("imports its own libraries first, and ours if it has none", async () => {
    const spider = await modules.load({
      "src/index.js": `
        import { z } from "zod";
        import { half } from "../half.mjs";
        import { createRequire } from "node:module";
        export default { name: z.own, *parse() { yield { item: { half: half(4) } }; } };`,
      "half.mjs": "export const half = (n) => n / 2;",
      "package.json": '{ "type": "module" }',
      "node_modules/zod/package.json": '{ "name": "zod", "type": "module", "exports": "./index.js" }',
      "node_modules/zod/index.js": 'export const z = { own: "their-zod" };',
    });

    expect(spider.name).toBe("their-zod");
    expect(await outputsOf(spider.parse(modules.page()))).toEqual([{ item: { half: 2 } }]);
    await spider.stop();
  });
});

describe("a module that cannot be loaded", () => {
  let modules: ModulesUnderTest;
  let impatient: ModulesUnderTest;

  beforeAll(async () => {
    modules = await ModulesUnderTest.start();
    impatient = await ModulesUnderTest.start({ loadTimeoutMs: 500 });
  });

  afterAll(async () => {
    await modules.dispose();
    await impatient.dispose();
  });

  it.each([
    ["no default export", "export const a = 1;", "it must export a spider by default"],
    ["no parse", "export default { name: 'a' };", "the spider must have a function `parse`"],
    ["no name", "export default { *parse() {} };", "the spider must have a `name`"],
    ["an odd item", "export default { name: 'a', item: {}, *parse() {} };", "Standard Schema"],
    ["an odd callback", "export default { name: 'a', callbacks: { b: 1 }, *parse() {} };", 'callback "b"'],
    ["an odd hook", "export default { name: 'a', open: 1, *parse() {} };", "`open` must be a function"],
    [
      "odd seeds",
      "export default { name: 'a', seeds: [1], *parse() {} };",
      "`seeds` must be a list of texts",
    ],
    [
      "an odd tree",
      "export default { name: 'a', tree: 'oak', *parse() {} };",
      '`tree` must be "page" or "browser"',
    ],
  ])("says what is wrong with it: %s", async (what, text, message) => {
    const entry = path.join(modules.folder, `${what.replaceAll(" ", "-")}.mjs`);
    await writeFile(entry, text);

    await expect(importSpider(entry)).rejects.toThrow(message);
  });

  const isTypeScriptRun = "typescript" in process.features && process.features.typescript !== false;

  it.skipIf(isTypeScriptRun)("says what Node is needed for TypeScript", async () => {
    const files = { "spider.ts": "export default { name: 'a' as string, *parse() {} };" };

    await expect(modules.load(files)).rejects.toThrow(
      /cannot run TypeScript; use Node 22\.18 or later, or upload what tsc/,
    );
  });

  it.runIf(isTypeScriptRun)("takes TypeScript where Node does", async () => {
    const files = {
      "spider.ts": `import { half } from "./half.ts";
        import { defineSpider } from "warren-crawler/spider";
        export default defineSpider({ name: "typed" as string, *parse() { yield { item: { half: half(4) } }; } });`,
      "half.ts": "export const half = (n: number): number => n / 2;",
    };
    const spider = await modules.load(files);

    expect(await outputsOf(spider.parse(modules.page()))).toEqual([{ item: { half: 2 } }]);
    await spider.stop();
  });

  it.each([
    ["a syntax error", "export default { name: };", /Unexpected token/, false],
    ["an import of nothing", 'import "left-pad-of-mine";', /left-pad-of-mine/, false],
    [
      "a throw at the top",
      "const a = 1;\n\nthrow new Error('at the top');",
      /at the top[\s\S]*spider\.mjs:3/,
      false,
    ],
    ["an exit at the top", "process.exit(9);", /ended its process with exit code 9/, true],
  ])("says why the process could not load it: %s", async (_what, text, message, retryable) => {
    const error = await modules.load(text).catch((thrown: unknown) => thrown);

    expect(error).toBeInstanceOf(SpiderUnavailableError);
    expect(error).toMatchObject({ code: "SPIDER_UNAVAILABLE", retryable });
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toMatch(/^spider "spider", version 7, could not be loaded: /);
  });

  it("ends a process whose module does not come to the end of its top", async () => {
    await expect(impatient.load("for (;;);")).rejects.toMatchObject({
      message: 'spider "spider", version 7, could not be loaded: was not loaded within 500 ms',
      retryable: true,
    });
  });
});
