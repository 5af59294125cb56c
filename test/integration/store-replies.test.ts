import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Ending, NewUrl } from "../../src/crawl/frontier.js";
import { ManualClock } from "../../src/lib/clock.js";
import type { ExpectedReply, Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

describe("Replies", () => {
  const stores = new StoresUnderTest();
  let one: Store;
  let other: Store;
  beforeAll(async () => {
    one = await stores.open();
    other = await stores.open();
  });
  afterAll(() => stores.dispose());

  let crawls = 0;
  function newCrawl() {
    crawls += 1;
    const crawl = `crawl${crawls}`;
    const url = (path: string): NewUrl => ({
      id: `${crawl}:${path}`,
      crawl,
      url: `http://a.test/${path}`,
      host: "a.test",
      kind: "page",
      depth: 0,
      priority: 5,
    });
    const reply = (path: string, number = 1): ExpectedReply => ({
      id: `${crawl}.${path}.${number}`,
      crawl,
      urlId: url(path).id,
      url: url(path).url,
      replyTo: "amq.gen-1",
      correlationId: `c${number}`,
    });
    const end = async (
      path: string,
      ending: Partial<Ending> & { readonly items?: number; readonly files?: number },
    ) => {
      const token = `1.${path}`;
      await one.frontier.add([url(path)]);
      await one.frontier.dispatch([url(path).id], { token, generation: 1, dispatchedAt: 1, notAfter: 1 });
      const ended = {
        id: url(path).id,
        crawl,
        token,
        attempts: 1,
        state: "done",
        items: 0,
        files: 0,
        ...ending,
      };
      await one.frontier.commit([ended as Ending]);
    };
    return { crawl, url, reply, end };
  }

  it("owes nothing for URLs that nobody asked about", async () => {
    const { url, end } = newCrawl();
    await end("a", {});

    expect(await one.replies.ended([{ id: url("a").id, children: [] }])).toEqual([]);
    expect(await one.replies.ended([])).toEqual([]);
  });

  it("is due when the URL has ended, once", async () => {
    const { crawl, url, reply, end } = newCrawl();
    await one.replies.expect([reply("a"), reply("a")]);
    await one.replies.expect([reply("a")]);
    await end("a", { statusCode: 200, items: 2, files: 1 });
    const ended = [{ id: url("a").id, children: [] }];

    const due = (await Promise.all([one.replies.ended(ended), other.replies.ended(ended)])).flat();

    expect(due).toEqual([
      {
        id: reply("a").id,
        crawl,
        replyTo: "amq.gen-1",
        correlationId: "c1",
        body: { url: url("a").url, state: "done", statusCode: 200, items: 2, files: 1 },
      },
    ]);
    expect(await one.replies.ended(ended)).toEqual([]);
  });

  it("answers each of several who asked about the same URL", async () => {
    const { url, reply, end } = newCrawl();
    await one.replies.expect([reply("a", 1), reply("a", 2)]);
    await end("a", {});

    const due = await one.replies.ended([{ id: url("a").id, children: [] }]);

    expect(due.map(({ correlationId }) => correlationId).sort()).toEqual(["c1", "c2"]);
  });

  it("waits for the files that were found on the page, and counts them in", async () => {
    const { url, reply, end } = newCrawl();
    await one.replies.expect([reply("a")]);
    await end("a", { items: 1 });
    expect(await one.replies.ended([{ id: url("a").id, children: [url("f").id, url("g").id] }])).toEqual([]);
    await end("f", { items: 1, files: 1 });
    expect(await one.replies.ended([{ id: url("f").id, children: [] }])).toEqual([]);
    expect(await one.replies.ended([{ id: url("f").id, children: [] }])).toEqual([]);
    await end("g", { items: 1, files: 1 });

    const due = await one.replies.ended([{ id: url("g").id, children: [] }]);

    expect(due).toMatchObject([{ body: { state: "done", items: 3, files: 2 } }]);
  });

  it("knows that a file found on a page may end together with it", async () => {
    const { url, reply, end } = newCrawl();
    await one.replies.expect([reply("a")]);
    await end("a", {});
    await end("f", { files: 1 });

    const due = await one.replies.ended([
      { id: url("f").id, children: [] },
      { id: url("a").id, children: [url("f").id] },
    ]);

    expect(due).toMatchObject([{ body: { files: 1 } }]);
  });

  it("learns of a file that another process ended before the page's end was reported", async () => {
    const { url, reply, end } = newCrawl();
    await one.replies.expect([reply("a")]);
    await end("a", {});
    await end("f", { files: 1 });
    expect(await other.replies.ended([{ id: url("f").id, children: [] }])).toEqual([]);

    const due = await one.replies.ended([{ id: url("a").id, children: [url("f").id] }]);

    expect(due).toMatchObject([{ body: { files: 1 } }]);
  });

  it("is due when two processes end the last two URLs at once", async () => {
    for (let round = 0; round < 20; round += 1) {
      const { url, reply, end } = newCrawl();
      await one.replies.expect([reply("a")]);
      await end("a", {});
      await one.replies.ended([{ id: url("a").id, children: [url("f").id, url("g").id] }]);
      await end("f", { files: 1 });
      await end("g", { files: 1 });

      const due = await Promise.all([
        one.replies.ended([{ id: url("f").id, children: [] }]),
        other.replies.ended([{ id: url("g").id, children: [] }]),
      ]);

      expect(due.flat()).toMatchObject([{ body: { files: 2 } }]);
    }
  });

  it("says why a URL failed", async () => {
    const { url, reply, end } = newCrawl();
    await one.replies.expect([reply("a")]);
    await end("a", {
      state: "failed",
      statusCode: 404,
      reason: "http-status",
      error: "status 404",
    } as Partial<Ending>);

    const due = await one.replies.ended([{ id: url("a").id, children: [] }]);

    expect(due[0]?.body).toMatchObject({
      state: "failed",
      statusCode: 404,
      error: "http-status: status 404",
    });
  });

  it("finds replies whose URLs have ended although nobody reported it", async () => {
    const { url, reply, end } = newCrawl();
    await one.replies.expect([reply("a"), reply("waits")]);
    await one.frontier.add([url("waits")]);
    await end("a", { items: 1 });

    expect(await one.replies.sweep(60_000)).toEqual([]);
    const due = (await Promise.all([one.replies.sweep(-1_000), other.replies.sweep(-1_000)])).flat();

    expect(due).toMatchObject([{ id: reply("a").id, body: { state: "done", items: 1 } }]);
    await one.replies.forget([reply("waits").id]);
    await end("waits", {});
    expect(await one.replies.ended([{ id: url("waits").id, children: [] }])).toEqual([]);
  });

  it("is due again when it was not sent in time, with what was said first, until it is sent", async () => {
    const { crawl, url, reply, end } = newCrawl();
    const clock = new ManualClock(Date.now());
    const late = await stores.open({}, { clock });
    const swept = async () => (await late.replies.sweep(1)).filter((due) => due.crawl === crawl);
    await late.replies.expect([reply("a"), reply("b")]);
    await end("a", { items: 1 });
    await end("b", {});
    const ended = ["a", "b"].map((path) => ({ id: url(path).id, children: [] }));
    const due = await late.replies.ended(ended);
    expect(due).toHaveLength(2);
    await late.replies.sent([reply("b").id]);
    await one.frontier.admit([{ url: url("a"), refetch: true }]);

    clock.advance(10_000);
    expect(await swept()).toEqual([]);
    clock.advance(10_000);
    const again = (await Promise.all([swept(), swept()])).flat();

    expect(again).toEqual(due.filter(({ id }) => id === reply("a").id));
    await late.replies.sent([reply("a").id]);
    clock.advance(60_000);
    expect(await swept()).toEqual([]);
  });
});
