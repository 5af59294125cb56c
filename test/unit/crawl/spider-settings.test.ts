import { describe, expect, it } from "vitest";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import type { SpiderSettings } from "../../../src/crawl/spider.js";
import { shownSettings, spiderSettings, withSettings } from "../../../src/crawl/spider-settings.js";

describe("the settings of a spider", () => {
  const settings: SpiderSettings = {
    scope: "domain",
    limits: { maxDepth: 3, maxPages: 100 },
    politeness: { delayMs: 500 },
    urls: { sortQuery: true, dropTracking: true },
    duplicates: "exact",
  };

  it("say what a crawl does not, group by group and member by member, before defaults do", () => {
    const merged = withSettings({ limits: { maxPages: 7 }, urls: { sortQuery: false } }, settings);

    expect(crawlRequest.parse(merged)).toMatchObject({
      scope: "domain",
      limits: { maxDepth: 3, maxPages: 7 },
      politeness: { delayMs: 500, maxConcurrencyPerHost: 4, obeyRobots: true },
      urls: { sortQuery: false, dropTracking: true },
      duplicates: "exact",
    });
  });

  it("give way to what is of another kind, and leave the request as it was", () => {
    const request = { scope: { hosts: ["a.example"] }, duplicates: "off", limits: null };

    expect(withSettings(request, settings)).toMatchObject(request);
    expect(request).toEqual({ scope: { hosts: ["a.example"] }, duplicates: "off", limits: null });
    expect(withSettings(request, undefined)).toBe(request);
    expect(withSettings([], settings)).toEqual([]);
    expect(withSettings("text", settings)).toBe("text");
  });

  it("are taken as they are, and refused by name", () => {
    const faults = (given: unknown) =>
      spiderSettings.safeParse(given).error?.issues.map(({ path }) => path.join("."));

    expect(spiderSettings.parse(settings)).toEqual(settings);
    expect(faults({ politeness: { delayMs: -1 } })).toEqual(["politeness.delayMs"]);
    expect(faults({ recrawl: { factor: "x" } })).toEqual(["recrawl.factor"]);
    expect(faults({ seeds: [] })).toEqual([""]);
    expect(faults("much")).toEqual([""]);
  });

  it("are shown without what they send to sites", () => {
    const fetch = { auth: { "https://a.example": { bearer: "s3cret" } }, userAgent: "own" };

    const shown = shownSettings({ ...settings, fetch });

    expect(shown).toMatchObject({ scope: "domain", fetch: { userAgent: "own" } });
    expect(JSON.stringify(shown)).not.toContain("s3cret");
  });
});
