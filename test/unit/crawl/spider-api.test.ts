import type { ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import type { EngineDeps } from "../../../src/crawl/engine.js";
import { SpiderUnavailableError } from "../../../src/crawl/errors.js";
import type { TaskLimits } from "../../../src/crawl/limits.js";
import { defineSpider, type Spider, type SpiderOutput } from "../../../src/crawl/spider.js";
import type { SpiderCatalog } from "../../../src/crawl/spider-catalog.js";
import { createLogger } from "../../../src/lib/logger.js";
import { EngineUnderTest } from "../../support/engine-under-test.js";
import { crawlStandalone } from "../../support/standalone-under-test.js";

let under: EngineUnderTest | undefined;

afterEach(async () => {
  await under?.dispose();
  under = undefined;
});

/** An engine whose only spider is this one, called `own`, and a server with a page at `/`. */
async function engineWith(
  spiders: Spider | SpiderCatalog,
  limits: Partial<TaskLimits> = {},
  parts: Partial<EngineDeps> = {},
) {
  const catalog: SpiderCatalog =
    "get" in spiders ? spiders : { get: (name) => (name === spiders.name ? spiders : undefined) };
  under = await EngineUnderTest.start(limits, { ...parts, spiders: catalog });
  under.answers.set("/", (_, response) => {
    response.setHeader("content-type", "text/html").end("<title>Home</title><a href=/a>A</a>");
  });
  const crawl = under.crawl({ spider: "own" });
  return { engine: under, crawl, task: under.task("/") };
}

/** A spider that yields this on every page. */
function yielding(outputs: readonly SpiderOutput[], about: Partial<Spider> = {}): Spider {
  return { name: "own", parse: () => outputs, ...about };
}

describe("where a spider comes from", () => {
  it("may take time, and the version that the crawl stays with is asked for", async () => {
    const asked: unknown[] = [];
    const { engine, crawl, task } = await engineWith({
      get: async (name, version) => {
        asked.push([name, version]);
        return yielding([{ item: { a: 1 } }]);
      },
    });

    const { items } = await engine.run(task, { ...crawl, spiderVersion: "3" });

    expect(items).toMatchObject([{ spider: "own", data: { a: 1 } }]);
    expect(asked).toEqual([["own", "3"]]);
  });

  it("is not asked for the crawl's version of a spider that the request names instead", async () => {
    const asked: unknown[] = [];
    const { engine, crawl, task } = await engineWith({
      get: (name, version) => {
        asked.push([name, version]);
        return yielding([]);
      },
    });

    await engine.run({ ...task, request: { spider: "other" } }, { ...crawl, spiderVersion: "3" });

    expect(asked).toEqual([["other", undefined]]);
  });

  it("hands a page back untouched while the code cannot be had, and gives it up at the third attempt", async () => {
    const { engine, crawl, task } = await engineWith({
      get: () => Promise.reject(new SpiderUnavailableError("its bundle is still on the way")),
    });

    const first = await engine.run(task, crawl);
    const third = await engine.run({ ...task, attempts: 2 }, crawl);

    expect(first.ending).toMatchObject({
      state: "queued",
      attempts: 1,
      reason: "its bundle is still on the way",
    });
    const { ending, end } = first;
    expect(ending.state === "queued" && ending.readyAt - end.endedAt).toBe(5_000);
    expect(end).toMatchObject({ untouched: true });
    expect(end.trouble).toBeUndefined();
    expect(third.ending).toMatchObject({ state: "failed", reason: "spider-error", attempts: 3 });
    expect(engine.asked).toEqual([]);
  });

  it("hands a page back that was fetched, if the code is gone by then, and keeps nothing of it", async () => {
    const { engine, crawl, task } = await engineWith(
      yielding([], {
        *parse() {
          yield { item: { a: 1 } };
          throw new SpiderUnavailableError("its process does not start");
        },
      }),
    );

    const { ending, end, items } = await engine.run(task, crawl);

    expect(ending).toMatchObject({ state: "queued", attempts: 1, reason: "its process does not start" });
    expect(end.untouched).toBeUndefined();
    expect(items).toEqual([]);
  });

  it("is given up at once if waiting cannot help", async () => {
    const { engine, crawl, task } = await engineWith({
      get: () => {
        throw new SpiderUnavailableError("its dependencies do not exist", { retryable: false });
      },
    });

    expect((await engine.run(task, crawl)).ending).toMatchObject({
      state: "failed",
      reason: "spider-error",
      error: "its dependencies do not exist",
    });
  });

  it("is not waited for when the task is stopped", async () => {
    const { engine, crawl, task } = await engineWith({ get: () => new Promise(() => {}) });
    const abort = new AbortController();
    const running = engine.engine.run(task, crawl, abort.signal);

    abort.abort();

    expect(await running).toBeUndefined();
  });

  it("says which version there is not", async () => {
    const { engine, crawl, task } = await engineWith({ get: async () => undefined });

    expect((await engine.run(task, { ...crawl, spiderVersion: "7" })).ending).toMatchObject({
      state: "failed",
      error: 'no spider named "own" with a version "7" here',
    });
  });
});

describe("a callback", () => {
  it("is kept with the request, and called for its page instead of `parse`", async () => {
    const spider = defineSpider({
      name: "own",
      *parse() {
        yield { request: { url: "/a", callback: "product" } };
      },
      callbacks: {
        *product(page) {
          yield { item: { on: page.url } };
        },
      },
    });
    const { engine, crawl, task } = await engineWith(spider);

    const { links } = await engine.run(task, crawl);
    const [link] = links;
    expect(link?.request).toEqual({ callback: "product" });

    const request = link?.request ?? {};
    const { items } = await engine.run({ ...task, request }, crawl);
    expect(items).toMatchObject([{ data: { on: task.url } }]);
  });

  it.each(["nothing", "constructor", "toString", "__proto__"])(
    "that the spider does not have is an error that names it: %s",
    async (callback) => {
      const { engine, crawl, task } = await engineWith(yielding([], { callbacks: { other: () => [] } }));

      expect((await engine.run({ ...task, request: { callback } }, crawl)).ending).toMatchObject({
        state: "failed",
        reason: "spider-error",
        error: expect.stringContaining(`it has no callback "${callback}"`),
      });
    },
  );

  it.each(["", "x".repeat(101), 5])("must be a name: %s", async (callback) => {
    const request = { url: "/a", callback } as { url: string };
    const { engine, crawl, task } = await engineWith(yielding([{ request }]));

    expect((await engine.run(task, crawl)).ending).toMatchObject({
      error: expect.stringContaining("a request's callback must be a name of 1 to 100 characters"),
    });
  });
});

describe("an item", () => {
  const item = z.object({ price: z.coerce.number(), tags: z.array(z.string()).default([]) });

  it("is stored as its schema gives it back, and kept aside with the reasons if that refuses it", async () => {
    const { engine, crawl, task } = await engineWith(
      yielding([{ item: { price: "x" } }, { item: { price: "4" } }, { item: { price: 5, tags: [1] } }], {
        item,
        version: "9",
      }),
    );

    const { items, invalidItems, ending } = await engine.run(task, crawl);

    expect(items).toMatchObject([{ id: `${task.id}.0.1`, data: { price: 4, tags: [] } }]);
    expect(invalidItems).toEqual([
      {
        id: `${task.id}.0.0`,
        crawl: "crawl",
        url: task.url,
        at: expect.any(Number),
        spider: "own",
        version: "9",
        node: "test",
        data: { price: "x" },
        reasons: [expect.stringMatching(/^price: ./)],
      },
      expect.objectContaining({ id: `${task.id}.0.2`, reasons: [expect.stringMatching(/^tags\.0: ./)] }),
    ]);
    expect(ending).toMatchObject({ state: "done", items: 1, invalidItems: 2 });
  });

  it("may be checked by a schema that takes its time, in the order of the page", async () => {
    const slow = z.object({ n: z.number() }).refine(async ({ n }) => {
      await new Promise((resolve) => setTimeout(resolve, 4 - n));
      return n !== 2;
    }, "is 2");
    const outputs = [1, 2, 3].map((n) => ({ item: { n } }));
    const { engine, crawl, task } = await engineWith(yielding(outputs, { item: slow }));

    const { items, invalidItems } = await engine.run(task, crawl);

    expect(items.map(({ id, data }) => [id, data.n])).toEqual([
      [`${task.id}.0.0`, 1],
      [`${task.id}.0.2`, 3],
    ]);
    expect(invalidItems).toMatchObject([{ id: `${task.id}.0.1`, reasons: ["is 2"] }]);
  });

  it("whose schema never answers ends with the page's time", async () => {
    const never = z.object({}).refine(() => new Promise<boolean>(() => {}));
    const { engine, crawl, task } = await engineWith(yielding([{ item: {} }], { item: never }), {
      spiderTimeoutMs: 20,
    });

    expect((await engine.run(task, crawl)).ending).toMatchObject({
      state: "failed",
      reason: "spider-error",
      error: expect.stringContaining("did not finish within 20 ms"),
    });
  });

  it("that was refused where its spider runs is kept aside as well, as JSON whatever it is", async () => {
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    const reasons = ["too dear"];
    const { engine, crawl, task } = await engineWith(
      yielding([
        { invalidItem: { data: circular, reasons } },
        { invalidItem: { data: "x".repeat(100_000), reasons: Array(100).fill("y".repeat(1_000)) } },
      ]),
    );

    const { invalidItems = [] } = await engine.run(task, crawl);

    expect(invalidItems[0]).toMatchObject({ data: "[object Object]", reasons });
    expect(JSON.stringify(invalidItems[1]).length).toBeLessThan(80_000);
  });

  it("is kept with little, after the first that were large", async () => {
    const refused = { invalidItem: { data: { text: "x".repeat(100_000) }, reasons: Array(20).fill("y") } };
    const { engine, crawl, task } = await engineWith(yielding(Array(200).fill(refused)));

    const { invalidItems = [], ending } = await engine.run(task, crawl);

    expect(ending).toMatchObject({ state: "done", invalidItems: 200 });
    expect(JSON.stringify(invalidItems).length).toBeLessThan(4_700_000);
    expect(invalidItems.at(-1)?.reasons).toHaveLength(3);
  });

  it.each([[["list"]], ["text"], [null], [7]])("must be an object: %j", async (wrong) => {
    const output = { item: wrong } as unknown as SpiderOutput;
    const { engine, crawl, task } = await engineWith(yielding([output]));

    expect((await engine.run(task, crawl)).ending).toMatchObject({
      state: "failed",
      error: expect.stringContaining("an item must be an object"),
    });
  });

  it("is gone with the page that its spider failed on", async () => {
    const spider = yielding([], {
      item,
      *parse() {
        yield { item: { price: "x" } };
        throw new Error("after it");
      },
    });
    const { engine, crawl, task } = await engineWith(spider);

    const { ending, invalidItems } = await engine.run(task, crawl);

    expect(ending).toMatchObject({ state: "failed", items: 0 });
    expect(invalidItems).toBeUndefined();
  });
});

describe("a spider in standalone mode", () => {
  it("has its settings taken over, its hooks called once, and what it got wrong in the log", async () => {
    const { engine } = await engineWith(yielding([]));
    const told: string[] = [];
    const spider = yielding([], {
      settings: { limits: { maxDepth: 1 } },
      item: z.object({ title: z.string().min(5) }),
      open: () => void told.push("open"),
      close: () => void told.push("close"),
      *parse(page) {
        yield { item: { title: page.title } };
        for (const url of page.links()) yield { request: url };
      },
    });
    const html = (text: string) => (_: unknown, response: ServerResponse) =>
      response.setHeader("content-type", "text/html").end(text);
    engine.answers.set("/a", html("<title>Long enough</title><a href=/b>B</a>"));
    engine.answers.set("/b", html("<title>Not fetched</title>"));

    const { counts, items, log } = await crawlStandalone(
      { spider: "own", seeds: [engine.url("/")], politeness: { obeyRobots: false } },
      { spiders: [spider] },
    );

    expect(counts).toMatchObject({ done: 2, skipped: 1, items: 1, invalidItems: 1 });
    expect(items).toMatchObject([{ url: engine.url("/a"), data: { title: "Long enough" } }]);
    expect(log.filter(({ reasons }) => reasons !== undefined)).toMatchObject([
      { level: "warn", url: engine.url("/"), data: { title: "Home" } },
    ]);
    expect(told).toEqual(["open", "close"]);
  });
});

describe("what a spider logs", () => {
  it("goes where it is to go, with the page's URL as it was asked for", async () => {
    const lines: string[] = [];
    const log = createLogger({ level: "info", destination: { write: (line) => lines.push(line) } });
    const spider = yielding([], {
      parse(page) {
        page.log.info("one");
        page.log.info("two");
        return [];
      },
    });
    let asked = 0;
    const { engine, crawl, task } = await engineWith(
      spider,
      {},
      {
        pageLog: (of, { id }, { name }) => {
          asked += 1;
          return log.child({ crawl: id, spider: name, url: of.url });
        },
      },
    );

    await engine.run(task, crawl);

    expect(asked).toBe(1);
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { msg: "one", crawl: "crawl", spider: "own", url: task.url },
      { msg: "two" },
    ]);
  });
});

