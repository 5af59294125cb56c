import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { keptAs } from "../../src/crawl/item-keeping.js";
import { itemOptions } from "../../src/crawl/item-options.js";
import type { InvalidItemRecord, ItemRecord, StoredContent } from "../../src/crawl/records.js";
import type { Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const stores = new StoresUnderTest();
let store: Store;
let others: Store;

beforeAll(async () => {
  store = await stores.open();
  others = await stores.open();
});

afterAll(() => stores.dispose());

let crawls = 0;

function newCrawl(): string {
  crawls += 1;
  return `crawl${crawls}`;
}

/** An item of a page, as a crawl with these options wants it kept. */
function item(
  crawl: string,
  page: string,
  at: number,
  data: ItemRecord["data"],
  given: object = {},
): ItemRecord {
  const options = itemOptions.parse({ key: "sku", ...given });
  const record: ItemRecord = {
    id: `${crawl}:${page}`,
    crawl,
    url: `http://shop.test/${page}`,
    at,
    spider: "shop",
    version: "1",
    node: "n",
    data,
  };
  const [kept] = keptAs({ items: [record], files: [] }, { items: options }).items;
  return kept ?? record;
}

async function itemsOf(crawl: string): Promise<readonly ItemRecord[]> {
  return (await store.items.list(crawl)).items;
}

async function pricesOf(crawl: string): Promise<unknown[]> {
  const [one] = await itemsOf(crawl);
  if (one === undefined) return [];
  const { items } = await store.items.history(one);
  return [one, ...items].map(({ data }) => data.price);
}

describe("items with keys", () => {
  it("are one whatever page they were found on, with the newest data", async () => {
    const crawl = newCrawl();

    const first = await store.items.store([item(crawl, "a.0.0", 1_000, { sku: "x", price: 1 })]);
    const second = await store.items.store([
      item(crawl, "b.0.0", 2_000, { sku: "x", price: 2 }),
      item(crawl, "b.0.1", 2_000, { sku: "y", price: 9 }),
    ]);

    const items = await itemsOf(crawl);
    expect(items.map(({ data }) => data)).toEqual(
      expect.arrayContaining([
        { sku: "x", price: 2 },
        { sku: "y", price: 9 },
      ]),
    );
    expect(items).toHaveLength(2);
    expect(items.find(({ data }) => data.sku === "x")).toMatchObject({
      url: "http://shop.test/b.0.0",
      at: 2_000,
      revision: 2,
    });
    expect([first.get(crawl), second.get(crawl)]).toEqual([0, 1]);
  });

  it("are not changed by older data that comes late, nor by what was stored before", async () => {
    const crawl = newCrawl();
    const old = item(crawl, "a.0.0", 1_000, { sku: "x", price: 1 }, { history: true });
    const recent = item(crawl, "a.1.0", 2_000, { sku: "x", price: 2 }, { history: true });
    await store.items.store([old]);
    await store.items.store([recent]);
    const before = await store.collection("items").find({ crawl }).toArray();

    await store.items.store([recent]);
    await store.items.store([old]);
    await store.items.store([recent, old]);

    expect(await store.collection("items").find({ crawl }).toArray()).toEqual(before);
    expect(await pricesOf(crawl)).toEqual([2, 1]);
  });

  it("keep what newer data took the place of, if the crawl wants it, and only data that was another", async () => {
    const crawl = newCrawl();
    const prices = [1, 1, 2, 1, 1, 3];

    for (const [at, price] of prices.entries()) {
      await store.items.store([item(crawl, `a.${at}.0`, at, { sku: "x", price }, { history: true })]);
    }

    expect(await pricesOf(crawl)).toEqual([3, 1, 2, 1]);
    expect((await itemsOf(crawl))[0]).toMatchObject({ revision: 4, at: 5 });
  });

  it("keep every version of those that come together", async () => {
    const crawl = newCrawl();

    await store.items.store(
      [4, 2, 3, 1].map((price) => item(crawl, `a.0.${price}`, 1_000, { sku: "x", price }, { history: true })),
    );

    expect(await pricesOf(crawl)).toEqual([4, 3, 2, 1]);
  });

  it("give their history page by page", async () => {
    const crawl = newCrawl();
    for (let price = 0; price < 12; price += 1) {
      await store.items.store([item(crawl, `a.${price}.0`, price, { sku: "x", price }, { history: true })]);
    }
    const [one] = await itemsOf(crawl);
    if (one === undefined) throw new Error("there is no item");

    const first = await store.items.history(one, { limit: 10 });
    const second = await store.items.history(one, {
      limit: 10,
      ...(first.next !== null && { cursor: first.next }),
    });

    expect([...first.items, ...second.items].map(({ data }) => data.price)).toEqual([
      10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    ]);
    expect(second.next).toBeNull();
  });

  it("end with the newest data and its whole history, however many bring some at once", async () => {
    const crawl = newCrawl();
    const all = Array.from({ length: 60 }, (_, at) =>
      item(crawl, `a.${at}.0`, at, { sku: `s${at % 3}`, price: at }, { history: true }),
    );
    const shuffled = all
      .map((one, index) => ({ one, order: (index * 7_919) % 61 }))
      .sort((one, other) => one.order - other.order)
      .map(({ one }) => one);

    const known = await Promise.all(
      shuffled.map((one, index) => (index % 2 === 0 ? store : others).items.store([one])),
    );
    await Promise.all(shuffled.map((one) => store.items.store([one])));

    const items = await itemsOf(crawl);
    expect(items.map(({ data }) => data.price).sort()).toEqual([57, 58, 59]);
    expect(known.reduce((sum, each) => sum + (each.get(crawl) ?? 0), 0)).toBe(57);
    for (const one of items) {
      // What came after newer data was never the newest; all that ever was is there, in order and once.
      const past = (await store.items.history(one)).items;
      expect(past.map(({ revision }) => revision)).toEqual(
        Array.from({ length: (one.revision ?? 0) - 1 }, (_, index) => (one.revision ?? 0) - 1 - index),
      );
      const times = [one, ...past].map(({ at }) => at);
      expect(times).toEqual([...times].sort((a, b) => b - a));
    }
  });

  it("take data that MongoDB has no words for, and replace it", async () => {
    const crawl = newCrawl();

    await store.items.store([item(crawl, "a.0.0", 1, { sku: "x", "a\0b": 1 }, { history: true })]);
    await store.items.store([
      item(crawl, "a.1.0", 2, { sku: "x", $set: { "a.b": "$at" } }, { history: true }),
    ]);
    await store.items.store([item(crawl, "a.2.0", 3, { sku: "x", "c\0d": 1 }, { history: true })]);

    const [one] = await itemsOf(crawl);
    if (one === undefined) throw new Error("there is no item");
    expect([one, ...(await store.items.history(one)).items].map(({ data }) => data)).toEqual([
      { sku: "x", "c\0d": 1 },
      { sku: "x", $set: { "a.b": "$at" } },
      { sku: "x", "a\0b": 1 },
    ]);
  });

  it("go with their crawl, and so do their earlier versions", async () => {
    const crawl = newCrawl();
    const { store: fresh } = { store: await stores.open() };
    await store.items.store([item(crawl, "a.0.0", 1, { sku: "x", price: 1 }, { history: true })]);
    await store.items.store([item(crawl, "a.1.0", 2, { sku: "x", price: 2 }, { history: true })]);
    const { crawl: made } = await fresh.crawls.create(
      {
        spider: "links",
        seeds: [],
        scope: "any",
        limits: {},
        politeness: { delayMs: 0, maxConcurrencyPerHost: 1, obeyRobots: true },
        priority: 5,
        params: {},
      },
      { id: crawl },
    );
    await fresh.crawls.close(made.id);

    await fresh.purge(crawl);

    expect(await store.collection("items").countDocuments({ crawl })).toBe(0);
    expect(await store.collection("itemVersions").countDocuments({ crawl })).toBe(0);
  });
});

describe("items without keys", () => {
  it("are kept beside those that have one", async () => {
    const crawl = newCrawl();

    const known = await store.items.store([
      item(crawl, "a.0.0", 1, { sku: "x" }),
      item(crawl, "a.0.1", 1, { title: "no sku" }),
      item(crawl, "b.0.0", 2, { title: "no sku" }),
    ]);

    expect((await itemsOf(crawl)).map(({ id }) => id)).toEqual([
      `${crawl}:a.0.1`,
      `${crawl}:b.0.0`,
      expect.stringMatching(/:k-[A-Za-z0-9_-]{21}$/),
    ]);
    expect(known.get(crawl)).toBe(0);
  });
});

describe("what has expired", () => {
  const NOW = 1_700_000_000_000;
  const kept = { retentionMs: 10_000 };

  it("is removed, with what it was before, and the rest stays", async () => {
    const crawl = newCrawl();
    const history = { ...kept, history: true };
    await store.items.store([item(crawl, "a.0.0", NOW - 20_000, { sku: "old" }, kept)]);
    await store.items.store([item(crawl, "b.0.0", NOW - 30_000, { sku: "x", price: 1 }, history)]);
    await store.items.store([item(crawl, "b.1.0", NOW - 15_000, { sku: "x", price: 2 }, history)]);
    await store.items.store([item(crawl, "b.2.0", NOW - 5_000, { sku: "x", price: 3 }, history)]);
    await store.items.store([item(crawl, "c.0.0", NOW - 5_000, { title: "no key" }, kept)]);
    await store.items.store([item(crawl, "d.0.0", 1, { title: "for good" })]);

    const removed = await store.retention.removeExpired(NOW);

    expect((await itemsOf(crawl)).map(({ data }) => data)).toEqual(
      expect.arrayContaining([{ sku: "x", price: 3 }, { title: "no key" }, { title: "for good" }]),
    );
    expect(await itemsOf(crawl)).toHaveLength(3);
    expect(removed.get(crawl)).toEqual({ items: 1, files: 0 });
    expect(await store.collection("itemVersions").countDocuments({ crawl })).toBe(0);
  });

  it("is not removed when its data has come again", async () => {
    const crawl = newCrawl();
    await store.items.store([item(crawl, "a.0.0", NOW - 20_000, { sku: "x" }, kept)]);
    await store.items.store([item(crawl, "a.1.0", NOW - 1_000, { sku: "x" }, kept)]);

    await store.retention.removeExpired(NOW);

    expect(await itemsOf(crawl)).toMatchObject([{ at: NOW - 1_000, revision: 1 }]);
  });

  it("is removed and counted once, however many look for it", async () => {
    const crawl = newCrawl();
    const options = itemOptions.parse(kept);
    const records = Array.from({ length: 2_000 }, (_, n) => item(crawl, `p${n}.0.0`, NOW - 20_000, { n }));
    await store.items.store(keptAs({ items: records, files: [] }, { items: options }).items);

    const both = await Promise.all([store.retention.removeExpired(NOW), others.retention.removeExpired(NOW)]);

    expect(both.reduce((sum, each) => sum + (each.get(crawl)?.items ?? 0), 0)).toBe(2_000);
    expect(await itemsOf(crawl)).toEqual([]);
  });

  it("may be a file, whose bytes go with it unless another file has them", async () => {
    const crawl = newCrawl();
    const save = (text: string) =>
      store.contents.save(
        (async function* () {
          yield Buffer.from(text);
        })(),
        { name: "f", contentType: "text/plain" },
      );
    const file = (name: string, at: number, content: StoredContent) => {
      const record = {
        id: `${crawl}:${name}.0`,
        crawl,
        url: `http://shop.test/${name}`,
        name,
        contentType: "text/plain",
        at,
        ...content,
      };
      return keptAs({ items: [], files: [record] }, { items: itemOptions.parse(kept) }).files;
    };
    const alone = await save("alone");
    const shared = await save("shared");
    await store.results.store({ pages: [], items: [], files: file("alone", NOW - 20_000, alone) });
    await store.results.store({ pages: [], items: [], files: file("old", NOW - 20_000, shared) });
    await store.results.store({ pages: [], items: [], files: file("new", NOW, await save("shared")) });

    const removed = await store.retention.removeExpired(NOW);

    expect((await store.files.list(crawl)).items.map(({ name }) => name)).toEqual(["new"]);
    expect(removed.get(crawl)).toEqual({ items: 0, files: 2 });
    await expect(store.contents.open(shared.contentId)).resolves.toBeDefined();
  });
});

describe("items that are not as they should be", () => {
  function invalid(crawl: string, from: number, to: number): readonly InvalidItemRecord[] {
    return Array.from({ length: to - from }, (_, index) => ({
      ...item(crawl, `p${String(from + index).padStart(5, "0")}.0.0`, 1, {}),
      data: { $price: from + index, "a.b": null },
      reasons: ["price: must be a number"],
    })).map(({ keeping: _keeping, ...record }) => record);
  }

  it("are listed with their reasons, and read as a stream", async () => {
    const crawl = newCrawl();
    await store.invalidItems.store(invalid(crawl, 0, 7));

    const first = await store.invalidItems.list(crawl, { limit: 5 });
    const second = await store.invalidItems.list(crawl, { limit: 5, cursor: first.next ?? "" });
    const streamed = [];
    for await (const one of store.invalidItems.stream(crawl)) streamed.push(one);

    expect([...first.items, ...second.items]).toEqual(invalid(crawl, 0, 7));
    expect(streamed).toEqual(invalid(crawl, 0, 7));
  });

  it("are kept so many, and the others counted, each once", async () => {
    const crawl = newCrawl();
    const few = await stores.open({ invalidItemsKept: 20 });
    for (let from = 0; from < 100; from += 10) await few.invalidItems.store(invalid(crawl, from, from + 10));
    await few.invalidItems.store(invalid(crawl, 0, 100));

    expect((await few.invalidItems.list(crawl, { limit: 100 })).items).toEqual(invalid(crawl, 0, 20));
    expect(await store.collection("invalidItems").countDocuments()).toBe(100 + 7);
  });
});
