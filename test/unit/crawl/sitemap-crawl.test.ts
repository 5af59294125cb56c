import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Spider } from "../../../src/crawl/spider.js";
import { crawlStandalone, type StandaloneOutcome } from "../../support/standalone-under-test.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
beforeEach(async () => {
  site = await startWildSite({ alsoOn: ["127.0.0.2"] });
});
afterEach(() => site.close());

const XML = { "content-type": "application/xml" };
const xml = (body: string | Buffer, headers: Record<string, string> = XML) => ({ headers, body });
const urlset = (...urls: string[]) =>
  xml(
    `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">${urls.map((url) => `<url><loc>${url}</loc></url>`).join("")}</urlset>`,
  );
const index = (...urls: string[]) =>
  xml(`<sitemapindex>${urls.map((url) => `<sitemap><loc>${url}</loc></sitemap>`).join("")}</sitemapindex>`);
const pathsOf = ({ items }: StandaloneOutcome) =>
  items.map(({ url }) => (url.startsWith(site.origin) ? url.slice(site.origin.length) : url)).sort();
/** Pages that nothing links to. */
const addPages = (...paths: string[]) => {
  for (const path of paths) site.page(path, `<title>${path}</title>`);
};
const links = { sitemaps: "all" } as const;

describe("with sitemaps on", () => {
  beforeEach(() => {
    addPages("/", "/1", "/2", "/3", "/a/1", "/b/1");
  });

  it("a host's pages are found by the sitemaps that its robots.txt names, once for the host", async () => {
    site.robots = `Sitemap: ${site.origin}/deep/one.xml\nSitemap: /two.xml\n`;
    site.page("/deep/one.xml", urlset(`${site.origin}/1`, `${site.origin}/`));
    site.page("/two.xml", urlset(`${site.origin}/2`));
    const outcome = await crawlStandalone({ seeds: [site.url, `${site.origin}/3`], links });
    expect(pathsOf(outcome)).toEqual(["/", "/1", "/2", "/3"]);
    expect(outcome.counts).toMatchObject({ done: 6, failed: 0, skipped: 0 });
    expect(new Set(site.counts().values())).toEqual(new Set([1]));
    expect(site.requestsOf("/robots.txt")).toHaveLength(1);
    expect(site.requestsOf("/sitemap.xml")).toHaveLength(0);
  });

  it("/sitemap.xml is looked at when none is named", async () => {
    site.page("/sitemap.xml", urlset(`${site.origin}/1`));
    expect(pathsOf(await crawlStandalone({ seeds: [site.url], links }))).toEqual(["/", "/1"]);
  });

  it("what is no sitemap is not taken for a page", async () => {
    site.page("/sitemap.xml", '<!doctype html><title>Oops</title><a href="/1">');
    const { counts, items } = await crawlStandalone({ seeds: [site.url], links });
    expect(counts).toMatchObject({ done: 1, skipped: 1 });
    expect(items).toHaveLength(1);
  });

  it("robots.txt is obeyed for sitemaps, and for what they list", async () => {
    site.robots = `User-agent: *\nDisallow: /hidden\nDisallow: /2\nSitemap: /hidden.xml\nSitemap: /open.xml`;
    site.page("/hidden.xml", urlset(`${site.origin}/1`));
    site.page("/open.xml", urlset(`${site.origin}/2`, `${site.origin}/3`));
    const outcome = await crawlStandalone({ seeds: [site.url], links });
    expect(pathsOf(outcome)).toEqual(["/", "/3"]);
    expect(outcome.counts).toMatchObject({ done: 3, skipped: 2 });
  });

  it("indexes are followed as deep as is allowed", async () => {
    site.robots = "Sitemap: /index.xml";
    site.page("/index.xml", index(`${site.origin}/index2.xml`, `${site.origin}/s1.xml`));
    site.page("/index2.xml", index(`${site.origin}/index3.xml`, `${site.origin}/index.xml`));
    site.page("/index3.xml", index(`${site.origin}/s2.xml`));
    site.page("/s1.xml", urlset(`${site.origin}/1`));
    site.page("/s2.xml", urlset(`${site.origin}/2`));
    const seeds = [site.url];
    expect(pathsOf(await crawlStandalone({ seeds, links }))).toEqual(["/", "/1", "/2"]);
    const limits = { maxSitemapNesting: 2 };
    expect(pathsOf(await crawlStandalone({ seeds, links }, { limits }))).toEqual(["/", "/1"]);
  });

  it("a packed one is unpacked, whatever its name, type and coding", async () => {
    site.robots = "Sitemap: /plain\nSitemap: /coded\n";
    const packed = gzipSync(urlset(`${site.origin}/1`).body);
    site.page("/plain", xml(packed, { "content-type": "application/octet-stream" }));
    const coded = gzipSync(gzipSync(urlset(`${site.origin}/2`).body));
    site.page("/coded", xml(coded, { "content-type": "text/html", "content-encoding": "gzip" }));
    expect(pathsOf(await crawlStandalone({ seeds: [site.url], links }))).toEqual(["/", "/1", "/2"]);
  });

  it("one in plain text is read line by line", async () => {
    site.robots = "Sitemap: /urls.txt";
    site.page("/urls.txt", xml(`${site.origin}/1\n/2\n${site.origin}/3`, { "content-type": "text/plain" }));
    expect(pathsOf(await crawlStandalone({ seeds: [site.url], links }))).toEqual(["/", "/1", "/3"]);
  });

  it("one that a page links to lists its own folder and no other host's pages", async () => {
    const other = site.originOn("127.0.0.2");
    site.page("/", '<a href="/a/map.xml">');
    site.page(
      "/a/map.xml",
      urlset(`${site.origin}/a/1`, `${site.origin}/b/1`, `${other}/1`, "/2", "//127.0.0.1/3"),
    );
    const outcome = await crawlStandalone({ seeds: [site.url], scope: "any", links });
    expect(pathsOf(outcome)).toEqual(["/", "/a/1"]);
  });

  it("one on another host lists the pages of the host that names it, and no others", async () => {
    const other = site.originOn("127.0.0.2");
    site.page("/robots.txt", (request, response) => {
      response.end(request.headers.host?.startsWith("127.0.0.1") === true ? `Sitemap: ${other}/map.xml` : "");
    });
    site.page("/map.xml", urlset(`${site.origin}/1`, `http://127.0.0.3:${site.port}/2`));
    const outcome = await crawlStandalone({ seeds: [site.url], links });
    expect(pathsOf(outcome)).toEqual(["/", "/1"]);
    expect(site.counts().get(`127.0.0.2:${site.port}/map.xml`)).toBe(1);
  });

  it("as a seed it lists all of its host", async () => {
    site.page("/maps/all.xml", urlset(`${site.origin}/1`, `${site.origin}/b/1`));
    site.page("/maps/all.txt", xml(`${site.origin}/2\n${site.origin}/3`, { "content-type": "text/plain" }));
    const seeds = [`${site.origin}/maps/all.xml`, `${site.origin}/maps/all.txt`];
    expect(pathsOf(await crawlStandalone({ seeds, links }))).toEqual(["/1", "/2", "/3", "/b/1"]);
  });

  it("what it lists is one link away from it, within scope and depth", async () => {
    site.robots = "Sitemap: /map.xml";
    site.page("/map.xml", urlset(`${site.origin}/1`, `${site.originOn("127.0.0.2")}/2`));
    const outcome = await crawlStandalone({ seeds: [site.url], links, limits: { maxDepth: 0 } });
    expect(pathsOf(outcome)).toEqual(["/"]);
    expect(pathsOf(await crawlStandalone({ seeds: [site.url], links, limits: { maxDepth: 1 } }))).toEqual([
      "/",
      "/1",
    ]);
  });

  it("a scope of folders is for pages, and not for sitemaps", async () => {
    site.robots = "Sitemap: /map.xml";
    site.page("/map.xml", { status: 301, headers: { location: "/moved.xml" }, body: "" });
    site.page("/moved.xml", urlset(`${site.origin}/a/1`, `${site.origin}/b/1`));
    const scope = { allow: [`${site.origin}/a/*`] };
    const outcome = await crawlStandalone({ seeds: [`${site.origin}/a/1`], scope, links });
    expect(pathsOf(outcome)).toEqual(["/a/1"]);
    expect(outcome.counts).toMatchObject({ done: 2, skipped: 2 });
  });

  it("tells the spider when a page changed", async () => {
    const spider: Spider = {
      name: "dates",
      *parse({ meta }) {
        yield { item: { ...meta } };
      },
    };
    site.page(
      "/map.xml",
      xml(`<urlset><url><loc>${site.origin}/1</loc><lastmod>2026-01-02</lastmod></url></urlset>`),
    );
    const { items } = await crawlStandalone(
      { seeds: [`${site.origin}/map.xml`], spider: "dates", links },
      { spiders: [spider] },
    );
    expect(items.map(({ data }) => data)).toEqual([{ lastmod: "2026-01-02T00:00:00.000Z" }]);
  });

  it("one that is too long is read in part, and that is logged", async () => {
    site.page("/map.xml", urlset(...["/1", "/2", "/3"].map((path) => site.origin + path)));
    const outcome = await crawlStandalone(
      { seeds: [`${site.origin}/map.xml`], links },
      { limits: { maxListedUrls: 2 } },
    );
    expect(pathsOf(outcome)).toEqual(["/1", "/2"]);
    expect(outcome.log).toContainEqual(expect.objectContaining({ level: "warn", cut: "more than 2 URLs" }));
  });

  it("one that breaks off is tried again", async () => {
    let asked = 0;
    site.page("/map.xml", (_request, response) => {
      asked += 1;
      const body = urlset(`${site.origin}/1`, `${site.origin}/2`).body;
      response.writeHead(200, { ...XML, "content-length": body.length });
      if (asked > 1) response.end(body);
      else response.write(body.slice(0, -40), () => response.destroy());
    });
    const outcome = await crawlStandalone({ seeds: [`${site.origin}/map.xml`], links });
    expect(asked).toBe(2);
    expect(pathsOf(outcome)).toEqual(["/1", "/2"]);
  });

  it("a site that has no robots.txt to give is crawled without its sitemaps until it has", async () => {
    site.page("/robots.txt", { status: 503, body: "" });
    site.page("/sitemap.xml", urlset(`${site.origin}/1`));
    const politeness = { obeyRobots: false };
    expect(pathsOf(await crawlStandalone({ seeds: [site.url], links, politeness }))).toEqual(["/"]);
  });

  it("50,000 URLs come to the frontier, those beyond the crawl's limit as skipped", async () => {
    const urls = Array.from({ length: 50_000 }, (_, n) => `${site.origin}/page/${n}`);
    site.page("/map.xml", urlset(...urls));
    const { counts } = await crawlStandalone({
      seeds: [`${site.origin}/map.xml`],
      links: { sitemaps: "met" },
      limits: { maxPages: 5 },
    });
    expect(counts.done + counts.failed).toBe(5);
    expect(counts.skipped).toBe(50_001 - 5);
  });
});

