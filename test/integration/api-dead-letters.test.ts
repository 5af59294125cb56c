import { connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NewDeadLetter } from "../../src/store/index.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

describe("dead letters over HTTP", () => {
  let master: ApiMaster;
  beforeAll(async () => {
    master = await startApiMaster("letters", {
      tokens: [
        { role: "viewer", token: "v" },
        { role: "operator", token: "o" },
      ],
    });
  });
  afterAll(() => master.dispose());

  const operator = { authorization: "Bearer o" };
  const ask = (method: string, path: string, body?: unknown) =>
    master.send(method, `/api/v1/dead-letters${path}`, {
      headers: { ...operator, ...(body !== undefined && { "content-type": "application/json" }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });

  let crawls = 0;
  /** Letters of a crawl of their own. */
  async function recorded(...letters: Partial<NewDeadLetter>[]): Promise<{ crawl: string; ids: string[] }> {
    crawls += 1;
    const crawl = `crawl${crawls}`;
    await master.store.deadLetters.record(
      letters.map((letter, index) => ({
        reason: "unknown-crawl",
        error: `there is no crawl ${crawl}`,
        firstQueue: `${master.namespace}.tasks`,
        count: 1,
        at: Date.now() - 1_000 + index,
        body: Buffer.from(`http://a.test/${crawl}/${index}`),
        contentType: "text/plain",
        headers: { traceparent: "00-1" },
        messageId: undefined,
        replyTo: undefined,
        correlationId: undefined,
        crawl,
        ...letter,
      })),
    );
    const { items } = await master.store.deadLetters.list({ crawl });
    return { crawl, ids: items.map(({ id }) => id).reverse() };
  }

  /** What waits in a queue, taken out of it. */
  async function taken(queue: string) {
    const connection = await connect(process.env.AMQP_URL ?? "");
    const channel = await connection.createChannel();
    const messages = [];
    for (;;) {
      const message = await channel.get(queue, { noAck: true });
      if (message === false) break;
      const { "x-delivery-count": _broker, ...headers } = message.properties.headers ?? {};
      messages.push({ ...message, properties: { ...message.properties, headers } });
    }
    await connection.close();
    return messages;
  }
  const tasks = () => taken(`${master.namespace}.tasks`);

  it("lists them by reason, host, crawl and error, newest first", async () => {
    const { crawl, ids } = await recorded(
      { host: "a.test", url: "http://a.test/" },
      { reason: "expired", error: "it waited (too) long" },
    );

    const all = await ask("GET", `?crawl=${crawl}`);
    const [expired, unknown] = all.body.items;
    expect(all.body.next).toBeNull();
    expect(unknown).toEqual({
      id: ids[0],
      reason: "unknown-crawl",
      error: `there is no crawl ${crawl}`,
      firstQueue: `${master.namespace}.tasks`,
      count: 1,
      at: expect.stringMatching(/^\d{4}-.*Z$/),
      bytes: expect.any(Number),
      contentType: "text/plain",
      crawl,
      host: "a.test",
      url: "http://a.test/",
      preview: `http://a.test/${crawl}/0`,
    });
    const only = async (query: string) => (await ask("GET", `?crawl=${crawl}&${query}`)).body.items;
    expect(await only("reason=expired")).toEqual([expired]);
    expect(await only("host=a.test")).toEqual([unknown]);
    expect(await only("error=(TOO)")).toEqual([expired]);
    expect(await only("limit=1")).toEqual([expired]);
  });

  it("shows one whole", async () => {
    const { ids } = await recorded({}, { body: Buffer.from([255, 0]) });

    expect((await ask("GET", `/${ids[0]}`)).body).toMatchObject({
      isWhole: true,
      headers: { traceparent: "00-1" },
      body: expect.stringMatching(/^http:/),
    });
    expect((await ask("GET", `/${ids[1]}`)).body).toMatchObject({ bodyBase64: "/wA=" });
  });

  it("hands one in again as it came, and has it no more", async () => {
    const { ids } = await recorded({
      headers: { traceparent: "00-1", own: "x" },
      replyTo: "amq.gen-1",
      correlationId: "c-1",
      messageId: "m-1",
    });

    const { status, body } = await ask("POST", `/${ids[0]}/replay`);

    expect([status, body.id]).toEqual([200, ids[0]]);
    expect((await ask("GET", `/${ids[0]}`)).status).toBe(404);
    const [message, ...others] = await tasks();
    expect(others).toEqual([]);
    expect(message?.content.toString()).toMatch(/^http:\/\/a.test\//);
    expect(message?.properties).toMatchObject({
      contentType: "text/plain",
      deliveryMode: 2,
      replyTo: "amq.gen-1",
      correlationId: "c-1",
      messageId: "m-1",
    });
    expect(message?.properties.headers).toEqual({ traceparent: "00-1", own: "x" });
  });

  it("hands in again what a message that failed twice was at first", async () => {
    const { ids } = await recorded({
      headers: { own: 1, "x-reason": "poison", "x-error": "old", "x-death": [{ count: 1 }], CC: "x" },
    });

    await ask("POST", `/${ids[0]}/replay`);

    expect((await tasks())[0]?.properties.headers).toEqual({ own: 1 });
  });

  it("hands in again all that a filter names, in the order in which they failed", async () => {
    const { crawl } = await recorded({}, {}, { reason: "expired" }, { body: Buffer.alloc(300_000) });

    const { status, body } = await ask("POST", "/replay", { crawl, reason: "unknown-crawl" });

    expect(status).toBe(200);
    expect(body).toEqual({ replayed: 2, failed: 1, error: expect.stringContaining("of its 300000 bytes") });
    expect((await tasks()).map(({ content }) => content.toString())).toEqual(
      [0, 1].map((index) => `http://a.test/${crawl}/${index}`),
    );
    const left = (await ask("GET", `?crawl=${crawl}`)).body.items;
    expect(left.map(({ bytes }: { bytes: number }) => bytes)).toEqual([300_000, expect.any(Number)]);
    // What could not be replayed may be tried again at once.
    expect((await ask("POST", "/replay", { crawl, reason: "unknown-crawl" })).body.failed).toBe(1);
  });

  it("keeps one that no queue takes", async () => {
    const { ids } = await recorded({ firstQueue: `${master.namespace}.gone` });

    const { status, body } = await ask("POST", `/${ids[0]}/replay`);

    expect([status, body.code]).toEqual([503, "unavailable"]);
    expect(body.detail).toContain(`no queue takes messages to ${master.namespace}.gone`);
    expect((await ask("GET", `/${ids[0]}`)).status).toBe(200);
    expect((await ask("POST", `/${ids[0]}/replay`)).status).toBe(503);
  });

  it("replays one only once, however many ask for it at the same time", async () => {
    const { ids } = await recorded({});

    const answers = await Promise.all([1, 2, 3].map(() => ask("POST", `/${ids[0]}/replay`)));

    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(await tasks()).toHaveLength(1);
  });

  it("discards one, or all that a filter names", async () => {
    const { crawl, ids } = await recorded({}, {}, { reason: "expired" });

    expect((await ask("DELETE", `/${ids[0]}`)).status).toBe(204);
    expect((await ask("DELETE", `/${ids[0]}`)).status).toBe(404);
    expect((await ask("DELETE", `?crawl=${crawl}&reason=expired`)).body).toEqual({ discarded: 1 });
    expect((await ask("GET", `?crawl=${crawl}`)).body.items).toHaveLength(1);
  });

  it("acts on everything only when that is said", async () => {
    await recorded({});

    for (const answer of [
      await ask("DELETE", ""),
      await ask("DELETE", "?all=false"),
      await ask("POST", "/replay"),
      await ask("POST", "/replay", {}),
      await ask("POST", "/replay", { all: true, crawl: "x" }),
    ]) {
      expect(answer.status).toBe(400);
      expect(answer.body.errors).toMatchObject([{ field: "all" }]);
    }
    expect((await ask("DELETE", "?all=true")).body.discarded).toBeGreaterThan(0);
    expect((await ask("GET", "")).body.items).toEqual([]);
  });

  it("refuses what it does not know, by name", async () => {
    const field = async (method: string, path: string, body?: unknown) =>
      (await ask(method, path, body)).body.errors?.[0]?.field;

    expect(await field("GET", "?reson=expired")).toBe("reson");
    expect(await field("GET", "?reason=bad")).toBe("reason");
    expect(await field("GET", "?cursor=x")).toBe("cursor");
    expect(await field("POST", "/replay", { hots: "a" })).toBe("hots");
    expect(await field("GET", "/nonsense")).toBe("id");
  });

  it("lets viewers read, and operators act", async () => {
    const { ids } = await recorded({});
    const viewer = { headers: { authorization: "Bearer v" } };

    const status = async (method: string, path: string) =>
      (await master.send(method, `/api/v1/dead-letters${path}`, viewer)).status;

    expect(await status("GET", "")).toBe(200);
    expect(await status("GET", `/${ids[0]}`)).toBe(200);
    expect(await status("POST", `/${ids[0]}/replay`)).toBe(403);
    expect(await status("POST", "/replay")).toBe(403);
    expect(await status("DELETE", `/${ids[0]}`)).toBe(403);
    expect(await status("DELETE", "?all=true")).toBe(403);
  });
});
