import { describe, expect, it } from "vitest";
import { type Crawl, DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import type { OpenedUrl } from "../../../src/crawl/frontier.js";
import { MemoryFrontier } from "../../../src/crawl/memory-frontier.js";
import { RECRAWL_DEFAULTS } from "../../../src/crawl/recrawl-options.js";
import { Recrawler } from "../../../src/crawl/recrawler.js";
import { ManualClock } from "../../../src/lib/clock.js";
import { silentLogger } from "../../../src/lib/logger.js";

const SHARDS = Array.from({ length: 8 }, (_, shard) => shard);

function crawlNamed(id: string, generation = 1): Crawl {
  return {
    id,
    spider: "links",
    seeds: [],
    scope: "any",
    limits: {},
    politeness: DEFAULT_POLITENESS,
    priority: 5,
    params: {},
    recrawl: RECRAWL_DEFAULTS,
    status: "running",
    generation,
    startedAt: 0,
  };
}

function setup() {
  const clock = new ManualClock();
  const frontier = new MemoryFrontier(8);
  const opened: OpenedUrl[] = [];
  let looks = 0;
  const recrawler = new Recrawler({
    rounds: {
      openDue: (...asked) => {
        looks += 1;
        return frontier.openDue(...asked);
      },
      open: (...asked) => frontier.open(...asked),
      hasNextVisits: (crawl) => frontier.hasNextVisits(crawl),
    },
    clock,
    logger: silentLogger,
    heldShards: () => SHARDS,
    onOpened: (urls) => opened.push(...urls),
  });
  let number = 0;
  /** A URL that has ended and is due again so much later; its end is told unless it got lost. */
  const ended = async (crawl: string, path: string, inMs: number, isTold = true) => {
    const id = `${crawl}:${path}`;
    const host = "a.test";
    await frontier.add([
      { id, crawl, url: `http://a.test/${path}`, host, kind: "page", depth: 0, priority: 5 },
    ]);
    number += 1;
    const token = `t${number}`;
    await frontier.dispatch([id], { token, generation: 1, dispatchedAt: 0, notAfter: 1 });
    const at = clock.now() + inMs;
    const nextVisit = { at, revisit: { intervalMs: inMs } };
    await frontier.commit([{ id, crawl, token, attempts: 1, state: "done", items: 0, files: 0, nextVisit }]);
    if (isTold) recrawler.ended({ id, crawl, host, token, endedAt: clock.now(), nextVisitAt: at });
  };
  const pass = async (ms: number) => {
    clock.advance(ms);
    await recrawler.look();
  };
  return {
    recrawler,
    clock,
    opened,
    ended,
    pass,
    looks: () => looks,
    paths: () => opened.map(({ id }) => id),
  };
}

/** What was begun by a timer has come to its end. */
const settled = () => new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)));

describe("Recrawler", () => {
  it("opens each URL when its time has come, without looking in between", async () => {
    const { recrawler, clock, ended, paths, looks } = setup();
    recrawler.setCrawls([crawlNamed("one")]);
    await ended("one", "late", 10_000);
    await ended("one", "soon", 1_000);
    await settled();
    const before = looks();

    clock.advance(999);
    await settled();
    expect([paths(), looks()]).toEqual([[], before]);
    clock.advance(1);
    await settled();
    expect(paths()).toEqual(["one:soon"]);
    clock.advance(8_999);
    await settled();
    expect(paths()).toEqual(["one:soon"]);
    expect(looks()).toBe(before + 1);
    clock.advance(1);
    await settled();

    expect(paths()).toEqual(["one:soon", "one:late"]);
    expect(clock.pending).toBe(0);
  });

  it("finds what waits when it is told of a crawl, or told again that it runs", async () => {
    const { recrawler, ended, paths, clock } = setup();
    await ended("one", "a", 1_000);
    clock.advance(2_000);

    recrawler.setCrawls([crawlNamed("one")]);
    await settled();
    expect(paths()).toEqual(["one:a"]);

    recrawler.setCrawls([]);
    await ended("one", "b", 1_000);
    clock.advance(2_000);
    await settled();
    expect(paths()).toEqual(["one:a"]);
    recrawler.setCrawls([crawlNamed("one", 2)]);
    await settled();

    expect(paths()).toEqual(["one:a", "one:b"]);
  });

  it("finds what it was not told of, when it looks", async () => {
    const { recrawler, ended, paths, pass } = setup();
    recrawler.setCrawls([crawlNamed("one")]);
    await ended("one", "a", 1_000, false);

    await pass(5_000);

    expect(paths()).toEqual(["one:a"]);
  });

  it("opens nothing of crawls without recrawl, or once it is stopped", async () => {
    const { recrawler, ended, paths, clock } = setup();
    const { recrawl: _recrawl, ...once } = crawlNamed("once");
    recrawler.setCrawls([once, crawlNamed("one")]);
    await ended("once", "a", 1_000);
    await ended("one", "a", 1_000);
    await recrawler.stop();

    clock.advance(5_000);
    await settled();

    expect(paths()).toEqual([]);
  });

  it("waits for an hour at most before it looks whether it is time", async () => {
    const { recrawler, clock, ended, paths } = setup();
    const DAYS_MS = 60 * 86_400_000;
    recrawler.setCrawls([crawlNamed("one")]);
    await ended("one", "a", DAYS_MS);
    for (let hours = 0; hours < 60 * 24; hours += 1) {
      clock.advance(3_600_000);
      await settled();
    }
    expect(paths()).toEqual(["one:a"]);
  });
});
