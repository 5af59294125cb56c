import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const PAGES = 5_000;
const LEASE = { WARREN_LEASE_MS: "3000" };

describe("a crawl of 5,000 pages over two masters and two workers", () => {
  let cluster: Cluster;
  let site: GraphSite;
  let masters: [Master, Master];
  let workers: Member[];

  beforeAll(async () => {
    site = await GraphSite.start({ pages: PAGES, hosts: 40, links: 30 });
  });

  afterEach(async () => {
    await cluster.stop();
    site.requests.clear();
  });

  afterAll(() => site?.stop());

  async function start(): Promise<string> {
    cluster = new Cluster();
    masters = [await cluster.master(LEASE), await cluster.master(LEASE)];
    workers = await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
    const { id } = await api(masters[1]).createCrawl({ spider: "links", scope: "any", seeds: [site.seed] });
    return id;
  }

  async function expectEachPageOnce(id: string): Promise<void> {
    const { counts } = await api(masters[1]).crawlOnce(id, "finished", 240_000);
    expect(counts).toMatchObject({ queued: 0, active: 0, done: PAGES, failed: 0, skipped: 0, items: PAGES });
    const urls = (await api(masters[1]).items(id)).map((item) => String(item.url)).sort();
    expect(urls).toEqual(Array.from({ length: PAGES }, (_, number) => site.urlOf(number)).sort());
  }

  it("ends finished, with each page fetched and stored once", async () => {
    await expectEachPageOnce(await start());
    expect(site.repeated).toEqual([]);
  });

  it("stores each page once when a worker and then a master are killed on the way", async () => {
    const id = await start();
    const done = (least: number) => async () => (await api(masters[1]).crawl(id)).counts.done >= least;
    await until("1,000 pages are done", done(1_000));
    await workers[0]?.end("SIGKILL");
    await until("2,500 pages are done", done(2_500));
    await masters[0].end("SIGKILL");
    await expectEachPageOnce(id);
  });
});
