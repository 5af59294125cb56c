import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { crawlStandalone } from "../../support/standalone-under-test.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
beforeEach(async () => {
  site = await startWildSite();
});
afterEach(() => site.close());

const paths = (count: number) => Array.from({ length: count }, (_, index) => `/p${index}`);
const seedsOf = (all: readonly string[]) => all.map((path) => new URL(path, site.url).href);

/** Instants at which pages were asked for, and answered, in order. */
function watched(
  all: readonly string[],
  answer: (asked: number) => { status?: number; headers?: Record<string, string>; body: string; ms?: number },
) {
  const asked: number[] = [];
  const answered: number[] = [];
  for (const path of all) {
    site.page(path, (_request, response) => {
      asked.push(performance.now());
      const { status = 200, headers = {}, body, ms = 0 } = answer(asked.length);
      setTimeout(() => {
        answered.push(performance.now());
        response.writeHead(status, { "content-type": "text/html", ...headers });
        response.end(body);
      }, ms);
    });
  }
  return { asked, answered };
}

describe("A polite crawl", () => {
  it("asks a host for several pages as soon as its robots.txt is read, not when the first page is there", async () => {
    const all = paths(4);
    const waiting: (() => void)[] = [];
    for (const path of all) {
      site.page(path, (_request, response) => {
        waiting.push(() => response.end("page"));
        // None is answered before all four were asked for.
        if (waiting.length === all.length) for (const go of waiting) go();
      });
    }
    const { counts } = await crawlStandalone({ seeds: seedsOf(all) });
    expect(counts).toMatchObject({ done: 4, failed: 0 });
    expect(site.requests.filter(({ path }) => path === "/robots.txt")).toHaveLength(1);
  });

  it("waits so many times as long as a fetch took before the next, if it is told to", async () => {
    const { asked, answered } = watched(paths(5), () => ({ body: "page", ms: 60 }));
    await crawlStandalone({ seeds: seedsOf(paths(5)), politeness: { delayFactor: 2 } });
    expect(asked).toHaveLength(5);
    for (let index = 1; index < 5; index += 1) {
      // A fetch takes longer than the page; timers may fire a millisecond early.
      expect((asked[index] ?? 0) - (answered[index - 1] ?? 0)).toBeGreaterThanOrEqual(2 * 59 - 1);
    }
  });

  it("asks for no more bytes in a second than it may", async () => {
    const body = "x".repeat(10_000);
    const { asked, answered } = watched(paths(5), () => ({ body }));
    const politeness = { maxBytesPerSecond: 100_000, maxConcurrencyPerHost: 1 };
    await crawlStandalone({ seeds: seedsOf(paths(5)), politeness });
    for (let index = 2; index < 5; index += 1) {
      // A fetch's bytes are paid for from its beginning on, which is after the answer before it.
      expect((asked[index] ?? 0) - (answered[index - 2] ?? 0)).toBeGreaterThanOrEqual(99);
    }
  });

  it("leaves a host alone for as long as that asks, whatever was under way to it", async () => {
    const all = paths(12);
    let refusedAt = Number.POSITIVE_INFINITY;
    const { asked } = watched(all, (nth) => {
      if (nth !== 3) return { body: "page", ms: 5 };
      refusedAt = performance.now();
      return { status: 429, headers: { "retry-after": "1" }, body: "no" };
    });
    const { counts } = await crawlStandalone({ seeds: seedsOf(all) });
    expect(counts).toMatchObject({ done: 12, failed: 0 });
    // At most the three others that were on their way with it; then nothing for a second.
    const early = asked.filter((at) => at > refusedAt && at < refusedAt + 950);
    expect(early.length).toBeLessThanOrEqual(3);
  });
});
