import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Ending, NewUrl, Rounds } from "../../src/crawl/frontier.js";
import type { Revisit } from "../../src/crawl/revisit.js";
import type { FrontierUnderTest } from "./frontier-contract.js";

export type RoundsUnderTest = FrontierUnderTest & { readonly rounds: Rounds };

/** What every frontier promises whose URLs may be opened for another round. */
export function roundsContract(name: string, setup: () => Promise<RoundsUnderTest>): void {
  describe(`${name} keeps the contract of rounds`, () => {
    let under: RoundsUnderTest;
    beforeAll(async () => {
      under = await setup();
    });
    afterAll(() => under?.dispose());

    const NOW = Date.now();
    const revisit: Revisit = { intervalMs: 1_000, etag: '"1"', contentHash: "abc" };

    /** A crawl of its own, with words for what the tests do with it. */
    function bundle() {
      const { frontier, rounds, shardCount } = under;
      const crawl = `c${randomUUID().slice(0, 8)}`;
      const host = `${crawl}.test`;
      const allShards = Array.from({ length: shardCount }, (_, shard) => shard);
      let number = 0;
      const idOf = (path: string) => `${crawl}:${path}`;
      const url = (path: string): NewUrl => ({
        id: idOf(path),
        crawl,
        url: `http://${host}/${path}`,
        host,
        kind: "page",
        depth: 0,
        priority: 5,
      });
      const dispatched = async (paths: readonly string[]) => {
        number += 1;
        const token = `1.${crawl}.${number}`;
        const marked = await frontier.dispatch(paths.map(idOf), {
          token,
          generation: 1,
          dispatchedAt: NOW,
          notAfter: NOW + 60_000,
        });
        expect(marked.size).toBe(paths.length);
        return token;
      };
      const end = async (path: string, about: Partial<Extract<Ending, { items: number }>> = {}) => {
        const token = await dispatched([path]);
        const ending = {
          id: idOf(path),
          crawl,
          token,
          attempts: 1,
          state: "done",
          items: 1,
          files: 0,
          ...about,
        };
        expect(await frontier.commit([ending as Ending])).toEqual(new Set([idOf(path)]));
      };
      return {
        frontier,
        rounds,
        crawl,
        host,
        allShards,
        idOf,
        dispatched,
        end,
        add: (...paths: string[]) => frontier.add(paths.map(url)),
        waiting: async (of = host) => (await frontier.queued({ crawl, host: of }, 1_000, NOW + 60_000)).urls,
        due: (now: number, limit = 100) => rounds.openDue(crawl, allShards, now, limit),
        pathsOf: (urls: readonly { readonly id: string }[]) =>
          urls.map(({ id }) => id.slice(crawl.length + 1)).sort(),
      };
    }

    it("opens an ended URL when its time has come, and not before", async () => {
      const { add, end, due, waiting, crawl, host, idOf } = bundle();
      await add("a");
      await end("a", { nextVisit: { at: NOW + 1_000, revisit } });
      expect(await due(NOW + 999)).toEqual({ urls: [], nextDueAt: NOW + 1_000 });
      expect(await waiting()).toEqual([]);

      const opened = await due(NOW + 1_000);

      expect(opened).toEqual({ urls: [{ id: idOf("a"), crawl, host, was: "done" }] });
      expect(await waiting()).toMatchObject([{ id: idOf("a"), round: 1, attempts: 0, revisit }]);
    });

    it("opens it once", async () => {
      const { add, end, due } = bundle();
      await add("a");
      await end("a", { nextVisit: { at: NOW, revisit } });

      const opened = await Promise.all([due(NOW), due(NOW), due(NOW)]);

      expect(opened.flatMap(({ urls }) => urls)).toHaveLength(1);
      expect(await due(NOW + 1_000_000)).toEqual({ urls: [] });
    });

    it("goes on from round to round with what was learnt in the last", async () => {
      const { add, end, due, waiting } = bundle();
      await add("a");
      await end("a", { nextVisit: { at: NOW, revisit } });
      await due(NOW);
      const learnt: Revisit = { intervalMs: 500, lastModified: "Sun, 06 Nov 1994 08:49:37 GMT" };
      await end("a", { nextVisit: { at: NOW + 1, revisit: learnt } });

      await due(NOW + 1);

      expect(await waiting()).toMatchObject([{ round: 2, revisit: learnt }]);
      expect((await waiting())[0]?.revisit).toEqual(learnt);
    });

    it("leaves alone what has no next visit, is open, or is of another crawl or shard", async () => {
      const { add, end, due, rounds, allShards, dispatched } = bundle();
      const other = bundle();
      await add("ended", "queued", "flying");
      await end("ended");
      await dispatched(["flying"]);
      await other.add("a");
      await other.end("a", { nextVisit: { at: NOW, revisit } });

      expect(await due(NOW + 1_000_000)).toEqual({ urls: [] });
      expect(await rounds.openDue(other.crawl, [], NOW, 10)).toEqual({ urls: [] });
      for (const shard of allShards) await rounds.openDue(other.crawl, [shard], NOW, 10);
      expect(await other.waiting()).toHaveLength(1);
    });

    it("opens what is due in parts, and says when there is more", async () => {
      const { add, end, due, waiting, pathsOf } = bundle();
      const paths = ["a", "b", "c", "d", "e"];
      await add(...paths);
      for (const path of paths) await end(path, { nextVisit: { at: NOW, revisit } });

      const first = await due(NOW, 3);
      expect(first.urls).toHaveLength(3);
      expect(first.more).toBeDefined();
      const rest = await due(NOW, 3);

      expect(rest.more).toBeUndefined();
      expect(pathsOf([...first.urls, ...rest.urls])).toEqual(paths);
      expect(pathsOf(await waiting())).toEqual(paths);
    });

    it("says whether anything is to be fetched again", async () => {
      const { add, end, due, rounds, crawl } = bundle();
      await add("a", "b");
      await end("a");
      expect(await rounds.hasNextVisits(crawl)).toBe(false);
      await end("b", { nextVisit: { at: NOW, revisit } });
      expect(await rounds.hasNextVisits(crawl)).toBe(true);
      await due(NOW);
      expect(await rounds.hasNextVisits(crawl)).toBe(false);
    });

    it("begins a round at the URL itself, wherever redirects had led", async () => {
      const { add, dispatched, due, frontier, idOf, crawl, host, waiting, end } = bundle();
      await add("a");
      const token = await dispatched(["a"]);
      const target = { url: "http://elsewhere.test/x", hops: 1 };
      const moved = { id: idOf("a"), crawl, token, attempts: 0, readyAt: NOW };
      await frontier.commit([{ ...moved, state: "queued", host: "elsewhere.test", target }]);
      await end("a", { nextVisit: { at: NOW, revisit } });

      expect((await due(NOW)).urls).toMatchObject([{ host }]);

      expect(await waiting("elsewhere.test")).toEqual([]);
      const [again] = await waiting();
      expect(again).toMatchObject({ host, round: 1 });
      expect(again).not.toHaveProperty("target");
    });

    it("opens URLs when someone asks for them, whether or not they had a next visit", async () => {
      const { add, end, rounds, crawl, idOf, waiting, due, pathsOf } = bundle();
      await add("done", "failed", "robots", "scope", "poison", "other", "queued");
      await end("done", { nextVisit: { at: NOW + 5_000, revisit } });
      await end("failed", { state: "failed", reason: "http-status" });
      await end("robots", { state: "skipped", reason: "robots" });
      await end("scope", { state: "skipped", reason: "scope" });
      await end("poison", { state: "failed", reason: "poison" });
      await end("other");
      const wanted = ["done", "failed", "robots", "scope", "poison", "queued", "unknown"].map(idOf);

      const opened = await rounds.open(crawl, { ids: wanted }, 1_000);

      expect(pathsOf(opened.urls)).toEqual(["done", "failed", "poison", "robots"]);
      expect(pathsOf(await waiting())).toEqual(["done", "failed", "poison", "queued", "robots"]);
      expect(await due(NOW + 10_000)).toEqual({ urls: [] });
    });

    it("opens all that were done or failed before an instant, page by page", async () => {
      const { add, end, rounds, crawl, waiting, pathsOf } = bundle();
      const paths = Array.from({ length: 7 }, (_, index) => `p${index}`);
      await add(...paths, "robots", "poison");
      for (const path of paths) await end(path);
      await end("robots", { state: "skipped", reason: "robots" });
      await end("poison", { state: "failed", reason: "poison" });
      expect((await rounds.open(crawl, { endedBefore: NOW - 60_000 }, 100)).urls).toEqual([]);
      const opened: string[] = [];
      let after: string | undefined;
      do {
        const page = await rounds.open(crawl, { endedBefore: Date.now() + 60_000 }, 3, after);
        opened.push(...page.urls.map(({ id }) => id));
        after = page.more;
      } while (after !== undefined);

      expect(pathsOf(opened.map((id) => ({ id })))).toEqual(paths);
      expect(pathsOf(await waiting())).toEqual(paths);
    });

    it("can be dispatched and ended like any other, by its current dispatch only", async () => {
      const { add, dispatched, frontier, idOf, crawl, due, end } = bundle();
      await add("a");
      const first = await dispatched(["a"]);
      const done = { id: idOf("a"), crawl, attempts: 1, state: "done", items: 0, files: 0 } as const;
      await frontier.commit([{ ...done, token: first, nextVisit: { at: NOW, revisit } }]);
      await due(NOW);

      expect(await frontier.commit([{ ...done, token: first }])).toEqual(new Set());
      await end("a");
    });
  });
}
