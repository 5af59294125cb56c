import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PrivateRabbit } from "../../scripts/servers.mjs";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

/** How long a broker is away, or a node frozen, in milliseconds: what is to be outlived. */
const AWAY_MS = 60_000;
const FROZEN_MS = 20_000;

describe("who is there", () => {
  let folder: string;
  let rabbit: PrivateRabbit;
  let cluster: Cluster;
  let master: Master;
  let site: GraphSite;
  const workers: Member[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-presence-"));
    rabbit = new PrivateRabbit({ folder: path.join(folder, "rabbitmq") });
    await rabbit.start();
    cluster = new Cluster({ amqpUrl: rabbit.url });
    site = await GraphSite.start({ pages: 300, hosts: 10, links: 10, delayMs: 30 });
    master = await cluster.master({ WARREN_LEASE_MS: "3000" });
    await cluster.master({ WARREN_LEASE_MS: "3000" });
    workers.push(await cluster.worker("w1"), await cluster.worker("w2"));
    await until("both are online", async () => (await nodes()).every(({ status }) => status === "online"));
  });

  afterAll(async () => {
    await cluster?.stop();
    await site?.stop();
    await rabbit?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const nodes = () => api(master).list("/api/v1/nodes");

  /** What is told of nodes while something happens, heartbeats left out. */
  async function toldWhile(happening: () => Promise<void>): Promise<string[]> {
    const connection = await connect(rabbit.url);
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const told: string[] = [];
    for (const change of ["online", "suspect", "offline"]) {
      await channel.bindQueue(queue, `${cluster.namespace}.events`, `node.${change}`);
    }
    await channel.consume(
      queue,
      (message) => {
        if (message === null) return;
        const { type, node } = JSON.parse(message.content.toString());
        told.push(`${type} ${node}`);
      },
      { noAck: true },
    );
    try {
      await happening();
    } finally {
      await connection.close();
    }
    return told;
  }

  const passed = (ms: number) => {
    const since = performance.now();
    return until(`${ms} ms are over`, async () => performance.now() - since > ms, undefined, ms + 10_000);
  };

  it("a node that is frozen for 20 s is suspected and never offline, and its crawl ends as it should", async () => {
    const client = api(master);
    const [w1] = workers;
    const told = await toldWhile(async () => {
      const { id } = await client.createCrawl({
        spider: "links",
        scope: "any",
        seeds: [site.seed],
        politeness: { obeyRobots: false },
      });
      await until("50 pages are done", async () => (await client.crawl(id)).counts.done >= 50);
      w1?.process.kill("SIGSTOP");
      await passed(FROZEN_MS);
      const frozen = (await nodes()).find(({ id: node }) => node === "w1");
      w1?.process.kill("SIGCONT");
      expect(frozen).toMatchObject({ status: "online", suspect: true });
      await until("it is heard of", async () =>
        (await nodes()).every(({ status, suspect }) => status === "online" && suspect === false),
      );
      const crawl = await client.crawlOnce(id, "finished");
      expect(crawl.counts).toMatchObject({ queued: 0, active: 0, done: 300, items: 300 });
    });

    expect(told).toEqual(["node.suspect w1", "node.online w1"]);
  });

  it("a broker that is away for a minute makes nobody offline, nor suspect", async () => {
    await rabbit.stop();
    await passed(AWAY_MS);
    await rabbit.start();

    // As long as it takes masters to judge again, and longer than that.
    const told = await toldWhile(() => passed(35_000));

    expect(told).toEqual([]);
    expect(await nodes()).toMatchObject([
      { id: "w1", status: "online", suspect: false },
      { id: "w2", status: "online", suspect: false },
    ]);
  });

  it("a node that is killed is offline soon, and that is told once", async () => {
    const [w1] = workers;
    const told = await toldWhile(async () => {
      await w1?.end("SIGKILL");
      await until(
        "it is offline",
        async () => (await nodes()).find(({ id }) => id === "w1")?.status === "offline",
        undefined,
        20_000,
      );
      await passed(3_000);
    });

    expect(told).toEqual(["node.suspect w1", "node.offline w1"]);
  });

  it("a node that comes back finds its id, and is as it was told to be", async () => {
    const client = api(master);
    const change = await fetch(`${master.url}/api/v1/nodes/w1`, {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ concurrency: 3 }),
    });
    expect(change.status).toBe(200);
    await client.list("/api/v1/nodes");

    const back = await cluster.worker("w1");
    await until("it is online with its new concurrency", async () =>
      (await nodes()).some(
        ({ id, status, concurrency }) => id === "w1" && status === "online" && concurrency === 3,
      ),
    );

    const paused = await fetch(`${master.url}/api/v1/nodes/w1/pause`, { method: "POST" });
    expect(paused.status).toBe(200);
    await back.end("SIGKILL");
    await cluster.worker("w1");
    await until("it is paused again", async () =>
      (await nodes()).some(({ id, status }) => id === "w1" && status === "paused"),
    );
  });
});
