import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { type Channel, type ChannelModel, type ConsumeMessage, connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const PYTHON_PACKAGES = path.join(ROOT, ".warren", "python");

type Reply = {
  readonly url: string;
  readonly state: string;
  readonly statusCode?: number;
  readonly items: number;
  readonly files: number;
  readonly error?: string;
};

const PDF = Buffer.from("%PDF-1.4\n%demo\n%%EOF\n");

describe("tasks from outside", () => {
  const cluster = new Cluster();
  const requested = new Map<string, number>();
  let master: Master;
  let site: Server;
  let origin: string;
  let connection: ChannelModel;
  let channel: Channel;

  beforeAll(async () => {
    site = createServer((request, response) => {
      const route = request.url ?? "";
      requested.set(route, (requested.get(route) ?? 0) + 1);
      const html = (body: string) => response.writeHead(200, { "content-type": "text/html" }).end(body);
      if (route === "/page")
        return html('<title>P</title><a href="/a.pdf">a</a><a href="/b">b</a><a href="/other">o</a>');
      if (route === "/other") return html("<title>O</title>");
      if (route === "/a.pdf") return response.writeHead(200, { "content-type": "application/pdf" }).end(PDF);
      if (route === "/b")
        return response.writeHead(200, { "content-type": "application/octet-stream" }).end(PDF);
      return response.writeHead(404).end();
    });
    site.listen(0, "127.0.0.1");
    await once(site, "listening");
    origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    master = await cluster.master();
    await cluster.worker("w1");
    connection = await connect(cluster.amqpUrl);
    channel = await connection.createChannel();
  });

  afterAll(async () => {
    await connection?.close();
    await cluster.stop();
    site?.close();
  });

  /** Takes messages of a queue one by one. */
  async function taking(queue: string): Promise<() => Promise<ConsumeMessage>> {
    const arrived: ConsumeMessage[] = [];
    const waiting: ((message: ConsumeMessage) => void)[] = [];
    await channel.consume(
      queue,
      (message) => {
        if (message === null) return;
        const next = waiting.shift();
        if (next === undefined) arrived.push(message);
        else next(message);
      },
      { noAck: true },
    );
    return () => {
      const message = arrived.shift();
      return message === undefined
        ? new Promise((resolve) => waiting.push(resolve))
        : Promise.resolve(message);
    };
  }

  async function replies(): Promise<{ queue: string; next: () => Promise<Reply> }> {
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const take = await taking(queue);
    return { queue, next: async () => JSON.parse((await take()).content.toString()) as Reply };
  }

  const send = (body: string | Buffer, options: Parameters<Channel["sendToQueue"]>[2] = {}) =>
    channel.sendToQueue(`${cluster.namespace}.tasks`, Buffer.from(body), options);

  it("carries a trace on from the sender: into the events of its task and its answer, and no other's", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, `${cluster.namespace}.events`, "task.*");
    const told = await taking(queue);
    const { queue: answerQueue } = await channel.assertQueue("", { exclusive: true });
    const answered = await taking(answerQueue);

    send(`${origin}/missing?traced`, {
      replyTo: answerQueue,
      headers: { traceparent, tracestate: "vendor=1" },
    });
    send(`${origin}/missing?plain`, { replyTo: answerQueue, headers: { traceparent: "00-garbage" } });
    const answers = await Promise.all([answered(), answered()]);
    const traceOf = new Map(
      answers.map(({ content, properties }) => {
        const { url } = JSON.parse(content.toString()) as { url: string };
        return [new URL(url).search, properties.headers?.traceparent];
      }),
    );
    expect([traceOf.get("?traced"), traceOf.get("?plain")]).toEqual([traceparent, undefined]);

    const events: Record<string, unknown>[] = [];
    const isOver = () => events.filter(({ type }) => type === "task.failed").length === 2;
    while (!isOver()) {
      const body: unknown = JSON.parse((await told()).content.toString());
      events.push(...[body].flat().map((event) => event as Record<string, unknown>));
    }
    const seen = events.map(({ type, traceparent: parent, tracestate, data }) => {
      const { search } = new URL(String((data as { url: unknown }).url));
      return `${type} ${search} ${parent ?? "-"} ${tracestate ?? "-"}`;
    });
    expect(seen.sort()).toEqual([
      "task.failed ?plain - -",
      `task.failed ?traced ${traceparent} vendor=1`,
      "task.started ?plain - -",
      `task.started ?traced ${traceparent} vendor=1`,
    ]);
  });

  it("takes plain URLs from a Python program and tells it how each ended", async () => {
    if (!existsSync(path.join(PYTHON_PACKAGES, "pika"))) {
      await run("python3", ["-m", "pip", "install", "--quiet", "--target", PYTHON_PACKAGES, "pika==1.3.2"]);
    }
    const urls = [`${origin}/page`, `${origin}/a.pdf?direct`, `${origin}/missing`];
    const { stdout } = await run("python3", [path.join(ROOT, "examples/python/ask.py"), ...urls], {
      env: {
        ...process.env,
        PYTHONPATH: PYTHON_PACKAGES,
        AMQP_URL: cluster.amqpUrl,
        WARREN_NAMESPACE: cluster.namespace,
      },
    });
    const answered = new Map(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Reply)
        .map((reply) => [reply.url, reply]),
    );
    expect(answered.size).toBe(3);
    // The page's own item, and an item and a file for each PDF that it links to, by type or by first bytes.
    expect(answered.get(urls[0] as string)).toMatchObject({
      state: "done",
      statusCode: 200,
      items: 3,
      files: 2,
    });
    expect(answered.get(urls[1] as string)).toMatchObject({ state: "failed", statusCode: 404 });
    expect(answered.get(urls[2] as string)).toMatchObject({
      state: "failed",
      statusCode: 404,
      items: 0,
      files: 0,
    });
    const files = await api(master).list("/api/v1/crawls/inbox/files");
    expect(files.map(({ url }) => url).sort()).toEqual([`${origin}/a.pdf`, `${origin}/b`]);
  });

  it("fetches a URL that is handed in again after it has ended, and answers again", async () => {
    const { queue, next } = await replies();
    for (const round of [1, 2]) {
      send(` ${origin}/other?again \n`, { replyTo: queue, correlationId: `r${round}` });
      expect(await next()).toMatchObject({ state: "failed", statusCode: 404 });
      expect(requested.get("/other?again")).toBe(round);
    }
  });

  it("answers for a URL that its crawl knows already without fetching it again", async () => {
    const { queue, next } = await replies();
    const { id } = await api(master).createCrawl({ spider: "links", seeds: [`${origin}/other`] });
    await api(master).crawlOnce(id, "finished");
    const before = requested.get("/other");
    send(JSON.stringify({ url: `${origin}/other`, crawl: id }), {
      contentType: "application/json",
      replyTo: queue,
    });
    expect(await next()).toMatchObject({ url: `${origin}/other`, state: "done", items: 1 });
    expect(requested.get("/other")).toBe(before);
  });

  it("opens a finished crawl again for a URL that it did not know", async () => {
    const { queue, next } = await replies();
    const { id } = await api(master).createCrawl({ spider: "links", seeds: [`${origin}/other`] });
    await api(master).crawlOnce(id, "finished");
    send(JSON.stringify({ url: `${origin}/page`, crawl: id, depth: 3 }), {
      contentType: "application/json",
      replyTo: queue,
    });
    expect(await next()).toMatchObject({ url: `${origin}/page`, state: "done" });
    const finished = await api(master).crawlOnce(id, "finished");
    expect(finished.counts.done).toBeGreaterThanOrEqual(2);
  });

  it("gives up what it cannot take, with the reason, and goes on", async () => {
    const { queue, next } = await replies();
    const { queue: dead } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(dead, `${cluster.namespace}.dead`, "");
    const take = await taking(dead);
    const json = { contentType: "application/json" };
    const garbage: [string | Buffer, object, string, RegExp][] = [
      ["not a url", {}, "invalid-message", /url/],
      ["ftp://example.org/", {}, "invalid-message", /url/],
      [Buffer.from([0xff, 0xfe, 0x00]), {}, "invalid-message", /UTF-8/],
      ['{"url": "/relative"}', json, "invalid-message", /url/],
      [`{"url": "${"http://127.0.0.1/"}", "priority": 11}`, json, "invalid-message", /priority/],
      [`{"url": "http://127.0.0.1/", "headers": {"Host": "x"}}`, json, "invalid-message", /headers\.Host/],
      [`{"url": "http://127.0.0.1/", "crawl": "nope"}`, json, "unknown-crawl", /nope/],
      [`{"url": "http://127.0.0.1/", "spider": "nope"}`, json, "unknown-spider", /nope/],
      ["<task/>", { contentType: "application/xml" }, "unsupported-content-type", /application\/xml/],
      [`http://127.0.0.1/${"x".repeat(300_000)}`, {}, "too-large", /bytes/],
      ["{}", { contentType: "application/vnd.warren.task+json" }, "invalid-message", /task/],
    ];
    for (const [body, options, reason, error] of garbage) {
      send(body, { ...options, replyTo: queue });
      const letter = await take();
      expect(letter.properties.headers).toMatchObject({
        "x-reason": reason,
        "x-first-queue": `${cluster.namespace}.tasks`,
      });
      expect(String(letter.properties.headers?.["x-error"])).toMatch(error);
      expect(letter.content.equals(Buffer.from(body))).toBe(true);
      expect((await next()).error).toMatch(error);
    }
    send(`${origin}/other?after`, { replyTo: queue });
    expect(await next()).toMatchObject({ state: "failed", statusCode: 404 });

    const listed = await api(master).list("/api/v1/dead-letters");
    expect(listed.map(({ reason }) => reason).reverse()).toEqual(garbage.map(([, , reason]) => reason));
    const [unknown] = await api(master).list("/api/v1/dead-letters?crawl=nope");
    const { body } = await api(master).call("POST", `/api/v1/dead-letters/${unknown?.id}/replay`);
    expect(body).toMatchObject({ url: "http://127.0.0.1/", host: "127.0.0.1", crawl: "nope" });
    expect((await take()).properties.headers).toMatchObject({ "x-reason": "unknown-crawl" });
    const again = await api(master).list("/api/v1/dead-letters?crawl=nope");
    expect(again).toHaveLength(1);
    expect(again[0]?.id).not.toBe(unknown?.id);
  });

  it("keeps each message of a flood of garbage, and takes what comes in between", async () => {
    const { queue, next } = await replies();
    for (let number = 0; number < 1_000; number += 1) send(`flood ${number}`);
    send(`${origin}/other?flood`, { replyTo: queue });
    for (let number = 1_000; number < 2_000; number += 1) send(`flood ${number}`);
    expect(await next()).toMatchObject({ state: "failed", statusCode: 404 });
    const kept = async () => await api(master).list("/api/v1/dead-letters?error=flood");
    await until("all are on record", async () => (await kept()).length >= 2_000);
    expect(new Set((await kept()).map(({ preview }) => preview)).size).toBe(2_000);
  });

  it("refuses addresses that are not public unless they are allowed", async () => {
    const { queue, next } = await replies();
    send("http://10.0.0.1/", { replyTo: queue });
    expect(await next()).toMatchObject({ state: "skipped", items: 0 });
  });
});
