import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { api, Cluster, type Master } from "../support/cluster.js";
import { startWildSite, type WildSite } from "../support/wild-site.js";

const LISTED = 20_000;

describe("a cluster that is told by sites where to go and how", () => {
  const cluster = new Cluster();
  let master: Master;
  let site: WildSite;

  beforeAll(async () => {
    master = await cluster.master();
    const networks = { WARREN_ALLOWED_NETWORKS: "127.0.0.0/8" };
    await Promise.all([cluster.worker("w1", [], networks), cluster.worker("w2", [], networks)]);
  }, 120_000);
  beforeEach(async () => {
    site = await startWildSite({ alsoOn: ["127.0.0.2"] });
  });
  afterEach(() => site.close());
  afterAll(() => cluster.stop());

  const urlset = (urls: readonly string[]) =>
    `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">${urls
      .map((url) => `<url><loc>${url}</loc><lastmod>2026-01-02</lastmod></url>`)
      .join("\n")}</urlset>`;

  it("finds a host's pages by its sitemaps, each fetched once, over all workers", async () => {
    const urls = Array.from({ length: 60 }, (_, n) => `${site.origin}/page/${n}`);
    const robots = [`Sitemap: ${site.origin}/index.xml`, "User-agent: *", "Disallow: /page/59"];
    site.robots = robots.join("\n");
    const parts = ["/0.xml.gz", "/1.xml"].map(
      (path) => `<sitemap><loc>${site.origin}${path}</loc></sitemap>`,
    );
    site.page("/index.xml", `<sitemapindex>${parts.join("")}</sitemapindex>`);
    site.page("/0.xml.gz", { body: gzipSync(urlset(urls.slice(0, 30))) });
    site.page("/1.xml", urlset(urls.slice(30)));
    for (const url of urls) site.page(new URL(url).pathname, "<title>page</title>");
    site.page("/", "<title>front</title>");

    const client = api(master);
    const { id } = await client.createCrawl({ seeds: [site.url], links: { sitemaps: "all" } });
    const finished = await client.crawlOnce(id, "finished");

    expect(finished).toMatchObject({ links: { sitemaps: "all" } });
    // The front page, the index, its two sitemaps, and their pages but for the one that is forbidden.
    expect(finished.counts).toMatchObject({ done: 4 + 59, failed: 0, skipped: 1, items: 60 });
    const fetched = site.requests.map(({ path }) => path).sort();
    expect(fetched).toEqual([...new Set(fetched)]);
    expect(fetched).not.toContain("/page/59");
  }, 120_000);

  it(`takes in a sitemap of ${LISTED} URLs at once`, async () => {
    const urls = Array.from({ length: LISTED }, (_, n) => `${site.origin}/page/${n}`);
    site.page("/map.xml", urlset(urls));
    const client = api(master);
    const { id } = await client.createCrawl({
      seeds: [`${site.origin}/map.xml`],
      links: { sitemaps: "met" },
      limits: { maxPages: 3 },
    });
    const { counts } = await client.crawlOnce(id, "finished");
    expect(counts.done + counts.failed).toBe(3);
    expect(counts.skipped).toBe(LISTED + 1 - 3);
  }, 120_000);

  it("opens a host when its robots.txt was read, and not when its first page has ended", async () => {
    const waitedFor = new Set(["/b", "/c"]);
    let answerFirst: (() => void) | undefined;
    const arrived = (path: string) => {
      waitedFor.delete(path);
      if (waitedFor.size === 0) answerFirst?.();
    };
    site.page("/a", (_request, response) => {
      answerFirst = () => response.end("first");
      arrived("/a");
    });
    for (const path of waitedFor) {
      site.page(path, (_request, response) => {
        response.end("other");
        arrived(path);
      });
    }
    const client = api(master);
    const { id } = await client.createCrawl({ seeds: ["/a", "/b", "/c"].map((path) => site.origin + path) });
    const { counts } = await client.crawlOnce(id, "finished");
    // Were the host opened by the end of its first page, that would have run into its time limit first.
    expect(counts).toMatchObject({ done: 3, failed: 0 });
    expect(site.requestsOf("/a")).toHaveLength(1);
  }, 60_000);

  it("keeps the delay that a robots.txt asks for, and not on one's own hosts", async () => {
    site.robots = "User-agent: *\nCrawl-delay: 0.4\nDisallow: /no";
    const paths = ["/", "/1", "/2", "/no"];
    for (const path of paths) site.page(path, "<p>");
    const seeds = paths.flatMap((path) => [site.origin + path, site.originOn("127.0.0.2") + path]);
    const client = api(master);
    const { id } = await client.createCrawl({ seeds, politeness: { ignoreRobotsOn: ["127.0.0.2"] } });
    const { counts } = await client.crawlOnce(id, "finished");
    expect(counts).toMatchObject({ done: 7, skipped: 1 });
    expect(site.requestsOf("/robots.txt").map(({ host }) => host)).toEqual([`127.0.0.1:${site.port}`]);
    for (const gap of site.gaps(`127.0.0.1:${site.port}`)) expect(gap).toBeGreaterThan(390);
  }, 60_000);
});
