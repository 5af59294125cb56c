import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const ANY_SCOPE = { spider: "links", scope: "any", politeness: { obeyRobots: false } } as const;

/** Every page of the site is stored exactly once. */
async function expectEachPageOnce(master: Master, crawl: string, site: GraphSite): Promise<void> {
  const items = await api(master).items(crawl);
  const urls = items.map((item) => String(item.url)).sort();
  const expected = Array.from({ length: site.options.pages }, (_, number) => site.urlOf(number)).sort();
  expect(urls).toEqual(expected);
}

describe("a cluster of two masters and two workers", () => {
  const cluster = new Cluster();
  const masters: Master[] = [];
  let site: GraphSite;

  beforeAll(async () => {
    site = await GraphSite.start({ pages: 600, hosts: 12, links: 20 });
    masters.push(await cluster.master(), await cluster.master());
    await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
  }, 120_000);

  afterAll(async () => {
    await cluster.stop();
    await site?.stop();
  });

  it("fetches and stores each page of a crawl once, and says exactly when it is over", async () => {
    const [first, second] = masters as [Master, Master];
    const { id } = await api(first).createCrawl({ ...ANY_SCOPE, seeds: [site.seed] });
    const finished = await api(second).crawlOnce(id, "finished");
    expect(finished.counts).toMatchObject({
      queued: 0,
      active: 0,
      done: 600,
      failed: 0,
      skipped: 0,
      items: 600,
    });
    expect(finished.finishReason).toBe("completed");
    expect(site.repeated).toEqual([]);
    expect(site.requests.size).toBe(600);
    await expectEachPageOnce(second, id, site);
  }, 120_000);
});

describe("a cluster that loses processes on the way", () => {
  const cluster = new Cluster();
  let site: GraphSite;

  beforeAll(async () => {
    site = await GraphSite.start({ pages: 800, hosts: 12, links: 20, delayMs: 20 });
  });

  afterEach(async () => {
    site.requests.clear();
  });

  afterAll(async () => {
    await cluster.stop();
    await site?.stop();
  });

  it("loses no page and stores none twice when a worker and then a master are killed", async () => {
    const lease = { WARREN_LEASE_MS: "2000" };
    const masters = [await cluster.master(lease), await cluster.master(lease)] as const;
    const workers: Member[] = await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
    const survivor = api(masters[1]);
    const { id } = await survivor.createCrawl({ ...ANY_SCOPE, seeds: [site.seed] });

    await until("100 pages are done", async () => (await survivor.crawl(id)).counts.done >= 100);
    await workers[0]?.end("SIGKILL");
    await until("300 pages are done", async () => (await survivor.crawl(id)).counts.done >= 300);
    await masters[0].end("SIGKILL");

    const finished = await survivor.crawlOnce(id, "finished");
    expect(finished.counts).toMatchObject({
      queued: 0,
      active: 0,
      done: 800,
      failed: 0,
      skipped: 0,
      items: 800,
    });
    expect(site.requests.size).toBe(800);
    await expectEachPageOnce(masters[1], id, site);
  }, 180_000);
});
