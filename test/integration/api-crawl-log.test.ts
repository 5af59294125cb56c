import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CrawlLogEntry } from "../../src/crawl/crawl-log.js";
import type { StoredLogLine } from "../../src/store/index.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let one: ApiMaster;
let other: ApiMaster;

beforeAll(async () => {
  one = await startApiMaster("api_crawl_log");
  other = await startApiMaster("api_crawl_log", { namespace: one.namespace });
});

afterAll(async () => {
  await other.dispose();
  await one.dispose();
});

async function newCrawl(): Promise<string> {
  const { body } = await one.post("/api/v1/crawls", { seeds: ["http://a.test/"] });
  return body.id;
}

async function ship(
  crawl: string,
  node: string,
  from: number,
  to: number,
  about: Partial<CrawlLogEntry> = {},
) {
  const entries = Array.from({ length: to - from + 1 }, (_, index) => ({
    crawl,
    epoch: 1,
    seq: from + index,
    at: 1_700_000_000_000 + 10 * (from + index),
    level: "info" as const,
    message: `line ${from + index}`,
    ...about,
  }));
  await one.store.crawlLogs.add(crawl, { node, journal: node }, entries);
}

type Line = Omit<StoredLogLine, "at"> & { readonly at: string };

async function read(master: ApiMaster, crawl: string, query = "") {
  const response = await fetch(`${master.url}/api/v1/crawls/${crawl}/log${query}`);
  const text = await response.text();
  const lines = text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);
  return { response, lines };
}

/** Follows a log; `until` gives the events so far once there are as many. */
async function follow(master: ApiMaster, crawl: string, query = "", headers: Record<string, string> = {}) {
  const abort = new AbortController();
  const url = `${master.url}/api/v1/crawls/${crawl}/log?follow=true${query}`;
  const response = await fetch(url, { headers, signal: abort.signal });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const events = () =>
    // The last part may not be whole yet.
    text
      .split("\n\n")
      .slice(0, -1)
      .flatMap((part) => {
        const [, id, data] = /^id: (\d+)\ndata: (.*)$/.exec(part) ?? [];
        return id === undefined ? [] : [{ id: Number(id), line: JSON.parse(data ?? "") as Line }];
      });
  return {
    response,
    stop: () => abort.abort(),
    ids: () => [...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id)),
    async until(count: number) {
      while (events().length < count) {
        const chunk = await reader?.read();
        if (chunk === undefined || chunk.done) throw new Error("the stream ended");
        text += chunk.value;
      }
      return events();
    },
    async untilId(id: number) {
      while (!text.includes(`id: ${id}\n`)) {
        const chunk = await reader?.read();
        if (chunk === undefined || chunk.done) throw new Error("the stream ended");
        text += chunk.value;
      }
    },
  };
}

describe("GET /crawls/:id/log", () => {
  it("gives the newest lines of all nodes, by time, from any master", async () => {
    const crawl = await newCrawl();
    await ship(crawl, "w2", 1, 3);
    await ship(crawl, "w1", 1, 3, {
      spider: "s",
      version: "2",
      url: "http://a.test/x",
      fields: { price: 1 },
    });

    const { response, lines } = await read(other, crawl);
    const two = await read(one, crawl, "?lines=2");

    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/x-ndjson; charset=utf-8");
    expect(response.headers.get("x-next")).toBe("6");
    expect(lines.map(({ node, seq }) => `${node} ${seq}`)).toEqual([
      ...["w2 1", "w1 1"],
      ...["w2 2", "w1 2"],
      ...["w2 3", "w1 3"],
    ]);
    expect(lines[1]).toEqual({
      number: 4,
      at: "2023-11-14T22:13:20.010Z",
      crawl,
      node: "w1",
      epoch: 1,
      seq: 1,
      level: "info",
      message: "line 1",
      spider: "s",
      version: "2",
      url: "http://a.test/x",
      fields: { price: 1 },
    });
    expect(two.lines.map(({ number }) => number)).toEqual([5, 6]);
  });

  it("is read in pages that neither skip nor repeat, whatever arrives meanwhile", async () => {
    const crawl = await newCrawl();
    const seen: string[] = [];
    let after = "0";
    for (let round = 1; round <= 20; round += 1) {
      // What a node that was away brings late is older than what was read before.
      await ship(crawl, "late", round, round, { at: 1_600_000_000_000 });
      await ship(crawl, "w1", round * 3 - 2, round * 3);
      const { response, lines } = await read(round % 2 === 0 ? one : other, crawl, `?lines=3&after=${after}`);
      seen.push(...lines.map(({ node, seq }) => `${node} ${seq}`));
      after = response.headers.get("x-next") ?? "";
    }
    const { lines } = await read(one, crawl, `?lines=1000&after=${after}`);
    seen.push(...lines.map(({ node, seq }) => `${node} ${seq}`));

    expect(seen).toHaveLength(80);
    expect(new Set(seen).size).toBe(80);
  });

  it("is searched", async () => {
    const crawl = await newCrawl();
    await ship(crawl, "w1", 1, 50);
    await ship(crawl, "w2", 1, 1, { level: "error", message: "no (shelf)" });

    const found = async (query: string) =>
      (await read(other, crawl, query)).lines.map(({ number }) => number);

    expect(await found("?level=warn")).toEqual([51]);
    expect(await found("?text=NO%20(shelf")).toEqual([51]);
    expect(await found("?node=w1&lines=2")).toEqual([49, 50]);
    expect(await found("?text=line%204&after=45")).toEqual([46, 47, 48, 49]);
    expect(await found("?text=.*")).toEqual([]);
  });

  it.each([
    ["lines=0", "lines"],
    ["lines=10001", "lines"],
    ["after=-1", "after"],
    ["level=loud", "level"],
    ["text=", "text"],
    ["text=%00", "text"],
    ["node=$gt", "node"],
    ["follow=maybe", "follow"],
    ["limit=1", "limit"],
  ])("refuses ?%s", async (query, member) => {
    const answer = await one.get(`/api/v1/crawls/inbox/log?${query}`);
    expect(answer.status).toBe(400);
    expect(JSON.stringify(answer.body)).toContain(member);
  });

  it("is empty for a crawl of which nothing was logged, and not there for no crawl", async () => {
    const { response, lines } = await read(one, await newCrawl());
    expect([response.status, lines, response.headers.get("x-next")]).toEqual([200, [], "0"]);
    expect((await one.get("/api/v1/crawls/nothing/log")).status).toBe(404);
    expect((await one.get("/api/v1/crawls/nothing/log?follow=true")).status).toBe(404);
  });
});

