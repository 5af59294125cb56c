import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type CrawlSpec, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import type { CrawlLogs, Store, StoredLogLine } from "../../src/store/index.js";
import { CrawlLog, type CrawlLogOptions, LogShipper } from "../../src/worker/crawl-log/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const SPEC: CrawlSpec = {
  spider: "links",
  seeds: ["http://a.test/"],
  scope: "host",
  limits: {},
  politeness: DEFAULT_POLITENESS,
  priority: 5,
  params: {},
};

const stores = new StoresUnderTest();
let store: Store;
let folder: string;
let epoch = 0;
const running: (() => Promise<void>)[] = [];

beforeAll(async () => {
  store = await stores.open();
});
afterAll(() => stores.dispose());
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "warren-shipper-"));
});
afterEach(async () => {
  for (const stop of running.splice(0)) await stop();
  await rm(folder, { recursive: true, force: true });
});

async function begin(options: Partial<CrawlLogOptions> & { readonly logs?: Pick<CrawlLogs, "add"> } = {}) {
  const { logs = store.crawlLogs, ...given } = options;
  epoch += 1;
  const parts = { clock: systemClock, logger: silentLogger };
  const mine = epoch;
  const log = new CrawlLog({ folder, node: "n", ...given }, { ...parts, epoch: () => mine });
  const shipper = new LogShipper({ node: "n", gatherMs: 5, pauseMs: 5 }, { ...parts, log, store: logs });
  await log.start();
  await shipper.start();
  const stop = async () => {
    await shipper.stop();
    await log.stop();
  };
  running.push(stop);
  return { log, shipper, stop };
}

const newCrawl = async () => (await store.crawls.create(SPEC)).crawl.id;

async function stored(crawl: string): Promise<StoredLogLine[]> {
  const lines: StoredLogLine[] = [];
  for (;;) {
    const page = await store.crawlLogs.read(crawl, { lines: 5_000, after: lines.at(-1)?.number ?? 0 });
    if (page.lines.length === 0) return lines;
    lines.push(...page.lines);
  }
}

const write = (log: CrawlLog, crawl: string, from: number, to: number) => {
  for (let number = from; number <= to; number += 1) {
    log.write({ crawl, level: "info", message: `line ${number}` });
  }
};
const messages = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `line ${from + index}`);

/** A database that fails: before it did anything, or after, so that nobody knows. */
function shaky(failures: readonly ("before" | "after" | "not")[]): Pick<CrawlLogs, "add"> {
  let calls = 0;
  return {
    async add(...args) {
      const failure = failures[calls % failures.length];
      calls += 1;
      if (failure === "before") throw new Error("it is away");
      await store.crawlLogs.add(...args);
      if (failure === "after") throw new Error("the answer was lost");
    },
  };
}

describe("shipping logs of crawls", () => {
  it("brings every line of every crawl there, in order", async () => {
    const [a, b] = [await newCrawl(), await newCrawl()];
    const { log } = await begin({ segmentBytes: 20_000 });
    for (let from = 1; from < 3_000; from += 100) {
      write(log, a, from, from + 99);
      write(log, b, from, from + 99);
      await log.flush();
    }
    await expect.poll(async () => (await stored(b)).length, { timeout: 20_000 }).toBe(3_000);

    expect((await stored(a)).map(({ message }) => message)).toEqual(messages(1, 3_000));
    expect((await stored(b)).map(({ message }) => message)).toEqual(messages(1, 3_000));
  });

  it("brings each line once, whenever the database fails", async () => {
    const crawl = await newCrawl();
    const { log } = await begin({ logs: shaky(["before", "after", "not", "after", "before", "not"]) });
    for (let from = 1; from < 2_000; from += 50) {
      write(log, crawl, from, from + 49);
      await log.flush();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await expect.poll(async () => (await stored(crawl)).length, { timeout: 20_000 }).toBe(2_000);

    expect((await stored(crawl)).map(({ message }) => message)).toEqual(messages(1, 2_000));
  });

  it("ships at the next start what was left, and what was shipped but not noted, once", async () => {
    const crawl = await newCrawl();
    const first = await begin();
    write(first.log, crawl, 1, 500);
    await first.log.flush();
    await first.shipper.shipNow();
    // As the disk is before the note of what is shipped: a process that is killed leaves it like that.
    const saved = `${folder}-saved`;
    await cp(folder, saved, { recursive: true, filter: (file) => !file.endsWith("shipped.json") });
    await first.stop();
    await rm(folder, { recursive: true });
    await cp(saved, folder, { recursive: true });
    await rm(saved, { recursive: true });
    const second = await begin();
    write(second.log, crawl, 501, 700);
    await second.log.flush();
    await second.shipper.shipNow();

    expect((await stored(crawl)).map(({ message }) => message)).toEqual(messages(1, 700));
  });

  it("keeps to its share of the disk while the database is away, and tells afterwards what that cost", async () => {
    const crawl = await newCrawl();
    let isAway = true;
    const logs: Pick<CrawlLogs, "add"> = {
      async add(...args) {
        if (isAway) throw new Error("it is away");
        return store.crawlLogs.add(...args);
      },
    };
    const { log } = await begin({ logs, segmentBytes: 20_000, maxBytes: 100_000 });
    let most = 0;
    for (let from = 1; from < 20_000; from += 100) {
      write(log, crawl, from, from + 99);
      await log.flush();
      most = Math.max(most, log.journal?.bytes ?? 0);
    }
    isAway = false;
    await expect
      .poll(async () => (await stored(crawl)).at(-1)?.message, { timeout: 20_000 })
      .toBe("line 20000");

    const lines = await stored(crawl);
    const missing = lines.reduce((sum, { fields }) => sum + Number(fields?.missing ?? 0), 0);
    const whole = lines.filter(({ fields }) => fields === undefined);
    expect(most).toBeLessThan(160_000);
    expect(missing).toBeGreaterThan(10_000);
    expect(missing + whole.length).toBe(20_000);
    expect(new Set(whole.map(({ message }) => message)).size).toBe(whole.length);
  });

  it("does not wait for lines of a crawl that is gone", async () => {
    const [gone, crawl] = [await newCrawl(), await newCrawl()];
    await store.crawls.close(gone);
    await store.purge(gone);
    const { log } = await begin();
    write(log, gone, 1, 10);
    write(log, crawl, 1, 10);
    await expect.poll(async () => (await stored(crawl)).length, { timeout: 20_000 }).toBe(10);

    expect(await stored(gone)).toEqual([]);
  });
});
