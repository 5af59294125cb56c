import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const node = (script: string) => [process.execPath, "-e", script];

describe("a spider that runs as a whole", () => {
  const cluster = new Cluster();
  let site: GraphSite;
  let master: Master;
  let dataDir: string;

  beforeAll(async () => {
    site = await GraphSite.start({ pages: 20, hosts: 2, links: 4, delayMs: 1 });
    master = await cluster.master();
    // As workers are that are started in the same place: each keeps what is its own apart.
    dataDir = await mkdtemp(path.join(tmpdir(), "warren-shared-"));
    const shared = { WARREN_DATA_DIR: dataDir };
    await Promise.all([cluster.worker("w1", [], shared), cluster.worker("w2", [], shared)]);
  });

  afterAll(async () => {
    await cluster.stop();
    await site?.stop();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function crawlOf(
    spider: string,
    manifest: Record<string, unknown>,
    members: Record<string, unknown> = {},
  ) {
    const put = await api(master).call("PUT", `/api/v1/spiders/${spider}`, { mode: "run", ...manifest });
    expect(put.status).toBe(201);
    return (await api(master).createCrawl({ spider, ...members })).id;
  }

  const runsOf = (crawl: string) => api(master).list(`/api/v1/crawls/${crawl}/runs`);

  it("runs once, brings items, and has pages fetched that it asks for; what it says is its crawl's log", async () => {
    const crawl = await crawlOf(
      "asks",
      {
        command: node(`
        console.log("it begins with " + process.env.WARREN_PARAMS);
        console.log(JSON.stringify({ type: "item", url: "http://a.test/", data: { number: 1 } }));
        console.log(JSON.stringify({ type: "request", url: ${JSON.stringify(site.seed)}, spider: "links" }));`),
      },
      { params: { colour: "red" }, politeness: { obeyRobots: false }, limits: { maxDepth: 1 } },
    );
    const { counts } = await api(master).crawlOnce(crawl, "finished");
    const [run, ...others] = await runsOf(crawl);
    expect(others).toEqual([]);
    expect(run).toMatchObject({ state: "done", attempts: 1, items: 1, requests: 1, exitCode: 0 });
    expect(counts.done).toBeGreaterThan(1);
    const items = await api(master).items(crawl);
    expect(items.filter(({ spider }) => spider === "asks")).toMatchObject([
      { url: "http://a.test/", data: { number: 1 }, version: "1", node: run?.node },
    ]);
    await until("its log is there", async () => {
      const { body } = await api(master).call("GET", `/api/v1/crawls/${crawl}/log?lines=100`);
      return JSON.stringify(body).includes("it begins with");
    });
  });

  it("runs on all nodes when the crawl says so, and fails the crawl when all runs fail", async () => {
    const all = await crawlOf("everywhere", { command: node("") }, { nodes: { mode: "all" } });
    await api(master).crawlOnce(all, "finished");
    expect((await runsOf(all)).map((run) => [run.node, run.state])).toEqual([
      ["w1", "done"],
      ["w2", "done"],
    ]);
    const failing = await crawlOf("fails", { command: node("console.error('no luck'); process.exit(3)") });
    await api(master).crawlOnce(failing, "failed");
    expect((await api(master).call("GET", `/api/v1/crawls/${failing}`)).body).toMatchObject({
      error: expect.stringMatching(/exited with code 3.*no luck/s),
    });
  });
});