describe("following a crawl's log", () => {
  it("begins with the newest lines, and goes on with what is shipped, from any master", async () => {
    const crawl = await newCrawl();
    await ship(crawl, "w1", 1, 10);
    const streams = [await follow(one, crawl, "&lines=2"), await follow(other, crawl, "&after=0")];
    await ship(crawl, "w2", 1, 2_000);
    const [newest, all] = await Promise.all([streams[0]?.until(2_002), streams[1]?.until(2_010)]);
    for (const stream of streams) stream.stop();

    expect(streams[0]?.response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(newest?.map(({ id }) => id)).toEqual(Array.from({ length: 2_002 }, (_, index) => index + 9));
    expect(all?.map(({ line }) => line.number)).toEqual(
      Array.from({ length: 2_010 }, (_, index) => index + 1),
    );
    expect(await one.until(() => one.api.logClients === 0)).toBe(true);
  });

  it("goes on after the last line that a client saw, at another master", async () => {
    const crawl = await newCrawl();
    await ship(crawl, "w1", 1, 5);
    const before = await follow(one, crawl, "&after=0");
    const [, , third] = await before.until(3);
    before.stop();
    await ship(crawl, "w1", 6, 9);
    const then = await follow(other, crawl, "&after=0", { "last-event-id": String(third?.id) });
    const events = await then.until(6);
    then.stop();

    expect(events.map(({ id }) => id)).toEqual([4, 5, 6, 7, 8, 9]);
  });

  it("brings only what was asked for, and says how far it has looked", async () => {
    const crawl = await newCrawl();
    const stream = await follow(one, crawl, "&level=error");
    await ship(crawl, "w1", 1, 20);
    await ship(crawl, "w1", 21, 21, { level: "error" });
    await ship(crawl, "w1", 22, 30);
    const events = await stream.until(1);
    await stream.untilId(30);
    stream.stop();

    expect(events.map(({ id }) => id)).toEqual([21]);
  });

  it("holds nothing for a client that does not read", async () => {
    const crawl = await newCrawl();
    let reads = 0;
    const { crawlLogs } = one.store;
    const read = crawlLogs.read.bind(crawlLogs);
    crawlLogs.read = (...args) => {
      reads += 1;
      return read(...args);
    };
    const { port } = new URL(one.url);
    const socket = connect(Number(port), "127.0.0.1");
    socket.pause();
    socket.write(`GET /api/v1/crawls/${crawl}/log?follow=true&after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
    expect(await one.until(() => one.api.logClients === 1)).toBe(true);
    // 40 MB, which no socket buffers.
    for (let from = 1; from < 5_000; from += 500) {
      await ship(crawl, "w1", from, from + 499, { message: "x".repeat(8_000) });
    }
    const blocked = await one.settled(() => reads);
    socket.destroy();

    expect(blocked).toBeLessThan(9);
    expect(await one.until(() => one.api.logClients === 0)).toBe(true);
  });
});
