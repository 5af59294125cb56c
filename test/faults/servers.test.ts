import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PrivateMongo, PrivateRabbit } from "../../scripts/servers.mjs";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const PAGES = 1_500;

/** Servers of our own, a cluster on them, and a crawl that takes long enough to be disturbed. */
describe("a crawl whose servers fail", () => {
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
    site = await GraphSite.start({ pages: PAGES, hosts: 10, links: 20, delayMs: 30 });
    cluster = new Cluster({ amqpUrl: rabbit.url, mongodbUri: mongo.uri });
    master = await cluster.master({ WARREN_LEASE_MS: "3000" });
    await cluster.master({ WARREN_LEASE_MS: "3000" });
    await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
  });

  afterAll(async () => {
    await cluster?.stop();
    await site?.stop();
    await Promise.all([rabbit?.stop(), mongo?.stop()]);
    await rm(folder, { recursive: true, force: true });
  });

  /** Starts a crawl, lets `disturb` happen once some of it is done, and expects every page stored once. */
  async function crawlThrough(disturb: () => Promise<void>): Promise<void> {
    site.requests.clear();
    const client = api(master);
    const { id } = await client.createCrawl({
      spider: "links",
      scope: "any",
      seeds: [site.seed],
      politeness: { obeyRobots: false },
    });
    await until("200 pages are done", async () => (await client.crawl(id)).counts.done >= 200);
    await disturb();
    await until(
      "the crawl is finished",
      async () => (await client.crawl(id)).status === "finished",
      master,
      200_000,
    );
    const items = await client.items(id);
    const urls = items.map((item) => String(item.url)).sort();
    expect(urls).toEqual(Array.from({ length: PAGES }, (_, number) => site.urlOf(number)).sort());
    expect((await client.crawl(id)).counts).toMatchObject({ queued: 0, active: 0, done: PAGES, failed: 0 });
  }

  it("loses nothing when RabbitMQ is killed and comes back", async () => {
    await crawlThrough(async () => {
      await rabbit.kill();
      await rabbit.start();
    });
  });

  it("loses nothing when RabbitMQ is stopped and started", async () => {
    await crawlThrough(async () => {
      await rabbit.stop();
      await rabbit.start();
    });
  });

  it("loses nothing when MongoDB is killed and comes back", async () => {
    await crawlThrough(async () => {
      await mongo.kill();
      await mongo.start();
    });
  });

  it("goes on when a master is frozen for longer than its lease, and lets it do no harm when it wakes", async () => {
    const [frozen] = cluster.members.filter(({ name }) => name === "master");
    const other = await cluster.master({ WARREN_LEASE_MS: "3000" });
    const client = api(other);
    await crawlThrough(async () => {
      frozen?.process.kill("SIGSTOP");
      // Without the hosts that the frozen one held it could not come to its end.
      const running = (await client.list("/api/v1/crawls?status=running")).find(({ id }) => id !== "inbox");
      await client.crawlOnce(String(running?.id), "finished");
      frozen?.process.kill("SIGCONT");
    });
    expect(site.repeated.length).toBeLessThan(PAGES / 10);
  });
});
