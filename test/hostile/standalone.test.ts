import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Crawl } from "../../src/crawl/crawl.js";
import { Fetcher } from "../../src/crawl/fetch/fetcher.js";
import type { Ending } from "../../src/crawl/frontier.js";
import { systemClock } from "../../src/lib/clock.js";
import { createLogger } from "../../src/lib/logger.js";
import { bundledSpiders } from "../../src/spiders/index.js";
import { ItemWriter } from "../../src/worker/item-writer.js";
import { Standalone, type StandaloneSummary } from "../../src/worker/standalone.js";
import { heapInUse } from "../support/heap.js";
import {
  HOSTILE_BEHAVIOURS,
  HOSTILE_CRAWLS,
  HOSTILE_LIMITS,
  HOSTILE_NETWORK,
  HOSTILE_POLITENESS,
  HOSTILE_SCOPE,
  type HostileCrawl,
} from "../support/hostile-behaviours.js";
import { expectEnd, type Outcome } from "../support/hostile-outcomes.js";
import { HostileSite } from "../support/hostile-site.js";

const INNOCENT_PAGES = 60;
/** Which of the crawls the innocent host is part of: that of servers which keep one waiting. */
const INNOCENT_CRAWL = 0;
/** What a crawl may leave behind on the heap, in MiB: caches, and code that was compiled. */
const HEAP_GROWTH = 24;

type Line = { readonly id: string; readonly url: string; readonly data: { readonly title?: string } };

/** One crawl of the engine alone, and how each of its URLs ended. */
class WatchedCrawl {
  readonly ends = new Map<string, Outcome>();
  readonly lines: Line[] = [];
  readonly #endings = new Map<string, { url: string; ending: Ending }>();
  readonly #standalone: Standalone;

  constructor(
    { name, spider, fetchTimeoutMs }: HostileCrawl,
    seeds: readonly string[],
    files: string,
    ca: string,
  ) {
    const crawl: Crawl = {
      id: name,
      status: "running",
      generation: 1,
      startedAt: Date.now(),
      spider,
      seeds,
      scope: HOSTILE_SCOPE,
      limits: {},
      politeness: HOSTILE_POLITENESS,
      priority: 5,
      params: {},
    };
    const userAgent = "warren-test";
    const output = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        for (const line of chunk.toString().trim().split("\n")) this.lines.push(JSON.parse(line) as Line);
        done();
      },
    });
    this.#standalone = new Standalone(
      { crawl, concurrency: 64, limits: HOSTILE_LIMITS, userAgent, filesFolder: files },
      {
        fetcher: new Fetcher({
          userAgent,
          timeoutMs: fetchTimeoutMs,
          connectTimeoutMs: fetchTimeoutMs,
          ca,
          allowedNetworks: [HOSTILE_NETWORK],
        }),
        spiders: bundledSpiders,
        items: new ItemWriter(output, "items"),
        clock: systemClock,
        logger: createLogger({ level: "error", base: {} }),
        onEnded: ({ url }, ending) => this.#endings.set(ending.id, { url, ending }),
      },
    );
  }

  async run(): Promise<StandaloneSummary> {
    await this.#standalone.start();
    const summary = await this.#standalone.finished;
    await this.#standalone.stop();
    const titles = new Map(this.lines.map(({ id, data }) => [taskOf(id), data.title]));
    for (const { url, ending } of this.#endings.values()) {
      const { state, reason, statusCode, attempts } = ending;
      const { error, files = 0 } = state === "queued" ? {} : ending;
      this.ends.set(url, { state, reason, statusCode, attempts, error, files, title: titles.get(ending.id) });
    }
    return summary;
  }
}

/** The task that an item came from: the rest of its id tells the round and the item. */
function taskOf(itemId: string): string {
  return itemId.split(".").slice(0, -2).join(".");
}

describe("a crawl of hostile servers", () => {
  let folder: string;
  let site: HostileSite;
  let resourcesBefore: number;
  let heapBefore: number;
  let heapAfter: number;
  let names: readonly string[];
  const ends = { links: new Map<string, Outcome>(), pdf: new Map<string, Outcome>() };
  const summaries: StandaloneSummary[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-hostile-"));
    site = await HostileSite.start(HOSTILE_BEHAVIOURS, INNOCENT_PAGES);
    const ca = await readFile(site.caFile, "utf8");
    resourcesBefore = socketsAndTimers();
    heapBefore = await heapInUse();
    const files = path.join(folder, "files");
    await Promise.all(
      HOSTILE_CRAWLS.map(async (hostile, index) => {
        const seeds = hostile.behaviours.map((behaviour) => site.urlOf(behaviour));
        if (index === INNOCENT_CRAWL) seeds.push(site.innocent);
        const crawl = new WatchedCrawl(hostile, seeds, files, ca);
        summaries.push(await crawl.run());
        for (const [url, outcome] of crawl.ends) ends[hostile.spider].set(url, outcome);
      }),
    );
    heapAfter = await heapInUse();
    names = await readdir(files);
  }, 300_000);

  afterAll(async () => {
    await site?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("comes to its end, and nothing is left waiting", () => {
    for (const { counts, finishReason } of summaries) {
      expect(finishReason).toBe("completed");
      expect(counts).toMatchObject({ queued: 0, active: 0 });
    }
  });

  describe.each(HOSTILE_BEHAVIOURS)("$name", (behaviour) => {
    const { spider = "links", leadsTo = {} } = behaviour;

    it(`ends as ${behaviour.ends.reason ?? behaviour.ends.state}`, () => {
      expectEnd(ends[spider].get(site.urlOf(behaviour)), behaviour.ends);
    });

    it.each(Object.entries(leadsTo))("leads to %s", (target, end) => {
      const { state, reason } = end;
      // Links out of scope are never handed out: they end where they are found.
      if (reason === "scope") expect(ends[spider].get(site.resolve(behaviour, target))).toBeUndefined();
      else expectEnd(ends[spider].get(site.resolve(behaviour, target)), { ...end, state });
    });
  });

  it("fetches an innocent host beside them whole, without waiting for them", () => {
    const { origin } = new URL(site.innocent);
    for (let number = 0; number < INNOCENT_PAGES; number += 1) {
      expect(ends.links.get(`${origin}/${number}`)).toMatchObject({ state: "done" });
    }
    expect(site.innocentWasFirst).toBe(true);
  });

  it("gives files names that stay in their folder", () => {
    expect(names.length).toBeGreaterThan(5);
    for (const name of names) {
      expect(name).not.toMatch(/[/\\\0\r\n]/);
      expect(Buffer.byteLength(name)).toBeLessThanOrEqual(255);
      expect(name.startsWith(".")).toBe(false);
    }
  });

  it("leaves neither memory nor connections nor timers behind", async () => {
    await expect.poll(() => site.connections, { timeout: 10_000 }).toBe(0);
    await expect.poll(socketsAndTimers, { timeout: 10_000 }).toBeLessThanOrEqual(resourcesBefore);
    expect(heapAfter - heapBefore).toBeLessThan(HEAP_GROWTH);
  });
});

function socketsAndTimers(): number {
  return process.getActiveResourcesInfo().filter((name) => /TCPSocket|TLSSocket|Timeout/.test(name)).length;
}
