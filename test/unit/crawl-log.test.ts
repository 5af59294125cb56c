import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CrawlLogEntry } from "../../src/crawl/crawl-log.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { CrawlLog, type CrawlLogOptions } from "../../src/worker/crawl-log/crawl-log.js";
import { JournalReader } from "../../src/worker/crawl-log/journal-reader.js";

let folder: string;
const opened: CrawlLog[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "warren-crawl-log-"));
});

afterEach(async () => {
  for (const log of opened.splice(0)) await log.stop();
  await rm(folder, { recursive: true, force: true });
});

async function open(options: Partial<CrawlLogOptions> = {}, epoch = 1): Promise<CrawlLog> {
  const log = new CrawlLog(
    { folder: path.join(folder, "n"), node: "n", ...options },
    { epoch: () => epoch, clock: systemClock, logger: silentLogger },
  );
  opened.push(log);
  await log.start();
  return log;
}

/** Everything that a journal still has, as a shipper would read it. */
async function all(log: CrawlLog, after = 0): Promise<CrawlLogEntry[]> {
  await log.flush();
  if (log.journal === undefined) throw new Error("there is no journal");
  const reader = new JournalReader(log.journal, { after });
  const entries: CrawlLogEntry[] = [];
  for (;;) {
    const batch = await reader.next(700);
    if (batch === undefined) return entries;
    entries.push(...batch.entries);
  }
}

const segments = async () =>
  (await readdir(path.join(folder, "n"))).filter((name) => name.endsWith(".ndjson"));
const fill = (log: CrawlLog, crawl: string, from: number, to: number) => {
  for (let number = from; number <= to; number += 1) {
    log.write({ crawl, level: "info", message: `line ${number}` });
  }
};

