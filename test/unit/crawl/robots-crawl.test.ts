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

it("a host whose robots.txt asks for a pause is left alone, and crawled after it", async () => {
  let asked = 0;
  let answeredAt = 0;
  site.page("/robots.txt", (_request, response) => {
    asked += 1;
    answeredAt = performance.now();
    if (asked === 1) response.writeHead(503, { "retry-after": "1" }).end();
    else response.end("");
  });
  site.page("/", "front");
  const startedAt = performance.now();
  // One attempt more than the pause: the first could not be made.
  const { counts } = await crawlStandalone({ seeds: [site.url] }, { limits: { maxAttempts: 2 } });
  expect(counts).toMatchObject({ done: 1 });
  expect(asked).toBe(2);
  expect(answeredAt - startedAt).toBeGreaterThan(990);
});

describe("a robots.txt that never comes", () => {
  const fetch = { timeoutMs: 200, maxAttempts: 1 };
  beforeEach(() => {
    // Its connection stays open, and nothing is said.
    site.page("/robots.txt", () => {});
    site.page("/", "front");
  });

  it("is waited for no longer than its crawl waits for a page", async () => {
    const { counts } = await crawlStandalone({ seeds: [site.url], fetch });
    expect(counts).toMatchObject({ failed: 1 });
  });

  it("is waited for no longer either when only its sitemaps are wanted", async () => {
    const politeness = { obeyRobots: false };
    const { counts } = await crawlStandalone({
      seeds: [site.url],
      ...{ fetch, politeness, links: { sitemaps: "all" } },
    });
    expect(counts).toMatchObject({ done: 1, failed: 0 });
  });
});

describe("a crawl of one's own site", () => {
  it("asks no robots.txt on the hosts that it names, and says so once", async () => {
    site.robots = "User-agent: *\nDisallow: /";
    site.page("/", '<a href="/b">');
    site.page("/b", "end");
    const politeness = { ignoreRobotsOn: ["127.0.0.1"] };
    const { counts, log } = await crawlStandalone({ seeds: [site.url], politeness });
    expect(counts).toMatchObject({ done: 2, skipped: 0 });
    expect(site.requestsOf("/robots.txt")).toEqual([]);
    expect(log.filter(({ msg }) => String(msg).startsWith("robots.txt is not asked"))).toEqual([
      expect.objectContaining({ crawl: "standalone", host: `127.0.0.1:${site.port}` }),
    ]);
  });

  it("asks it everywhere else", async () => {
    site.robots = "User-agent: *\nDisallow: /";
    const { counts } = await crawlStandalone({
      seeds: [site.url],
      politeness: { ignoreRobotsOn: ["own.example"] },
    });
    expect(counts).toMatchObject({ done: 0, skipped: 1 });
  });
});

describe("a page that says what may be done with it", () => {
  const politeness = { obeyMetaRobots: true };
  beforeEach(() => {
    site.page("/", '<a href="/noindex"><a href="/nofollow"><a href="/tagged"><a href="/others">');
    site.page("/noindex", '<meta name="robots" content="noindex"><a href="/behind-noindex">');
    site.page("/nofollow", '<meta name="warren" content="nofollow"><a href="/behind-nofollow">');
    site.page("/tagged", {
      headers: { "content-type": "text/html", "x-robots-tag": ["badger: all", "warren: none"] },
      body: '<a href="/behind-tagged">',
    });
    site.page("/others", {
      headers: { "content-type": "text/html", "x-robots-tag": "badger: none" },
      body: '<meta name="badger" content="none"><a href="/behind-others">',
    });
    for (const name of ["noindex", "nofollow", "tagged", "others"]) site.page(`/behind-${name}`, "<p>");
  });
  const pathsOf = (items: readonly { readonly url: string }[]) =>
    items.map(({ url }) => new URL(url).pathname).sort();

  it("is obeyed when the crawl says so: noindex leaves no item, nofollow no link", async () => {
    const { items, counts } = await crawlStandalone({ seeds: [site.url], politeness });
    expect(pathsOf(items)).toEqual(["/", "/behind-noindex", "/behind-others", "/nofollow", "/others"]);
    expect(counts).toMatchObject({ done: 7, failed: 0, skipped: 0 });
  });

  it("is not otherwise", async () => {
    const { items } = await crawlStandalone({ seeds: [site.url] });
    expect(items).toHaveLength(9);
  });

  it("has its file left out, too", async () => {
    site.page("/", '<a href="/a.pdf"><a href="/b.pdf">');
    const pdf = { "content-type": "application/pdf" };
    site.page("/a.pdf", { headers: { ...pdf, "x-robots-tag": "noindex" }, body: "%PDF-1.4 a" });
    site.page("/b.pdf", { headers: pdf, body: "%PDF-1.4 b" });
    const { counts, items } = await crawlStandalone({ seeds: [site.url], spider: "pdf", politeness });
    expect(counts).toMatchObject({ done: 2, skipped: 1, files: 1 });
    expect(pathsOf(items)).toEqual(["/", "/b.pdf"]);
  });
});
