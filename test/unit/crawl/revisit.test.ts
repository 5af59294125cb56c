import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import { RECRAWL_DEFAULTS } from "../../../src/crawl/recrawl-options.js";
import {
  conditionsOf,
  nextVisit,
  type Revisit,
  type Visit,
  validatorsOf,
} from "../../../src/crawl/revisit.js";

const NOW = Date.parse("2026-01-01T00:00:00Z");
const URL = "http://a.test/";
const OPTIONS = {
  ...RECRAWL_DEFAULTS,
  minIntervalMs: 1_000,
  maxIntervalMs: 16_000,
  initialIntervalMs: 4_000,
  jitter: 0,
};
const DONE = { state: "done", statusCode: 200 } as const;
const GONE = { state: "failed", reason: "http-status", statusCode: 404 } as const;
const changed: Visit = { url: URL, isUnchanged: false, contentHash: "new" };
const unchanged: Visit = { url: URL, isUnchanged: true, contentHash: "old" };

const next = (before: Revisit | undefined, end: Parameters<typeof nextVisit>[2], visit?: Visit) =>
  nextVisit(OPTIONS, before, end, visit, NOW, URL, 0.5);
const known = (intervalMs: number, about: Partial<Revisit> = {}): Revisit => ({ intervalMs, ...about });

describe("the next visit", () => {
  it("comes after the initial interval the first time", () => {
    expect(next(undefined, DONE, changed)).toEqual({
      at: NOW + 4_000,
      revisit: { intervalMs: 4_000, contentHash: "new" },
    });
  });

  it("comes sooner each time the page has changed, and not sooner than the shortest interval", () => {
    const intervals: number[] = [];
    let before: Revisit | undefined = known(8_000);
    for (let round = 0; round < 5; round += 1) {
      before = next(before, DONE, changed)?.revisit;
      intervals.push(before?.intervalMs ?? 0);
    }
    expect(intervals).toEqual([4_000, 2_000, 1_000, 1_000, 1_000]);
  });

  it("comes later each time it has not, or could not be had, and not later than the longest interval", () => {
    for (const [end, visit] of [
      [DONE, unchanged],
      [{ state: "failed", reason: "network" }, undefined],
      [{ state: "skipped", reason: "robots" }, undefined],
    ] as const) {
      const intervals: number[] = [];
      let before: Revisit | undefined = known(3_000);
      for (let round = 0; round < 4; round += 1) {
        before = next(before, end, visit)?.revisit;
        intervals.push(before?.intervalMs ?? 0);
      }
      expect(intervals).toEqual([6_000, 12_000, 16_000, 16_000]);
    }
  });

  it("keeps to a page that changes at a steady rate", () => {
    // The page changes every 5 s: the interval must settle within a factor of 4 of that.
    let at = 0;
    let changes = 0;
    let before: Revisit | undefined;
    const intervals: number[] = [];
    for (let round = 0; round < 200; round += 1) {
      const version = Math.floor(at / 5_000);
      before = next(before, DONE, version === changes ? unchanged : changed)?.revisit;
      changes = version;
      at += before?.intervalMs ?? 0;
      intervals.push(before?.intervalMs ?? 0);
    }
    const mean = intervals.slice(20).reduce((sum, value) => sum + value, 0) / (intervals.length - 20);
    expect(mean).toBeGreaterThan(1_250);
    expect(mean).toBeLessThan(20_000);
  });

  it("keeps its interval when nothing is known of what was found", () => {
    expect(next(undefined, DONE)?.revisit).toEqual({ intervalMs: 4_000 });
    expect(next(known(3_000), DONE)?.revisit).toEqual({ intervalMs: 3_000 });
  });

  it("never leaves its bounds by more than chance may change it", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 1, max: 1e9, noNaN: true }),
        fc.boolean(),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (intervalMs, isUnchanged, random) => {
          const options = { ...OPTIONS, jitter: 0.1 };
          const visit = { url: URL, isUnchanged };
          const found = nextVisit(options, { intervalMs }, DONE, visit, NOW, URL, random);
          const waitMs = (found?.at ?? 0) - NOW;
          expect(waitMs).toBeGreaterThanOrEqual(900);
          expect(waitMs).toBeLessThanOrEqual(17_600);
        },
      ),
    );
  });

  it("comes ever later while a page is gone, and after so many rounds no more", () => {
    const first = next(known(2_000, { etag: '"1"' }), GONE)?.revisit;
    expect(first).toEqual({ intervalMs: 4_000, etag: '"1"', gone: 1 });
    const second = next(first, { ...GONE, statusCode: 410 })?.revisit;
    expect(second).toMatchObject({ intervalMs: 8_000, gone: 2 });
    expect(next(second, GONE)).toBeUndefined();
  });

  it("counts being gone anew when the page was there in between", () => {
    const found = next(known(2_000, { gone: 2 }), DONE, changed);
    expect(found?.revisit).not.toHaveProperty("gone");
  });

  it("does not come for broken links, poison, or what was left out for good", () => {
    expect(next(undefined, GONE)).toBeUndefined();
    expect(next(known(1_000), { state: "failed", reason: "poison" })).toBeUndefined();
    expect(next(known(1_000), { state: "skipped", reason: "type" })).toBeUndefined();
  });

  it("asks whole for what the spider could not take in", () => {
    const before = known(1_000, { etag: '"1"', contentHash: "old" });
    expect(next(before, { state: "failed", reason: "spider-error" })?.revisit).toEqual({ intervalMs: 2_000 });
    expect(next(before, { state: "skipped", reason: "duplicate" })?.revisit).toEqual({ intervalMs: 2_000 });
  });

  it("keeps the validators that a 304 confirms, or takes those that it gives", () => {
    const before = known(1_000, { etag: '"1"', contentHash: "old" });
    const notModified = { url: URL, isUnchanged: true };
    expect(next(before, DONE, notModified)?.revisit).toEqual({ ...before, intervalMs: 2_000 });
    expect(next(before, DONE, { ...notModified, etag: '"2"' })?.revisit).toEqual({
      intervalMs: 2_000,
      etag: '"2"',
      contentHash: "old",
    });
  });

  it("remembers where redirects had led with the validators of that place", () => {
    const visit = { ...changed, url: "http://a.test/moved", etag: '"1"' };
    expect(next(undefined, DONE, visit)?.revisit).toMatchObject({ validatedUrl: "http://a.test/moved" });
  });
});

