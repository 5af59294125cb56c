import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CrawlSpec, DEFAULT_POLITENESS, INBOX } from "../../src/crawl/crawl.js";
import type { Ending, NewUrl } from "../../src/crawl/frontier.js";
import type { FileRecord, ItemRecord, PageRecord, StoredContent } from "../../src/crawl/records.js";
import { RECRAWL_DEFAULTS } from "../../src/crawl/recrawl-options.js";
import type { Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const SPEC: CrawlSpec = {
  spider: "links",
  seeds: ["http://a.test/"],
  scope: "host",
  limits: {},
  politeness: DEFAULT_POLITENESS,
  priority: 5,
  params: { $set: { "a.b": 1 }, _bsontype: "ObjectId" },
};

describe("Crawls", () => {
  const stores = new StoresUnderTest();
  let one: Store;
  let other: Store;
  beforeAll(async () => {
    one = await stores.open();
    other = await stores.open();
  });
  afterAll(() => stores.dispose());

  async function newCrawl(spec: Partial<CrawlSpec> = {}) {
    const { crawl } = await one.crawls.create({ ...SPEC, ...spec });
    const url = (path: string, about: Partial<NewUrl> = {}): NewUrl => ({
      id: `${crawl.id}:${path}`,
      crawl: crawl.id,
      url: `http://a.test/${path}`,
      host: "a.test",
      kind: "page",
      depth: 0,
      priority: 5,
      ...about,
    });
    return { id: crawl.id, url };
  }

  let tokens = 0;
  async function finishUrls(store: Store, urls: readonly NewUrl[]): Promise<void> {
    tokens += 1;
    const token = `1.${process.pid}.${tokens}`;
    const marked = await store.frontier.dispatch(
      urls.map(({ id }) => id),
      { token, generation: 1, dispatchedAt: Date.now(), notAfter: Date.now() + 60_000 },
    );
    await store.frontier.commit(urls.filter(({ id }) => marked.has(id)).map((url) => done(url, token)));
  }

  const done = ({ id, crawl }: NewUrl, token: string): Ending => ({
    id,
    crawl,
    token,
    attempts: 1,
    statusCode: 200,
    state: "done",
    items: 0,
    files: 0,
  });

  describe("create", () => {
    it("records a crawl as it was asked for, which runs", async () => {
      const { crawl, isNew } = await one.crawls.create({ ...SPEC, name: "books" }, { resource: "books" });

      expect(isNew).toBe(true);
      expect(crawl).toMatchObject({ ...SPEC, name: "books", status: "running", generation: 1, additions: 0 });
      expect(await other.crawls.get(crawl.id)).toEqual(crawl);
      expect(await other.crawls.byResource("books")).toEqual(crawl);
      expect(await other.crawls.getMany([crawl.id, "nobody"])).toEqual([crawl]);
      expect((await other.crawls.running()).map(({ id }) => id)).toContain(crawl.id);
    });

    it("refuses a second crawl of an id or a resource", async () => {
      await one.crawls.create(SPEC, { id: "mine", resource: "http://mine.test/" });

      await expect(one.crawls.create(SPEC, { id: "mine" })).rejects.toMatchObject({ code: "conflict" });
      await expect(one.crawls.create(SPEC, { resource: "http://mine.test/" })).rejects.toMatchObject({
        code: "conflict",
      });
    });

    it("makes one crawl of requests with the same key, and refuses another body", async () => {
      const idempotency = { key: "k1", digest: "d1" };

      const both = await Promise.all([
        one.crawls.create(SPEC, { idempotency }),
        other.crawls.create(SPEC, { idempotency }),
      ]);

      expect(both.map(({ isNew }) => isNew).sort()).toEqual([false, true]);
      expect(both[0].crawl.id).toBe(both[1].crawl.id);
      await expect(
        one.crawls.create(SPEC, { idempotency: { key: "k1", digest: "d2" } }),
      ).rejects.toMatchObject({ code: "key-reused" });
    });

    it("keeps a standing inbox for URLs without a crawl, which never finishes", async () => {
      const inbox = await one.crawls.get(INBOX);

      expect(inbox).toMatchObject({
        spider: "pdf",
        scope: "any",
        limits: { maxDepth: 0 },
        status: "running",
      });
      expect(await one.crawls.finishIfOver(INBOX)).toBeUndefined();
      expect((await one.crawls.get(INBOX))?.status).toBe("running");
    });

    it("names crawls whose seeds were never added", async () => {
      const seeded = await newCrawl();
      const unseeded = await newCrawl();
      await one.crawls.added(seeded.id);

      const found = (await one.crawls.unseeded(-1_000)).map(({ id }) => id);

      expect(found).toContain(unseeded.id);
      expect(found).not.toContain(seeded.id);
      expect(await one.crawls.finishIfOver(unseeded.id)).toBeUndefined();
    });
  });

  describe("list", () => {
    it("shows all crawls, newest first, each once, whatever the page size", async () => {
      const created = [];
      for (let index = 0; index < 7; index += 1) created.push((await newCrawl({ name: `list-${index}` })).id);
      await one.crawls.close(created[0] ?? "");

      for (const limit of [1, 3, 100]) {
        const listed: string[] = [];
        let cursor: string | undefined;
        do {
          const page = await one.crawls.list({ limit, ...(cursor !== undefined && { cursor }) });
          listed.push(...page.items.map(({ id }) => id));
          cursor = page.next ?? undefined;
        } while (cursor !== undefined);
        expect(new Set(listed).size).toBe(listed.length);
        expect(listed.slice(0, 7)).toEqual([...created].reverse());
        expect(listed).toContain(INBOX);
      }
      expect((await one.crawls.list({ status: "closed" })).items.map(({ id }) => id)).toContain(created[0]);
      expect((await one.crawls.closed()).map(({ id }) => id)).toContain(created[0]);
    });
  });

  describe("changes of status", () => {
    it("pauses and resumes without making tasks stale", async () => {
      const { id } = await newCrawl();

      expect(await one.crawls.pause(id)).toMatchObject({ status: "paused", generation: 1 });
      expect(await one.crawls.pause(id)).toMatchObject({ status: "paused", generation: 1 });
      expect(await one.crawls.resume(id)).toMatchObject({ status: "running", generation: 1 });
    });

    it("raises the generation when a crawl is closed, and when it is resumed", async () => {
      const { id } = await newCrawl();

      expect(await one.crawls.close(id)).toMatchObject({ status: "closed", generation: 2 });
      expect(await one.crawls.close(id)).toMatchObject({ status: "closed", generation: 2 });
      expect(await one.crawls.resume(id)).toMatchObject({ status: "running", generation: 3 });
      expect(await one.crawls.resume(id)).toMatchObject({ status: "running", generation: 3 });
    });

    it("fails a crawl with its reason, and lets it be resumed", async () => {
      const { id } = await newCrawl();

      expect(await one.crawls.fail(id, "no such spider")).toMatchObject({
        status: "failed",
        error: "no such spider",
      });
      const resumed = await one.crawls.resume(id);

      expect(resumed.status).toBe("running");
      expect(resumed.error).toBeUndefined();
    });

    it("refuses changes that lead nowhere", async () => {
      const { id } = await newCrawl();
      await one.crawls.close(id);

      await expect(one.crawls.pause(id)).rejects.toMatchObject({ code: "conflict" });
      await expect(one.crawls.pause("nobody")).rejects.toMatchObject({ code: "not-found" });
      await expect(one.crawls.close("nobody")).rejects.toMatchObject({ code: "not-found" });
      await expect(one.crawls.resume("nobody")).rejects.toMatchObject({ code: "not-found" });
      await expect(one.crawls.added("nobody")).rejects.toMatchObject({ code: "not-found" });
    });
  });

  describe("the end of a crawl", () => {
    it("comes when nothing is queued or dispatched, with exact counts of what is stored", async () => {
      const { id, url } = await newCrawl();
      const [first, second] = [url("1"), url("2")];
      await one.frontier.add([first, second, url("3", { skip: "scope" })]);
      await one.crawls.added(id);
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await finishUrls(one, [first]);
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await finishUrls(one, [second]);
      const about = { crawl: id, url: first.url, at: 1 };
      const page: PageRecord = {
        ...about,
        id: `${first.id}.0`,
        statusCode: 200,
        bytes: 700,
        depth: 0,
        node: "n",
      };
      const item: ItemRecord = {
        ...about,
        id: `${first.id}.0.0`,
        spider: "s",
        version: "1",
        node: "n",
        data: {},
      };
      const file: FileRecord = {
        ...about,
        id: `${second.id}.0`,
        contentId: "c",
        name: "f",
        bytes: 77,
        sha256: "",
        contentType: "application/pdf",
      };
      const invalid = {
        ...item,
        id: `${first.id}.0.2`,
        data: { $where: "\0" },
        reasons: ["$where: not here"],
      };
      const results = {
        pages: [page],
        items: [item, { ...item, id: `${first.id}.0.1` }],
        invalidItems: [invalid],
        files: [file],
      };
      await one.results.store(results);
      await one.results.store(results);
      one.crawls.count(id, { done: 40, queued: -3 });
      await one.crawls.flushCounts();

      const both = await Promise.all([one.crawls.finishIfOver(id), other.crawls.finishIfOver(id)]);

      const finished = both.filter((crawl) => crawl !== undefined);
      expect(finished).toHaveLength(1);
      expect(finished[0]).toMatchObject({
        status: "finished",
        finishReason: "completed",
        finishedAt: expect.any(Number),
        counts: {
          ...{ queued: 0, active: 0, done: 2, failed: 0, skipped: 1 },
          ...{ items: 2, invalidItems: 1, files: 1, bytes: 777 },
        },
      });
      expect(await one.crawls.get(id)).toEqual(finished[0]);
    });

    it("is told whatever collections come into being meanwhile", async () => {
      const { id } = await newCrawl();
      await one.crawls.added(id);
      // A snapshot cannot be read from a collection that is younger than it.
      const creating = Array.from({ length: 20 }, (_, index) =>
        one.collection(`fresh-${index}`).insertOne({ index }),
      );
      const results = ["pages", "items", "files"].map((name) => one.collection(name).drop());
      await Promise.all([...creating, ...results]);
      const item: ItemRecord = {
        id: `${id}:u.0.0`,
        crawl: id,
        url: "",
        at: 1,
        spider: "s",
        version: "1",
        node: "n",
        data: {},
      };
      const storing = one.items.store([item]);

      const [finished] = await Promise.all([one.crawls.finishIfOver(id), storing]);

      expect(finished?.status).toBe("finished");
    });

    it("does not come while a crawl is paused or closed", async () => {
      const { id } = await newCrawl();
      await one.crawls.added(id);
      await one.crawls.pause(id);
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await one.crawls.close(id);
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await one.crawls.resume(id);
      expect(await one.crawls.finishIfOver(id)).toMatchObject({ status: "finished" });
    });

    it("is taken back when URLs are added", async () => {
      const { id, url } = await newCrawl();
      await one.crawls.added(id);
      expect(await one.crawls.finishIfOver(id)).toMatchObject({ status: "finished", generation: 1 });

      await one.frontier.add([url("1")]);
      const { crawl, reopened } = await other.crawls.added(id);

      expect(reopened).toBe(true);
      expect(crawl).toMatchObject({ status: "running", generation: 2 });
      expect(crawl.finishedAt).toBeUndefined();
      expect(crawl.finishReason).toBeUndefined();
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
    });

    it("loses no URL that is added while it comes", async () => {
      const { id, url } = await newCrawl();
      let number = 0;
      for (let round = 0; round < 60; round += 1) {
        const added = url(String(number++));
        const adding = (async () => {
          await other.frontier.add([added]);
          return other.crawls.added(id);
        })();
        const [first] = await Promise.all([
          one.crawls.finishIfOver(id),
          adding,
          other.crawls.finishIfOver(id),
        ]);

        const crawl = await one.crawls.get(id);
        // The URL is queued now, so whatever came first, the crawl must not stand as finished.
        expect(crawl?.status, `round ${round}, finished on the way: ${first !== undefined}`).toBe("running");
        await finishUrls(one, [added]);
        const finishing = await Promise.all([one.crawls.finishIfOver(id), other.crawls.finishIfOver(id)]);
        expect(finishing.filter((finished) => finished !== undefined)).toHaveLength(1);
        expect((await one.crawls.get(id))?.counts).toMatchObject({ queued: 0, active: 0, done: number });
      }
    });

    it("comes early when a limit cuts the crawl, and names the limit", async () => {
      const { id, url } = await newCrawl();
      const urls = Array.from({ length: 2_500 }, (_, index) => url(String(index)));
      await one.frontier.add(urls);
      await one.crawls.added(id);
      const flying = urls.slice(0, 2);
      const sent = { token: "1.cut.1", generation: 1, dispatchedAt: 1, notAfter: 1 };
      await one.frontier.dispatch(
        flying.map(({ id: urlId }) => urlId),
        sent,
      );

      expect(await one.crawls.cut(id, "maxDurationMs")).toBe(2_498);
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      // What the last page still links to is cut as well.
      await one.frontier.add([url("late")]);
      await one.frontier.commit(flying.map((end) => done(end, sent.token)));

      expect(await one.crawls.finishIfOver(id)).toMatchObject({
        finishReason: "maxDurationMs",
        counts: { queued: 0, active: 0, done: 2, skipped: 2_499 },
      });
      expect((await one.urls.get(url("late").id))?.reason).toBe("limit");
    });

    it("lets attempts go on that a spent page budget has paid for", async () => {
      const { id, url } = await newCrawl({ limits: { maxPages: 1 } });
      await one.frontier.add([url("tried"), url("fresh")]);
      await one.crawls.added(id);
      const sent = { token: "1.budget.1", generation: 1, dispatchedAt: 1, notAfter: 1 };
      await one.frontier.dispatch([url("tried").id], sent);
      const {
        items: _items,
        files: _files,
        ...facts
      } = { ...done(url("tried"), sent.token), items: 0, files: 0 };
      await one.frontier.commit([{ ...facts, statusCode: 503, state: "queued", readyAt: 0 }]);

      expect(await one.crawls.cut(id, "maxPages")).toBe(1);
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await finishUrls(one, [url("tried")]);

      expect(await one.crawls.finishIfOver(id)).toMatchObject({
        finishReason: "maxPages",
        counts: { done: 1, skipped: 1 },
      });
    });
  });

  describe("with recrawl", () => {
    const SHARDS = Array.from({ length: 64 }, (_, shard) => shard);

    /** A crawl of two URLs, of which the first has ended and comes again. */
    async function comingAgain(spec: Partial<CrawlSpec> = {}) {
      const { id, url } = await newCrawl({ recrawl: RECRAWL_DEFAULTS, ...spec });
      const urls = [url("again"), url("once")];
      await one.crawls.reserve(id, 2);
      await one.frontier.add(urls);
      await one.crawls.added(id);
      await finishUrls(one, urls.slice(1));
      const end = async (isAgain: boolean) => {
        const token = `2.${id}.${isAgain}`;
        await one.frontier.dispatch([urls[0]?.id ?? ""], {
          token,
          generation: 1,
          dispatchedAt: Date.now(),
          notAfter: Date.now() + 60_000,
        });
        const nextVisit = { at: Date.now(), revisit: { intervalMs: 1 } };
        const ending = { ...done(url("again"), token), ...(isAgain && { nextVisit }) };
        await one.frontier.commit([ending as Ending]);
      };
      await end(true);
      return { id, end, open: () => one.rounds.openDue(id, SHARDS, Date.now() + 1, 10) };
    }

    it("is not over while a URL comes again, and is when none does", async () => {
      const { id, end, open } = await comingAgain();

      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await open();
      expect(await one.crawls.finishIfOver(id)).toBeUndefined();
      await end(false);

      expect(await one.crawls.finishIfOver(id)).toMatchObject({
        finishReason: "completed",
        counts: { done: 2, queued: 0 },
      });
    });

    it("is over when a limit ends it, and what was done stays done", async () => {
      for (const isOpen of [false, true]) {
        const { id, open } = await comingAgain();
        if (isOpen) await open();

        await one.crawls.cut(id, "maxDurationMs");

        expect(await one.crawls.finishIfOver(id)).toMatchObject({
          finishReason: "maxDurationMs",
          counts: { done: 2, skipped: 0, queued: 0 },
        });
      }
    });

    it("uses its page budget in every round", async () => {
      const { id, end, open } = await comingAgain({ limits: { maxPages: 3 } });
      expect(await one.crawls.settleBudget(id, 0)).toBe("spent");
      await open();
      expect(await one.crawls.settleBudget(id, 0)).toBe("spent");
      expect(await one.crawls.reserve(id, 5)).toBe(1);
      await end(false);

      expect(await one.crawls.settleBudget(id, 0)).toBe("spent");
      expect(await one.crawls.reserve(id, 1)).toBe(0);
    });
  });

  describe("purge", () => {
    it("removes a crawl with all that it left, and nothing of others", async () => {
      const kept = await newCrawl();
      const { id, url } = await newCrawl();
      await one.frontier.add([url("1"), kept.url("1")]);
      const save = (text: string) =>
        one.contents.save(
          (async function* () {
            yield Buffer.from(text);
          })(),
          { name: "f", contentType: "text/plain" },
        );
      const mine = await save("mine");
      const theirs = await save("theirs");
      const file = (crawl: string, saved: StoredContent): FileRecord => ({
        id: `${crawl}:1.0`,
        crawl,
        url: "http://a.test/1",
        ...saved,
        name: "f",
        contentType: "text/plain",
        at: 1,
      });
      await one.results.store({ pages: [], items: [], files: [file(id, mine), file(kept.id, theirs)] });
      await one.replies.expect([{ id: "r1", crawl: id, urlId: url("1").id, url: "u", replyTo: "q" }]);

      await expect(one.purge(id)).rejects.toMatchObject({ code: "conflict" });
      await one.crawls.close(id);
      await one.purge(id);

      expect(await one.crawls.get(id)).toBeUndefined();
      expect((await one.urls.list(id)).items).toEqual([]);
      expect((await one.files.list(id)).items).toEqual([]);
      await expect(one.contents.open(mine.contentId)).rejects.toMatchObject({ code: "not-found" });
      expect(await one.collection("replies").countDocuments({ crawl: id })).toBe(0);
      expect((await one.urls.list(kept.id)).items).toHaveLength(1);
      expect(await (await one.contents.open(theirs.contentId)).toArray()).toEqual([Buffer.from("theirs")]);
      await expect(one.purge(id)).rejects.toMatchObject({ code: "not-found" });
      await expect(one.purge(INBOX)).rejects.toMatchObject({ code: "conflict" });
    });
  });
});