describe("a crawl's log on its node", () => {
  it("numbers lines of all crawls without gaps, and goes on where the last process ended", async () => {
    const first = await open({}, 10);
    fill(first, "a", 1, 3);
    fill(first, "b", 4, 5);
    await first.stop();
    const second = await open({}, 11);
    fill(second, "a", 6, 6);

    const lines = await all(second);

    expect(lines.map(({ crawl, epoch, seq }) => [crawl, epoch, seq])).toEqual([
      ["a", 10, 1],
      ["a", 10, 2],
      ["a", 10, 3],
      ["b", 10, 4],
      ["b", 10, 5],
      ["a", 11, 6],
    ]);
  });

  it("takes what loggers write, with what they are about and whatever is added", async () => {
    const log = await open({ level: "warn" });
    const logger = log.loggerFor({ crawl: "a", spider: "s", url: "http://h/" });
    logger.info("not of interest");
    logger.child({ crawl: "other", about: "shelves" }).warn({ price: 3, seq: 99 }, "cost %s", "much");
    logger.error(new Error("no shelf"));

    const lines = await all(log);

    expect(lines).toMatchObject([
      {
        crawl: "a",
        spider: "s",
        url: "http://h/",
        seq: 1,
        level: "warn",
        message: "cost much",
        fields: { crawl: "other", about: "shelves", price: 3, seq: 99 },
      },
      { crawl: "a", seq: 2, level: "error", message: "no shelf", fields: { err: { message: "no shelf" } } },
    ]);
  });

  it("cuts what is too long, and says how long it was", async () => {
    const log = await open();
    log.write({
      crawl: "a",
      level: "info",
      message: "x".repeat(100_000),
      fields: { y: "y".repeat(100_000) },
    });
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    log.write({ crawl: "a", level: "info", message: "round", fields: circle });

    const [long, round] = await all(log);

    expect(long?.message).toMatch(/^x{8192} … \(100000 characters\)$/);
    expect(long?.fields).toEqual({ omitted: "100008 characters" });
    expect(round?.fields).toEqual({ omitted: "cannot be written as JSON" });
  });

  it("passes over the torn last line of a process that was killed", async () => {
    const first = await open();
    fill(first, "a", 1, 2);
    await first.stop();
    const [name = ""] = await segments();
    await appendFile(path.join(folder, "n", name), '{"seq":3,"crawl":"a","at":1,"lev');
    const second = await open({}, 2);
    fill(second, "a", 3, 3);

    const lines = await all(second);

    expect(lines.map(({ seq, message }) => [seq, message])).toEqual([
      [1, "line 1"],
      [2, "line 2"],
      [3, "line 3"],
    ]);
  });

  it("reads on behind garbage", async () => {
    const first = await open();
    fill(first, "a", 1, 1);
    await first.stop();
    const [name = ""] = await segments();
    await appendFile(path.join(folder, "n", name), `\0\0\0\n{}\n[1]\n${"z".repeat(1_300_000)}\n`);
    await writeFile(path.join(folder, "n", "000000000000002-1.gap"), "{");
    await writeFile(path.join(folder, "n", "shipped.json"), "");
    const second = await open({}, 2);
    fill(second, "a", 2, 2);

    const lines = await all(second);

    expect(lines.map(({ seq }) => seq)).toEqual([1, 2]);
  });

  it("keeps to its share of the disk, and takes shipped lines first", async () => {
    const log = await open({ segmentBytes: 2_000, maxBytes: 10_000 });
    for (let from = 1; from < 1_000; from += 100) {
      fill(log, "a", from, from + 99);
      await log.flush();
      await log.journal?.setShipped(from + 99);
    }
    const sizes = await Promise.all(
      (await segments()).map(async (name) => (await stat(path.join(folder, "n", name))).size),
    );

    const lines = await all(log);

    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(30_000);
    expect(lines.at(-1)?.seq).toBe(1_000);
    expect(lines.map(({ seq }) => seq)).toEqual(lines.map((_, index) => 1_001 - lines.length + index));
  });

  it("tells in its place how many lines had to go unshipped, of each crawl", async () => {
    const log = await open({ segmentBytes: 2_000, maxBytes: 10_000 });
    for (let from = 1; from < 1_000; from += 20) {
      fill(log, "a", from, from + 14);
      fill(log, "b", from + 15, from + 19);
      await log.flush();
    }

    const lines = await all(log);

    const gaps = lines.filter(({ fields }) => fields !== undefined);
    const missing = (crawl: string) => Number(gaps.find((gap) => gap.crawl === crawl)?.fields?.missing);
    const kept = (crawl: string) =>
      lines.filter((line) => line.crawl === crawl && line.fields === undefined).length;
    expect(gaps).toHaveLength(2);
    expect(lines.slice(0, 2)).toEqual(gaps);
    expect(missing("a") + kept("a")).toBe(750);
    expect(missing("b") + kept("b")).toBe(250);
    expect(lines[2]?.seq).toBe(Number(gaps[0]?.seq) + 1);
  });

  it("tells of a gap once more after a restart, and never again once that was shipped", async () => {
    const options = { segmentBytes: 2_000, maxBytes: 10_000 };
    const first = await open(options);
    for (let from = 1; from < 1_000; from += 20) {
      fill(first, "a", from, from + 19);
      await first.flush();
    }
    const [before] = await all(first);
    await first.stop();
    const second = await open(options, 2);
    const [gap] = await all(second);
    await second.journal?.setShipped(gap?.seq ?? 0);
    await second.stop();
    const third = await open(options, 3);

    const lines = await all(third);

    expect(gap).toEqual(before);
    expect(lines.filter(({ fields }) => fields !== undefined)).toEqual([]);
  });

  it("does not count as missing what is being shipped at the moment", async () => {
    const log = await open({ segmentBytes: 2_000, maxBytes: 6_000 });
    fill(log, "a", 1, 10);
    await log.flush();
    if (log.journal === undefined) throw new Error("there is no journal");
    const shipping = new JournalReader(log.journal, { after: 0, holds: true });
    const batch = await shipping.next(1_000);
    for (let from = 11; from <= 400; from += 10) {
      fill(log, "a", from, from + 9);
      await log.flush();
    }

    await log.journal.setShipped(batch?.last ?? 0);
    const rest = await all(log, batch?.last);

    const missing = rest.reduce((sum, { fields }) => sum + Number(fields?.missing ?? 0), 0);
    const whole = rest.filter(({ fields }) => fields === undefined).length;
    expect(Number(batch?.entries.length) + missing + whole).toBe(400);
  });

  it("drops and counts lines of those who cannot wait, and keeps its memory bounded", async () => {
    const log = await open();
    let dropped = 0;
    for (let number = 0; number < 200_000; number += 1) {
      if (!log.write({ crawl: "a", level: "info", message: `line ${number}` })) dropped += 1;
    }
    const lines = await all(log);

    const told = lines.filter(({ fields }) => fields !== undefined);
    expect(dropped).toBeGreaterThan(0);
    expect(told.reduce((sum, { fields }) => sum + Number(fields?.dropped), 0)).toBe(dropped);
    expect(lines).toHaveLength(200_000 - dropped + told.length);
    expect(lines.map(({ seq }) => seq)).toEqual(lines.map((_, index) => index + 1));
  });

  it("loses no line of those who wait until there is room", async () => {
    const log = await open({ maxBytes: 1_000_000_000 });
    for (let number = 0; number < 60_000; number += 1) {
      await log.whenWritable();
      expect(log.write({ crawl: "a", level: "info", message: `line ${number}` })).toBe(true);
    }

    const lines = await all(log);

    expect(lines).toHaveLength(60_000);
  });

  it("says when what was logged so far is in its files, whatever is logged meanwhile", async () => {
    const log = await open();
    expect(log.whenWritten()).toBeUndefined();
    fill(log, "a", 1, 20_000);
    const waiting = log.whenWritten();
    fill(log, "a", 20_001, 25_000);
    await waiting;

    expect(log.journal?.nextSeq).toBeGreaterThan(20_000);
    await log.flush();
    expect(log.whenWritten()).toBeUndefined();
  });

  it("asks writers to wait while half of its disk is full of what has yet to be shipped", async () => {
    const log = await open({ segmentBytes: 5_000, maxBytes: 20_000 });
    fill(log, "a", 1, 100);
    await log.flush();
    expect(log.whenWritable()).toBeUndefined();
    fill(log, "a", 101, 200);
    await log.flush();
    const waiting = log.whenWritable();
    expect(waiting).toBeInstanceOf(Promise);
    await log.setShipped(200);
    await waiting;

    expect(log.whenWritable()).toBeUndefined();
  });

  it("waits for a disk that cannot be written to, and holds nobody up meanwhile", async () => {
    await writeFile(path.join(folder, "n"), "a file where the folder should be");
    const log = await open();
    fill(log, "a", 1, 3);
    await log.flush();
    expect(log.whenWritable()).toBeUndefined();
    await rm(path.join(folder, "n"));

    await expect.poll(async () => (await all(log).catch(() => [])).length, { timeout: 10_000 }).toBe(3);
  });

  it("gives the newest lines of one crawl, and pages from a line on", async () => {
    const log = await open({ segmentBytes: 2_000 });
    for (let number = 1; number <= 100; number += 1)
      fill(log, number % 2 === 0 ? "even" : "odd", number, number);

    const newest = await log.read({ crawl: "even", lines: 2 });
    const page = await log.read({ crawl: "even", lines: 2, after: 10 });
    const rest = await log.read({ crawl: "even", lines: 100, after: page.next });
    const none = await log.read({ crawl: "even", lines: 100, after: rest.next });

    expect(newest.lines.map(({ seq }) => seq)).toEqual([98, 100]);
    expect(newest.next).toBe(100);
    expect(page.lines.map(({ seq }) => seq)).toEqual([12, 14]);
    expect(rest.lines).toHaveLength(43);
    expect(none).toEqual({ lines: [], next: 100 });
  });

  it("gives fewer lines than asked for when they are long, and goes on after them", async () => {
    const log = await open();
    for (let number = 1; number <= 600; number += 1) {
      log.write({ crawl: "a", level: "info", message: "x".repeat(8_000) });
      await log.whenWritable();
    }

    const seqs: number[] = [];
    let after = 0;
    for (;;) {
      const { lines, next } = await log.read({ crawl: "a", lines: 2_000, after });
      if (lines.length === 0) break;
      expect(lines.length).toBeLessThan(300);
      seqs.push(...lines.map(({ seq }) => seq));
      after = next;
    }

    expect(seqs).toEqual(Array.from({ length: 600 }, (_, index) => index + 1));
  });

  it("is another journal on another disk", async () => {
    const first = await open();
    await first.stop();
    const id = async () => String(await readFile(path.join(folder, "n", "journal.json"), "utf8"));
    const before = await id();
    await rm(path.join(folder, "n"), { recursive: true });
    await open();

    expect(await id()).not.toBe(before);
  });
});