describe("validators", () => {
  it.each(['"abc"', 'W/"abc"', '""', '"a,b c!"'.replace(" ", ""), `"${"x".repeat(500)}"`])(
    "may be the entity tag %s",
    (etag) => {
      expect(validatorsOf({ etag }, NOW)).toEqual({ etag });
    },
  );

  it.each(["abc", "'abc'", 'w/"abc"', '"a"b"', '"a b"', '"a\u0000"', `"${"x".repeat(600)}"`, "", "W/abc"])(
    "are not the malformed entity tag %j",
    (etag) => {
      expect(validatorsOf({ etag }, NOW)).toEqual({});
    },
  );

  it.each(["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"])(
    "may be the date %s",
    (lastModified) => {
      expect(validatorsOf({ "last-modified": lastModified }, NOW)).toEqual({ lastModified });
    },
  );

  it.each([
    "0",
    "-1",
    "yesterday",
    "2020-01-01",
    "Sun, 99 Nov 1994 08:49:37 GMT",
    "Thu, 01 Jan 2032 00:00:00 GMT",
  ])("are not the date %j: it is none, or in the future", (lastModified) => {
    expect(validatorsOf({ "last-modified": lastModified }, NOW)).toEqual({});
  });

  it("are sent back to the URL that they are of, and nowhere else", () => {
    const own = known(1, { etag: '"1"', lastModified: "Sun, 06 Nov 1994 08:49:37 GMT" });
    expect(conditionsOf(own, URL, URL)).toEqual({
      "if-none-match": '"1"',
      "if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT",
    });
    expect(conditionsOf(own, "http://a.test/moved", URL)).toBeUndefined();
    const moved = known(1, { etag: '"1"', validatedUrl: "http://a.test/moved" });
    expect(conditionsOf(moved, URL, URL)).toBeUndefined();
    expect(conditionsOf(moved, "http://a.test/moved", URL)).toEqual({ "if-none-match": '"1"' });
    expect(conditionsOf(known(1), URL, URL)).toBeUndefined();
  });
});

describe("the member recrawl of a crawl", () => {
  it("has defaults, and is absent unless asked for", () => {
    expect(crawlRequest.parse({})).not.toHaveProperty("recrawl");
    expect(crawlRequest.parse({ recrawl: {} })).toMatchObject({ recrawl: RECRAWL_DEFAULTS });
  });

  it.each([
    [{ minIntervalMs: 0 }, "recrawl.minIntervalMs"],
    [{ minIntervalMs: 5_000, maxIntervalMs: 1_000 }, "recrawl.maxIntervalMs"],
    [{ factor: 0.5 }, "recrawl.factor"],
    [{ jitter: 1 }, "recrawl.jitter"],
    [{ goneAfter: 0 }, "recrawl.goneAfter"],
  ])("is refused when it is %j", (recrawl, path) => {
    const { error } = crawlRequest.safeParse({ recrawl });
    expect(error?.issues[0]?.path.join(".")).toBe(path);
  });
});
