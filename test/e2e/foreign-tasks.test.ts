import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type Channel, type ChannelModel, connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";

type Answer = {
  readonly ok: boolean;
  readonly result?: Record<string, unknown> | null;
  readonly error?: { readonly code: string; readonly message: string };
};
type ForeignTask = { readonly task: string; readonly url: string } & Readonly<Record<string, unknown>>;
type Taken = { readonly task: ForeignTask; readonly ack: () => void };

const SPIDER = "by-hand";

/** Plays the worker in another language by hand, against a master and the queues as they are. */
describe("tasks of an external spider", () => {
  const cluster = new Cluster();
  const waiting = new Map<string, (answer: Answer) => void>();
  const taken: Taken[] = [];
  let master: Master;
  let site: Server;
  let origin: string;
  let connection: ChannelModel;
  let channel: Channel;
  let replies: string;

  beforeAll(async () => {
    site = createServer((request, response) => {
      if (request.url === "/robots.txt") {
        response.writeHead(200).end("User-agent: *\nDisallow: /secret\n");
      } else response.writeHead(500).end();
    });
    site.listen(0, "127.0.0.1");
    await once(site, "listening");
    origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    master = await cluster.master();
    await cluster.worker("w1");
    for (const name of [SPIDER, "asked"]) {
      await api(master).call("PUT", `/api/v1/spiders/${name}`, { external: true });
    }
    connection = await connect(cluster.amqpUrl, { noDelay: true });
    channel = await connection.createChannel();
    replies = (await channel.assertQueue("", { exclusive: true })).queue;
    await channel.consume(
      replies,
      (message) => {
        if (message === null) return;
        waiting.get(String(message.properties.correlationId))?.(JSON.parse(message.content.toString()));
      },
      { noAck: true },
    );
    await channel.consume(`${cluster.namespace}.tasks.${SPIDER}`, (message) => {
      if (message === null) return;
      taken.push({ task: JSON.parse(message.content.toString()), ack: () => channel.ack(message) });
    });
  });

  afterAll(async () => {
    await connection?.close();
    await cluster.stop();
    site?.close();
  });

  function call(type: string, args: Record<string, unknown>): Promise<Answer> {
    const correlationId = randomUUID();
    return new Promise((resolve) => {
      waiting.set(correlationId, resolve);
      channel.sendToQueue(`${cluster.namespace}.master`, Buffer.from(JSON.stringify({ type, args })), {
        replyTo: replies,
        correlationId,
        contentType: "application/json",
      });
    });
  }

  const submit = (task: ForeignTask, result: Record<string, unknown>) =>
    call("submit-result", { task: task.task, ...result });

  /** The next task of this URL that arrives. */
  async function take(url: string): Promise<Taken> {
    let found: Taken | undefined;
    await until(`the task of ${url} arrives`, async () => {
      const index = taken.findIndex(({ task }) => task.url === url);
      found = taken.splice(index, index < 0 ? 0 : 1)[0];
      return found !== undefined;
    });
    return found as Taken;
  }

  const crawl = (path: string, more: Record<string, unknown> = {}) =>
    api(master).createCrawl({ spider: SPIDER, seeds: [`${origin}${path}`], ...more });
  const urlsOf = (id: string) => api(master).list(`/api/v1/crawls/${id}/urls`);

  it("come as JSON with what a worker needs, and their results are stored as those of our own workers", async () => {
    const { id } = await crawl("/start", { params: { colour: "red" }, limits: { maxDepth: 1 } });
    const { task, ack } = await take(`${origin}/start`);
    expect(task).toEqual({
      task: expect.stringMatching(/^[A-Za-z0-9_-]+$/),
      crawl: id,
      spider: SPIDER,
      url: `${origin}/start`,
      depth: 0,
      attempt: 1,
      params: { colour: "red" },
      notAfter: expect.any(Number),
    });
    expect(Number.isInteger(task.notAfter)).toBe(true);

    const answer = await submit(task, {
      node: "by-hand-1",
      statusCode: 200,
      contentType: "text/html",
      bytes: 123,
      links: ["next", "http://elsewhere.test/", "mailto:a@b.test", "/start", `${origin}/secret/1`],
      items: [{ title: "Start" }, { title: "Again" }],
    });
    ack();
    expect(answer).toEqual({ ok: true, result: { task: task.task, accepted: true } });

    const next = await take(`${origin}/next`);
    expect(next.task).toMatchObject({ depth: 1, attempt: 1 });
    await submit(next.task, { statusCode: 200, links: ["/too-deep"] });
    next.ack();
    const finished = await api(master).crawlOnce(id, "finished");

    expect(finished.counts).toMatchObject({ done: 2, failed: 0, skipped: 3, items: 2, bytes: 123 });
    const reasons = Object.fromEntries((await urlsOf(id)).map(({ url, reason }) => [url, reason]));
    expect(reasons).toMatchObject({
      "http://elsewhere.test/": "scope",
      [`${origin}/secret/1`]: "robots",
      [`${origin}/too-deep`]: "depth",
    });
    const items = await api(master).items(id);
    expect(items).toEqual([
      expect.objectContaining({
        url: `${origin}/start`,
        spider: SPIDER,
        node: "by-hand-1",
        data: { title: "Start" },
      }),
      expect.objectContaining({ data: { title: "Again" } }),
    ]);
  });

  it("get the same answer for the same result, whether it comes again at once or later", async () => {
    const { id } = await crawl("/twice");
    const { task, ack } = await take(`${origin}/twice`);
    const result = { statusCode: 200, items: [{ n: 1 }], links: [] };

    const answers = await Promise.all([submit(task, result), submit(task, result)]);
    ack();
    await api(master).crawlOnce(id, "finished");
    const late = await submit(task, { ...result, items: [{ n: 2 }] });

    expect(new Set([...answers, late].map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(late.ok).toBe(true);
    expect((await api(master).items(id)).map(({ data }) => data)).toEqual([{ n: 1 }]);
    expect((await api(master).crawl(id)).counts).toMatchObject({ done: 1, items: 1 });
  });

  it("are refused as stale once their crawl was closed, and come again when it is resumed", async () => {
    const { id } = await crawl("/closing");
    const before = await take(`${origin}/closing`);
    await api(master).call("POST", `/api/v1/crawls/${id}/close`, {});

    const refused = await submit(before.task, {
      statusCode: 200,
      items: [{ stale: true }],
      links: ["/more"],
    });
    before.ack();
    expect(refused).toMatchObject({ ok: false, error: { code: "conflict" } });

    await api(master).call("POST", `/api/v1/crawls/${id}/resume`, {});
    const after = await take(`${origin}/closing`);
    expect(after.task.task).not.toBe(before.task.task);
    expect(await submit(before.task, { statusCode: 200 })).toMatchObject({ error: { code: "conflict" } });
    expect(await submit(after.task, { statusCode: 200 })).toMatchObject({ ok: true });
    after.ack();
    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ done: 1, items: 0 });
  });

  it.each([
    ["a status", { statusCode: 404 }, "failed", "http-status"],
    ["an error of the worker's own", { error: "it threw" }, "failed", "spider-error"],
    ["an error with a code", { error: { code: "too-large", message: "17 MiB" } }, "failed", "too-large"],
    ["a redirect out of scope", { statusCode: 301, redirect: "http://elsewhere.test/" }, "skipped", "scope"],
    [
      "redirects that it followed out of scope",
      { statusCode: 200, url: "http://else.test/" },
      "skipped",
      "scope",
    ],
  ])("end by the usual rules: %s", async (what, result, state, reason) => {
    const path = `/end-${what.replaceAll(/\W/g, "-")}`;
    const { id } = await crawl(path);
    const { task, ack } = await take(`${origin}${path}`);

    expect(await submit(task, { ...result, items: [{ not: "stored" }] })).toMatchObject({ ok: true });
    ack();

    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ done: 0, items: 0 });
    const [url] = await urlsOf(id);
    expect(url).toMatchObject({ state, reason: expect.stringContaining(reason) });
  });

  it("are tried again after what may pass, and follow a redirect as a task of their own", async () => {
    const { id } = await crawl("/again");
    const first = await take(`${origin}/again`);
    await submit(first.task, { error: { code: "network", message: "ECONNRESET" } });
    first.ack();
    const second = await take(`${origin}/again`);
    expect(second.task.attempt).toBe(2);
    await submit(second.task, { statusCode: 302, redirect: "moved#x" });
    second.ack();
    const third = await take(`${origin}/moved`);
    await submit(third.task, { statusCode: 200, links: ["moved"], items: [{}] });
    third.ack();

    const { counts } = await api(master).crawlOnce(id, "finished");
    expect(counts).toMatchObject({ done: 1, failed: 0, items: 1 });
  });

  it("go back untried when it was too late to begin", async () => {
    const { id } = await crawl("/late");
    const late = await take(`${origin}/late`);
    await submit(late.task, { error: { code: "expired" } });
    late.ack();
    const again = await take(`${origin}/late`);
    expect(again.task.attempt).toBe(1);
    await submit(again.task, { statusCode: 200 });
    again.ack();
    await api(master).crawlOnce(id, "finished");
  });

  it("can be had by a call, by workers that cannot consume", async () => {
    expect(await call("fetch-task", { node: "asker", spider: "nonesuch" })).toMatchObject({
      error: { code: "not-found" },
    });
    expect(await call("fetch-task", { node: "asker", spider: "asked" })).toEqual({ ok: true, result: null });
    const { id } = await api(master).createCrawl({ spider: "asked", seeds: [`${origin}/1`, `${origin}/2`] });

    const done: unknown[] = [];
    await until("both tasks were given and their results taken", async () => {
      const { result } = await call("fetch-task", { node: "asker" });
      if (result === null || result === undefined) return false;
      expect(
        await submit(result as ForeignTask, { node: "asker", statusCode: 200, items: [{}] }),
      ).toMatchObject({
        ok: true,
      });
      done.push(result.url);
      return done.length === 2;
    });

    expect(done.sort()).toEqual([`${origin}/1`, `${origin}/2`]);
    expect((await api(master).crawlOnce(id, "finished")).counts).toMatchObject({ done: 2, items: 2 });
  });

  it("come from outside as well: a message that names the spider, with what it carries, and a reply", async () => {
    const correlationId = randomUUID();
    const ended = new Promise<Answer>((resolve) => waiting.set(correlationId, resolve));
    const url = `${origin}/from-outside`;
    const body = {
      url,
      spider: SPIDER,
      method: "POST",
      body: "x=1",
      headers: { "x-a": "b" },
      meta: { m: 1 },
    };
    channel.sendToQueue(`${cluster.namespace}.tasks`, Buffer.from(JSON.stringify(body)), {
      contentType: "application/json",
      replyTo: replies,
      correlationId,
    });
    const { task, ack } = await take(url);
    expect(task).toMatchObject({ ...body, crawl: "inbox" });
    await submit(task, { statusCode: 200, items: [{ a: 1 }] });
    ack();

    expect(await ended).toMatchObject({ url, state: "done", statusCode: 200, items: 1 });
  });

  it.each([
    [{ task: "nonsense" }, "task"],
    [{}, "task"],
    [{ task: "x", links: "no" }, "links"],
    [{ task: "x", links: [{ url: "/a", method: "PUT" }] }, "links.0"],
    [{ task: "x", items: [1] }, "items.0"],
    [{ task: "x", items: [{ big: "x".repeat(1_100_000) }] }, "items.0"],
    [{ task: "x", statusCode: 1_000 }, "statusCode"],
    [{ task: "x", error: { code: "who-knows" } }, "error"],
  ])("refuse a result that is wrong, naming the member: %.60j", async (args, field) => {
    const { ok, error } = await call("submit-result", args);

    expect(ok).toBe(false);
    expect(error?.code).toBe("invalid");
    expect(error?.message).toContain(field);
  });
});
