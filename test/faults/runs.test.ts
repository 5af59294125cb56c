import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isAlive } from "../support/children-under-test.js";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";

const node = (script: string) => [process.execPath, "-e", script];
const CRAWLS = 12;
const ITEMS = 40;

describe("a spider that runs as a whole", () => {
  let cluster: Cluster;
  let master: Master;
  let workers: Member[];

  beforeEach(async () => {
    cluster = new Cluster();
    master = await cluster.master();
    workers = await Promise.all([cluster.worker("w1"), cluster.worker("w2"), cluster.worker("w3")]);
  });

  afterEach(() => cluster.stop());

  async function putSpider(spider: string, manifest: Record<string, unknown>): Promise<void> {
    const put = await api(master).call("PUT", `/api/v1/spiders/${spider}`, { mode: "run", ...manifest });
    expect(put.status).toBe(201);
  }

  async function crawlOf(spider: string, manifest: Record<string, unknown>): Promise<string> {
    await putSpider(spider, manifest);
    return (await api(master).createCrawl({ spider })).id;
  }

  const runsOf = (crawl: string) => api(master).list(`/api/v1/crawls/${crawl}/runs`);

  it("is ended with all that it has started when its crawl is closed, and begun anew elsewhere when its node is killed", async () => {
    const crawl = await crawlOf("long", {
      command: node(`
        require("node:fs").writeFileSync("run.pid", String(process.pid));
        process.on("SIGTERM", () => {});
        console.log(JSON.stringify({ type: "item", data: { attempt: process.env.WARREN_ATTEMPT } }));
        setInterval(() => {}, 1000);`),
      limits: { graceMs: 200 },
    });
    const active = async (attempts: number) => {
      let run: Record<string, unknown> | undefined;
      await until(
        `attempt ${attempts} runs`,
        async () => {
          [run] = await runsOf(crawl);
          return run?.state === "active" && run.attempts === attempts && run.items === 1;
        },
        undefined,
        60_000,
      );
      const folder = path.join(cluster.nodeFolderOf(String(run?.node)), "spiders", "long", "1");
      return { on: String(run?.node), pid: Number(await readFile(path.join(folder, "run.pid"), "utf8")) };
    };
    const first = await active(1);
    expect(isAlive(first.pid)).toBe(true);
    expect((await api(master).call("POST", `/api/v1/crawls/${crawl}/close`)).status).toBe(200);
    await until("nothing of it runs", async () => !isAlive(first.pid));
    await api(master).call("POST", `/api/v1/crawls/${crawl}/resume`);
    const second = await active(2);
    await workers.find(({ name }) => name === second.on)?.end("SIGKILL");
    await until("nothing of it outlives the worker", async () => !isAlive(second.pid));
    const third = await active(3);
    expect(third.on).not.toBe(second.on);
    expect((await api(master).items(crawl)).map(({ data }) => data)).toEqual([{ attempt: "3" }]);
    const { body } = await api(master).call(
      "POST",
      `/api/v1/runs/${encodeURIComponent(`${crawl}:run.1`)}/cancel`,
    );
    expect(body).toMatchObject({ state: "active" });
    await api(master).crawlOnce(crawl, "finished");
    expect(await runsOf(crawl)).toMatchObject([{ state: "skipped", reason: "cancelled", attempts: 3 }]);
    expect(isAlive(third.pid)).toBe(false);
  });

  it("brings each item once, though two of three workers and a master are killed while runs are active", async () => {
    await putSpider("counts", {
      // One item at a time, so that a kill comes between two of them.
      command: node(`
        let n = 0;
        const timer = setInterval(() => {
          console.log(JSON.stringify({ type: "item", data: { n: n++ } }));
          if (n === ${ITEMS}) clearInterval(timer);
        }, 50);`),
    });
    const other = await cluster.master();
    const crawls = await Promise.all(
      Array.from({ length: CRAWLS }, async () => (await api(master).createCrawl({ spider: "counts" })).id),
    );
    // Both are killed before the runs of the first can be taken for lost: so none is lost more than twice.
    for (const worker of workers.slice(0, 2)) {
      await until(`${worker.name} has an active run`, async () => {
        const active = await api(master).list(`/api/v1/runs?state=active&node=${worker.name}`);
        return active.some(({ items }) => Number(items) > 2);
      });
      await worker.end("SIGKILL");
    }
    await master.end("SIGKILL");
    master = other;
    await cluster.worker("w1");
    for (const crawl of crawls) {
      const { counts } = await api(master).crawlOnce(crawl, "finished", 120_000);
      expect(counts.items).toBe(ITEMS);
      const numbers = (await api(master).items(crawl)).map(({ data }) => (data as { n: number }).n);
      expect(numbers.sort((one, two) => one - two)).toEqual(Array.from({ length: ITEMS }, (_, n) => n));
    }
    const runs = await api(master).list("/api/v1/runs");
    expect(runs.filter(({ state }) => state === "done")).toHaveLength(CRAWLS);
    expect(runs.some(({ attempts }) => Number(attempts) > 1)).toBe(true);
  });
});
