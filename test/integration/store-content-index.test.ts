import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CrawlSpec, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import type { Store } from "../../src/store/index.js";
import { contentIndexContract } from "../support/content-index-contract.js";
import { StoresUnderTest } from "../support/store-under-test.js";

contentIndexContract("MongoContentIndex", async () => {
  const stores = new StoresUnderTest();
  const [one, other] = [await stores.open(), await stores.open()];
  return { indexes: [one.bodies, other.bodies], dispose: () => stores.dispose() };
});

describe("MongoContentIndex", () => {
  const stores = new StoresUnderTest();
  let store: Store;
  beforeAll(async () => {
    store = await stores.open();
  });
  afterAll(() => stores.dispose());

  it("forgets a crawl that is purged, and no other", async () => {
    const spec: CrawlSpec = {
      spider: "links",
      seeds: [],
      scope: "any",
      limits: {},
      politeness: DEFAULT_POLITENESS,
      priority: 5,
      params: {},
    };
    const ids: string[] = [];
    for (let number = 0; number < 2; number += 1) {
      const { crawl } = await store.crawls.create(spec);
      ids.push(crawl.id);
      const urlId = `${crawl.id}:a`;
      const simhash = "0123456789abcdef";
      await store.bodies.claim({ crawl: crawl.id, urlId, url: "http://a.test/a", contentHash: "h", simhash });
      await store.crawls.close(crawl.id);
    }
    const [purged = "", kept = ""] = ids;

    await store.purge(purged);

    for (const name of ["bodies", "likenesses"]) {
      const left = await store.collection<{ _id: string }>(name).find().toArray();
      expect(left.map(({ _id }) => _id.split(":")[0])).toEqual([kept]);
    }
  });
});
