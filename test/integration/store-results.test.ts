import { createHash, randomBytes } from "node:crypto";
import { ObjectId } from "mongodb";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { FileRecord, ItemRecord, PageRecord } from "../../src/crawl/records.js";
import type { Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

describe("results", () => {
  const stores = new StoresUnderTest();
  let store: Store;
  beforeAll(async () => {
    store = await stores.open();
  });
  afterAll(() => stores.dispose());

  let crawls = 0;
  function newCrawl() {
    crawls += 1;
    const crawl = `crawl${crawls}`;
    const item = (number: number, data: ItemRecord["data"] = { number }): ItemRecord => ({
      id: `${crawl}:u.0.${String(number).padStart(5, "0")}`,
      crawl,
      url: "http://a.test/",
      at: 1,
      spider: "links",
      version: "1",
      node: "n1",
      data,
    });
    const page: PageRecord = {
      id: `${crawl}:u.0`,
      crawl,
      url: "http://a.test/",
      statusCode: 200,
      bytes: 5,
      depth: 0,
      at: 1,
      node: "n1",
    };
    const file = (path: string, contentId: string): FileRecord => ({
      id: `${crawl}:${path}.0`,
      crawl,
      url: `http://a.test/${path}`,
      contentId,
      name: path,
      bytes: 3,
      sha256: "s",
      contentType: "application/pdf",
      at: 1,
    });
    return { crawl, item, page, file };
  }

  async function* streamOf(...chunks: readonly (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
    for (const chunk of chunks) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
  }
  const about = { name: "a.pdf", contentType: "application/pdf" };
  const bytesOf = async (contentId: string) =>
    Buffer.concat(await (await store.contents.open(contentId)).toArray());

  it("stores pages, items and files once, however often they come", async () => {
    const { crawl, item, page, file } = newCrawl();
    const { contentId } = await store.contents.save(streamOf("pdf"), about);
    const results = { pages: [page], items: [item(1), item(2)], files: [file("f", contentId)] };

    await Promise.all([store.results.store(results), store.results.store(results)]);
    await store.results.store({ ...results, items: [item(2), item(3)] });

    expect(await store.pages.get(page.id)).toEqual(page);
    expect((await store.items.list(crawl)).items).toEqual([item(1), item(2), item(3)]);
    expect((await store.files.list(crawl)).items).toEqual([file("f", contentId)]);
    expect((await bytesOf(contentId)).toString()).toBe("pdf");
  });

  it("does nothing when a task brought nothing", async () => {
    await expect(store.results.store({ pages: [], items: [], files: [] })).resolves.toEqual({});
  });

  it("discards the bytes of a file that was stored before", async () => {
    const { file } = newCrawl();
    const first = await store.contents.save(streamOf("first"), about);
    const second = await store.contents.save(streamOf("second"), about);
    await store.results.store({ pages: [], items: [], files: [file("f", first.contentId)] });

    const again = { ...file("f", second.contentId), hold: second.hold ?? "" };
    await store.results.store({ pages: [], items: [], files: [again, file("g", "x")] });

    expect((await store.files.get(file("f", "").id))?.contentId).toBe(first.contentId);
    expect((await bytesOf(first.contentId)).toString()).toBe("first");
    await expect(store.contents.open(second.contentId)).rejects.toMatchObject({ code: "not-found" });
    expect((await store.files.get(file("g", "").id))?.contentId).toBe("x");
  });

  it("streams all items of a crawl in order, or those after one, and lists them page by page", async () => {
    const { crawl, item } = newCrawl();
    const items = Array.from({ length: 1_234 }, (_, index) => item(index));
    await store.items.store(items);

    const streamed = [];
    for await (const found of store.items.stream(crawl)) streamed.push(found);
    expect(streamed).toEqual(items);
    const rest = [];
    for await (const found of store.items.stream(crawl, { after: item(1_000).id })) rest.push(found);
    expect(rest).toEqual(items.slice(1_001));

    const first = await store.items.list(crawl, { limit: 1_000 });
    const second = await store.items.list(crawl, { limit: 1_000, cursor: first.next ?? "" });
    expect([...first.items, ...second.items]).toEqual(items);
    expect(second.next).toBeNull();
    for await (const found of store.items.stream(crawl)) {
      expect(found).toEqual(item(0));
      break; // Leaving early closes the cursor: the test would hang at its end otherwise.
    }
  });

  it("keeps items whose members MongoDB would refuse, and those that came with them", async () => {
    const { crawl, item } = newCrawl();
    const odd = [
      item(1, { "nul\0": 1 }),
      item(2, { $set: { "a.b": "dots and dollars" } }),
      item(3, { inner: { _bsontype: "Unheard", value: 1 } }),
      item(4, { plain: "yes" }),
    ];

    await store.items.store(odd);

    expect((await store.items.list(crawl)).items).toEqual(odd);
  });

  describe("the file store", () => {
    it("gives back the bytes that streamed in, and tells their size and digest", async () => {
      const chunks = [randomBytes(300_000), randomBytes(1), randomBytes(700_000)];
      const whole = Buffer.concat(chunks);

      const saved = await store.contents.save(streamOf(...chunks), about);

      expect(saved).toEqual({
        contentId: expect.any(String),
        bytes: whole.length,
        sha256: createHash("sha256").update(whole).digest("hex"),
        hold: expect.any(String),
      });
      expect((await bytesOf(saved.contentId)).equals(whole)).toBe(true);
      const part = await store.contents.open(saved.contentId, { start: 299_990, end: 300_010 });
      expect(Buffer.concat(await part.toArray()).equals(whole.subarray(299_990, 300_010))).toBe(true);
    });

    it("stores an empty body", async () => {
      const { contentId, bytes } = await store.contents.save(streamOf(), about);

      expect(bytes).toBe(0);
      expect(await bytesOf(contentId)).toHaveLength(0);
    });

    it("keeps nothing of a body that breaks off, and throws what the stream threw", async () => {
      const before = await store.collection("contents.chunks").countDocuments();
      const broken = async function* () {
        yield randomBytes(600_000);
        throw new Error("connection reset");
      };

      await expect(store.contents.save(broken(), about)).rejects.toThrow("connection reset");

      expect(await store.collection("contents.chunks").countDocuments()).toBe(before);
    });

    it("does not mind discarding what is gone", async () => {
      const { contentId, hold } = await store.contents.save(streamOf("x"), about);
      await store.contents.discard(contentId, hold);

      await expect(store.contents.discard(contentId)).resolves.toBeUndefined();
      await expect(store.contents.discard("nonsense")).resolves.toBeUndefined();
      await expect(store.contents.open("nonsense")).rejects.toMatchObject({ code: "not-found" });
    });

    it("stores the same bytes once, whoever saves them and however many at once", async () => {
      const other = await stores.open();
      const bytes = randomBytes(600_000);
      const before = await store.collection("contents.chunks").countDocuments();

      const saved = await Promise.all(
        [store, other, store, other, store].map((one) => one.contents.save(streamOf(bytes), about)),
      );

      expect(new Set(saved.map(({ contentId }) => contentId)).size).toBe(1);
      expect(await store.collection("contents.chunks").countDocuments()).toBe(before + 3);
      expect((await bytesOf(saved[0]?.contentId ?? "")).equals(bytes)).toBe(true);
    });

    it("keeps bytes while anyone is about to refer to them, or does", async () => {
      const { file } = newCrawl();
      const gone = async (contentId: string) =>
        store.contents.open(contentId).then(
          () => false,
          () => true,
        );
      const first = await store.contents.save(streamOf("shared"), about);
      const second = await store.contents.save(streamOf("shared"), about);
      expect(second.contentId).toBe(first.contentId);

      await store.contents.discard(first.contentId, first.hold);
      expect(await gone(first.contentId)).toBe(false);
      const record = { ...file("a", second.contentId), hold: second.hold ?? "" };
      await store.results.store({ pages: [], items: [], files: [record] });
      await store.contents.discard(second.contentId, second.hold);
      expect(await gone(first.contentId)).toBe(false);
      expect(await store.files.get(record.id)).toEqual(file("a", second.contentId));

      await store.collection<{ _id: string }>("files").deleteOne({ _id: record.id });
      await store.contents.discard(second.contentId);
      expect(await gone(first.contentId)).toBe(true);
    });

    it("gives whoever saves bytes that are being removed bytes that stay", async () => {
      const body = randomBytes(1_000);
      for (let round = 0; round < 30; round += 1) {
        const { file } = newCrawl();
        const first = await store.contents.save(streamOf(body), about);

        const [second] = await Promise.all([
          store.contents.save(streamOf(body), about),
          store.contents.discard(first.contentId, first.hold),
        ]);
        const record = { ...file("a", second.contentId), hold: second.hold ?? "" };
        await store.results.store({ pages: [], items: [], files: [record] });

        expect((await bytesOf(second.contentId)).equals(body)).toBe(true);
        await store.collection<{ _id: string }>("files").deleteOne({ _id: record.id });
      }
    });

    it("leaves bytes to a crawl that has them when another that had them is purged", async () => {
      const spec = { spider: "pdf", seeds: [], scope: "any", limits: {}, priority: 5, params: {} } as const;
      const politeness = { delayMs: 0, maxConcurrencyPerHost: 4, obeyRobots: true };
      const both = await Promise.all([1, 2].map(() => store.crawls.create({ ...spec, politeness })));
      const ids = both.map(({ crawl }) => crawl.id);
      let contentId = "";
      for (const crawl of ids) {
        const saved = await store.contents.save(streamOf("in both"), about);
        ({ contentId } = saved);
        const { file } = newCrawl();
        const record = { ...file("a", contentId), crawl, id: `${crawl}:a.0`, hold: saved.hold ?? "" };
        await store.results.store({ pages: [], items: [], files: [record] });
        await store.crawls.close(crawl);
      }
      const [one = "", other = ""] = ids;

      await store.purge(one);
      expect((await bytesOf(contentId)).toString()).toBe("in both");
      await store.purge(other);

      await expect(store.contents.open(contentId)).rejects.toMatchObject({ code: "not-found" });
    });

    it("sweeps away what no file refers to, once it is old enough, and nothing else", async () => {
      const { file } = newCrawl();
      const kept = await store.contents.save(streamOf("kept"), about);
      const orphan = await store.contents.save(streamOf("orphan"), about);
      const torn = await store.contents.save(streamOf("torn"), about);
      await store.files.store([file("kept", kept.contentId)]);
      // What a killed worker leaves behind: chunks without their entry.
      await store.collection("contents.files").deleteOne({ _id: new ObjectId(torn.contentId) });

      expect(await store.contents.sweep(3_600_000)).toBe(0);
      expect(await store.contents.sweep(-60_000)).toBeGreaterThanOrEqual(2);

      expect((await bytesOf(kept.contentId)).toString()).toBe("kept");
      for (const { contentId } of [orphan, torn]) {
        await expect(store.contents.open(contentId)).rejects.toMatchObject({ code: "not-found" });
      }
      const left = await store.collection("contents.chunks").distinct("files_id");
      expect(left.map(String)).not.toContain(torn.contentId);
    });
  });

  describe("hosts", () => {
    it("remembers what was learnt, instants only growing", async () => {
      await store.hosts.note([
        { host: "h.test", lastEndedAt: 100, backoffUntil: 500 },
        { host: "g.test", crawlDelayMs: 3_000 },
        { host: "h.test", lastEndedAt: 90, crawlDelayMs: 1_000 },
      ]);
      await Promise.all([
        store.hosts.note([{ host: "h.test", lastEndedAt: 200 }]),
        store.hosts.note([{ host: "h.test", lastEndedAt: 150, backoffUntil: 400 }]),
        store.hosts.note([{ host: "new.test" }]),
        store.hosts.note([{ host: "new.test", lastEndedAt: 1 }]),
      ]);

      const states = await store.hosts.load(["h.test", "g.test", "new.test", "nobody.test"]);

      expect([...states].sort((one, other) => one.host.localeCompare(other.host))).toEqual([
        { host: "g.test", crawlDelayMs: 3_000 },
        { host: "h.test", lastEndedAt: 200, backoffUntil: 500, crawlDelayMs: 1_000 },
        { host: "new.test", lastEndedAt: 1 },
      ]);
      const trouble = { why: "$status 503", silences: 0, waits: 2 };
      await store.hosts.note([
        { host: "p.test", lastEndedAt: 900, lastFetchMs: 30, trouble, debt: { from: 10_000, ms: 500 } },
        { host: "p.test", lastEndedAt: 800, debt: { from: 9_000, ms: 250 } },
      ]);
      await store.hosts.note([{ host: "p.test", debt: { from: 10_100, ms: 100 }, backoffUntil: 5 }]);
      expect(await store.hosts.load(["p.test"])).toEqual([
        { host: "p.test", lastEndedAt: 900, lastFetchMs: 30, trouble, paidUntil: 10_850, backoffUntil: 5 },
      ]);
      await store.hosts.note([{ host: "p.test", trouble: null, backoffUntil: Number.NEGATIVE_INFINITY }]);
      expect(await store.hosts.load(["p.test"])).toMatchObject([{ trouble: null, backoffUntil: 5 }]);
      await store.hosts.note([{ host: "h.test", crawlDelayMs: 0 }]);
      expect(await store.hosts.load(["h.test"])).toMatchObject([{ crawlDelayMs: 0, lastEndedAt: 200 }]);
      await store.hosts.note([]);
      expect(await store.hosts.load([])).toEqual([]);
    });
  });

  describe("robots", () => {
    it("gives back what was read last", async () => {
      const record = {
        origin: "http://a.test",
        fetchedAt: 1,
        expiresAt: Date.now() + 60_000,
        verdict: "rules",
      } as const;
      await store.robots.put({ ...record, verdict: "disallow" });
      await Promise.all([
        store.robots.put({ ...record, body: "User-agent: *\nDisallow: /x\n" }),
        store.robots.put({ ...record, body: "User-agent: *\nDisallow: /x\n" }),
      ]);

      expect(await store.robots.get("http://a.test")).toEqual({
        ...record,
        body: "User-agent: *\nDisallow: /x\n",
      });
      expect(await store.robots.get("http://b.test")).toBeUndefined();
    });

    it("keeps of an endless robots.txt its first lines", async () => {
      const line = "Disallow: /some/path\n";
      const body = line.repeat(100_000);
      await store.robots.put({
        origin: "http://long.test",
        fetchedAt: 1,
        expiresAt: Date.now() + 60_000,
        verdict: "rules",
        body,
      });

      const kept = (await store.robots.get("http://long.test"))?.body ?? "";

      expect(kept.length).toBeGreaterThan(500 * 1_024);
      expect(kept.length).toBeLessThanOrEqual(512 * 1_024);
      expect(kept.endsWith(line)).toBe(true);
    });

    it("has an index that removes what may no longer be used", async () => {
      const indexes = await store.collection("robots").indexes();

      expect(indexes).toContainEqual(
        expect.objectContaining({ key: { expiresAt: 1 }, expireAfterSeconds: 0 }),
      );
    });
  });
});
