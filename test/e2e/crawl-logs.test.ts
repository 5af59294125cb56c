import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WITH_CHATTY_SPIDER } from "../support/chatty-spider.js";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { startWildSite, type WildSite } from "../support/wild-site.js";

type Line = Readonly<Record<string, unknown>>;

const PAGES = 30;
const LINES = 4;

describe("the log of a crawl", () => {
  const cluster = new Cluster({ environment: WITH_CHATTY_SPIDER });
  let one: Master;
  let site: WildSite;
  let crawl: string;

  beforeAll(async () => {
    site = await startWildSite();
    const links = Array.from({ length: PAGES }, (_, number) => `<a href="/p${number}">${number}</a>`).join(
      " ",
    );
    site.page("/", `${links} <a href="/fault">fault</a>`);
    for (let number = 0; number < PAGES; number += 1) site.page(`/p${number}`, `<title>${number}</title>`);
    site.page("/fault", "<title>Fault</title>");
    [one] = await Promise.all([
      cluster.master(),
      cluster.worker("w1", ["--concurrency", "2"]),
      cluster.worker("w2", ["--concurrency", "2"]),
    ]);
    const { id } = await api(one).createCrawl({
      spider: "chatty",
      seeds: [`${site.origin}/`],
      politeness: { obeyRobots: false, delayMs: 0, maxConcurrencyPerHost: 4 },
      params: { lines: LINES },
    });
    crawl = id;
  });
  afterAll(async () => {
    await cluster.stop();
    await site.close();
  });

  async function read(master: Master, route: string): Promise<Line[]> {
    const response = await fetch(`${master.url}/api/v1${route}`);
    expect(response.status).toBe(200);
    const text = await response.text();
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Line);
  }

  it("has what its spider logged on every node, also when the nodes have gone", async () => {
    await api(one).crawlOnce(crawl, "finished");
    const expected = (PAGES + 2) * LINES + 1;
    await until("all lines are shipped", async () => {
      return (await read(one, `/crawls/${crawl}/log?lines=1000`)).length >= expected;
    });
    const lines = await read(one, `/crawls/${crawl}/log?lines=1000`);
    const [fault] = await read(one, `/crawls/${crawl}/log?level=error`);
    const ofNodes = await Promise.all(
      ["w1", "w2"].map((node) => read(one, `/nodes/${node}/log?crawl=${crawl}&lines=1000`)),
    );
    for (const member of cluster.members.filter(({ name }) => name.startsWith("w"))) await member.end();
    const afterwards = await read(one, `/crawls/${crawl}/log?lines=1000&text=SAYS`);

    expect(lines).toHaveLength(expected);
    expect(new Set(lines.map(({ message, url }) => `${String(url)} ${String(message)}`)).size).toBe(expected);
    expect(lines.find(({ message }) => message === "/p7 says 2 of 4")).toMatchObject({
      crawl,
      node: expect.stringMatching(/^w[12]$/),
      level: "info",
      url: `${site.origin}/p7`,
      spider: "chatty",
      version: "7",
      fields: { number: 2 },
    });
    expect(fault).toMatchObject({
      url: `${site.origin}/fault`,
      message: expect.stringContaining("no shelf here"),
    });
    const told = (some: readonly Line[]) => some.map((line) => `${line.node} ${line.seq}`).sort();
    expect(
      told(ofNodes.flatMap((ofNode, index) => ofNode.map((line) => ({ ...line, node: `w${index + 1}` })))),
    ).toEqual(told(lines));
    expect(ofNodes.flat()).toContainEqual(
      expect.objectContaining({ msg: "/p7 says 2 of 4", time: expect.any(String), seq: expect.any(Number) }),
    );
    expect(afterwards).toHaveLength(expected - 1);
  });

  it("is nobody's business of the worker's own stream", () => {
    for (const member of cluster.members) expect(member.output()).not.toContain("says 2 of");
  });
});