describe("with feeds on", () => {
  const feed = (...urls: string[]) =>
    xml(
      `<rss version="2.0"><channel>${urls.map((url) => `<item><link>${url}</link></item>`).join("")}</channel></rss>`,
      {
        "content-type": "application/rss+xml; charset=utf-8",
      },
    );

  beforeEach(() => {
    addPages("/1", "/2", "/3");
    site.page("/", '<link rel="alternate" type="application/rss+xml" href="/feed"><p>');
    site.page("/feed", feed(`${site.origin}/1`, "/2"));
  });

  it("those that pages link to are read, and what they list is followed", async () => {
    const outcome = await crawlStandalone({ seeds: [site.url], links: { feeds: true } });
    expect(pathsOf(outcome)).toEqual(["/", "/1", "/2"]);
    expect(outcome.counts).toMatchObject({ done: 4 });
  });

  it("as a seed", async () => {
    const seeds = [`${site.origin}/feed`, `${site.origin}/feed.json`];
    const body = JSON.stringify({
      version: "https://jsonfeed.org/version/1.1",
      items: [{ url: `${site.origin}/3` }],
    });
    site.page("/feed.json", xml(body, { "content-type": "application/feed+json" }));
    expect(pathsOf(await crawlStandalone({ seeds, links: { feeds: true } }))).toEqual(["/1", "/2", "/3"]);
  });

  it("their enclosures are stored as files if the crawl says so", async () => {
    site.page(
      "/feed",
      xml(`<rss><channel><item><link>/1</link><enclosure url="/a.mp3"/></item></channel></rss>`),
    );
    site.page("/a.mp3", xml("ID3", { "content-type": "audio/mpeg" }));
    const request = {
      seeds: [`${site.origin}/feed`],
      links: { feeds: true, alsoListed: ["enclosures"] },
    } as const;
    expect((await crawlStandalone({ ...request, seeds: [...request.seeds] })).counts).toMatchObject({
      done: 3,
      files: 1,
    });
  });
});

it("without any of it they are pages like others", async () => {
  addPages("/1");
  site.robots = "Sitemap: /map.xml";
  site.page("/map.xml", urlset(`${site.origin}/1`));
  const outcome = await crawlStandalone({ seeds: [`${site.origin}/map.xml`], links: { sitemaps: "off" } });
  expect(pathsOf(outcome)).toEqual(["/map.xml"]);
});
