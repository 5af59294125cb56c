import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CrawlSpec, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import type { RunEnd, RunInput, RunnableSpider } from "../../src/crawl/run.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import type { Store } from "../../src/store/index.js";
import { RunLoop } from "../../src/worker/runs/run-loop.js";
import { until } from "../support/cluster.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const SPEC: CrawlSpec = {
  ...{
    spider: "whole",
    seeds: ["http://seed.test/"],
    scope: "any",
    limits: {},
    politeness: DEFAULT_POLITENESS,
  },
  ...{ priority: 5, params: { colour: "red" }, runs: true },
};

describe("runs", () => {
  const stores = new StoresUnderTest();
  let store: Store;
  const loops: RunLoop[] = [];
  beforeAll(async () => {
    store = await stores.open({ retryForMs: 2_000 });
  });
  afterAll(async () => {
    await Promise.all(loops.map((loop) => loop.stop()));
    await stores.dispose();
  });

  let spiders = 0;

  /** A crawl of a spider of its own that does this, and its runs. */
  async function crawlOf(
    run: (input: RunInput) => Promise<RunEnd>,
    nodes: readonly (string | undefined)[] = [undefined],
    item?: RunnableSpider["item"],
  ) {
    spiders += 1;
    const spider: RunnableSpider = {
      name: `whole-${spiders}`,
      *parse() {},
      run,
      ...(item !== undefined && { item }),
    };
    known.set(spider.name, spider);
    const { crawl } = await store.crawls.create({ ...SPEC, spider: spider.name });
    await store.runs.plan(crawl, nodes);
    await store.crawls.added(crawl.id);
    return crawl.id;
  }

  const known = new Map<string, RunnableSpider>();

  async function node(name: string, concurrency = 4) {
    const loop = new RunLoop(
      { node: name, concurrency, lookMs: 50 },
      {
        runs: store.runs,
        crawls: { load: (id) => store.crawls.get(id) },
        counts: store.crawls,
        spiders: { get: (spider) => known.get(spider) },
        states: store.states,
        frontier: store.frontier,
        results: store.results,
        events: { publish: () => {} },
        taskEvents: { added: () => {} },
        mayTake: () => true,
        logOf: () => silentLogger,
        clock: systemClock,
        logger: silentLogger,
      },
    );
    loops.push(loop);
    await loop.start();
    return loop;
  }

  const runsOf = async (crawl: string) => (await store.runs.list({ crawl })).items;
  const ended = (crawl: string) =>
    until(`the runs of ${crawl} have ended`, async () =>
      (await runsOf(crawl)).every(({ state }) => state !== "queued" && state !== "active"),
    );
  async function itemsOf(crawl: string) {
    return (await store.items.list(crawl, { limit: 1_000 })).items;
  }

  /** Resolves when the run is to end. */
  const aborted = ({ signal }: RunInput) =>
    new Promise<RunEnd>((resolve) => {
      signal.addEventListener("abort", () => resolve({ state: "failed", reason: "exit", error: "ended" }), {
        once: true,
      });
    });

  it("run once on any node, are given all that they need, and store what they bring", async () => {
    const seen: unknown[] = [];
    const crawl = await crawlOf(async ({ take, ...input }) => {
      seen.push([input.run, input.attempt, input.seeds, input.crawl.params]);
      await input.crawl.state.set("seen", true);
      await take({ item: { title: "one" }, url: "http://a.test/" });
      await take({ item: { title: "two" } });
      await take({ request: { url: "http://b.test/", spider: "links" } });
      await take({ file: "http://b.test/file.pdf" });
      return { state: "done", exitCode: 0 };
    });
    await Promise.all([node("n1"), node("n2"), node("n3")]);
    await ended(crawl);
    expect(seen).toEqual([[`${crawl}:run.1`, 1, SPEC.seeds, { colour: "red" }]]);
    const [run] = await runsOf(crawl);
    expect(run).toMatchObject({
      state: "done",
      attempts: 1,
      items: 2,
      invalidItems: 0,
      requests: 2,
      exitCode: 0,
    });
    expect((await itemsOf(crawl)).map(({ url, data, node: by }) => [url, data, by])).toEqual([
      ["http://a.test/", { title: "one" }, run?.node],
      ["http://seed.test/", { title: "two" }, run?.node],
    ]);
    const urls = (await store.urls.list(crawl, { limit: 10 })).items;
    expect(urls.map(({ url, state }) => [url, state])).toEqual(
      expect.arrayContaining([
        ["http://b.test/", "queued"],
        ["http://b.test/file.pdf", "queued"],
      ]),
    );
    expect(await store.crawls.finishIfOver(crawl)).toBeUndefined();
  });

  it("run on each node that they are for, and wait for one that is away", async () => {
    const crawl = await crawlOf(async () => ({ state: "done" }), ["m1", "m2", "m3"]);
    await Promise.all([node("m1"), node("m2")]);
    await until(
      "two have run",
      async () => (await runsOf(crawl)).filter(({ state }) => state === "done").length === 2,
    );
    expect(await store.crawls.finishIfOver(crawl)).toBeUndefined();
    await node("m3");
    await ended(crawl);
    expect((await runsOf(crawl)).map((run) => run.node)).toEqual(["m1", "m2", "m3"]);
    expect(await store.crawls.finishIfOver(crawl)).toMatchObject({
      status: "finished",
      finishReason: "completed",
    });
  });

  it("have failed, and so has their crawl, when all of them have, until it is resumed", async () => {
    let attempts = 0;
    const crawl = await crawlOf(async () => {
      attempts += 1;
      return attempts === 1
        ? { state: "failed", reason: "exit", error: "exited with code 3", exitCode: 3 }
        : { state: "done" };
    });
    await node("f1");
    await ended(crawl);
    expect(await store.crawls.finishIfOver(crawl)).toMatchObject({
      status: "failed",
      error: "exited with code 3",
    });
    await store.runs.reopen(crawl);
    await store.crawls.resume(crawl);
    await ended(crawl);
    expect(await runsOf(crawl)).toMatchObject([{ state: "done", attempts: 2 }]);
    expect(await store.crawls.finishIfOver(crawl)).toMatchObject({ status: "finished" });
  });

  it("are ended by whoever cancels them, at a limit, and when their crawl is closed, which begins them anew", async () => {
    await node("c1", 10);
    const [cancelled, cut, closed] = await Promise.all([
      crawlOf(aborted),
      crawlOf(aborted),
      crawlOf(aborted),
    ]);
    for (const crawl of [cancelled, cut, closed]) {
      await until("it runs", async () => (await runsOf(crawl))[0]?.state === "active");
    }
    await store.runs.cancel(`${cancelled}:run.1`);
    await store.runs.cut(cut);
    await store.crawls.close(closed);
    await ended(cancelled);
    await ended(cut);
    await until("it waits", async () => (await runsOf(closed))[0]?.state === "queued");
    expect(await runsOf(cancelled)).toMatchObject([{ state: "skipped", reason: "cancelled" }]);
    expect(await runsOf(cut)).toMatchObject([{ state: "skipped", reason: "limit" }]);
    await store.crawls.resume(closed);
    await until("it runs again", async () => (await runsOf(closed))[0]?.state === "active");
    expect((await runsOf(closed))[0]?.attempts).toBe(2);
    await store.runs.cancel(`${closed}:run.1`);
    await ended(closed);
  });

  it("are begun anew when their node is lost, without what it had stored, and given up after three", async () => {
    const crawl = await crawlOf(async () => ({ state: "done" }), ["nobody"]);
    for (let losses = 1; losses <= 3; losses += 1) {
      const held = await store.runs.take(`${crawl}:run.1`, "nobody", `token ${losses}`);
      expect(held?.attempt).toBe(losses);
      expect(await store.runs.sweep()).toEqual([]);
      const runs = store.collection<{ _id: string; holder: { until: Date } }>("runs");
      await runs.updateOne({ _id: `${crawl}:run.1` }, { $set: { "holder.until": new Date(0) } });
      const [swept, again] = await Promise.all([store.runs.sweep(), store.runs.sweep()]);
      expect([...swept, ...again]).toMatchObject([{ state: losses < 3 ? "queued" : "failed" }]);
      if (held === undefined) throw new Error("it was not taken");
      expect(await store.runs.renew([held.token])).toEqual(new Map());
      expect(await store.runs.end(held, { state: "done" }, { items: 0, invalidItems: 0, requests: 0 })).toBe(
        false,
      );
    }
    expect(await runsOf(crawl)).toMatchObject([{ state: "failed", reason: "poison" }]);
  });

  it("store nothing more once they are lost, and what an earlier attempt stored goes", async () => {
    let goOn: () => void = () => {};
    const inputs: RunInput[] = [];
    const crawl = await crawlOf(
      async (input) => {
        inputs.push(input);
        await input.take({ item: { attempt: input.attempt } });
        if (input.attempt > 1) return { state: "done" };
        await new Promise<void>((resolve) => {
          goOn = resolve;
        });
        await input.take({ item: { attempt: "late" } });
        return { state: "done" };
      },
      ["l1"],
    );
    await node("l1");
    await until("something is stored", async () => (await itemsOf(crawl)).length === 1);
    const runs = store.collection<{ _id: string; holder: { until: Date; token: string } }>("runs");
    await runs.updateOne(
      { _id: `${crawl}:run.1` },
      { $set: { "holder.until": new Date(0), "holder.token": "other" } },
    );
    await until("it is told so", async () => inputs[0]?.signal.aborted === true);
    await store.runs.sweep();
    await ended(crawl);
    goOn();
    expect((await itemsOf(crawl)).map(({ data }) => data)).toEqual([{ attempt: 2 }]);
  });

  it("count how often they could not be run, and not how often their crawl was closed", async () => {
    const crawl = await crawlOf(async () => ({ state: "done" }), ["counting"]);
    const take = async () => {
      const run = await store.runs.take(`${crawl}:run.1`, "counting", "token");
      if (run === undefined) throw new Error("it was not taken");
      return run;
    };
    await store.runs.release(await take(), "its crawl was closed");
    await store.runs.failed(await take(), "away", 0);
    await store.runs.release(await take(), "the node stopped");
    expect(await take()).toMatchObject({ attempt: 4, failures: 1 });
  });

  it.each([
    [{ request: "http://b.test/" }, /must name the `spider`/],
    [{ request: { url: "nonsense", spider: "links" } }, /absolute http/],
    [{ file: { url: "http://b.test/", priority: 11 } }, /priority/],
  ])("refuse %j", async (output, message) => {
    let refusal: unknown;
    const crawl = await crawlOf(
      async ({ take }) => {
        refusal = await take(output as never).catch((error: unknown) => error);
        return { state: "done" };
      },
      ["r1"],
    );
    await node("r1");
    await ended(crawl);
    expect(String(refusal)).toMatch(message);
  });

  it("keep a flood in bounds: who yields more than can be stored waits", async () => {
    const crawl = await crawlOf(
      async ({ take }) => {
        for (let number = 0; number < 5_000; number += 1) await take({ item: { number } });
        return { state: "done" };
      },
      ["b1"],
    );
    await node("b1");
    await ended(crawl);
    expect(await runsOf(crawl)).toMatchObject([{ state: "done", items: 5_000 }]);
    const finished = await store.crawls.finishIfOver(crawl);
    expect(finished?.counts.items).toBe(5_000);
  });
});
