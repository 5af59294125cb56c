import type { ConsumeMessage } from "amqplib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ArchivedLetter, DeadLetter, DeadLetterArchive, DeadLetterReport } from "../../src/bus/index.js";
import { TASK_CONTENT_TYPE } from "../../src/crawl/task.js";
import { silentLogger } from "../../src/lib/logger.js";
import { DeadLetterRelay } from "../../src/master/dead-letter-relay.js";
import { BusUnderTest, found, until } from "../support/bus-under-test.js";

describe("dead letters", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  async function next(
    queue: string,
  ): Promise<ConsumeMessage | { content: Buffer; properties: ConsumeMessage["properties"] }> {
    const channel = await under.stranger();
    return found(`a message in ${queue}`, async () => {
      const message = await channel.get(queue, { noAck: true });
      return message === false ? undefined : message;
    });
  }

  const letter: DeadLetter = {
    body: Buffer.from("not a URL"),
    contentType: "text/plain",
    headers: { traceparent: "00-1", "x-death": [{ reason: "expired" }] },
    messageId: undefined,
    replyTo: "someone",
    correlationId: "c-1",
  };
  const report: DeadLetterReport = { reason: "invalid-message", error: "url: must be absolute" };

  it("keeps a message as it came, with the reason, for everyone who listens and in their queue", async () => {
    const bus = await under.started();
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, under.names.dead(), "");
    await bus.deadLetters.send(letter, report);
    for (const place of [queue, under.names.dead()]) {
      const { content, properties } = await next(place);
      expect(content.toString()).toBe("not a URL");
      expect(properties).toMatchObject({
        contentType: "text/plain",
        replyTo: "someone",
        correlationId: "c-1",
      });
      expect(properties.messageId).toBeUndefined();
      // The last one is what the queue itself adds.
      const { "x-delivery-count": _, ...headers } = properties.headers ?? {};
      expect(headers).toEqual({
        traceparent: "00-1",
        "x-reason": "invalid-message",
        "x-error": "url: must be absolute",
        "x-first-queue": under.names.tasks(),
        "x-count": 1,
        "x-time": expect.stringMatching(/^\d{4}-.*Z$/),
      });
    }
  });

  it("are in the archive before anyone hears of them, those that come together with one command", async () => {
    const batches: (readonly ArchivedLetter[])[] = [];
    let readyWhenArchived = 0;
    const archive: DeadLetterArchive = {
      async record(letters) {
        readyWhenArchived += await under.ready(under.names.dead());
        batches.push(letters);
      },
    };
    const bus = await under.started({}, { archive });
    const body = (number: number) =>
      Buffer.from(`{"url":"http://a.test:81/${number}","crawl":"c1","depth":-1}`);
    await Promise.all(
      Array.from({ length: 100 }, (_, number) =>
        bus.deadLetters.send({ ...letter, body: body(number) }, { ...report, count: 4 }),
      ),
    );
    expect(batches.map(({ length }) => length)).toEqual([100]);
    expect(readyWhenArchived).toBe(0);
    expect(await under.ready(under.names.dead())).toBe(100);
    expect(batches[0]?.[7]).toMatchObject({
      ...report,
      body: body(7),
      headers: { traceparent: "00-1" },
      replyTo: "someone",
      count: 4,
      firstQueue: under.names.tasks(),
      url: "http://a.test:81/7",
      host: "a.test:81",
      crawl: "c1",
    });
  });

  it("are sent to nobody while the archive cannot be written", async () => {
    let isAway = true;
    const archive: DeadLetterArchive = {
      async record() {
        if (isAway) throw new Error("the archive is away");
      },
    };
    const bus = await under.started({}, { archive });
    await expect(bus.deadLetters.send(letter, report)).rejects.toThrow("the archive is away");
    expect(await under.ready(under.names.dead())).toBe(0);
    isAway = false;
    await bus.deadLetters.send(letter, report);
    expect(await under.ready(under.names.dead())).toBe(1);
  });

  it("keeps all of a message but its headers when these cannot be sent on", async () => {
    const bus = await under.started();
    await bus.deadLetters.send({ ...letter, headers: { large: "x".repeat(100_000) } }, report);
    const { content, properties } = await next(under.names.dead());
    expect(content.toString()).toBe("not a URL");
    const { messageId, contentType, correlationId } = letter;
    expect({ ...properties }).toMatchObject({ messageId, contentType, correlationId });
    expect(properties.headers).toMatchObject({ "x-reason": "invalid-message" });
  });

  it.each([
    ["an address that only a consumer may use", { replyTo: "amq.rabbitmq.reply-to" }],
    ["further receivers in a form that the broker refuses", { headers: { CC: "x", BCC: "y" } }],
  ])("keeps a message with %s", async (_, part) => {
    const bus = await under.started();
    await bus.deadLetters.send({ ...letter, ...part }, report);
    const { content, properties } = await next(under.names.dead());
    expect(content.toString()).toBe("not a URL");
    expect(properties.headers).toMatchObject({ "x-reason": "invalid-message" });
  });

  it("waits no longer for a connection than its sender wishes", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    await proxy.close();
    await until("the loss was noticed", () => !bus.connected);
    await expect(bus.deadLetters.send(letter, report, AbortSignal.timeout(20))).rejects.toMatchObject({
      code: "PUBLISH_ABANDONED",
    });
  });

  it("hears of messages that expired, were delivered too often, or were rejected", async () => {
    const bus = await under.started({ topology: { deliveryLimit: 2 } });
    const heard = new Map<string, readonly [DeadLetterReport["reason"], number | undefined]>();
    await bus.deadLetters.takeRejected(async ({ body }, { reason, count }) => {
      heard.set(body.toString(), [reason, count]);
    });
    await bus.tasks.publish([{ body: "late", contentType: "text/plain", expirationMs: 1 }]);
    await until("it expired", () => heard.size === 1);
    await bus.tasks.publish([
      { body: "returned", contentType: "text/plain" },
      { body: "unwanted", contentType: "text/plain" },
    ]);
    await bus.tasks.consume({ prefetch: 10 }, (delivery) => {
      const isUnwanted = delivery.body.toString() === "unwanted";
      bus.tasks.settle([delivery], { kind: isUnwanted ? "reject" : "requeue" });
    });
    await until("the others were given up", () => heard.size === 3);
    expect(Object.fromEntries(heard)).toEqual({
      late: ["expired", 0],
      returned: ["delivery-limit", 3],
      unwanted: ["rejected", 1],
    });
  });

  it("tells in which queue of tasks a message was, and takes nobody's word for another", async () => {
    const bus = await under.started();
    const heard = new Map<string, string | undefined>();
    await bus.deadLetters.takeRejected(async ({ body }, { firstQueue }) => {
      heard.set(body.toString(), firstQueue);
    });
    const spiders = await bus.spiderQueues.open("x");
    await spiders.publish([{ body: "page", contentType: "text/plain", expirationMs: 1 }]);
    await bus.tasks.publish([
      {
        body: "forged",
        contentType: "text/plain",
        headers: { "x-first-death-queue": under.names.master(), "x-first-death-reason": "expired" },
        expirationMs: 1,
      },
    ]);
    await until("both were given up", () => heard.size === 2);
    expect(Object.fromEntries(heard)).toEqual({
      page: under.names.tasksOf("x"),
      forged: under.names.tasks(),
    });
    await bus.spiderQueues.drop("x");
  });

  it("tries again until a rejected message is dealt with, without giving it back meanwhile", async () => {
    const bus = await under.started();
    let attempts = 0;
    const stop = await bus.deadLetters.takeRejected(async () => {
      attempts += 1;
      if (attempts < 3) throw new Error("not yet");
    });
    await bus.tasks.publish([{ body: "late", contentType: "text/plain", expirationMs: 1 }]);
    await until("it was dealt with", () => attempts === 3);
    await stop();
    expect(await under.ready(under.names.rejected())).toBe(0);
  });

  it("leaves to another process what was not dealt with when it stopped", async () => {
    const bus = await under.started();
    let attempts = 0;
    const stop = await bus.deadLetters.takeRejected(async () => {
      attempts += 1;
      throw new Error("never");
    });
    await bus.tasks.publish([{ body: "late", contentType: "text/plain", expirationMs: 1 }]);
    await until("it was tried", () => attempts > 0);
    await stop();
    await until("it is back", async () => (await under.ready(under.names.rejected())) === 1);
  });

  describe("of the broker, passed on by a master", () => {
    async function relaying() {
      const bus = await under.started();
      const relay = new DeadLetterRelay({ bus, metrics: under.metrics, logger: silentLogger });
      await relay.start();
      return { bus, relay };
    }

    it("get their reason, join the others, and whoever asked is told", async () => {
      const { bus, relay } = await relaying();
      const channel = await under.stranger();
      const { queue } = await channel.assertQueue("", { exclusive: true });
      await bus.tasks.publish([
        {
          body: '{"url":"http://late.test/"}',
          contentType: "application/json",
          replyTo: queue,
          correlationId: "mine",
          headers: { traceparent: "00-1" },
          expirationMs: 1,
        },
      ]);
      const dead = await next(under.names.dead());
      expect(dead.content.toString()).toBe('{"url":"http://late.test/"}');
      expect(dead.properties.contentType).toBe("application/json");
      expect(dead.properties.headers).toMatchObject({
        traceparent: "00-1",
        "x-reason": "expired",
        "x-error": "the broker gave the message up: expired",
        "x-first-queue": under.names.tasks(),
      });
      const answer = await next(queue);
      expect(answer.properties.correlationId).toBe("mine");
      expect(JSON.parse(answer.content.toString())).toEqual({
        url: "http://late.test/",
        state: "failed",
        reason: "expired",
        items: 0,
        files: 0,
        error: "expired: the broker gave the message up: expired",
      });
      await relay.stop();
      expect(await under.ready(under.names.rejected())).toBe(0);
      expect(await under.metrics.registry.metrics()).toContain(
        'warren_dead_letters_total{reason="expired"} 1',
      );
    });

    it("are dropped when they are dispatched tasks, which the frontier still knows", async () => {
      const { bus, relay } = await relaying();
      await bus.tasks.publish([{ body: "{}", contentType: TASK_CONTENT_TYPE, expirationMs: 1 }]);
      await bus.tasks.publish([{ body: "http://late.test/", contentType: "text/plain", expirationMs: 1 }]);
      // They are passed on in their order, so the first would be there before the second.
      expect((await next(under.names.dead())).content.toString()).toBe("http://late.test/");
      await relay.stop();
      expect(await under.ready(under.names.dead())).toBe(0);
      expect(await under.ready(under.names.rejected())).toBe(0);
    });

    it("show a body that is no task as it came", async () => {
      const { bus, relay } = await relaying();
      const channel = await under.stranger();
      const { queue } = await channel.assertQueue("", { exclusive: true });
      await bus.tasks.publish([
        { body: "no URL", contentType: "text/plain", replyTo: queue, expirationMs: 1 },
      ]);
      expect(JSON.parse((await next(queue)).content.toString())).toMatchObject({ url: "no URL" });
      await relay.stop();
    });
  });
});
