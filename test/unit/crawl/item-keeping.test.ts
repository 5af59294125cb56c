import { describe, expect, it } from "vitest";
import { keptAs, keyHash } from "../../../src/crawl/item-keeping.js";
import { itemOptions, withoutWebhookSecrets } from "../../../src/crawl/item-options.js";
import type { FileRecord, ItemRecord } from "../../../src/crawl/records.js";
import { fieldErrorsOf } from "../../../src/lib/field-errors.js";

const ITEM: ItemRecord = {
  id: "c:page.0.0",
  crawl: "c",
  url: "http://shop.test/1",
  at: 1_000,
  spider: "shop",
  version: "1",
  node: "n",
  data: { sku: "a-1", price: 3 },
};

const FILE: FileRecord = {
  id: "c:page.0",
  crawl: "c",
  url: "http://shop.test/1.pdf",
  contentId: "1",
  name: "1.pdf",
  bytes: 1,
  sha256: "",
  contentType: "application/pdf",
  at: 1_000,
};

function keepingOf(data: ItemRecord["data"], given: object) {
  const options = itemOptions.parse(given);
  return keptAs({ items: [{ ...ITEM, data }], files: [] as FileRecord[] }, { items: options }).items[0]
    ?.keeping;
}

function faultsOf(given: unknown): readonly string[] {
  const parsed = itemOptions.safeParse(given);
  return parsed.success ? [] : fieldErrorsOf(parsed.error).map(({ field, message }) => `${field} ${message}`);
}

describe("an item's key", () => {
  it("is the same for the same values, whatever else the item has and in whatever order", () => {
    const one = keyHash({ sku: { b: 1, a: [2] }, price: 3 }, ["sku"]);
    const other = keyHash({ title: "x", sku: { a: [2], b: 1 } }, ["sku"]);

    expect(one).toBe(other);
    expect(one).toMatch(/^[A-Za-z0-9_-]{21}$/);
  });

  it.each([
    ["text and a number", { sku: "1" }, { sku: 1 }],
    ["a list and its text", { sku: ["a"] }, { sku: '["a"]' }],
    ["true and its text", { sku: true }, { sku: "true" }],
  ])("tells %s apart", (_, one, other) => {
    expect(keyHash(one, ["sku"])).not.toBe(keyHash(other, ["sku"]));
  });

  it("is made of several fields, none of which runs into the next", () => {
    expect(keyHash({ a: "x", b: "y" }, ["a", "b"])).not.toBe(keyHash({ a: "y", b: "x" }, ["a", "b"]));
    expect(keyHash({ a: "x,", b: "y" }, ["a", "b"])).not.toBe(keyHash({ a: "x", b: ",y" }, ["a", "b"]));
    expect(keyHash({ a: "x" }, ["a", "b"])).toBe(keyHash({ a: "x", b: null }, ["a", "b"]));
  });

  it("is found by a path, and by a name with dots in it first", () => {
    expect(keyHash({ offer: { sku: "1" } }, ["offer.sku"])).toBe(
      keyHash({ "offer.sku": "1" }, ["offer.sku"]),
    );
    expect(keyHash({ "offer.sku": "1", offer: { sku: "2" } }, ["offer.sku"])).toBe(
      keyHash({ x: "1" }, ["x"]),
    );
    expect(keyHash({ list: ["a", "b"] }, ["list.1"])).toBe(keyHash({ x: "b" }, ["x"]));
  });

  it("is none when all of its fields are missing, or belong to what every object has", () => {
    expect(keyHash({ price: 1 }, ["sku", "offer.sku"])).toBeUndefined();
    expect(keyHash({ price: 1 }, ["constructor", "price.constructor.name", "__proto__"])).toBeUndefined();
  });

  it("is none of an item that cannot be written as JSON", () => {
    const endless: Record<string, unknown> = { sku: "1" };
    endless.self = endless;

    expect(keepingOf(endless, { key: "sku" })).toEqual({});
    expect(keepingOf({ sku: 12n }, { key: "sku" })).toHaveProperty("key");
  });
});

describe("how items are kept", () => {
  it("is not said of crawls that do not say it", () => {
    const found = { items: [ITEM], files: [FILE] };

    expect(keptAs(found, {})).toBe(found);
  });

  it("says nothing for options without wishes", () => {
    expect(keepingOf({ sku: 1 }, {})).toEqual({});
  });

  it("names the data, so that the same data is told", () => {
    const one = keepingOf({ sku: 1, price: 2 }, { key: "sku", history: true });
    const same = keepingOf({ price: 2, sku: 1 }, { key: "sku", history: true });
    const other = keepingOf({ sku: 1, price: 3 }, { key: "sku", history: true });

    expect(one).toEqual(same);
    expect(one).toMatchObject({ key: other?.key, hasHistory: true });
    expect(one?.digest).not.toBe(other?.digest);
  });

  it("says until when, of items and of files", () => {
    const options = itemOptions.parse({ retentionMs: 5_000 });
    const { items, files } = keptAs({ items: [ITEM], files: [FILE] }, { items: options });

    expect(items[0]?.keeping).toEqual({ expiresAt: 6_000 });
    expect(files[0]?.expiresAt).toBe(6_000);
  });

  it.each([[{ publish: true }], [{ webhooks: [{ url: "https://hooks.test/" }] }]])(
    "says that others are told of it: %j",
    (given) => {
      expect(keepingOf({}, given)).toEqual({ isFed: true });
    },
  );
});

describe("item options", () => {
  it("do nothing unless they say so", () => {
    expect(itemOptions.parse({})).toEqual({ history: false, publish: false, webhooks: [] });
  });

  it.each([
    [{ history: true }, "history needs key: only items that are told apart by one have earlier versions"],
    [{ key: "" }, "key must not be empty"],
    [{ key: [] }, "key must name at least one field"],
    [{ key: "a\0" }, "key must not have NUL characters"],
    [{ retentionMs: 1 }, "retentionMs must be from 1000 to 315360000000"],
    [{ keys: "sku" }, "keys is not known here"],
    [{ webhooks: [{}] }, "webhooks.0.url is missing; must be a string"],
    [
      { webhooks: [{ url: "ftp://hooks.test/" }] },
      "webhooks.0.url must be an absolute http or https URL, without user name, password or fragment",
    ],
    [
      { webhooks: [{ url: "https://me:secret@hooks.test/" }] },
      "webhooks.0.url must be an absolute http or https URL, without user name, password or fragment",
    ],
    [
      { webhooks: [{ url: "https://a.test/", secret: "whsec_a" }] },
      "webhooks.0.secret must be base64 after whsec_",
    ],
    [
      { webhooks: [{ url: "https://a.test/", secret: "short" }] },
      "webhooks.0.secret must have at least 8 characters",
    ],
    [{ webhooks: [{ url: "https://a.test/", events: [] }] }, "webhooks.0.events must name at least one"],
  ])("name what is wrong with %j", (given, fault) => {
    expect(faultsOf(given)).toContain(fault);
  });

  it("are shown without the secrets of webhooks", () => {
    const options = itemOptions.parse({
      webhooks: [
        { url: "https://a.test/", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" },
        { url: "https://b.test/" },
      ],
    });

    expect(withoutWebhookSecrets(options).webhooks).toEqual([
      { url: "https://a.test/", secret: "***" },
      { url: "https://b.test/" },
    ]);
  });
});
