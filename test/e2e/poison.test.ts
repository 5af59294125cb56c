import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type ChannelModel, type ConsumeMessage, connect } from "amqplib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { TcpProxy } from "../support/tcp-proxy.js";

const PAGES = 120;
/** More than a worker may die of a page. */
const CUTS = 5;

describe("a page that ends its workers", () => {
  let cluster: Cluster;
  let master: Master;
  let site: Server;
  let origin: string;
  let connection: ChannelModel;
  /** What happens when a page is asked for, by a worker that names itself. */
  let onRequest: (route: string, worker: string) => void;
  const requested = new Map<string, number>();
  const workers = new Map<string, Member>();

  beforeEach(async () => {
    cluster = new Cluster();
    requested.clear();
    workers.clear();
    onRequest = () => {};
    site = createServer((request, response) => {
      const route = request.url ?? "";
      requested.set(route, (requested.get(route) ?? 0) + 1);
      const worker = /^Warren\/(\w+)/.exec(request.headers["user-agent"] ?? "")?.[1] ?? "";
      onRequest(route, worker);
      if (!route.startsWith("/page") && route !== "/killer") {
        response.writeHead(404).end();
        return;
      }
      // Slow enough that many are in flight at any moment.
      setTimeout(() => response.writeHead(200, { "content-type": "text/html" }).end("<title>P</title>"), 50);
    });
    site.listen(0, "127.0.0.1");
    await once(site, "listening");
    origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    master = await cluster.master();
    connection = await connect(cluster.amqpUrl);
  });

  afterEach(async () => {
    await connection?.close();
    await cluster.stop();
    site.closeAllConnections();
    site.close();
  });

  async function startWorker(id: string, given: Record<string, string> = {}): Promise<void> {
    const environment = { WARREN_USER_AGENT: `Warren/${id}`, WARREN_CONCURRENCY: "8", ...given };
    workers.set(id, await cluster.worker(id, [], environment));
  }

  const crawlOfPages = () =>
    api(master).createCrawl({
      spider: "links",
      seeds: Array.from({ length: PAGES }, (_, number) => `${origin}/page${number}`),
      politeness: { maxConcurrencyPerHost: 16, obeyRobots: false },
    });

  /** Messages of a queue, in their order, as they come. */
  async function messagesOf(exchange: string) {
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    if (exchange !== "") await channel.bindQueue(queue, exchange, "");
    const taken: ConsumeMessage[] = [];
    await channel.consume(queue, (message) => message !== null && taken.push(message), { noAck: true });
    return { queue, taken, channel };
  }

  it("is set aside after three, with its evidence; nothing else suffers, and the crawl goes on", async () => {
    const killed: string[] = [];
    onRequest = (route, worker) => {
      if (route !== "/killer") return;
      killed.push(worker);
      void workers
        .get(worker)
        ?.end("SIGKILL")
        .then(() => startWorker(worker));
    };
    await Promise.all([startWorker("w1"), startWorker("w2")]);
    const dead = await messagesOf(`${cluster.namespace}.dead`);
    const replies = await messagesOf("");
    const { id } = await crawlOfPages();
    replies.channel.sendToQueue(
      `${cluster.namespace}.tasks`,
      Buffer.from(JSON.stringify({ url: `${origin}/killer`, crawl: id, priority: 9 })),
      { contentType: "application/json", replyTo: replies.queue, correlationId: "mine" },
    );

    await until("it is set aside", async () => dead.taken.length > 0);
    const finished = await api(master).crawlOnce(id, "finished");

    expect(requested.get("/killer")).toBe(3);
    expect(finished.counts).toMatchObject({ queued: 0, active: 0, done: PAGES, failed: 1, skipped: 0 });
    const failed = await api(master).list(`/api/v1/crawls/${id}/urls?state=failed`);
    expect(failed).toMatchObject([{ url: `${origin}/killer`, reason: "poison" }]);
    const [letter, ...others] = await api(master).list("/api/v1/dead-letters?reason=poison");
    expect(others).toEqual([]);
    expect(letter).toMatchObject({
      url: `${origin}/killer`,
      host: new URL(origin).host,
      crawl: id,
      count: 3,
      error: expect.stringContaining("3 workers were lost that had it"),
      crashes: [{ at: expect.any(String) }, { node: killed[1] }, { node: killed[2] }],
    });
    expect(dead.taken.map(({ properties }) => properties.headers)).toMatchObject([
      { "x-reason": "poison", "x-count": 3, "x-first-queue": `${cluster.namespace}.tasks` },
    ]);
    await until("whoever asked is told", async () => replies.taken.length > 0);
    expect(replies.taken[0]?.properties.correlationId).toBe("mine");
    expect(JSON.parse(String(replies.taken[0]?.content))).toMatchObject({
      url: `${origin}/killer`,
      state: "failed",
      error: expect.stringMatching(/^poison: /),
    });

    onRequest = () => {};
    await api(master).call("POST", `/api/v1/dead-letters/${letter?.id}/replay`);
    await until("it is fetched again", async () => requested.get("/killer") === 4);
    const again = await api(master).crawlOnce(id, "finished");
    expect(again.counts).toMatchObject({ done: PAGES + 1, failed: 0 });
    expect(await api(master).list("/api/v1/dead-letters")).toEqual([]);
  });

  it("is not what a worker is whose connection was cut, however often", async () => {
    const proxy = await new TcpProxy(cluster.amqpUrl).open();
    await startWorker("w1", { AMQP_URL: proxy.url });
    onRequest = (route) => {
      // In the middle of the fetch, of which the broker hears no more.
      if (route === "/page-cut" && (requested.get(route) ?? 0) <= CUTS) proxy.cut();
    };
    const { id } = await api(master).createCrawl({
      spider: "links",
      seeds: [`${origin}/page-cut`],
      politeness: { obeyRobots: false },
    });

    const finished = await api(master).crawlOnce(id, "finished");

    expect(finished.counts).toMatchObject({ done: 1, failed: 0 });
    expect(requested.get("/page-cut")).toBe(CUTS + 1);
    await proxy.close();
  });
});
