import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { UrlExplanation } from "../../src/master/url-explainer.js";
import { api, Cluster, type Master } from "../support/cluster.js";
import { startWildSite, type WildSite } from "../support/wild-site.js";

const RETRY_AFTER_S = 1;

describe("why a URL is as it is", () => {
  const cluster = new Cluster();
  let first: Master;
  let second: Master;
  let site: WildSite;
  let crawl: string;

  beforeAll(async () => {
    site = await startWildSite();
    site.page("/", '<a href="/list">list</a> <a href="http://elsewhere.test/">elsewhere</a>');
    site.page("/list", '<a href="/old">old</a> <a href="/flaky">flaky</a> <a href="/gone">gone</a>');
    site.page("/old", { body: "", status: 301, headers: { location: "/new" } });
    site.page("/new", '<a href="/deep">deep</a>');
    let attempts = 0;
    site.page("/flaky", (_request, response) => {
      attempts += 1;
      response.writeHead(attempts > 1 ? 200 : 503, {
        "content-type": "text/html",
        "retry-after": String(RETRY_AFTER_S),
      });
      response.end("<title>Here at last</title>");
    });
    [first, second] = await Promise.all([cluster.master(), cluster.master()]);
    await cluster.worker("w1");
    ({ id: crawl } = await api(first).createCrawl({ seeds: [site.url], limits: { maxDepth: 2 } }));
    await api(first).crawlOnce(crawl, "finished");
  });

  afterAll(async () => {
    await cluster.stop();
    await site?.close();
  });

  async function why(url: string, master = second, of = crawl): Promise<UrlExplanation> {
    const path = `/api/v1/crawls/${of}/urls/why?url=${encodeURIComponent(url)}`;
    const { status, body } = await api(master).call("GET", path);
    expect(status).toBe(200);
    return body as UrlExplanation;
  }

  it("is told with the chain from its seed, and every attempt on the way", async () => {
    const { state, chain, steps } = await why(`${site.origin}/flaky`);

    expect(state).toBe("done");
    expect(chain).toEqual([
      { url: site.url, depth: 0, how: "seed", foundAt: expect.any(String) },
      { url: `${site.origin}/list`, depth: 1, how: "link", foundAt: expect.any(String) },
      { url: `${site.origin}/flaky`, depth: 2, how: "link", foundAt: expect.any(String) },
    ]);
    expect(steps.map(({ what }) => what)).toEqual(["found", "scope", "depth", "attempt", "fetched"]);
    const [found, , , attempt, fetched] = steps;
    expect(found?.text).toBe(`a link on ${site.origin}/list`);
    expect(attempt).toMatchObject({ text: expect.stringContaining("503"), statusCode: 503, node: "w1" });
    expect(Date.parse(attempt?.until ?? "")).toBeGreaterThan(Date.parse(attempt?.at ?? ""));
    expect(fetched).toMatchObject({ statusCode: 200, node: "w1" });
  });

  it("names the rule that keeps it out of the crawl", async () => {
    const { state, reason, steps } = await why("http://elsewhere.test/");
    expect({ state, reason }).toEqual({ state: "skipped", reason: "scope" });
    expect(steps).toContainEqual({ what: "scope", text: "out of scope: not the host of a seed" });

    const deep = await why(`${site.origin}/deep`);
    expect(deep).toMatchObject({ state: "skipped", reason: "depth" });
    expect(deep.steps).toContainEqual({ what: "depth", text: "depth 3 is beyond maxDepth 2" });
  });

  it("leads through redirects: from where they led to the page with the link", async () => {
    const { state, chain } = await why(`${site.origin}/deep`);
    expect(state).toBe("skipped");
    expect(chain.map(({ url, how }) => [url.slice(site.origin.length), how])).toEqual([
      ["/", "seed"],
      ["/list", "link"],
      ["/old", "link"],
      ["/new", "redirect"],
      ["/deep", "link"],
    ]);
    expect(await why(`${site.origin}/gone`)).toMatchObject({
      state: "failed",
      reason: "http-status",
      steps: expect.arrayContaining([
        expect.objectContaining({ what: "ended", statusCode: 404, node: "w1" }),
      ]),
    });
  });

  it("is told of a URL that the crawl never met, however it is spelt", async () => {
    const { state, key, chain, steps } = await why(`${site.origin.toUpperCase()}/a/../nowhere#top`);
    expect({ state, key, chain }).toEqual({ state: "unknown", key: `${site.origin}/nowhere`, chain: [] });
    expect(steps).toEqual([{ what: "scope", text: "in scope" }]);
  });

  it("is never silence while it waits, whichever master is asked", async () => {
    const { id } = await api(first).createCrawl({
      seeds: [`${site.origin}/a`, `${site.origin}/b`, `${site.origin}/c`],
      politeness: { delayMs: 60_000 },
    });
    for (const master of [first, second]) {
      const { body } = await api(master).call("GET", `/api/v1/crawls/${id}/urls?state=queued`);
      const { items } = body as { items: { url: string; waitReason?: string }[] };
      expect(items).toHaveLength(3);
      for (const { url, waitReason } of items) {
        expect(waitReason).toMatch(/\S/);
        const explained = await why(url, master, id);
        expect(explained.waitReason).toMatch(/\S/);
        expect(explained.steps.at(-1)).toMatchObject({ what: "waits" });
      }
    }
    await api(first).call("POST", `/api/v1/crawls/${id}/pause`);
    expect((await why(`${site.origin}/c`, second, id)).waitReason).toBe("paused");
    await api(first).call("POST", `/api/v1/crawls/${id}/close`);
  });

  it("refuses what is no URL, and crawls that are not there", async () => {
    const bad = await api(first).call("GET", `/api/v1/crawls/${crawl}/urls/why?url=ftp://x/`);
    expect(bad).toMatchObject({ status: 400, body: { errors: [{ field: "url" }] } });
    const none = await api(first).call("GET", `/api/v1/crawls/${crawl}/urls/why`);
    expect(none.status).toBe(400);
    const unknown = await api(first).call("GET", `/api/v1/crawls/nonesuch/urls/why?url=${site.url}`);
    expect(unknown.status).toBe(404);
  });
});
