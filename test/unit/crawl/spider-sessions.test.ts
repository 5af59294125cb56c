import { describe, expect, it } from "vitest";
import { type Crawl, DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import { SpiderError } from "../../../src/crawl/errors.js";
import { MemoryCrawlStates } from "../../../src/crawl/memory-crawl-state.js";
import type { Spider } from "../../../src/crawl/spider.js";
import { type SpiderSession, SpiderSessions } from "../../../src/crawl/spider-sessions.js";
import { ManualClock } from "../../../src/lib/clock.js";
import { silentLogger } from "../../../src/lib/logger.js";

function setup() {
  const clock = new ManualClock();
  const sessions = new SpiderSessions(
    { states: new MemoryCrawlStates(), clock, logger: silentLogger, node: "n" },
    { openTimeoutMs: 100, closeTimeoutMs: 50, errorTimeoutMs: 20, idleMs: 1_000 },
  );
  const told: string[] = [];
  const spider = (about: Partial<Spider> = {}): Spider => ({
    name: "own",
    parse: () => [],
    open: ({ crawl, node }) => void told.push(`open ${crawl.id} on ${node}`),
    close: ({ crawl }) => void told.push(`close ${crawl.id}`),
    ...about,
  });
  const crawl = (id = "c", generation = 1): Crawl => ({
    ...{ id, generation, spider: "own", seeds: [], scope: "any", limits: {}, priority: 5, params: {} },
    ...{ politeness: DEFAULT_POLITENESS, status: "running", startedAt: 0 },
  });
  const { signal } = new AbortController();
  /** One page, from its beginning to its end. */
  const page = async (of: Crawl, by: Spider) => {
    const session = await sessions.enter(of, by, signal);
    if (session === undefined) throw new Error("it has no hooks");
    sessions.leave(session);
    return session;
  };
  return { clock, sessions, told, spider, crawl, signal, page };
}

/** Lets everything happen that waits for nothing but its turn. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

function later() {
  let resolve = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<void>((...both) => {
    [resolve, reject] = both;
  });
  return { promise, resolve, reject };
}

describe("the hooks of a spider", () => {
  it("cost nothing where there are none", () => {
    const { sessions, crawl, signal } = setup();

    expect(sessions.enter(crawl(), { name: "bare", parse: () => [] }, signal)).toBeUndefined();
  });

  it("open once for a crawl, and later pages do not wait", async () => {
    const { sessions, told, spider, crawl, signal, page } = setup();
    const own = spider();

    await page(crawl(), own);
    const second = sessions.enter(crawl(), own, signal);
    await page(crawl("d"), own);

    expect(second).not.toBeInstanceOf(Promise);
    expect(told).toEqual(["open c on n", "open d on n"]);
  });

  it("make pages that come together wait for the same opening", async () => {
    const { told, spider, crawl, page } = setup();
    const opening = later();
    const own = spider({
      open: async () => {
        told.push("open");
        await opening.promise;
        told.push("is open");
      },
    });
    const pages = [page(crawl(), own), page(crawl(), own), page(crawl(), own)].map(async (one) => {
      await one;
      told.push("page");
    });
    await settled();
    expect(told).toEqual(["open"]);

    opening.resolve();
    await Promise.all(pages);

    expect(told).toEqual(["open", "is open", "page", "page", "page"]);
  });

  it("fail the pages that wait for an opening that fails, and are tried again for the next", async () => {
    const { told, spider, crawl, page } = setup();
    const opening = later();
    let tries = 0;
    const own = spider({ open: () => (tries++ === 0 ? opening.promise : undefined) });
    const first = [page(crawl(), own), page(crawl(), own)];
    opening.reject(new Error("no login"));

    for (const one of await Promise.allSettled(first)) {
      expect(one).toMatchObject({ status: "rejected", reason: expect.any(SpiderError) });
      expect(String((one as PromiseRejectedResult).reason)).toContain('for crawl "c": no login');
    }
    await page(crawl(), own);

    expect(tries).toBe(2);
    expect(told).toEqual([]);
  });

  it("do not make pages wait for an opening that never ends, nor one that was stopped", async () => {
    const { clock, sessions, spider, crawl, signal } = setup();
    const own = spider({ open: () => new Promise<void>(() => {}) });
    const abort = new AbortController();
    const stopped = sessions.enter(crawl(), own, abort.signal) as Promise<SpiderSession>;
    const waiting = sessions.enter(crawl(), own, signal) as Promise<SpiderSession>;

    abort.abort();
    await expect(stopped).rejects.toBe(abort.signal.reason);
    clock.advance(100);

    await expect(waiting).rejects.toThrow("did not finish within 100 ms");
  });

  it("close when the crawl is over and the pages that run have ended", async () => {
    const { sessions, told, spider, crawl, signal } = setup();
    const own = spider();
    const session = await sessions.enter(crawl(), own, signal);

    sessions.over("c");
    await settled();
    expect(told).toEqual(["open c on n"]);
    if (session !== undefined) sessions.leave(session);
    await settled();

    expect(told).toEqual(["open c on n", "close c"]);
  });

  it("close without a page that does not end in time", async () => {
    const { clock, sessions, told, spider, crawl, signal } = setup();
    await sessions.enter(crawl(), spider(), signal);

    sessions.over("c");
    await settled();
    clock.advance(50);
    await sessions.stop();

    expect(told).toEqual(["open c on n", "close c"]);
  });

  it("open a crawl anew that goes on, after the end of what was before", async () => {
    const { told, spider, crawl, page } = setup();
    const closing = later();
    const own = spider({
      close: async () => {
        told.push("close");
        await closing.promise;
        told.push("is closed");
      },
    });
    await page(crawl(), own);

    const next = [page(crawl("c", 2), own), page(crawl("c", 2), own)];
    await settled();
    closing.resolve();
    await Promise.all(next);

    expect(told).toEqual(["open c on n", "close", "is closed", "open c on n"]);
  });

  it("close when nothing of the crawl came for some time, and open anew when something comes", async () => {
    const { clock, told, spider, crawl, page } = setup();
    const own = spider();
    await page(crawl(), own);

    clock.advance(750);
    await page(crawl(), own);
    clock.advance(750);
    await settled();
    expect(told).toEqual(["open c on n"]);
    clock.advance(500);
    await settled();
    expect(told).toEqual(["open c on n", "close c"]);
    await page(crawl(), own);

    expect(told).toEqual(["open c on n", "close c", "open c on n"]);
  });

  it("close all at the end, each in the time that it has, whatever they throw", async () => {
    const { clock, sessions, told, spider, crawl, page } = setup();
    await page(crawl("a"), spider({ close: () => new Promise<void>(() => {}) }));
    await page(
      crawl("b"),
      spider({
        close: () => {
          throw new Error("cannot");
        },
      }),
    );
    await page(crawl("c"), spider());

    const stopped = sessions.stop();
    await settled();
    clock.advance(50);
    await stopped;

    expect(told).toEqual(["open a on n", "open b on n", "open c on n", "close c"]);
    expect(clock.pending).toBeLessThanOrEqual(1);
  });

  it("close nothing that was never open", async () => {
    const { sessions, told, spider, crawl, page } = setup();
    const own = spider({ open: () => Promise.reject(new Error("no")) });

    await expect(page(crawl(), own)).rejects.toThrow("no");
    await sessions.stop();

    expect(told).toEqual([]);
  });

  it("are told of a page that failed, as it was thrown, and cannot make it worse", async () => {
    const { clock, sessions, crawl, page } = setup();
    const told: unknown[] = [];
    const thrown = new Error("no price");
    let make: () => Promise<void> | void = () => {};
    const own: Spider = {
      name: "own",
      parse: () => [],
      error: (error, { url }) => {
        told.push([error, url]);
        return make();
      },
    };
    const session = await page(crawl(), own);
    const failed = () => sessions.failed(session, new SpiderError("spider", { cause: thrown }), "http://h/");

    await failed();
    make = () => {
      throw new Error("in the hook");
    };
    await failed();
    make = () => new Promise<void>(() => {});
    const hanging = failed();
    clock.advance(20);
    await hanging;

    expect(told).toEqual(Array(3).fill([thrown, "http://h/"]));
  });
});
