import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const PAGES = 60;

describe("a crawl that has selected its nodes", () => {
  const cluster = new Cluster();
  let site: GraphSite;
  let master: Master;
  let first: Member;

  beforeAll(async () => {
    site = await GraphSite.start({ pages: PAGES, hosts: 6, links: 8, delayMs: 5 });
    master = await cluster.master();
    [first] = await Promise.all([
      cluster.worker("w1", ["--labels", "zone=eu,disk=ssd"]),
      cluster.worker("w2", ["--labels", "zone=us"]),
    ]);
  });

  afterAll(async () => {
    await cluster.stop();
    await site?.stop();
  });

  const crawl = (nodes: unknown) =>
    api(master).createCrawl({
      spider: "links",
      scope: "any",
      politeness: { obeyRobots: false },
      seeds: [site.seed],
      nodes,
    });

  async function nodesOf(id: string): Promise<readonly string[]> {
    const items = await api(master).items(id);
    expect(items).toHaveLength(PAGES);
    return [...new Set(items.map(({ node }) => String(node)))].sort();
  }

  it("is crawled by none but the node of that id, beside one that any node may crawl", async () => {
    const [any, selected] = await Promise.all([
      crawl({ mode: "any" }),
      crawl({ mode: "selected", ids: ["w2"] }),
    ]);
    expect(selected.nodes).toEqual({ mode: "selected", ids: ["w2"] });
    await api(master).crawlOnce(selected.id, "finished");
    await api(master).crawlOnce(any.id, "finished");
    expect(await nodesOf(selected.id)).toEqual(["w2"]);
    expect(await nodesOf(any.id)).toHaveLength(2);
  });

  it("goes by labels, also by those that a node is given later", async () => {
    const eu = await crawl({ mode: "selected", labels: { zone: "eu", disk: "ssd" } });
    await api(master).crawlOnce(eu.id, "finished");
    expect(await nodesOf(eu.id)).toEqual(["w1"]);

    const gpu = await crawl({ mode: "selected", labels: { gpu: "yes" } });
    await until("its seed waits for a node", async () => {
      const [url] = await api(master).list(`/api/v1/crawls/${gpu.id}/urls`);
      return url?.waitReason === "no selected worker";
    });
    const labels = { zone: "us", gpu: "yes" };
    expect((await api(master).call("PATCH", "/api/v1/nodes/w2", { labels })).status).toBe(200);
    await api(master).crawlOnce(gpu.id, "finished");
    expect(await nodesOf(gpu.id)).toEqual(["w2"]);
  });

  it("is seen on its node: which tasks that has in its hands", async () => {
    const slow = await GraphSite.start({ pages: 4, hosts: 1, links: 3, delayMs: 500 });
    const nodes = { mode: "selected", ids: ["w2"] };
    const politeness = { obeyRobots: false, maxConcurrencyPerHost: 1 };
    const { id } = await api(master).createCrawl({ seeds: [slow.seed], nodes, politeness });
    let seen: Record<string, unknown>[] = [];
    await until("a task of it runs there", async () => {
      const tasks = await api(master).list("/api/v1/nodes/w2/tasks");
      seen = tasks.filter((task) => task.crawl === id && task.running === true);
      return seen.length > 0;
    });
    expect(seen[0]).toMatchObject({ crawl: id, attempt: 1, url: expect.stringMatching(/^http:/) });
    const elsewhere = await api(master).list("/api/v1/nodes/w1/tasks");
    expect(elsewhere.filter((task) => task.crawl === id)).toEqual([]);
    await api(master).crawlOnce(id, "finished");
    await slow.stop();
  });

  it("waits for its node when that is killed, and goes on with it", async () => {
    const { id } = await crawl({ mode: "selected", ids: ["w1"] });
    await until("some pages are done", async () => (await api(master).crawl(id)).counts.done >= 10);
    await first.end("SIGKILL");
    await cluster.worker("w1");
    const { counts } = await api(master).crawlOnce(id, "finished", 90_000);
    expect(counts).toMatchObject({ done: PAGES, failed: 0, skipped: 0, items: PAGES });
    expect(await nodesOf(id)).toEqual(["w1"]);
  });
});
