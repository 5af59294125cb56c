import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { crawlStandalone } from "../../support/standalone-under-test.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
beforeEach(async () => {
  site = await startWildSite();
});
afterEach(() => site.close());

describe("a host's robots.txt", () => {
  it("opens the host as soon as it was read, and not when its first page has ended", async () => {
    const others = new Set(["/b", "/c"]);
    let answerFirst: (() => void) | undefined;
    site.page("/a", (_request, response) => {
      answerFirst = () => response.end("first");
      if (others.size === 0) answerFirst();
    });
    for (const path of ["/b", "/c"]) {
      site.page(path, (_request, response) => {
        others.delete(path);
        response.end("other");
        if (others.size === 0) answerFirst?.();
      });
    }
    const seeds = ["/a", "/b", "/c"].map((path) => site.origin + path);
    const { counts } = await crawlStandalone({ seeds });
    // Were the host opened by the end of its first page, that would never have ended.
    expect(counts).toMatchObject({ done: 3, failed: 0 });
  });
});
