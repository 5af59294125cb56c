import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tarGz } from "../support/archives.js";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const cluster = new Cluster();
let master: Master;
let site: GraphSite;

beforeAll(async () => {
  site = await GraphSite.start({ pages: 24, hosts: 6, links: 8, delayMs: 5 });
  master = await cluster.master();
  await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
}, 120_000);

afterAll(async () => {
  await cluster.stop();
  await site?.stop();
});

async function put(name: string, type: string, body: string | Buffer): Promise<{ version: string }> {
  const response = await fetch(`${master.url}/api/v1/spiders/${name}`, {
    method: "PUT",
    headers: { "content-type": type },
    body: body as string,
  });
  const answer = (await response.json()) as { version: string };
  if (response.status !== 201) throw new Error(`PUT answered ${response.status}: ${JSON.stringify(answer)}`);
  return answer;
}

/** Crawls the site with a spider. @returns its items, once it is over */
async function itemsOf(spider: string, more: object = {}): Promise<Record<string, unknown>[]> {
  const crawl = { spider, seeds: [site.seed], scope: "any", politeness: { obeyRobots: false }, ...more };
  const { id } = await api(master).createCrawl(crawl);
  const { counts } = await api(master).crawlOnce(id, "finished", 60_000);
  expect(counts).toMatchObject({ done: 24, failed: 0 });
  return api(master).items(id);
}

const moduleWith = (word: string) =>
  tarGz([
    { path: "package.json", body: JSON.stringify({ main: "lib/main.mjs" }) },
    { path: "lib/word.mjs", body: `export const word = ${JSON.stringify(word)};` },
    {
      path: "lib/main.mjs",
      body: `import { word } from "./word.mjs";
        export default { name: "own-name", settings: { limits: { maxDepth: 50 } }, async *parse(page) {
          yield { item: { word, title: page.title } };
          for (const url of page.links()) yield { request: url };
        } };`,
    },
  ]);

describe("a spider that is put once", () => {
  it("runs on every node, as the version that a crawl is pinned to, of all its files", async () => {
    for (const word of ["one", "two"]) await put("words", "application/gzip", moduleWith(word));
    const second = await itemsOf("words");
    const first = await itemsOf("words", { spiderVersion: "1" });

    for (const [items, version, word] of [
      [first, "1", "one"],
      [second, "2", "two"],
    ] as const) {
      expect(items).toHaveLength(24);
      expect(new Set(items.map((item) => [item.spider, item.version].join()))).toEqual(
        new Set([`words,${version}`]),
      );
      expect(new Set(items.map(({ data }) => (data as { word: string }).word))).toEqual(new Set([word]));
      expect(new Set(items.map(({ node }) => node))).toEqual(new Set(["w1", "w2"]));
    }
    const { body } = await api(master).call("GET", "/api/v1/spiders/words/versions/2/nodes");
    const { items } = body as { items: { node: string; state: string }[] };
    expect(items.map(({ node, state }) => `${node} ${state}`).sort()).toEqual(["w1 ready", "w2 ready"]);
  }, 120_000);

  it("may be a declaration, or a program that reads pages or runs as a whole", async () => {
    const declaration = { follow: [{ css: "a" }], items: [{ fields: { title: { css: "title" } } }] };
    await put("declared", "application/json", JSON.stringify(declaration));
    const program = `#!/usr/bin/env node
      let links = [];
      const say = (message) => process.stdout.write(JSON.stringify(message) + "\\n");
      require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
        const { type, id, links = [] } = JSON.parse(line);
        if (type !== "page") return;
        say({ type: "item", page: id, data: { links: links.length } });
        for (const url of links) say({ type: "request", page: id, url });
        say({ type: "done", page: id });
      });`;
    const archive = tarGz([
      { path: "spider.json", body: JSON.stringify({ name: "program", command: ["./run.cjs"], links: true }) },
      { path: "run.cjs", body: program, mode: 0o755 },
    ]);
    await put("program", "application/gzip", archive);

    for (const spider of ["declared", "program"]) {
      const items = await itemsOf(spider);
      expect(items).toHaveLength(24);
      expect(new Set(items.map(({ version }) => version))).toEqual(new Set(["1"]));
    }

    const whole = {
      ...{ name: "whole", mode: "run", stdout: "items" },
      command: ["node", "-e", "console.log(JSON.stringify({ from: process.env.WARREN_VERSION }))"],
    };
    await put("whole", "application/json", JSON.stringify(whole));
    const { id } = await api(master).createCrawl({ spider: "whole" });
    await api(master).crawlOnce(id, "finished", 60_000);
    expect(await api(master).items(id)).toMatchObject([
      { spider: "whole", version: "1", data: { from: "1" } },
    ]);
  }, 120_000);

  it("tells why it cannot be run where its dependencies cannot be installed", async () => {
    const manifest = {
      name: "broken",
      command: ["./run"],
      install: [["node", "-e", "console.log('no luck'); process.exit(3)"]],
    };
    await put(
      "broken",
      "application/gzip",
      tarGz([
        { path: "spider.json", body: JSON.stringify(manifest) },
        { path: "run", body: "" },
      ]),
    );

    await until("both nodes have tried", async () => {
      const { body } = await api(master).call("GET", "/api/v1/spiders/broken/versions/1/nodes");
      const { items } = body as { items: { state: string; error?: string; install?: { log: string } }[] };
      return (
        items.length === 2 &&
        items.every(
          ({ state, error = "", install }) =>
            state === "failed" &&
            error.includes("exited with code 3") &&
            install?.log.includes("no luck") === true,
        )
      );
    });
  }, 60_000);
});
