import { describe, expect, it } from "vitest";
import { PartCache } from "../../../src/crawl/render/part-cache.js";
import { ManualClock } from "../../../src/lib/clock.js";

const URL = "http://a.test/app.js";

function setup(options = {}) {
  const clock = new ManualClock();
  const cache = new PartCache(clock, options);
  const keep = (headers: Record<string, string>, more = {}, type = "script") =>
    cache.keep("c", type, URL, { statusCode: 200, headers, body: Buffer.from("x"), ...more });
  const isKept = (crawl = "c", type = "script") => cache.get(crawl, type, URL) !== undefined;
  return { clock, cache, keep, isKept };
}

describe("parts of pages", () => {
  it.each([
    [{ "cache-control": "max-age=60" }, 60_000],
    [{ "cache-control": 'Public, Max-Age="60"' }, 60_000],
    [{ "cache-control": "s-maxage=5, max-age=60" }, 60_000],
    [{ "cache-control": "max-age=31536000, immutable" }, 3_600_000],
    [{}, 300_000],
    [{ vary: "Accept-Encoding, User-Agent" }, 300_000],
  ])("are used for as long as %j allows", (headers, ageMs) => {
    const { clock, keep, isKept } = setup();
    keep(headers);
    clock.advance(ageMs - 1);
    expect(isKept()).toBe(true);
    clock.advance(1);
    expect(isKept()).toBe(false);
  });

  it.each([
    ["no-store", { "cache-control": "no-store" }, {}],
    ["no-cache", { "cache-control": "max-age=60, no-cache" }, {}],
    ["an age of 0", { "cache-control": "max-age=0" }, {}],
    ["pragma", { pragma: "no-cache" }, {}],
    ["another answer for other cookies", { vary: "Cookie" }, {}],
    ["another answer for other origins", { vary: "origin" }, {}],
    ["another answer for anything", { vary: "*" }, {}],
    ["a cookie", {}, { setCookies: ["a=1"] }],
    ["another status", {}, { statusCode: 404 }],
  ])("are not kept: %s", (_, headers, more) => {
    const { keep, isKept } = setup();
    keep(headers, more);
    expect(isKept()).toBe(false);
  });

  it("are those of one crawl, and of kinds that pages share", () => {
    const { keep, isKept } = setup();
    keep({});
    keep({}, {}, "fetch");
    expect(isKept("other")).toBe(false);
    expect(isKept("c", "fetch")).toBe(false);
    expect(isKept()).toBe(true);
  });

  it("are bounded in bytes, the one unused for longest going first", () => {
    const { cache } = setup({ maxBytes: 40_000 });
    const part = { statusCode: 200, headers: {}, body: Buffer.alloc(8_000) };
    const kept = (name: string) => cache.get("c", "script", name) !== undefined;
    for (const name of ["1", "2", "3", "4"]) cache.keep("c", "script", name, part);
    expect(kept("1")).toBe(true);
    cache.keep("c", "script", "5", part);
    expect(["1", "2", "3", "4", "5"].map(kept)).toEqual([true, false, true, true, true]);
    cache.keep("c", "script", "big", { ...part, body: Buffer.alloc(10_000) });
    expect(kept("big")).toBe(false);
  });
});
