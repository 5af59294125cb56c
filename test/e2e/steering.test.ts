import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { startWildSite, type WildSite } from "../support/wild-site.js";

const PAGES = 120;

describe("a crawl that is steered", () => {
  const cluster = new Cluster();
  let master: Master;
  let workers: Member[];
  let site: WildSite;

  beforeAll(async () => {
    master = await cluster.master();
    workers = await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
  });

  afterEach(() => site?.close());
  afterAll(() => cluster.stop());

  const start = async (pageDelayMs: number, more: Record<string, unknown> = {}) => {
    site = await startWildSite({ pages: PAGES, linksPerPage: 8, pageDelayMs });
    return api(master).createCrawl({ spider: "links", seeds: [`${site.origin}/site/0`], ...more });
  };
  const pagesAskedFor = () => [...site.counts()].filter(([path]) => path.startsWith("/site/"));
  const post = async (id: string, what: string) => {
    const { status, body } = await api(master).call("POST", `/api/v1/crawls/${id}/${what}`);
    expect(status).toBe(200);
    return body as { status: string };
  };
  const doneIs = (id: string, least: number) =>
    until(`${least} pages are done`, async () => (await api(master).crawl(id)).counts.done >= least);

  it("never sends more to a host at once than allowed, over all workers", async () => {
    const { id } = await start(15, { politeness: { maxConcurrencyPerHost: 2 } });
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts.done).toBe(PAGES);
    expect(site.maxInFlight()).toBe(2);
  });

  it("leaves a host alone for the delay between two fetches, over all workers", async () => {
    const { id } = await start(0, { politeness: { delayMs: 60 }, limits: { maxPages: 25 } });
    const { counts, finishReason } = await api(master).crawlOnce(id, "finished");
    expect(counts.done).toBe(25);
    expect(finishReason).toBe("maxPages");
    expect(site.maxInFlight()).toBe(1);
    // The site's clock ends a request when its last byte has gone, a little before the worker has it.
    expect(Math.min(...site.gaps())).toBeGreaterThanOrEqual(59);
  });

  it("goes by what its politeness is changed to, at once", async () => {
    const { id } = await start(0, { politeness: { delayMs: 3_600_000, obeyRobots: false } });
    await doneIs(id, 1);
    const { items } = (await api(master).call("GET", `/api/v1/crawls/${id}/urls?state=queued&limit=1`))
      .body as {
      items: { waitReason: string }[];
    };
    expect(items[0]?.waitReason).toMatch(/^host delay until /);
    const { status } = await api(master).call("PATCH", `/api/v1/crawls/${id}`, {
      politeness: { delayMs: 0, maxConcurrencyPerHost: 3 },
    });
    expect(status).toBe(200);
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts.done).toBe(PAGES);
    expect(site.maxInFlight()).toBeLessThanOrEqual(3);
  });

  it("obeys a robots.txt that asks for a delay and forbids a page", async () => {
    site = await startWildSite({
      pages: 8,
      linksPerPage: 8,
      robots: "User-agent: *\nDisallow: /site/3\nCrawl-delay: 0.1\n",
    });
    const { id } = await api(master).createCrawl({ spider: "links", seeds: [`${site.origin}/site/0`] });
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ done: 7, skipped: 1 });
    expect(site.counts().get("/site/3")).toBeUndefined();
    expect(site.requestsOf("/robots.txt")).toHaveLength(1);
    expect(site.maxInFlight()).toBe(1);
    expect(Math.min(...site.gaps())).toBeGreaterThanOrEqual(99);
    const [skipped] = await api(master).list(`/api/v1/crawls/${id}/urls?state=skipped`);
    expect(skipped).toMatchObject({ url: `${site.origin}/site/3`, reason: "robots" });
  });

  it("stops a crawl that is closed, and resumes it where it stopped", async () => {
    const { id } = await start(30);
    await doneIs(id, 20);
    expect(await post(id, "close")).toMatchObject({ status: "closed" });
    const closed = await api(master).crawl(id);
    expect(closed.counts.active).toBe(0);
    // Whoever had not heard by then must have seen it for itself.
    const countAt = async () => site.requests.length;
    let before = -1;
    await until("nothing more is asked for", async () => {
      const now = await countAt();
      const isQuiet = now === before;
      before = now;
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      return isQuiet;
    });
    expect(site.requests.length).toBe(before);
    expect((await api(master).crawl(id)).counts.done).toBeLessThan(PAGES);

    expect(await post(id, "resume")).toMatchObject({ status: "running" });
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ queued: 0, active: 0, done: PAGES, failed: 0 });
    // What was in flight when it was closed may have been asked for twice, and nothing else.
    expect(pagesAskedFor().filter(([, times]) => times > 1).length).toBeLessThanOrEqual(4);
    expect(await api(master).items(id)).toHaveLength(PAGES);
  });

  it("holds a crawl that is paused, and goes on with it", async () => {
    const { id } = await start(20);
    await doneIs(id, 20);
    await post(id, "pause");
    await until("nothing is active", async () => (await api(master).crawl(id)).counts.active === 0);
    expect((await api(master).crawl(id)).status).toBe("paused");
    expect((await api(master).crawl(id)).counts.done).toBeLessThan(PAGES);
    await post(id, "resume");
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts.done).toBe(PAGES);
    expect(pagesAskedFor().filter(([, times]) => times > 1)).toEqual([]);
  });

  it("ends a crawl at its depth, and records what was too deep", async () => {
    const { id } = await start(0, { limits: { maxDepth: 1 } });
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts.done).toBe(9);
    const tooDeep = await api(master).list(`/api/v1/crawls/${id}/urls?state=skipped`);
    expect(tooDeep.length).toBe(counts.skipped);
    expect(new Set(tooDeep.map(({ reason }) => reason))).toEqual(new Set(["depth"]));
  });

  it("tries again what fails for a while, and says how it ended", async () => {
    site = await startWildSite();
    let asked = 0;
    site.page("/flaky", (_request, response) => {
      asked += 1;
      response.writeHead(asked < 2 ? 503 : 200, { "content-type": "text/html" }).end("<title>up</title>");
    });
    site.page("/broken", { status: 500, body: "" });
    site.page("/", '<a href="/flaky">f</a><a href="/broken">b</a>');
    const { id } = await api(master).createCrawl({ spider: "links", seeds: [site.url] });
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ done: 2, failed: 1 });
    expect(asked).toBe(2);
    expect(site.counts().get("/broken")).toBe(3);
    const [failed] = await api(master).list(`/api/v1/crawls/${id}/urls?state=failed`);
    expect(failed).toMatchObject({
      url: `${site.origin}/broken`,
      reason: "http-status",
      attempts: 3,
      statusCode: 500,
    });
  });

  it("follows redirects once, whoever leads there, and ends those that go in circles", async () => {
    site = await startWildSite();
    site.page("/", '<a href="/old">o</a><a href="/older">o</a><a href="/new">n</a><a href="/round">r</a>');
    site.page("/old", { status: 301, headers: { location: "/new" }, body: "" });
    site.page("/older", { status: 302, headers: { location: "/hidden" }, body: "" });
    site.page("/round", { status: 302, headers: { location: "/round?again" }, body: "" });
    site.page("/round?again", { status: 302, headers: { location: "/round" }, body: "" });
    site.page("/new", "<title>new</title>");
    site.page("/hidden", '<title>hidden</title><a href="/hidden">h</a>');
    const { id } = await api(master).createCrawl({ spider: "links", seeds: [site.url] });
    await api(master).crawlOnce(id, "finished");
    expect(site.counts().get("/new")).toBe(1);
    expect(site.counts().get("/hidden")).toBe(1);
    const rows = await api(master).list(`/api/v1/crawls/${id}/urls`);
    const ended = new Map(
      rows.map(({ url, state, reason }) => [String(url), `${state} ${reason ?? ""}`.trim()]),
    );
    expect(ended.get(`${site.origin}/new`)).toBe("done");
    expect(ended.get(`${site.origin}/old`)).toBe("skipped duplicate");
    expect(ended.get(`${site.origin}/older`)).toBe("done");
    expect(ended.get(`${site.origin}/round`)).toBe("failed too-many-redirects");
  });

  it("loses and repeats nothing when a worker is told to stop", async () => {
    const { id } = await start(20);
    await doneIs(id, 20);
    expect(await workers[0]?.end("SIGTERM")).toBe(0);
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ queued: 0, active: 0, done: PAGES, failed: 0 });
    expect(pagesAskedFor().filter(([, times]) => times > 1)).toEqual([]);
    const rows = await api(master).list("/api/v1/nodes");
    expect(rows.find(({ id: node }) => node === "w1")).toMatchObject({ status: "offline" });
  });
});
