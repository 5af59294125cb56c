import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  Dispatch,
  Ending,
  Frontier,
  NewUrl,
  QueuedUrl,
  RedirectTarget,
} from "../../src/crawl/frontier.js";
import { shardOf } from "../../src/crawl/urls/url.js";

export type FrontierUnderTest = {
  readonly frontier: Frontier;
  /** How many shards its hosts hash into. */
  readonly shardCount: number;
  readonly dispose: () => Promise<void>;
};

/**
 * What every frontier promises. One frontier serves all tests of a run: each has a crawl and hosts of its
 * own, as crawls that share a frontier do.
 */
export function frontierContract(name: string, setup: () => Promise<FrontierUnderTest>): void {
  describe(`${name} keeps the frontier's contract`, () => {
    let under: FrontierUnderTest;
    beforeAll(async () => {
      under = await setup();
    });
    afterAll(() => under?.dispose());

    /** A crawl of its own, with words for what the tests do with it. */
    function bundle() {
      const { frontier, shardCount } = under;
      const crawl = `c${randomUUID().slice(0, 8)}`;
      const host = `${crawl}.test`;
      const allShards = Array.from({ length: shardCount }, (_, shard) => shard);
      let number = 0;
      const url = (path: string, about: Partial<NewUrl> = {}): NewUrl => ({
        id: `${crawl}:${path}`,
        crawl,
        url: `http://${about.host ?? host}/${path}`,
        host,
        kind: "page",
        depth: 0,
        priority: 5,
        ...about,
      });
      return {
        frontier,
        crawl,
        host,
        allShards,
        url,
        dispatch: (): Dispatch => {
          number += 1;
          const dispatchedAt = Date.now();
          return {
            token: `1.${crawl}.${number}`,
            generation: 1,
            dispatchedAt,
            notAfter: dispatchedAt + 60_000,
          };
        },
        waiting: async (of = host, now = Date.now()): Promise<readonly QueuedUrl[]> =>
          (await frontier.queued({ crawl, host: of }, 1_000, now)).urls,
        inFlight: async () => (await frontier.dispatched(allShards)).filter((found) => found.crawl === crawl),
        hosts: async () => (await frontier.queuedHosts(allShards, [crawl])).map((found) => found.host).sort(),
      };
    }

    const done = (id: string, token: string, found = { items: 0, files: 0 }): Ending => ({
      id,
      crawl: id.slice(0, id.indexOf(":")),
      token,
      attempts: 1,
      statusCode: 200,
      state: "done",
      ...found,
    });
    const skipped = (id: string, token: string, reason: "type" | "robots"): Ending => ({
      id,
      crawl: id.slice(0, id.indexOf(":")),
      token,
      attempts: 1,
      state: "skipped",
      reason,
      items: 0,
      files: 0,
    });
    const later = (
      id: string,
      token: string,
      readyAt: number,
      moved: { readonly host?: string; readonly target?: RedirectTarget } = {},
    ): Ending => ({
      id,
      crawl: id.slice(0, id.indexOf(":")),
      token,
      attempts: 1,
      state: "queued",
      reason: "status 503",
      readyAt,
      ...moved,
    });
    const idsOf = (urls: readonly { readonly id: string }[]) => urls.map(({ id }) => id);
    const depthsOf = (urls: readonly QueuedUrl[]) => urls.map(({ depth }) => depth);

    describe("add", () => {
      it("queues what is unknown and says which that was", async () => {
        const { frontier, url, waiting } = bundle();
        const urls = [url("a"), url("b")];

        const result = await frontier.add(urls);

        expect(result).toEqual({ queued: urls, skipped: 0, known: 0 });
        expect(idsOf(await waiting()).sort()).toEqual(idsOf(urls));
      });

      it("does nothing when there is nothing to add", async () => {
        const { frontier, hosts } = bundle();

        expect(await frontier.add([])).toEqual({ queued: [], skipped: 0, known: 0 });
        expect(await hosts()).toEqual([]);
      });

      it("tells known URLs from new ones in one batch", async () => {
        const { frontier, url } = bundle();
        await frontier.add([url("a"), url("b")]);

        const result = await frontier.add([url("b"), url("c"), url("a")]);

        expect(result).toEqual({ queued: [url("c")], skipped: 0, known: 2 });
      });

      it("queues a URL once that is in a batch twice", async () => {
        const { frontier, url, waiting } = bundle();

        const result = await frontier.add([url("a"), url("a"), url("b"), url("a")]);

        expect(idsOf(result.queued)).toEqual(idsOf([url("a"), url("b")]));
        expect(result.known).toBe(2);
        expect(await waiting()).toHaveLength(2);
      });

      it("hands a queued URL back as it was added", async () => {
        const { frontier, url, waiting } = bundle();
        const request = {
          method: "POST",
          headers: { "x-a.b": "1" },
          body: "q=$1",
          meta: { $set: { "a.b": [1, null] }, "": "empty", _bsontype: "no" },
        } as const;
        const parent = "http://elsewhere.test/";
        await frontier.add([url("a", { kind: "file", depth: 3, priority: 7, parent, request })]);

        const [queued] = await waiting();

        expect(queued).toEqual({
          ...url("a", { kind: "file", depth: 3, priority: 7, parent, request }),
          readyAt: expect.any(Number),
          attempts: 0,
          round: 0,
        });
      });

      it("keeps crawls apart", async () => {
        const one = bundle();
        const other = bundle();
        await one.frontier.add([one.url("a", { host: "shared.test" })]);
        await one.frontier.add([
          other.url("a", { host: "shared.test" }),
          other.url("b", { host: "shared.test" }),
        ]);

        expect(await one.waiting("shared.test")).toHaveLength(1);
        expect(await other.waiting("shared.test")).toHaveLength(2);
      });

      it("records what is skipped at once and never hands it out", async () => {
        const { frontier, url, waiting, hosts, dispatch } = bundle();

        const result = await frontier.add([url("a", { skip: "scope" }), url("b", { skip: "robots" })]);

        expect(result).toEqual({ queued: [], skipped: 2, known: 0 });
        expect(await waiting()).toEqual([]);
        expect(await hosts()).toEqual([]);
        expect(await frontier.dispatch([url("a").id], dispatch())).toEqual(new Set());
        expect(await frontier.add([url("a")])).toEqual({ queued: [], skipped: 0, known: 1 });
      });

      it("lowers the depth of a queued URL that is found nearer, and never raises it", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.add([url("a", { depth: 5 }), url("b", { depth: 2 })]);

        await frontier.add([url("a", { depth: 3 }), url("b", { depth: 4 })]);
        await frontier.add([url("a", { depth: 4 }), url("a", { depth: 1 }), url("a", { depth: 2 })]);

        const byId = new Map((await waiting()).map(({ id, depth }) => [id, depth]));
        expect(byId.get(url("a").id)).toBe(1);
        expect(byId.get(url("b").id)).toBe(2);
      });

      it("makes a queued file a page when it is found as a page nearer to the seeds", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.add([url("a", { depth: 3, kind: "file" }), url("b", { depth: 3 })]);

        await frontier.add([url("a", { depth: 2 }), url("b", { depth: 2, kind: "file" })]);

        expect((await waiting()).map(({ kind, depth }) => [kind, depth])).toEqual([
          ["page", 2],
          ["page", 2],
        ]);
      });

      it("queues a URL that was too deep when it is found within depth", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.add([url("a", { depth: 4, skip: "depth" })]);

        const stillTooDeep = await frontier.add([url("a", { depth: 3, skip: "depth" })]);
        expect(stillTooDeep).toEqual({ queued: [], skipped: 0, known: 1 });
        const near = await frontier.add([url("a", { depth: 2 }), url("b")]);

        expect(idsOf(near.queued).sort()).toEqual(idsOf([url("a"), url("b")]));
        expect(near.known).toBe(0);
        expect(depthsOf((await waiting()).filter(({ id }) => id === url("a").id))).toEqual([2]);
      });

      it("queues a URL that was of no wanted type when it is found nearer, but not at the same depth", async () => {
        const { frontier, url, waiting, dispatch } = bundle();
        const first = dispatch();
        await frontier.add([url("a", { depth: 1, kind: "file" })]);
        await frontier.dispatch([url("a").id], first);
        await frontier.commit([skipped(url("a").id, first.token, "type")]);

        expect((await frontier.add([url("a", { depth: 1, kind: "file" })])).known).toBe(1);
        expect(await waiting()).toEqual([]);
        expect(idsOf((await frontier.add([url("a")])).queued)).toEqual([url("a").id]);
        expect(await waiting()).toMatchObject([{ id: url("a").id, kind: "page", depth: 0 }]);
      });

      it("leaves alone what has ended for good or is in flight", async () => {
        const { frontier, url, waiting, dispatch, inFlight } = bundle();
        const names = ["done", "robots", "flying", "scope"];
        await frontier.add(
          names.map((path) => url(path, path === "scope" ? { depth: 9, skip: "scope" } : { depth: 9 })),
        );
        const sent = dispatch();
        await frontier.dispatch(
          ["done", "robots", "flying"].map((path) => url(path).id),
          sent,
        );
        await frontier.commit([
          done(url("done").id, sent.token),
          skipped(url("robots").id, sent.token, "robots"),
        ]);

        const result = await frontier.add(names.map((path) => url(path, { depth: 0 })));

        expect(result).toEqual({ queued: [], skipped: 0, known: 4 });
        expect(await waiting()).toEqual([]);
        expect(idsOf(await inFlight())).toEqual([url("flying").id]);
      });
    });

    describe("queued", () => {
      it("gives higher priority first, and the older first within one", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.add([url("low", { priority: 1 }), url("old")]);
        await frontier.add([url("new")]);
        await frontier.add([url("high", { priority: 9 })]);

        expect(idsOf(await waiting())).toEqual(idsOf([url("high"), url("old"), url("new"), url("low")]));
      });

      it("gives no more than it is asked for, and no instant when there may be more", async () => {
        const { frontier, url, crawl, host } = bundle();
        await frontier.add(["a", "b", "c"].map((path) => url(path)));

        const batch = await frontier.queued({ crawl, host }, 2, Date.now());

        expect(batch.urls).toHaveLength(2);
        expect(batch.nextReadyAt).toBeUndefined();
      });

      it("gives only what is on that host", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.add([url("a"), url("b", { host: "other.test" })]);

        expect(idsOf(await waiting("other.test"))).toEqual([url("b").id]);
        expect(await waiting("nobody.test")).toEqual([]);
      });

      it("holds a URL back until it is ready, and says when that is", async () => {
        const { frontier, url, crawl, host, dispatch } = bundle();
        const sent = dispatch();
        const now = Date.now();
        await frontier.add(["a", "b", "c"].map((path) => url(path)));
        await frontier.dispatch(idsOf([url("a"), url("b")]), sent);
        await frontier.commit([
          later(url("a").id, sent.token, now + 90_000),
          later(url("b").id, sent.token, now + 60_000),
        ]);

        const batch = await frontier.queued({ crawl, host }, 10, now + 1_000);

        expect(idsOf(batch.urls)).toEqual([url("c").id]);
        expect(batch.nextReadyAt).toBe(now + 60_000);
        const after = await frontier.queued({ crawl, host }, 10, now + 60_000);
        expect(idsOf(after.urls).sort()).toEqual(idsOf([url("b"), url("c")]));
        expect(after.nextReadyAt).toBe(now + 90_000);
      });

      it("finds what is ready behind any number of URLs that are not", async () => {
        const { frontier, url, crawl, host, dispatch } = bundle();
        const sent = dispatch();
        const now = Date.now();
        const notYet = Array.from({ length: 5 }, (_, index) => url(`later-${index}`, { priority: 9 }));
        await frontier.add([...notYet, url("ready", { priority: 1 })]);
        await frontier.dispatch(idsOf(notYet), sent);
        await frontier.commit(notYet.map(({ id }, index) => later(id, sent.token, now + 60_000 + index)));

        const batch = await frontier.queued({ crawl, host }, 3, now + 1_000);

        expect(idsOf(batch.urls)).toEqual([url("ready").id]);
        expect(batch.nextReadyAt).toBe(now + 60_000);
      });
    });

    describe("queuedHosts", () => {
      it("names each host once on which something waits, ready or not", async () => {
        const { frontier, url, crawl, allShards, dispatch, host } = bundle();
        const sent = dispatch();
        await frontier.add([
          url("a"),
          url("b"),
          url("c", { host: "two.test" }),
          url("d", { host: "three.test" }),
        ]);
        await frontier.dispatch(idsOf([url("c"), url("d")]), sent);
        await frontier.commit([later(url("c").id, sent.token, Date.now() + 60_000)]);

        const found = await frontier.queuedHosts(allShards, [crawl]);

        expect([...found].sort((one, other) => one.host.localeCompare(other.host))).toEqual(
          [host, "two.test"]
            .sort()
            .map((name) => ({ crawl, host: name, shard: shardOf(name, under.shardCount) })),
        );
      });

      it("looks only into the shards and crawls that it is asked about", async () => {
        const one = bundle();
        const other = bundle();
        await one.frontier.add([one.url("a"), other.url("a")]);
        const shard = shardOf(one.host, under.shardCount);
        const others = one.allShards.filter((candidate) => candidate !== shard);
        const many = [one.crawl, ...Array.from({ length: 10 }, (_, index) => `${one.crawl}-${index}`)];

        expect((await one.frontier.queuedHosts([shard], [one.crawl])).map(({ host }) => host)).toEqual([
          one.host,
        ]);
        expect((await one.frontier.queuedHosts([shard], many)).map(({ host }) => host)).toEqual([one.host]);
        expect(await one.frontier.queuedHosts(others, [one.crawl])).toEqual([]);
        expect(await one.frontier.queuedHosts(one.allShards, [])).toEqual([]);
      });
    });

    describe("dispatch", () => {
      it("marks what is queued, and says which that was", async () => {
        const { frontier, url, waiting, hosts, inFlight, dispatch, host, crawl } = bundle();
        await frontier.add([url("a"), url("b"), url("c", { skip: "scope" })]);
        const sent = dispatch();

        const marked = await frontier.dispatch(idsOf([url("a"), url("c"), url("unknown")]), sent);

        expect(marked).toEqual(new Set([url("a").id]));
        expect(idsOf(await waiting())).toEqual([url("b").id]);
        expect(await hosts()).toEqual([host]);
        expect(await inFlight()).toEqual([{ id: url("a").id, crawl, host, dispatch: sent }]);
      });

      it("gives each URL to one of two that ask for it", async () => {
        const { frontier, url, dispatch } = bundle();
        const urls = Array.from({ length: 20 }, (_, index) => url(`u${index}`));
        await frontier.add(urls);

        const [one, other] = await Promise.all([
          frontier.dispatch(idsOf(urls), dispatch()),
          frontier.dispatch(idsOf(urls), dispatch()),
        ]);

        expect(one.size + other.size).toBe(20);
        expect(new Set([...one, ...other]).size).toBe(20);
      });

      it("lists what is dispatched by shard", async () => {
        const { frontier, url, dispatch, host, crawl, allShards } = bundle();
        await frontier.add([url("a")]);
        await frontier.dispatch([url("a").id], dispatch());
        const shard = shardOf(host, under.shardCount);
        const others = allShards.filter((candidate) => candidate !== shard);

        const ofCrawl = async (shards: readonly number[]) =>
          (await frontier.dispatched(shards)).filter((found) => found.crawl === crawl);
        expect(await ofCrawl([shard])).toHaveLength(1);
        expect(await ofCrawl(others)).toEqual([]);
      });

      it("does nothing when it is given nothing", async () => {
        const { frontier, dispatch } = bundle();

        expect(await frontier.dispatch([], dispatch())).toEqual(new Set());
      });
    });

    describe("commit", () => {
      it("ends URLs in every way that there is", async () => {
        const { frontier, url, waiting, inFlight, dispatch, crawl } = bundle();
        const urls = ["done", "failed", "robots", "again"].map((path) => url(path));
        await frontier.add(urls);
        const { token, ...sent } = dispatch();
        await frontier.dispatch(idsOf(urls), { token, ...sent });
        const failed: Ending = {
          id: url("failed").id,
          crawl,
          token,
          attempts: 3,
          statusCode: 404,
          state: "failed",
          reason: "http-status",
          error: "status 404",
          items: 0,
          files: 0,
        };

        const applied = await frontier.commit([
          done(url("done").id, token, { items: 2, files: 1 }),
          failed,
          skipped(url("robots").id, token, "robots"),
          later(url("again").id, token, 0),
        ]);

        expect(applied).toEqual(new Set(idsOf(urls)));
        expect(await inFlight()).toEqual([]);
        expect(await waiting()).toMatchObject([{ id: url("again").id, attempts: 1 }]);
      });

      it("does nothing when it is given nothing", async () => {
        const { frontier } = bundle();

        expect(await frontier.commit([])).toEqual(new Set());
      });

      it("applies an ending once", async () => {
        const { frontier, url, dispatch } = bundle();
        await frontier.add([url("a"), url("b")]);
        const { token, ...sent } = dispatch();
        await frontier.dispatch(idsOf([url("a"), url("b")]), { token, ...sent });
        await frontier.commit([done(url("a").id, token)]);

        const again = await frontier.commit([done(url("a").id, token), done(url("b").id, token)]);

        expect(again).toEqual(new Set([url("b").id]));
      });

      it("refuses an ending whose dispatch is no longer the current one", async () => {
        const { frontier, url, inFlight, dispatch } = bundle();
        const old = dispatch();
        const current = dispatch();
        await frontier.add([url("a"), url("b")]);
        await frontier.dispatch(idsOf([url("a")]), old);
        await frontier.revoke([url("a").id], [old.token], 0);
        await frontier.dispatch(idsOf([url("a"), url("b")]), current);

        expect(await frontier.commit([done(url("a").id, old.token)])).toEqual(new Set());
        // The current token of another URL in the batch does not lend itself to this one.
        const mixed = await frontier.commit([done(url("a").id, old.token), done(url("b").id, current.token)]);

        expect(mixed).toEqual(new Set([url("b").id]));
        expect((await inFlight()).map(({ id, dispatch: { token } }) => [id, token])).toEqual([
          [url("a").id, current.token],
        ]);
      });

      it("takes the current one of two endings of the same URL", async () => {
        const { frontier, url, waiting, inFlight, dispatch } = bundle();
        const old = dispatch();
        const current = dispatch();
        await frontier.add([url("a")]);
        await frontier.dispatch([url("a").id], old);
        await frontier.revoke([url("a").id], [old.token], 0);
        await frontier.dispatch([url("a").id], current);

        const applied = await frontier.commit([
          later(url("a").id, old.token, 0),
          done(url("a").id, current.token),
        ]);

        expect(applied).toEqual(new Set([url("a").id]));
        expect(await waiting()).toEqual([]);
        expect(await inFlight()).toEqual([]);
      });

      it("refuses endings of URLs that were never dispatched", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.add([url("a")]);

        expect(await frontier.commit([done(url("a").id, ""), done(url("unknown").id, "1")])).toEqual(
          new Set(),
        );
        expect(await waiting()).toHaveLength(1);
      });

      it("moves a URL to the lane of the host that a redirect led to", async () => {
        const { frontier, url, waiting, hosts, dispatch } = bundle();
        const sent = dispatch();
        const target = { url: "http://target.test/a", hops: 1, asGet: true } as const;
        await frontier.add([url("a")]);
        await frontier.dispatch([url("a").id], sent);
        await frontier.commit([later(url("a").id, sent.token, 0, { host: "target.test", target })]);

        expect(await waiting()).toEqual([]);
        expect(await hosts()).toEqual(["target.test"]);
        expect(await waiting("target.test")).toMatchObject([{ id: url("a").id, url: url("a").url, target }]);
      });

      it("lets a URL that waits again go once more, as another dispatch", async () => {
        const { frontier, url, inFlight, dispatch } = bundle();
        const first = dispatch();
        const second = dispatch();
        await frontier.add([url("a")]);
        await frontier.dispatch([url("a").id], first);
        await frontier.commit([later(url("a").id, first.token, 0)]);

        expect(await frontier.dispatch([url("a").id], second)).toEqual(new Set([url("a").id]));
        expect(await frontier.commit([done(url("a").id, first.token)])).toEqual(new Set());
        expect(await frontier.commit([done(url("a").id, second.token)])).toEqual(new Set([url("a").id]));
        expect(await inFlight()).toEqual([]);
      });
    });

    describe("revoke", () => {
      it("queues again what still has one of the tokens, and counts it", async () => {
        const { frontier, url, waiting, inFlight, dispatch } = bundle();
        const one = dispatch();
        const other = dispatch();
        const urls = ["a", "b", "c", "ended"].map((path) => url(path));
        await frontier.add(urls);
        await frontier.dispatch(idsOf([url("a"), url("b"), url("ended")]), one);
        await frontier.dispatch([url("c").id], other);
        await frontier.commit([done(url("ended").id, one.token)]);

        const revoked = await frontier.revoke(
          idsOf(urls.filter(({ id }) => id !== url("b").id)),
          [one.token, "x"],
          0,
        );

        expect(revoked).toBe(1);
        expect(idsOf(await waiting())).toEqual([url("a").id]);
        expect(idsOf(await inFlight()).sort()).toEqual(idsOf([url("b"), url("c")]));
      });

      it("lets what it took back wait until the instant given, without counting an attempt", async () => {
        const { frontier, url, crawl, host, dispatch } = bundle();
        const sent = dispatch();
        const readyAt = Date.now() + 60_000;
        await frontier.add([url("a")]);
        await frontier.dispatch([url("a").id], sent);

        await frontier.revoke([url("a").id], [sent.token], readyAt);

        expect(await frontier.queued({ crawl, host }, 5, readyAt - 1)).toEqual({
          urls: [],
          nextReadyAt: readyAt,
        });
        expect((await frontier.queued({ crawl, host }, 5, readyAt)).urls).toMatchObject([
          { attempts: 0, readyAt },
        ]);
      });

      it("refuses the end of what it took back", async () => {
        const { frontier, url, waiting, dispatch } = bundle();
        const sent = dispatch();
        await frontier.add([url("a")]);
        await frontier.dispatch([url("a").id], sent);
        await frontier.revoke([url("a").id], [sent.token], 0);

        expect(await frontier.commit([done(url("a").id, sent.token)])).toEqual(new Set());
        expect(await waiting()).toHaveLength(1);
      });
    });

    describe("claim", () => {
      it("records an unknown target for the URL whose redirect led to it, as often as that one asks", async () => {
        const { frontier, url, waiting, hosts } = bundle();

        expect(await frontier.claim(url("target"), "by:1")).toBe(true);
        expect(await frontier.claim(url("target"), "by:1")).toBe(true);
        expect(await frontier.claim(url("target"), "by:2")).toBe(false);

        expect(await waiting()).toEqual([]);
        expect(await hosts()).toEqual([]);
      });

      it("does not let a claimed target be fetched on its own", async () => {
        const { frontier, url, waiting } = bundle();
        await frontier.claim(url("target", { depth: 4 }), "by:1");

        expect(await frontier.add([url("target", { depth: 0 })])).toEqual({
          queued: [],
          skipped: 0,
          known: 1,
        });
        expect(await waiting()).toEqual([]);
      });

      it("refuses a target that is known already, whatever its state", async () => {
        const { frontier, url, dispatch } = bundle();
        await frontier.add([url("waits"), url("flies"), url("out", { skip: "scope" })]);
        await frontier.dispatch([url("flies").id], dispatch());

        for (const path of ["waits", "flies", "out"])
          expect(await frontier.claim(url(path), "by:1")).toBe(false);
      });

      it("gives a target to one of two that claim it at once", async () => {
        const { frontier, url } = bundle();

        const claims = await Promise.all([
          frontier.claim(url("target"), "by:1"),
          frontier.claim(url("target"), "by:2"),
        ]);

        expect([...claims].sort()).toEqual([false, true]);
      });
    });

    describe("suspects", () => {
      /** One URL, and what may happen to it, in the words of a worker. */
      async function suspected() {
        const { frontier, url, waiting, dispatch } = bundle();
        const { id, crawl } = url("a");
        await frontier.add([url("a")]);
        let token = "";
        const giveBack = (suspicion?: "raised" | "survived") =>
          frontier.commit([
            {
              id,
              crawl,
              token,
              attempts: 0,
              state: "queued",
              readyAt: 0,
              ...(suspicion !== undefined && { suspicion }),
            },
          ]);
        return {
          frontier,
          id,
          token: () => token,
          suspect: async () => (await waiting())[0]?.suspect,
          dispatched: async () => {
            const sent = dispatch();
            token = sent.token;
            await frontier.dispatch([id], sent);
          },
          giveBack,
          begin: (node = "worker-1", maxCrashes = 3) => frontier.begin({ id, token, node, maxCrashes }),
          /** Its worker is lost after it began it, if it did, and its message comes again. */
          comesAgain: () => giveBack("raised"),
          end: () => frontier.commit([done(id, token)]),
        };
      }

      it("are URLs whose message came again, and no others", async () => {
        const { suspect, dispatched, giveBack, comesAgain } = await suspected();
        await dispatched();
        await giveBack();
        expect(await suspect()).toBeUndefined();

        await dispatched();
        await comesAgain();

        expect(await suspect()).toEqual({ crashes: 0 });
      });

      it("are charged with workers that were lost after they had begun them", async () => {
        const { suspect, dispatched, begin, comesAgain } = await suspected();
        await dispatched();
        await comesAgain();
        await dispatched();
        expect(await begin("worker-1")).toEqual({ kind: "begun" });
        await comesAgain();
        expect(await suspect()).toEqual({ crashes: 1 });
        await dispatched();
        expect(await begin("worker-2")).toEqual({ kind: "begun" });
        await comesAgain();
        expect(await suspect()).toEqual({ crashes: 2 });

        await dispatched();

        expect(await begin("worker-3")).toEqual({
          kind: "poison",
          deaths: [
            { at: expect.any(Number) },
            { node: "worker-1", at: expect.any(Number) },
            { node: "worker-2", at: expect.any(Number) },
          ],
        });
      });

      it("are charged with a worker that was lost even when nobody got the message again", async () => {
        const { frontier, id, token, suspect, dispatched, begin, comesAgain } = await suspected();
        await dispatched();
        await comesAgain();
        await dispatched();
        await begin();

        await frontier.revoke([id], [token()], 0);

        expect(await suspect()).toEqual({ crashes: 1 });
      });

      it("are not charged with workers that had not begun them", async () => {
        const { suspect, dispatched, begin, comesAgain } = await suspected();
        for (let time = 0; time < 5; time += 1) {
          await dispatched();
          await comesAgain();
        }

        expect(await suspect()).toEqual({ crashes: 0 });
        await dispatched();
        expect(await begin()).toEqual({ kind: "begun" });
      });

      it("are not charged with a worker that gave them back, nor for that by another", async () => {
        const { suspect, dispatched, begin, comesAgain, giveBack } = await suspected();
        await dispatched();
        await comesAgain();
        await dispatched();
        await begin();
        await giveBack("survived");
        expect(await suspect()).toEqual({ crashes: 0 });
        await dispatched();
        await begin();
        await comesAgain();
        await dispatched();

        await giveBack();

        expect(await suspect()).toEqual({ crashes: 1 });
      });

      it.each(["before", "after"])(
        "are cleared by a worker that lives, %s the message comes again",
        async (when) => {
          const { frontier, id, token, suspect, dispatched, begin, comesAgain } = await suspected();
          await dispatched();
          const first = token();
          await comesAgain();
          await dispatched();
          await begin();
          const vouch = () => frontier.vouch([{ id, token: token() }]);
          if (when === "before") await vouch();
          await comesAgain();
          if (when === "after") await vouch();
          expect(await suspect()).toEqual({ crashes: 0 });

          await frontier.vouch([{ id, token: first }]);

          expect(await suspect()).toBeUndefined();
        },
      );

      it("are not begun for a dispatch that is no longer the current one", async () => {
        const { frontier, id, token, begin, dispatched, comesAgain } = await suspected();
        await dispatched();
        await comesAgain();
        expect(await begin()).toEqual({ kind: "stale" });
        await dispatched();
        const former = token();
        await frontier.revoke([id], [former], 0);
        await dispatched();

        expect(await frontier.begin({ id, token: former, node: "worker-1", maxCrashes: 3 })).toEqual({
          kind: "stale",
        });
      });

      it("are none any more once they have ended, whatever comes in late", async () => {
        const { frontier, id, token, dispatched, begin, comesAgain, end } = await suspected();
        await dispatched();
        await comesAgain();
        await dispatched();
        await begin();

        expect(await end()).toEqual(new Set([id]));

        await frontier.vouch([{ id, token: token() }]);
        expect(await comesAgain()).toEqual(new Set());
      });

      it("that come again together are told apart", async () => {
        const { frontier, url, dispatch, waiting, crawl } = bundle();
        const [one, other] = [dispatch(), dispatch()];
        await frontier.add([url("a"), url("b"), url("c")]);
        await frontier.dispatch([url("a").id, url("b").id], one);
        await frontier.dispatch([url("c").id], other);
        const raised = (path: string, token: string): Ending => ({
          id: url(path).id,
          crawl,
          token,
          attempts: 0,
          state: "queued",
          readyAt: 0,
          suspicion: "raised",
        });
        await frontier.commit([raised("a", one.token), raised("b", one.token), raised("c", other.token)]);

        await frontier.vouch([
          { id: url("a").id, token: one.token },
          { id: url("c").id, token: one.token },
        ]);

        const suspects = (await waiting()).filter(({ suspect }) => suspect !== undefined);
        expect(suspects.map(({ id }) => id).sort()).toEqual([url("b").id, url("c").id]);
      });
    });
  });
}