describe("the hooks of a spider", () => {
  it("are called before its first page, for a page that it fails on, and when the crawl is over", async () => {
    const told: unknown[] = [];
    const spider = yielding([], {
      open: async ({ crawl: { id, state } }) => {
        await state.set("opened", true);
        told.push(`open ${id}`);
      },
      close: async ({ crawl: { state } }) => void told.push("close", await state.get("opened")),
      error: ({ message }, { url }) => void told.push(message, url),
      parse: () => {
        told.push("page");
        throw new Error("no price");
      },
    });
    const { engine, crawl, task } = await engineWith(spider);

    await engine.run(task, crawl);
    const { ending } = await engine.run(task, crawl);
    engine.engine.over("crawl");
    await engine.engine.stop();

    expect(ending).toMatchObject({ state: "failed", reason: "spider-error" });
    const failure = ["page", "no price", task.url];
    expect(told).toEqual(["open crawl", ...failure, ...failure, "close", true]);
  });

  it("fail a page when they cannot open, before anything is asked of its host", async () => {
    const { engine, crawl, task } = await engineWith(
      yielding([], { open: () => Promise.reject(new Error("no database")) }),
    );

    const { ending, end } = await engine.run(task, crawl);

    expect(ending).toMatchObject({
      state: "failed",
      reason: "spider-error",
      error: 'spider "own" could not be opened for crawl "crawl": no database',
    });
    expect(end.untouched).toBe(true);
    expect(engine.asked).toEqual([]);
  });
});
