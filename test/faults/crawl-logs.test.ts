import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { PrivateMongo, PrivateRabbit } from "../../scripts/servers.mjs";
import { WITH_CHATTY_SPIDER } from "../support/chatty-spider.js";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

type Line = {
  readonly number: number;
  readonly node: string;
  readonly epoch: number;
  readonly seq: number;
  readonly level: string;
  readonly message: string;
};

const PAGES = 200;
const DISK_BYTES = 64 * 1_048_576;
const FILE_BYTES = 4 * 1_048_576;
/** What a worker may take while it logs as fast as it can; it takes about half of that without. */
const MEMORY_BYTES = 512 * 1_048_576;

/** Servers of our own, and workers whose spider does little but log. */
describe("logs of crawls", () => {
  let folder: string;
  let rabbit: PrivateRabbit;
  let mongo: PrivateMongo;
  let cluster: Cluster;
  let site: GraphSite;
  let master: Master;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-faults-"));
    rabbit = new PrivateRabbit({ folder: path.join(folder, "rabbitmq") });
    mongo = new PrivateMongo({ folder: path.join(folder, "mongodb") });
    await Promise.all([rabbit.start(), mongo.start()]);
    site = await GraphSite.start({ pages: PAGES, hosts: 10, links: 10 });
    const environment = { ...WITH_CHATTY_SPIDER, WARREN_CRAWL_LOG_DISK_BYTES: String(DISK_BYTES) };
    cluster = new Cluster({ amqpUrl: rabbit.url, mongodbUri: mongo.uri, environment });
    master = await cluster.master();
  });

  afterAll(async () => {
    await cluster?.stop();
    await site?.stop();
    await Promise.all([rabbit?.stop(), mongo?.stop()]);
    await rm(folder, { recursive: true, force: true });
  });

  const worker = (id: string): Promise<Member> =>
    cluster.worker(id, ["--concurrency", "4"], { WARREN_DATA_DIR: path.join(folder, "data", id) });

  const soon = (what: string, holds: () => Promise<boolean>, member: Member) =>
    until(what, holds, member, 600_000);

  async function crawl(lines: number): Promise<string> {
    const { id } = await api(master).createCrawl({
      spider: "chatty",
      scope: "any",
      seeds: [site.seed],
      politeness: { obeyRobots: false, delayMs: 0 },
      params: { lines },
    });
    return id;
  }

  async function shipped(id: string): Promise<number> {
    const response = await fetch(`${master.url}/api/v1/crawls/${id}/log?lines=1`);
    return Number(response.headers.get("x-next"));
  }

  /** The whole log, as someone reads it who goes on from page to page. */
  async function all(id: string): Promise<Line[]> {
    const lines: Line[] = [];
    for (let after = "0"; ; ) {
      const response = await fetch(`${master.url}/api/v1/crawls/${id}/log?lines=10000&after=${after}`);
      const text = await response.text();
      if (text === "") return lines;
      for (const line of text.split("\n")) if (line !== "") lines.push(JSON.parse(line) as Line);
      after = response.headers.get("x-next") ?? "";
    }
  }

  /** Number of the last line in a node's files. */
  async function lastOnDisk(node: string): Promise<number> {
    const logs = path.join(folder, "data", node, cluster.namespace, node, "logs");
    const names = (await readdir(logs)).filter((name) => name.endsWith(".ndjson")).sort();
    const text = await readFile(path.join(logs, names.at(-1) ?? ""), "utf8");
    const line = text.slice(0, text.lastIndexOf("\n")).split("\n").at(-1) ?? "{}";
    return (JSON.parse(line) as { seq: number }).seq;
  }

  /** Looks again and again at what a worker takes of memory and disk. */
  function watch(node: string, pid: number | undefined) {
    const most = { memoryBytes: 0, diskBytes: 0 };
    const look = async () => {
      const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      const memoryBytes = 1_024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
      const logs = path.join(folder, "data", node, cluster.namespace, node, "logs");
      const sizes = await Promise.all(
        (await readdir(logs)).map((name) =>
          stat(path.join(logs, name)).then(
            ({ size }) => size,
            () => 0,
          ),
        ),
      );
      most.memoryBytes = Math.max(most.memoryBytes, memoryBytes);
      most.diskBytes = Math.max(
        most.diskBytes,
        sizes.reduce((sum, size) => sum + size, 0),
      );
    };
    const timer = setInterval(() => void look().catch(() => {}), 100);
    return {
      stop() {
        clearInterval(timer);
        return most;
      },
    };
  }

  function expectWhole(lines: readonly Line[], nodes: readonly string[], each: number): void {
    expect(lines.every(({ number }, index) => number === index + 1)).toBe(true);
    for (const node of nodes) {
      const ofNode = lines.filter((line) => line.node === node);
      const first = ofNode[0]?.seq ?? 0;
      expect(ofNode.every(({ seq }, index) => seq === first + index)).toBe(true);
    }
    const said = new Set(lines.map(({ message }) => message));
    const missing: string[] = [];
    for (let page = 0; page < PAGES; page += 1) {
      for (let line = 1; line <= each; line += 1) {
        const message = `/${page} says ${line} of ${each}`;
        if (!said.has(message)) missing.push(message);
      }
    }
    expect(missing.slice(0, 10)).toEqual([]);
    // No line that tells of missing ones.
    expect(lines.filter(({ level }) => level !== "info")).toEqual([]);
  }

  afterEach(async () => {
    // Lines of a node are numbered over all its crawls: none of another test may be among them.
    for (const member of cluster.members.filter(({ name }) => name !== "master")) await member.end("SIGKILL");
    for (const { id } of await api(master).list("/api/v1/crawls?status=running")) {
      if (id !== "inbox") await api(master).call("POST", `/api/v1/crawls/${String(id)}/close`);
    }
  });

  it("have a million lines once each, though RabbitMQ and MongoDB are killed on the way", async () => {
    const each = 5_000;
    const member = await worker("w1");
    const id = await crawl(each);
    const watching = watch("w1", member.process.pid);
    await soon("200000 lines are shipped", async () => (await shipped(id)) > 200_000, member);
    await rabbit.kill();
    await rabbit.start();
    await soon("600000 lines are shipped", async () => (await shipped(id)) > 600_000, member);
    await mongo.kill();
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await mongo.start();
    await api(master).crawlOnce(id, "finished", 600_000);
    await soon("all lines are shipped", async () => (await shipped(id)) >= (await lastOnDisk("w1")), member);
    const most = watching.stop();
    const lines = await all(id);
    await member.end();

    expect(lines.length).toBeGreaterThanOrEqual(1_000_000);
    expectWhole(lines, ["w1"], each);
    expect(most.diskBytes).toBeLessThan(DISK_BYTES + 2 * FILE_BYTES);
    expect(most.memoryBytes).toBeLessThan(MEMORY_BYTES);
  }, 900_000);

  it("lose and repeat nothing that was on a worker's disk when it is killed while it ships", async () => {
    const each = 1_000;
    const id = await crawl(each);
    let member = await worker("w2");
    for (const many of [20_000, 50_000, 90_000, 140_000]) {
      await soon(`${many} lines are shipped`, async () => (await shipped(id)) > many, member);
      await member.end("SIGKILL");
      const written = await lastOnDisk("w2");
      member = await worker("w2");
      await soon("what was on the disk is shipped", async () => (await shipped(id)) >= written, member);
    }
    await api(master).crawlOnce(id, "finished", 600_000);
    await soon("all lines are shipped", async () => (await shipped(id)) >= (await lastOnDisk("w2")), member);
    const lines = await all(id);
    await member.end();

    expectWhole(lines, ["w2"], each);
    expect(new Set(lines.map(({ epoch }) => epoch)).size).toBe(5);
  }, 900_000);
});
