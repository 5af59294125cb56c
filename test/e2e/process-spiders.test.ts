import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";
import { isAlive } from "../support/children-under-test.js";
import { api, Cluster, type Master, until } from "../support/cluster.js";

/** A spider in a line of code: what it does with the page `p`. */
function command(code: string): readonly string[] {
  const loop = `
    const say = (message) => console.log(JSON.stringify(message));
    require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
      const p = JSON.parse(line);
      if (p.type !== "page") return;
      ${code}
      say({ type: "done", page: p.id });
    });`;
  return [process.execPath, "-e", loop];
}

describe("process spiders in a cluster", () => {
  const cluster = new Cluster();
  let site: Awaited<ReturnType<typeof startDemoSite>>;
  let master: Master;

  beforeAll(async () => {
    site = await startDemoSite();
    master = await cluster.master();
    const networks = { WARREN_ALLOWED_NETWORKS: "127.0.0.0/8" };
    await Promise.all(["w1", "w2"].map((id) => cluster.worker(id, [], networks)));
  });
  afterAll(async () => {
    await cluster.stop();
    await site?.close();
  });

  async function put(name: string, manifest: Readonly<Record<string, unknown>>): Promise<void> {
    const { status, body } = await api(master).call("PUT", `/api/v1/spiders/${name}`, manifest);
    if (status !== 201) throw new Error(`PUT /spiders/${name} answered ${status}: ${JSON.stringify(body)}`);
  }

  it("are put in one request, and read the pages of a crawl on every node", async () => {
    await put("titles", {
      name: "titles",
      links: true,
      command: command(`
        for (const url of p.links) say({ type: "request", page: p.id, url });
        say({ type: "stats", name: "pages" });
        say({ type: "item", page: p.id, data: { title: p.title, of: process.env.WARREN_VERSION, has: process.env.MONGODB_URI ?? "no" } });`),
      itemSchema: { properties: { title: { not: { const: "About" } } } },
    });
    const client = api(master);
    const { id } = await client.createCrawl({
      spider: "titles",
      seeds: [site.url],
      politeness: { delayMs: 0, maxConcurrencyPerHost: 8 },
    });
    const { counts } = await client.crawlOnce(id, "finished");
    const items = await client.items(id);
    expect(items.find(({ url }) => String(url).endsWith("/burrow/runs"))).toMatchObject({
      spider: "titles",
      version: "1",
      data: { title: "Runs", of: "1", has: "no" },
    });
    expect(counts).toMatchObject({ items: items.length, invalidItems: 1 });
  });

  it("leave nothing running when their crawl is cancelled", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "warren-stays-"));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const pids = path.join(folder, "pids");
    // Two that hear no signal that can be heard, one of them in a group of its own.
    const code = `trap '' TERM; setsid sh -c 'trap "" TERM; echo $$ >> ${pids}; sleep 1000' & echo $$ >> ${pids}; sleep 1000`;
    await put("stays", { name: "stays", stdout: "log", command: ["sh", "-c", code] });
    const client = api(master);
    const { id } = await client.createCrawl({ spider: "stays", seeds: [site.url] });
    const running = async () => (await readFile(pids, "utf8")).trim().split("\n").map(Number);
    await until("both say who they are", async () => (await running()).length === 2);
    const [first = 0, second = 0] = await running();
    expect([first, second].filter(isAlive)).toEqual([first, second]);
    await client.call("DELETE", `/api/v1/crawls/${id}`);
    await until("both are gone", async () => ![first, second].some(isAlive), undefined, 10_000);
  });
});
