import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CrawlSpec, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import type { Dispatch, Ending, NewUrl } from "../../src/crawl/frontier.js";
import type { ListedState, Store } from "../../src/store/index.js";
import { frontierContract } from "../support/frontier-contract.js";
import { StoresUnderTest } from "../support/store-under-test.js";

frontierContract("MongoFrontier", async () => {
  const stores = new StoresUnderTest();
  const store = await stores.open();
  return { frontier: store.frontier, shardCount: store.shardCount, dispose: () => stores.dispose() };
});

describe("MongoFrontier", () => {
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
    const url = (path: string, about: Partial<NewUrl> = {}): NewUrl => ({
      id: `${crawl}:${path}`,
      crawl,
      url: `http://${about.host ?? `${crawl}.test`}/${path}`,
      host: `${crawl}.test`,
      kind: "page",
      depth: 0,
      priority: 5,
      ...about,
    });
    const urls = (count: number) =>
      Array.from({ length: count }, (_, index) => url(String(index).padStart(5, "0")));
    return { crawl, url, urls };
  }

  let tokens = 0;
  function newDispatch(): Dispatch {
    tokens += 1;
    const dispatchedAt = Date.now();
    return { token: `1.${tokens}`, generation: 1, dispatchedAt, notAfter: dispatchedAt + 60_000 };
  }

  const done = (url: NewUrl, token: string): Ending => ({
    id: url.id,
    crawl: url.crawl,
    token,
    attempts: 1,
    statusCode: 200,
    state: "done",
    items: 1,
    files: 0,
  });

  it("gives each URL to one of two processes that add, dispatch and commit the same ones at once", async () => {
    const { urls: make, crawl } = newCrawl();
    const urls = make(1_000);
    const halves = (store: Store) => [store.frontier.add(urls), store.frontier.add([...urls].reverse())];

    const added = await Promise.all([...halves(one), ...halves(other)]);
    expect(added.reduce((sum, { queued }) => sum + queued.length, 0)).toBe(1_000);
    expect(new Set(added.flatMap(({ queued }) => queued.map(({ id }) => id))).size).toBe(1_000);
    expect(added.reduce((sum, { known }) => sum + known, 0)).toBe(3_000);

    const ids = urls.map(({ id }) => id);
    const sent = Array.from({ length: 8 }, newDispatch);
    const marked = await Promise.all(
      sent.map((dispatch, index) => (index % 2 === 0 ? one : other).frontier.dispatch(ids, dispatch)),
    );
    expect(marked.reduce((sum, { size }) => sum + size, 0)).toBe(1_000);

    const tokenOf = new Map(
      marked.flatMap((set, index) => [...set].map((id) => [id, sent[index]?.token ?? ""])),
    );
    const endings = urls.map((url) => done(url, tokenOf.get(url.id) ?? ""));
    const applied = await Promise.all([one.frontier.commit(endings), other.frontier.commit(endings)]);
    expect(applied.reduce((sum, { size }) => sum + size, 0)).toBe(1_000);
    expect(new Set(applied.flatMap((set) => [...set])).size).toBe(1_000);
    expect(await one.crawls.recount(crawl)).toMatchObject({ queued: 0, active: 0, done: 1_000 });
  });

  it("reads lanes, hosts and what is dispatched from its index alone", async () => {
    const { urls, crawl } = newCrawl();
    await one.frontier.add(urls(10));
    const collection = one.collection("urls");
    const queued = { state: "queued", crawl } as const;

    const lane = await collection
      .find({ ...queued, shard: 1, host: "h" })
      .sort({ priority: -1, readyAt: 1 })
      .explain("queryPlanner");
    const left = await collection
      .find({ state: { $in: ["queued", "dispatched"] }, crawl })
      .explain("queryPlanner");
    const dispatched = await collection
      .find({ state: "dispatched", shard: { $in: [1, 2] } })
      .explain("queryPlanner");

    for (const plan of [lane, left, dispatched]) {
      const text = JSON.stringify(plan.queryPlanner.winningPlan);
      expect(text).toContain('"indexName":"open"');
      expect(text).not.toContain('"SORT"');
    }
  });

  it("tells of each URL from outside what became of it", async () => {
    const { url } = newCrawl();
    const sent = newDispatch();
    await one.frontier.add([
      url("waits"),
      url("flies"),
      url("ended"),
      url("deep", { depth: 3, skip: "depth" }),
    ]);
    await one.frontier.dispatch([url("flies").id, url("ended").id], sent);
    await one.frontier.commit([done(url("ended"), sent.token)]);

    const admitted = await one.frontier.admit([
      { url: url("new") },
      { url: url("new") },
      { url: url("waits") },
      { url: url("flies"), refetch: true },
      { url: url("ended") },
      { url: url("deep") },
    ]);

    expect(admitted).toEqual([
      { kind: "added" },
      { kind: "known", state: "queued" },
      { kind: "known", state: "queued" },
      { kind: "known", state: "dispatched" },
      { kind: "known", state: "done" },
      { kind: "requeued" },
    ]);
  });

  it("fetches a URL that has ended once more when asked to, as a new round and as it is asked for now", async () => {
    const { crawl, url } = newCrawl();
    const sent = newDispatch();
    const request = { meta: { first: true } };
    await one.frontier.add([url("a", { depth: 2, request })]);
    await one.frontier.dispatch([url("a").id], sent);
    await one.frontier.commit([done(url("a"), sent.token)]);

    const admissions = [{ url: url("a", { priority: 8 }), refetch: true }];
    const both = await Promise.all([one.frontier.admit(admissions), other.frontier.admit(admissions)]);

    expect(both.map(([admitted]) => admitted?.kind).sort()).toEqual(["known", "requeued"]);
    const { urls } = await one.frontier.queued({ crawl, host: url("a").host }, 10, Date.now());
    expect(urls).toEqual([
      { ...url("a", { priority: 8 }), readyAt: expect.any(Number), attempts: 0, round: 1 },
    ]);
    expect(await one.urls.get(url("a").id)).toEqual(
      expect.not.objectContaining({ statusCode: expect.anything() }),
    );
  });

  it("takes back all that a closed crawl has in flight, and nothing of others", async () => {
    const mine = newCrawl();
    const others = newCrawl();
    const sent = newDispatch();
    const all = [...mine.urls(5), ...others.urls(3)];
    await one.frontier.add(all);
    await one.frontier.dispatch(
      all.map(({ id }) => id),
      sent,
    );

    expect(await one.frontier.releaseCrawl(mine.crawl)).toBe(5);

    expect(await one.crawls.recount(mine.crawl)).toMatchObject({ queued: 5, active: 0 });
    expect(await one.crawls.recount(others.crawl)).toMatchObject({ queued: 0, active: 3 });
    expect(await one.frontier.commit([done(all[0] as NewUrl, sent.token)])).toEqual(new Set());
  });

  it("shows how many of a URL's items were refused, until it ends anew", async () => {
    const { crawl, url } = newCrawl();
    const refused = url("one");
    await one.frontier.add([refused]);
    const end = async (invalidItems: number | undefined) => {
      const dispatch = newDispatch();
      await one.frontier.dispatch([refused.id], dispatch);
      const ending = {
        ...done(refused, dispatch.token),
        ...(invalidItems !== undefined && { invalidItems }),
      };
      await one.frontier.commit([ending]);
      return (await one.urls.list(crawl, { limit: 10 })).items;
    };

    expect(await end(2)).toMatchObject([{ state: "done", items: 1, invalidItems: 2 }]);
    await one.rounds.open(crawl, { ids: [refused.id] }, 10);
    expect(await end(undefined)).toMatchObject([{ state: "done", items: 1, invalidItems: 0 }]);
  });

  it("keeps what exactly speaks against a URL, until it waits after all", async () => {
    const { crawl, url } = newCrawl();
    const error = 'trap "calendar": from 2028-11-01 to 2028-12-01';
    await one.frontier.add([
      url("trap", { skip: "limit", error }),
      url("deep", { skip: "depth", error: "too deep", depth: 3 }),
    ]);
    const rows = async () => (await one.urls.list(crawl, { limit: 10 })).items;
    expect(await rows()).toEqual([
      expect.objectContaining({ state: "skipped", reason: "depth", error: "too deep" }),
      expect.objectContaining({ state: "skipped", reason: "limit", error }),
    ]);
    await one.frontier.add([url("deep", { depth: 1 }), url("trap")]);
    const [deep, trap] = await rows();
    expect(deep).toMatchObject({ state: "queued" });
    expect(deep).not.toHaveProperty("error");
    expect(trap).toMatchObject({ state: "skipped", error });
  });

  describe("lists", () => {
    const { crawl, url } = newCrawl();
    const hosts = ["a.test", "b.test", "c.test"];
    const named = (state: string, count: number) =>
      hosts.flatMap((host) =>
        Array.from({ length: count }, (_, index) => url(`${state}-${host}-${index}`, { host })),
      );

    beforeAll(async () => {
      const sent = newDispatch();
      const flying = named("active", 3);
      const ended = [...named("done", 4), ...named("failed", 5)];
      await one.frontier.add([...named("queued", 7), ...flying, ...ended]);
      await one.frontier.add(named("skipped", 6).map((skipped) => ({ ...skipped, skip: "scope" as const })));
      await one.frontier.dispatch(
        [...flying, ...ended].map(({ id }) => id),
        sent,
      );
      await one.frontier.commit(
        ended.map((end) =>
          end.id.includes("failed")
            ? {
                ...done(end, sent.token),
                state: "failed",
                reason: "http-status",
                statusCode: 404,
                items: 0,
                files: 0,
              }
            : done(end, sent.token),
        ),
      );
    });

    async function collect(options: { state?: ListedState; host?: string; limit: number }) {
      const found = [];
      let cursor: string | undefined;
      do {
        const page = await one.urls.list(crawl, { ...options, ...(cursor !== undefined && { cursor }) });
        expect(page.items.length).toBeLessThanOrEqual(options.limit);
        found.push(...page.items);
        cursor = page.next ?? undefined;
      } while (cursor !== undefined);
      return found;
    }

    const sizes = { queued: 21, active: 9, done: 12, failed: 15, skipped: 18 } as const;
    for (const [state, size] of Object.entries(sizes) as [ListedState, number][]) {
      for (const limit of [1, 2, 7, 100]) {
        it(`shows each ${state} URL once, ${limit} a page, over all hosts and on one`, async () => {
          const rows = await collect({ state, limit });
          expect(new Set(rows.map(({ id }) => id)).size).toBe(size);
          expect(rows).toHaveLength(size);
          expect(rows.every((row) => row.state === state)).toBe(true);

          const onHost = await collect({ state, limit, host: "b.test" });
          expect(onHost).toHaveLength(size / 3);
          expect(onHost.every((row) => row.host === "b.test")).toBe(true);
        });
      }
    }

    it("shows all URLs, each once, with what is known of them", async () => {
      const rows = await collect({ limit: 10 });

      expect(rows).toHaveLength(75);
      expect(rows.find(({ id }) => id === url("failed-a.test-0").id)).toEqual({
        id: url("failed-a.test-0").id,
        url: "http://a.test/failed-a.test-0",
        state: "failed",
        kind: "page",
        depth: 0,
        priority: 5,
        host: "a.test",
        attempts: 1,
        round: 0,
        statusCode: 404,
        reason: "http-status",
        items: 0,
        invalidItems: 0,
        files: 0,
        at: expect.any(Number),
      });
      expect(await collect({ limit: 10, host: "c.test" })).toHaveLength(25);
    });

    it("refuses a cursor that it did not give out", async () => {
      for (const cursor of ["", "nonsense", Buffer.from('{"$gt":""}').toString("base64url")]) {
        await expect(one.urls.list(crawl, { state: "queued", cursor })).rejects.toMatchObject({
          code: "invalid",
        });
      }
    });
  });

  it("counts the budget of pages exactly, and gives back what was not used", async () => {
    const { urls: make } = newCrawl();
    const spec: CrawlSpec = {
      spider: "links",
      seeds: [],
      scope: "host",
      limits: { maxPages: 10 },
      politeness: DEFAULT_POLITENESS,
      priority: 5,
      params: {},
    };
    const { crawl: budgeted } = await one.crawls.create(spec);
    const urls = make(20).map((url) => ({
      ...url,
      id: url.id.replace(/^[^:]*/, budgeted.id),
      crawl: budgeted.id,
    }));
    await one.frontier.add(urls);

    const granted = await Promise.all(
      Array.from({ length: 6 }, (_, index) => (index % 2 === 0 ? one : other).crawls.reserve(budgeted.id, 3)),
    );
    expect(granted.reduce((sum, pages) => sum + pages, 0)).toBe(10);
    expect(await one.crawls.reserve(budgeted.id, 1)).toBe(0);

    const sent = newDispatch();
    await one.frontier.dispatch(
      urls.slice(0, 10).map(({ id }) => id),
      sent,
    );
    expect(await one.crawls.settleBudget(budgeted.id, 0)).toBe("spent");
    await one.frontier.commit(
      urls.slice(0, 10).map((url, index) =>
        index < 4
          ? {
              ...done(url, sent.token),
              attempts: 0,
              state: "skipped",
              reason: "robots",
              items: 0,
              files: 0,
            }
          : done(url, sent.token),
      ),
    );
    // Someone who reserved a moment ago might still be about to dispatch.
    expect(await one.crawls.settleBudget(budgeted.id, 3_600_000)).toBe("wait");
    expect(await one.crawls.settleBudget(budgeted.id, 0)).toBe("returned");
    expect(await one.crawls.reserve(budgeted.id, 9)).toBe(4);
  });
});
