import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CrawlSpec, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import type { CrawlLogEntry } from "../../src/crawl/crawl-log.js";
import type { CrawlLogQuery, Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const SPEC: CrawlSpec = {
  spider: "links",
  seeds: ["http://a.test/"],
  scope: "host",
  limits: {},
  politeness: DEFAULT_POLITENESS,
  priority: 5,
  params: {},
};

const stores = new StoresUnderTest();
let one: Store;
let other: Store;

beforeAll(async () => {
  one = await stores.open();
  other = await stores.open();
});

afterAll(() => stores.dispose());

async function newCrawl(): Promise<string> {
  return (await one.crawls.create(SPEC)).crawl.id;
}

function entries(
  crawl: string,
  from: number,
  to: number,
  about: Partial<CrawlLogEntry> = {},
): CrawlLogEntry[] {
  return Array.from({ length: to - from + 1 }, (_, index) => ({
    crawl,
    epoch: 1,
    seq: from + index,
    at: 1_700_000_000_000 + from + index,
    level: "info",
    message: `line ${from + index}`,
    ...about,
  }));
}

const w1 = { node: "w1", journal: "j1" };
const w2 = { node: "w2", journal: "j2" };

/** Everything, in pages. */
async function all(crawl: string, query: Partial<CrawlLogQuery> = {}) {
  const lines = [];
  let after = 0;
  for (;;) {
    const page = await other.crawlLogs.read(crawl, { lines: 70, ...query, after });
    lines.push(...page.lines);
    if (page.lines.length < (query.lines ?? 70)) return lines;
    after = page.next;
  }
}

describe("the log of a crawl", () => {
  it("has each line once, however often it is shipped", async () => {
    const crawl = await newCrawl();
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 10));
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 10));
    await other.crawlLogs.add(crawl, w1, entries(crawl, 8, 15));
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 12));

    const lines = await all(crawl);

    expect(lines.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    expect(lines.map(({ number }) => number)).toEqual(lines.map(({ seq }) => seq));
    expect(lines[3]).toEqual({
      crawl,
      node: "w1",
      number: 4,
      epoch: 1,
      seq: 4,
      at: 1_700_000_000_004,
      level: "info",
      message: "line 4",
    });
  });

  it("takes the same numbers from another disk of a node, or after its clock went on, for other lines", async () => {
    const crawl = await newCrawl();
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 3));
    await one.crawlLogs.add(crawl, w1, entries(crawl, 2, 3, { epoch: 2 }));
    await one.crawlLogs.add(crawl, { node: "w1", journal: "j9" }, entries(crawl, 1, 2, { epoch: 3 }));

    const lines = await all(crawl);

    expect(lines.map(({ epoch, seq }) => [epoch, seq])).toEqual([
      [1, 1],
      [1, 2],
      [1, 3],
      [2, 2],
      [2, 3],
      [3, 1],
      [3, 2],
    ]);
  });

  it("shows a reader who follows every line once, while many nodes ship at once and batches come again", async () => {
    const crawl = await newCrawl();
    let isShipped = false;
    const ship = async (name: string, store: Store) => {
      const source = { node: name, journal: `j-${name}` };
      for (let from = 1; from <= 600; from += 30) {
        const lines = entries(crawl, from, from + 29);
        await store.crawlLogs.add(crawl, source, lines);
        if (from % 4 === 1) await store.crawlLogs.add(crawl, source, lines);
      }
    };
    const follow = async () => {
      const lines = [];
      let after = 0;
      for (;;) {
        const isEnd = isShipped;
        const page = await other.crawlLogs.read(crawl, { lines: 50, after });
        lines.push(...page.lines);
        after = page.next;
        if (isEnd && page.lines.length === 0) return lines;
      }
    };
    const shipping = Promise.all(
      ["a", "b", "c", "d"].map((name, index) => ship(name, index % 2 === 0 ? one : other)),
    ).finally(() => {
      isShipped = true;
    });
    const [lines] = await Promise.all([follow(), shipping]);

    expect(lines.map(({ number }) => number)).toEqual(Array.from({ length: 2_400 }, (_, index) => index + 1));
    for (const name of ["a", "b", "c", "d"]) {
      const seqs = lines.filter(({ node }) => node === name).map(({ seq }) => seq);
      expect(seqs).toEqual(Array.from({ length: 600 }, (_, index) => index + 1));
    }
  });

  it("gives the newest lines, oldest first, and where to go on", async () => {
    const crawl = await newCrawl();
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 5));
    await one.crawlLogs.add(crawl, w2, entries(crawl, 1, 5));

    const newest = await one.crawlLogs.read(crawl, { lines: 7 });
    const then = await one.crawlLogs.read(crawl, { lines: 7, after: newest.next });
    await one.crawlLogs.add(crawl, w1, entries(crawl, 6, 6));
    const later = await one.crawlLogs.read(crawl, { lines: 7, after: then.next });

    expect(newest.lines.map(({ number }) => number)).toEqual([4, 5, 6, 7, 8, 9, 10]);
    expect(then).toEqual({ lines: [], next: 10 });
    expect(later.lines.map(({ number, seq }) => [number, seq])).toEqual([[11, 6]]);
  });

  it("is searched by level, node and text", async () => {
    const crawl = await newCrawl();
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 200));
    await one.crawlLogs.add(
      crawl,
      w1,
      entries(crawl, 201, 201, { level: "error", message: "Price (€) is gone" }),
    );
    await one.crawlLogs.add(
      crawl,
      w2,
      entries(crawl, 1, 1, { level: "warn", url: "http://a.test/Shelf?x=1" }),
    );
    await one.crawlLogs.add(crawl, w2, entries(crawl, 2, 2, { fields: { "a.b": { $c: "Shelf" }, "\0": 1 } }));

    const found = async (query: Partial<CrawlLogQuery>) =>
      (await all(crawl, query)).map(({ number }) => number);

    expect(await found({ level: "warn" })).toEqual([201, 202]);
    expect(await found({ level: "error" })).toEqual([201]);
    expect(await found({ level: "fatal" })).toEqual([]);
    expect(await found({ level: "debug", node: "w2" })).toEqual([202, 203]);
    expect(await found({ text: "shelf" })).toEqual([202, 203]);
    expect(await found({ text: "PRICE (€)" })).toEqual([201]);
    expect(await found({ text: "/Shelf?x=1" })).toEqual([202]);
    expect(await found({ text: "line 1[" })).toEqual([]);
    expect(await found({ text: ".*" })).toEqual([]);
    expect(await found({ text: "line 19" })).toHaveLength(11);
    expect(
      (await one.crawlLogs.read(crawl, { lines: 3, text: "line 19" })).lines.map(({ seq }) => seq),
    ).toEqual([197, 198, 199]);
    expect((await all(crawl)).at(-1)?.fields).toEqual({ "a.b": { $c: "Shelf" }, "\0": 1 });
  });

  it("finds warnings, and the lines of a node, without reading the others", async () => {
    const crawl = await newCrawl();
    for (let from = 1; from < 4_000; from += 1_000) {
      await one.crawlLogs.add(crawl, w1, entries(crawl, from, from + 999));
    }
    await one.crawlLogs.add(crawl, w2, entries(crawl, 1, 1_000, { level: "fatal" }));
    const lines = one.collection("crawlLogs");
    const range = { $gt: `${crawl}:`, $lt: `${crawl};` } as never;
    const examined = async (filter: object, hint: string) => {
      const plan = await lines
        .find({ _id: range, ...filter })
        .hint(hint)
        .explain("executionStats");
      return plan.executionStats.totalDocsExamined as number;
    };

    expect(await examined({ level: { $gte: 40 } }, "severe")).toBe(1);
    expect(await examined({ nodes: "w2" }, "by-node")).toBe(1);
    expect(await all(crawl, { lines: 400, node: "w2", level: "error" })).toHaveLength(1_000);
    expect((await one.crawlLogs.read(crawl, { lines: 2, node: "w1" })).lines.map(({ seq }) => seq)).toEqual([
      3_999, 4_000,
    ]);
  });

  it("loses its oldest lines when there are too many, and keeps counting", async () => {
    const crawl = await newCrawl();
    for (let from = 1; from <= 20_000; from += 500) {
      await one.crawlLogs.add(crawl, w1, entries(crawl, from, from + 499));
    }
    const most = 1_000_000;
    const [first, second] = await Promise.all([one.crawlLogs.trim(most), other.crawlLogs.trim(most)]);
    await one.crawlLogs.add(crawl, w1, entries(crawl, 20_001, 20_001));

    const lines = await all(crawl, { lines: 3_000 });
    const head = await one
      .collection<{ _id: string; bytes: number; openBytes: number }>("crawlLogHeads")
      .findOne({ _id: crawl });
    const stored = await one
      .collection<{ _id: string; bytes: number }>("crawlLogs")
      .find({ _id: { $gt: `${crawl}:`, $lt: `${crawl};` } })
      .toArray();

    expect((first ?? 0) + (second ?? 0)).toBeGreaterThan(0);
    expect(lines.length).toBeGreaterThan(5_000);
    expect(lines.length).toBeLessThan(8_000);
    expect(lines.map(({ number }) => number)).toEqual(lines.map((_, index) => 20_002 - lines.length + index));
    expect(head?.bytes).toBe(stored.reduce((sum, { bytes }) => sum + bytes, head?.openBytes ?? 0));
    expect(await one.crawlLogs.trim(most)).toBe(0);
  });

  it("expires, also what had not filled a document", async () => {
    const crawl = await newCrawl();
    const brief = await stores.open({ crawlLogs: { keptForMs: 3_600_000 } });
    await brief.crawlLogs.add(crawl, w1, entries(crawl, 1, 1_500));
    const stored = await one
      .collection("crawlLogs")
      .findOne({ _id: { $gt: `${crawl}:`, $lt: `${crawl};` } as never });
    const indexes = await one.collection("crawlLogs").indexes();
    const before = await all(crawl, { lines: 2_000 });
    await one
      .collection("crawlLogHeads")
      .updateOne({ _id: crawl as never }, { $set: { expiresAt: new Date() } });
    await one.crawlLogs.trim(1e12);
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1_501, 1_502));
    const after = await all(crawl, { lines: 2_000 });

    const leftMs = Number(stored?.expiresAt) - Date.now();
    expect(leftMs).toBeGreaterThan(3_500_000);
    expect(leftMs).toBeLessThanOrEqual(3_600_000);
    expect(indexes).toContainEqual(expect.objectContaining({ key: { expiresAt: 1 }, expireAfterSeconds: 0 }));
    expect(before).toHaveLength(1_500);
    // The one document goes when the server looks next.
    expect(after.map(({ number }) => number).slice(-3)).toEqual([1_000, 1_501, 1_502]);
  });

  it("is the same when several processes clear its head at once", async () => {
    const crawl = await newCrawl();
    const sources = Array.from({ length: 6 }, (_, index) => ({ node: `n${index}`, journal: "j" }));
    await Promise.all(
      sources.map(async (source, index) => {
        const { crawlLogs } = index % 2 === 0 ? one : other;
        for (let from = 1; from <= 4_000; from += 400) {
          await crawlLogs.add(crawl, source, entries(crawl, from, from + 399));
        }
      }),
    );
    const documents = await one
      .collection<{ _id: string; first: number; last: number }>("crawlLogs")
      .find({ _id: { $gt: `${crawl}:`, $lt: `${crawl};` } })
      .sort({ _id: 1 })
      .toArray();

    const lines = await all(crawl, { lines: 5_000 });

    expect(documents.map(({ first }) => first)).toEqual([
      1,
      ...documents.slice(0, -1).map(({ last }) => last + 1),
    ]);
    expect(lines.map(({ number }) => number)).toEqual(
      Array.from({ length: 24_000 }, (_, index) => index + 1),
    );
    for (const { node } of sources) {
      const seqs = lines.filter((line) => line.node === node).map(({ seq }) => seq);
      expect(seqs).toEqual(Array.from({ length: 4_000 }, (_, index) => index + 1));
    }
  });

  it("goes with its crawl, and does not come back when a node ships what it still had", async () => {
    const crawl = await newCrawl();
    await one.crawlLogs.add(crawl, w1, entries(crawl, 1, 5));
    await one.crawls.close(crawl);
    await one.purge(crawl);

    await one.crawlLogs.add(crawl, w1, entries(crawl, 6, 9));
    expect(await one.crawlLogs.read(crawl, { lines: 10 })).toEqual({ lines: [], next: 0 });
    expect(await one.collection("crawlLogHeads").countDocuments({ _id: crawl as never })).toBe(0);
  });
});
