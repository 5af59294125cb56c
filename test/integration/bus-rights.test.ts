import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import path from "node:path";
import { promisify } from "node:util";
import { type Channel, type ChannelModel, type ConsumeMessage, connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { Bus, type TaskDelivery } from "../../src/bus/index.js";
import { Names } from "../../src/bus/topology.js";
import { systemClock } from "../../src/lib/clock.js";
import type { Logger } from "../../src/lib/logger.js";
import { BrokerUsers } from "../support/broker-users.js";
import { found, heedingLogger, until } from "../support/bus-under-test.js";

const run = promisify(execFile);
const SCRIPT = path.resolve(import.meta.dirname, "../../scripts/rabbitmq-users.mjs");
const Bindings = z.array(z.object({ destination: z.string() }));
const Permissions = z.object({ configure: z.string(), write: z.string(), read: z.string() });

describe("users with the rights of their role", () => {
  const namespace = `test-rights-${randomBytes(5).toString("hex")}`;
  const names = new Names(namespace);
  const heeded = heedingLogger();
  const buses: Bus[] = [];
  const strangers: ChannelModel[] = [];
  let users: BrokerUsers;
  let master: Bus;
  let n1: Bus;
  let n2: Bus;

  beforeAll(async () => {
    users = await BrokerUsers.open(namespace);
    await users.make();
    await users.make("--role", "worker", "--node", "n.1");
    await users.make("--role", "worker", "--node", "n2");
  }, 120_000);

  afterAll(async () => {
    await Promise.all(buses.map((bus) => bus.stop()));
    await Promise.all(strangers.map((stranger) => stranger.close()));
    const connection = await connect(users.brokerUrl);
    const channel = await connection.createChannel();
    const queues = [names.tasks(), names.master(), names.dead(), names.rejected()];
    const exchanges = [
      names.events(),
      names.broadcast(),
      names.cancels(),
      names.dead(),
      names.rejected(),
      names.items(),
    ];
    for (const queue of queues) await channel.deleteQueue(queue);
    for (const exchange of [...exchanges, names.node("n.1"), names.node("n2")]) {
      await channel.deleteExchange(exchange);
    }
    await connection.close();
    await users.dispose();
  });

  function bus(user: string, role: "master" | "worker", logger: Logger = heeded.logger): Bus {
    const made = new Bus(
      {
        urls: [users.urlFor(user)],
        namespace,
        identity: { role, id: user, version: "0" },
        reconnect: { minMs: 10, maxMs: 100 },
      },
      { logger, clock: systemClock },
    );
    buses.push(made);
    return made;
  }

  /** A channel of some program that is not Warren. */
  async function stranger(user: string): Promise<Channel> {
    const connection = await connect(users.urlFor(user), { noDelay: true });
    connection.on("error", () => {});
    strangers.push(connection);
    const channel = await connection.createChannel();
    channel.on("error", () => {});
    return channel;
  }

  /** What comes to a queue of one's own. */
  async function mailbox(channel: Channel): Promise<{ queue: string; messages: readonly ConsumeMessage[] }> {
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const messages: ConsumeMessage[] = [];
    const take = (message: ConsumeMessage | null) => void (message !== null && messages.push(message));
    await channel.consume(queue, take, { noAck: true });
    return { queue, messages };
  }

  const bodyOf = ({ content }: ConsumeMessage): unknown => JSON.parse(content.toString());

  it("are made once: a second time their rights are mended, and their passwords stay", async () => {
    const user = `${namespace}-publisher`;
    const before = users.urlFor("publisher");
    await users.admin.put(`permissions/%2F/${user}`, { configure: ".*", write: ".*", read: ".*" });
    expect(await users.make("--role", "publisher", "--role", "observer")).toEqual([
      `${user}: updated`,
      `${namespace}-observer: updated`,
    ]);
    expect(Permissions.parse(await users.admin.get(`permissions/%2F/${user}`))).toEqual({
      configure: "^(amq\\.gen-.*)$",
      write: `^(${namespace}\\.cancels|amq\\.default)$`,
      read: "^(amq\\.gen-.*)$",
    });
    await (await stranger("publisher")).close();
    expect(await users.make("--role", "publisher", "--new-password")).toEqual([`${user}: updated, password`]);
    expect(users.urlFor("publisher")).not.toBe(before);
    await (await stranger("publisher")).close();
  });

  it("can be made without a password, so that none lets them in", async () => {
    const name = `${namespace}-certified`;
    expect(await users.make("--role", "observer", "--user", name, "--no-password")).toEqual([
      `${name}: made`,
    ]);
    const url = new URL(users.brokerUrl);
    url.username = name;
    for (const password of ["", "guest"]) {
      url.password = password;
      await expect(connect(url.href)).rejects.toThrow(/ACCESS.REFUSED/);
    }
    await users.admin.delete(`users/${name}`);
  });

  it("are shown as commands, and not made, by a dry run", async () => {
    const flags = ["--namespace", namespace, "--role", "observer", "--user", "o'hara", "--dry-run"];
    const { stdout } = await run(process.execPath, [
      SCRIPT,
      "--management-url",
      "http://127.0.0.1:4",
      ...flags,
    ]);
    expect(stdout.split("\n")).toEqual([
      "rabbitmqctl add_user 'o'\\''hara'",
      `rabbitmqctl set_permissions -p '/' 'o'\\''hara' '^(amq\\.gen-.*)$' '^(amq\\.gen-.*)$' '^(${namespace}\\.events|${namespace}\\.items|amq\\.gen-.*)$'`,
      "",
    ]);
  });

  it.each([
    [["--role", "king"], 2, /there is no "king"/],
    [["--node", "n1"], 2, /--node is for --role worker/],
    [["--management-url", "amqp://127.0.0.1"], 2, /--management-url must look like/],
    [["--management-url", "http://127.0.0.1:4"], 1, /no answer from .* 127\.0\.0\.1:4: .*ECONNREFUSED/],
    [["--vhost", "nowhere", "--role", "observer"], 1, /refused PUT permissions\/nowhere/],
  ])("are not made with %j", async (args, code, message) => {
    const failure: unknown = await users.make(...args).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code, stderr: expect.stringMatching(message) });
  });

  it("let a worker wait for the first master to declare what it needs", async () => {
    const { logger, lines } = heedingLogger();
    const early = bus("worker-n2", "worker", logger);
    await early.start();
    const taken: TaskDelivery[] = [];
    let isConsuming = false;
    const consuming = early.tasks.consume({ prefetch: 1 }, (delivery) => taken.push(delivery));
    void consuming.then(() => {
      isConsuming = true;
    });
    await until("it says what is missing", () => lines.some((line) => line.includes(names.tasks())));
    expect(isConsuming).toBe(false);
    master = bus("master", "master");
    await master.start();
    await consuming;
    await master.tasks.publish([{ body: "early", contentType: "text/plain" }]);
    await until("the task came", () => taken.length === 1);
    early.tasks.settle(taken, { kind: "ack" });
    await early.stop();
  });

  it("let nobody but a worker begin without declaring", async () => {
    await expect(bus("worker", "master").start()).rejects.toThrow(/AMQP_URL: the user may not declare/);
  });

  it("let masters and workers do all of their work", async () => {
    n1 = bus("worker-n.1", "worker");
    n2 = bus("worker", "worker");
    await Promise.all([n1.start(), n2.start()]);
    const handlers = { name: async () => "a node", told: async () => "heard" };
    await n1.calls.serveNode("n.1", handlers);
    await n2.calls.serveNode("n2", handlers);
    let cancelled = false;
    await master.calls.serveMaster("m", {
      who: async () => "m",
      hang: (_, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            cancelled = true;
            reject(signal.reason);
          });
        }),
    });
    const letters: string[] = [];
    await master.deadLetters.takeRejected(async (letter, report) => {
      letters.push(letter.body.toString());
      await master.deadLetters.send(letter, report);
    });
    const heard: string[] = [];
    await master.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    // Commands and calls, each way.
    expect(await master.calls.callNode("n.1", "name")).toBe("a node");
    const { answers, silent } = await master.calls.broadcastCall("told", {}, { expected: ["n.1", "n2"] });
    expect([answers.length, silent]).toEqual([2, []]);
    await expect(master.calls.callNode("n3", "name")).rejects.toMatchObject({ code: "unavailable" });
    expect(await n1.calls.callMaster("who")).toBe("m");
    const giveUp = new AbortController();
    const hanging = n1.calls.callMaster("hang", {}, { signal: giveUp.signal });
    const order = expect(hanging).rejects.toMatchObject({ code: "cancelled" });
    await n1.calls.callMaster("who");
    giveUp.abort();
    await order;
    await until("the master was told", () => cancelled);
    // Tasks: one is settled, one refused, one given up by the worker itself.
    const consumer = await n1.tasks.consume({ prefetch: 3 }, (delivery) => {
      const body = delivery.body.toString();
      if (body === "good") n1.tasks.settle([delivery], { kind: "ack" });
      else if (body === "bad") n1.tasks.settle([delivery], { kind: "reject" });
      else {
        const report = { reason: "invalid-message", error: "no" } as const;
        void n1.deadLetters.send(delivery, report).then(() => n1.tasks.settle([delivery], { kind: "ack" }));
      }
    });
    const tasks = ["good", "bad", "ugly"].map((body) => ({ body, contentType: "text/plain" }));
    expect(await master.tasks.publish(tasks)).toEqual([{ ok: true }, { ok: true }, { ok: true }]);
    await until("the refused task came to the master", () => letters.includes("bad"));
    await consumer.stop();
    await until("both are dead letters", async () => {
      const channel = await stranger("master");
      const { messageCount } = await channel.checkQueue(names.dead());
      await channel.close();
      return messageCount === 2;
    });
    await until("no task is left", () => master.tasks.isEmpty());
    n1.events.publish("task.completed", [{ type: "task.completed", at: new Date().toISOString(), data: {} }]);
    await until("the event came", () => heard.includes("task.completed"));
    expect(heeded.lines.filter((line) => /REFUSED|closed/.test(line))).toEqual([]);
  });

  it("tell a program that it has no right to an exchange, and cost none of its other messages", async () => {
    const outcomes = await Promise.allSettled([
      n1.calls.callMaster("who"),
      n1.calls.broadcast("told"),
      n1.calls.callMaster("who"),
    ]);
    const code = "unavailable";
    expect(outcomes).toMatchObject([
      { status: "fulfilled", value: "m" },
      { status: "rejected", reason: { code, message: expect.stringMatching(/has no right to publish to/) } },
      { status: "fulfilled", value: "m" },
    ]);
  });

  it("let a publisher hand in a task, call a master, and hear of both", async () => {
    const channel = await stranger("publisher");
    const { queue, messages } = await mailbox(channel);
    const consumer = await n1.tasks.consume({ prefetch: 1 }, (delivery) => {
      n1.tasks.settle([delivery], { kind: "ack" });
      void n1.calls.reply(delivery.replyTo ?? "", delivery.correlationId, { state: "done" });
    });
    channel.sendToQueue(names.tasks(), Buffer.from("http://h/"), { replyTo: queue, correlationId: "task" });
    const call = Buffer.from('{"type":"who"}');
    channel.sendToQueue(names.master(), call, { replyTo: queue, correlationId: "call" });
    await until("both were answered", () => messages.length === 2);
    const answers = new Map(messages.map((each) => [String(each.properties.correlationId), bodyOf(each)]));
    expect(answers.get("task")).toEqual({ state: "done" });
    expect(answers.get("call")).toEqual({ ok: true, result: "m" });
    await consumer.stop();
  });

  it("let an observer listen to events", async () => {
    const channel = await stranger("observer");
    const { queue, messages } = await mailbox(channel);
    await channel.bindQueue(queue, names.events(), "crawl.*");
    const event = { type: "crawl.finished", at: new Date().toISOString(), data: {} };
    master.events.publish(event.type, [event]);
    await until("it came", () => messages.length > 0);
    expect(messages.map(bodyOf)).toEqual([event]);
  });

  type Attempt = (channel: Channel) => Promise<unknown>;
  const publish =
    (exchange: () => string, key = ""): Attempt =>
    async (channel) => {
      const closed = new Promise((_, reject) => channel.once("error", reject));
      channel.publish(exchange(), key, Buffer.from("{}"));
      // Answered after the message has been looked at.
      await Promise.race([closed, channel.prefetch(1).then(() => closed)]);
    };
  const take =
    (queue: () => string): Attempt =>
    (channel) =>
      channel.get(queue());
  const bind =
    (exchange: () => string): Attempt =>
    async (channel) => {
      const { queue } = await channel.assertQueue("", { exclusive: true });
      await channel.bindQueue(queue, exchange(), "#");
    };
  const declareQueue =
    (queue: () => string): Attempt =>
    (channel) =>
      channel.assertQueue(queue());
  const node = (id: string) => () => names.node(id);

  it.each<[user: string, what: string, Attempt]>([
    ["publisher", "command a node", publish(node("n2"), "command")],
    ["publisher", "command all nodes", publish(names.broadcast)],
    ["publisher", "tell events", publish(names.events, "crawl.finished")],
    ["publisher", "make dead letters", publish(names.dead)],
    ["publisher", "declare the task queue", declareQueue(names.tasks)],
    ["publisher", "declare a queue by name", declareQueue(() => `${namespace}.mine`)],
    ["publisher", "take tasks", take(names.tasks)],
    ["publisher", "consume tasks", (channel) => channel.consume(names.tasks(), () => {})],
    ["publisher", "purge the tasks", (channel) => channel.purgeQueue(names.tasks())],
    ["publisher", "delete the task queue", (channel) => channel.deleteQueue(names.tasks())],
    ["publisher", "take calls from masters", take(names.master)],
    ["publisher", "read dead letters", take(names.dead)],
    ["publisher", "listen to events", bind(names.events)],
    ["publisher", "listen to commands", bind(names.broadcast)],
    ["worker", "command a node", publish(node("n2"), "command")],
    ["worker", "command all nodes", publish(names.broadcast)],
    ["worker", "declare the task queue", declareQueue(names.tasks)],
    ["worker", "delete the task queue", (channel) => channel.deleteQueue(names.tasks())],
    ["worker", "take calls from masters", take(names.master)],
    ["worker", "read dead letters", take(names.dead)],
    ["worker", "listen to events", bind(names.events)],
    ["worker-n.1", "listen to another node's commands", bind(node("n2"))],
    ["worker-n.1", "listen to a node's that its id would match as a pattern", bind(node("nx1"))],
    ["worker-n.1", "declare another node's exchange", (c) => c.assertExchange(names.node("n2"), "direct")],
    ["worker-n.1", "delete another node's exchange", (channel) => channel.deleteExchange(names.node("n2"))],
    ["worker-n.1", "command another node", publish(node("n2"), "command")],
    ["observer", "hand in tasks", publish(() => "", names.tasks())],
    ["observer", "tell events", publish(names.events, "crawl.finished")],
    ["observer", "command a node", publish(node("n2"), "command")],
    ["observer", "command all nodes", publish(names.broadcast)],
    ["observer", "take tasks", take(names.tasks)],
    ["observer", "read dead letters", take(names.dead)],
    ["observer", "listen to a node's commands", bind(node("n2"))],
    ["observer", "listen to commands", bind(names.broadcast)],
    ["observer", "declare a queue by name", declareQueue(() => `${namespace}.mine`)],
    ["master", "listen to a node's commands", bind(node("n2"))],
    ["master", "use another namespace", declareQueue(() => `${namespace}2.tasks`)],
  ])("do not let a %s %s", async (user, _, attempt) => {
    await expect(attempt(await stranger(user))).rejects.toThrow(/ACCESS.REFUSED/);
  });

  it.each(["worker", "worker-n.1", "publisher", "observer", "master"])(
    "do not let a %s into a node's queue, though it knows its name",
    async (user) => {
      const source = `exchanges/%2F/${names.node("n2")}/bindings/source`;
      const queue = await found("the node's queue", async () => {
        return Bindings.parse(await users.admin.get(source))[0]?.destination;
      });
      for (const attempt of [
        take(() => queue),
        (channel: Channel) => channel.consume(queue, () => {}),
        (channel: Channel) => channel.purgeQueue(queue),
        (channel: Channel) => channel.deleteQueue(queue),
      ]) {
        await expect(attempt(await stranger(user))).rejects.toThrow(/RESOURCE.LOCKED|ACCESS.REFUSED/);
      }
      expect(await master.calls.callNode("n2", "name")).toBe("a node");
    },
  );
});
