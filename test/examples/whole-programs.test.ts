import { execFile, spawnSync } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";
import { api, Cluster, type Master } from "../support/cluster.js";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");

describe("programs that know nothing of Warren", () => {
  const cluster = new Cluster();
  let site: Awaited<ReturnType<typeof startDemoSite>>;
  let master: Master;

  beforeAll(async () => {
    site = await startDemoSite();
    master = await cluster.master();
    await cluster.worker("w1");
  });
  afterAll(async () => {
    await cluster.stop();
    await site?.close();
  });

  /** Pushes an example as a user would, and crawls the demo site with it. */
  async function itemsOf(folder: string, spider: string) {
    const { stdout } = await run(
      process.execPath,
      [
        path.join(ROOT, "dist/cli.js"),
        "spiders",
        "push",
        path.join(ROOT, "examples/spiders", folder),
        "--json",
      ],
      { env: { ...process.env, WARREN_URL: master.url } },
    );
    expect(JSON.parse(stdout)).toMatchObject({ name: spider, version: "1" });
    const { id } = await api(master).createCrawl({ spider, seeds: [site.url] });
    // Whatever it needs is installed first.
    await api(master).crawlOnce(id, "finished", 280_000);
    expect(await api(master).list(`/api/v1/crawls/${id}/runs`)).toMatchObject([
      { state: "done", exitCode: 0 },
    ]);
    return (await api(master).items(id)).map(({ data }) => data as Record<string, unknown>);
  }

  const has = (program: string) => spawnSync(program, ["--version"]).error === undefined;

  it.skipIf(!has("python3"))(
    "are Scrapy projects",
    async () => {
      const items = await itemsOf("scrapy", "demo-site-scrapy");
      expect(items).toHaveLength(19);
      expect(items).toContainEqual({
        ...{ section: "The burrow", title: "Runs", url: `${site.url}burrow/runs` },
        text: [expect.stringMatching(/^Runs join the chambers/), expect.stringMatching(/^They are wide/)],
      });
    },
    300_000,
  );

  it.skipIf(!has("go"))(
    "are programs in Go",
    async () => {
      const items = await itemsOf("go-crawler", "demo-site-go-crawler");
      expect(items).toContainEqual({ url: `${site.url}burrow/runs`, status: 200, title: "Runs" });
      expect(items).toContainEqual({ url: `${site.url}nowhere`, status: 404, title: expect.any(String) });
    },
    300_000,
  );
});
