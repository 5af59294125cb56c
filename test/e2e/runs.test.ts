import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isAlive } from "../support/children-under-test.js";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const node = (script: string) => [process.execPath, "-e", script];

describe("a spider that runs as a whole", () => {
  const cluster = new Cluster();
  let site: GraphSite;
  let master: Master;
  const workers: Member[] = [];

  beforeAll(async () => {
    site = await GraphSite.start({ pages: 20, hosts: 2, links: 4, delayMs: 1 });
    master = await cluster.master();
    workers.push(...(await Promise.all([cluster.worker("w1"), cluster.worker("w2")])));
  });

  afterAll(async () => {
    await cluster.stop();
    await site?.stop();
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
      return String(body).includes('it begins with {\\"colour\\":\\"red\\"}');
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
      const folder = path.join(cluster.dataDirOf(String(run?.node)), "spiders", "long", "1");
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
});
