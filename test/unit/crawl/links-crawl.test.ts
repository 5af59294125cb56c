import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { crawlStandalone } from "../../support/standalone-under-test.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
beforeEach(async () => {
  site = await startWildSite();
});
afterEach(() => site.close());

/** Paths that were fetched, in any order. */
const fetched = () => [...site.counts().keys()].sort();
const as = (type: string, body: string) => ({ body, headers: { "content-type": type } });

describe("a crawl", () => {
  it("reads no body of a type that its scope does not name", async () => {
    site.page("/", as("text/html; charset=utf-8", '<a href="/a"><a href="/b"><a href="/c">'));
    site.page("/a", as("text/html", '<a href="/d">'));
    // It would never end, and says so little about it that only its type tells.
    site.page("/b", (_request, response) => {
      response.writeHead(200, { "content-type": "video/mp4" });
      response.write("x".repeat(10_000));
    });
    site.page("/c", as("application/json", "{}"));
    site.page("/d", as("text/plain", "d"));
    const scope = { within: "host" as const, contentTypes: ["text/*"] };
    const { counts } = await crawlStandalone({ seeds: [site.url], scope });
    expect(counts).toMatchObject({ done: 3, skipped: 2, failed: 0, items: 3 });
    expect(fetched()).toEqual(["/", "/a", "/b", "/c", "/d"]);
  });

  it("fetches one of several spellings of a URL, as it is spelt", async () => {
    const links = ["/p?b=2&a=1&utm_source=x", "/p?a=1&b=2", "/p;jsessionid=1?a=1&b=2", "/p?a=1&b=3"];
    site.page("/", links.map((href) => `<a href="${href}">`).join(""));
    for (const path of links) site.page(path, "page");
    const urls = { sortQuery: true, dropTracking: true, dropSessionIds: true };
    const { counts } = await crawlStandalone({ seeds: [site.url, `${site.url}?utm_medium=y`], urls });
    expect(fetched()).toEqual(["/", "/p?a=1&b=3", "/p?b=2&a=1&utm_source=x"]);
    expect(counts).toMatchObject({ done: 3, skipped: 0, failed: 0 });
  });

  it("follows a redirect to what it takes for the same URL", async () => {
    site.page("/a", { body: "", status: 302, headers: { location: "/a;jsessionid=0123" } });
    site.page("/a;jsessionid=0123", "at last");
    const { counts } = await crawlStandalone({ seeds: [`${site.origin}/a`], urls: { dropSessionIds: true } });
    expect(counts).toMatchObject({ done: 1, skipped: 0, failed: 0 });
  });

  it("keeps one of the pages that name the same canonical URL", async () => {
    site.page("/", '<a href="/p?color=red"><a href="/p?color=blue"><a href="/p"><a href="/q">');
    const product = '<link rel=canonical href="/p"><a href="/r">';
    for (const path of ["/p?color=red", "/p?color=blue", "/p"]) site.page(path, product);
    // Elsewhere, and several: neither says anything.
    site.page("/q", '<link rel=canonical href="http://other.example/q">');
    site.page("/r", '<link rel=canonical href="/s"><link rel=canonical href="/t">');
    const seeds = [site.url];
    const { counts, items } = await crawlStandalone({ seeds, links: { canonical: "duplicate" } });
    expect(items.filter(({ url }) => url.includes("/p"))).toHaveLength(1);
    expect(counts).toMatchObject({ done: 4, items: 4, failed: 0, queued: 0 });
  });

  it("keeps pages that name each other as canonical, one of them", async () => {
    site.page("/", '<a href="/a"><a href="/b">');
    site.page("/a", '<link rel=canonical href="/b">');
    site.page("/b", '<link rel=canonical href="/a">');
    const { counts } = await crawlStandalone({ seeds: [site.url], links: { canonical: "duplicate" } });
    expect(counts).toMatchObject({ done: 2, skipped: 1, failed: 0, queued: 0 });
  });
});
