import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Bus, CallError, type Handlers, PublishReturnedError } from "../../src/bus/index.js";
import { connectionForced } from "../support/amqp-frames.js";
import { BusUnderTest, found, heedingLogger, until } from "../support/bus-under-test.js";

const warnings: string[] = [];
const onWarning = (warning: Error) => warnings.push(`${warning.name}: ${warning.message}`);
process.on("warning", onWarning);

/** A promise that is fulfilled from outside. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

const LONG = { timeoutMs: 60_000 };

async function failure(promise: Promise<unknown>): Promise<CallError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof CallError)) throw new Error(`no CallError but ${String(error)}`);
  return error;
}

describe("calls", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());
  afterAll(() => {
    process.off("warning", onWarning);
  });

  const echo: Handlers = {
    echo: async (args) => args,
    nothing: async () => undefined,
    fail: async () => {
      throw new Error("broken");
    },
    refuse: async ({ code }) => {
      throw Object.assign(new Error("refused"), { code });
    },
    unwritable: async () => ({ large: 1n }),
    silent: () => new Promise(() => {}),
  };

  async function nodes(...names: string[]): Promise<Bus[]> {
    return Promise.all(
      names.map(async (name) => {
        const bus = await under.started();
        await bus.calls.serveNode(under.node(name), {
          ...echo,
          name: async () => name,
        });
        return bus;
      }),
    );
  }

  it("reach a node and bring its answer", async () => {
    await nodes("n1", "n2");
    const bus = await under.started();
    expect(await bus.calls.callNode("n1", "name")).toBe("n1");
    expect(await bus.calls.callNode("n2", "name")).toBe("n2");
    expect(await bus.calls.callNode("n2", "echo", { a: [1, { b: "ü" }] })).toEqual({ a: [1, { b: "ü" }] });
    expect(await bus.calls.callNode("n2", "nothing")).toBeNull();
  });

  it("reach any master, each of them some", async () => {
    const caller = await under.started();
    const answered = new Set<unknown>();
    for (const name of ["m1", "m2"]) {
      const bus = await under.started();
      await bus.calls.serveMaster(name, { name: async () => name });
    }
    await until(
      "both have answered",
      async () => answered.add(await caller.calls.callMaster("name")).size === 2,
    );
  });

  it("carry the codes of errors; any other error is internal, and so is an answer that is no JSON", async () => {
    await nodes("n1");
    const { calls } = await under.started();
    for (const code of [
      "invalid",
      "not-found",
      "forbidden",
      "conflict",
      "unavailable",
      "timeout",
      "cancelled",
    ]) {
      expect(await failure(calls.callNode("n1", "refuse", { code }))).toMatchObject({
        code,
        message: "refused",
      });
    }
    expect(await failure(calls.callNode("n1", "refuse", { code: "E_ELSE" }))).toMatchObject({
      code: "internal",
    });
    expect(await failure(calls.callNode("n1", "fail"))).toMatchObject({
      code: "internal",
      message: "broken",
    });
    expect(await failure(calls.callNode("n1", "unwritable"))).toMatchObject({ code: "internal" });
    expect(await calls.callNode("n1", "name")).toBe("n1");
  });

  it.each(["none", "toString", "__proto__", "constructor"])(
    "of a type that is not known are invalid: %s",
    async (type) => {
      await nodes("n1");
      const { calls } = await under.started();
      expect(await failure(calls.callNode("n1", type))).toMatchObject({
        code: "invalid",
        message: expect.stringContaining("there are echo"),
      });
    },
  );

  it("to a node that was never there, or has left, come back at once and say so", async () => {
    const [node] = await nodes("gone");
    await node?.stop();
    const bus = await under.started();
    for (const name of ["gone", "never-there"]) {
      const error = await failure(bus.calls.callNode(name, "ping", {}, LONG));
      expect(error.code).toBe("unavailable");
      // By this callers know for certain that nobody got it.
      expect(error.cause).toBeInstanceOf(PublishReturnedError);
      await expect(bus.calls.commandNode(name, "ping")).rejects.toMatchObject({ code: "unavailable" });
    }
  });

  it("to others are answered while some go to nodes that were never there", async () => {
    await nodes("n1");
    const bus = await under.started();
    const all = Array.from({ length: 300 }, (_, index) =>
      index % 10 === 3
        ? failure(bus.calls.callNode(`never-there-${index % 3}`, "echo", {}, LONG)).then(({ code }) => code)
        : bus.calls.callNode("n1", "echo", { index }, LONG),
    );
    const answers = await Promise.all(all);
    expect(answers).toEqual(
      Array.from({ length: 300 }, (_, index) => (index % 10 === 3 ? "unavailable" : { index })),
    );
  });

  it("end when their time is over, and what comes later is dropped and counted", async () => {
    const { open, opened } = gate();
    const node = await under.started();
    await node.calls.serveNode(under.node("slow"), { slow: () => opened });
    const bus = await under.started();
    expect(await failure(bus.calls.callNode("slow", "slow", {}, { timeoutMs: 30.5 }))).toMatchObject({
      code: "timeout",
      message: 'node "slow" did not answer "slow" within 30.5 ms',
    });
    expect(bus.calls.late).toBe(0);
    open();
    await until("the late answer is counted", () => bus.calls.late === 1);
  });

  it("end when their caller gives up, also before they could be sent", async () => {
    const proxy = await under.proxy();
    await nodes("n1");
    const bus = await under.started({ urls: [proxy.url] });
    const giveUp = new AbortController();
    const call = failure(bus.calls.callNode("n1", "silent", {}, { ...LONG, signal: giveUp.signal }));
    giveUp.abort();
    expect((await call).code).toBe("cancelled");
    await proxy.close();
    await until("the loss was noticed", () => !bus.connected);
    const next = new AbortController();
    const waiting = failure(bus.calls.callNode("n1", "echo", {}, { ...LONG, signal: next.signal }));
    next.abort();
    expect((await waiting).code).toBe("cancelled");
    const { signal } = next;
    expect((await failure(bus.calls.callNode("n1", "echo", {}, { signal }))).code).toBe("cancelled");
  });

  it("say that the bus is away when they could not be sent in their time", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    await proxy.close();
    await until("the loss was noticed", () => !bus.connected);
    expect(await failure(bus.calls.callMaster("ping", {}, { timeoutMs: 30 }))).toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("RabbitMQ is away"),
    });
  });

  it("by the thousand may share one signal", async () => {
    await nodes("n1");
    const bus = await under.started();
    const { signal } = new AbortController();
    await Promise.all(Array.from({ length: 1_000 }, () => bus.calls.callNode("n1", "name", {}, { signal })));
    await new Promise((resolve) => setImmediate(resolve));
    expect(warnings.filter((warning) => /MaxListeners/.test(warning))).toEqual([]);
  });

  it("that wait are told at once when the connection is lost, and the next ones are answered", async () => {
    const proxy = await under.proxy();
    await nodes("n1");
    const bus = await under.started({ urls: [proxy.url] });
    const waiting = failure(bus.calls.callNode("n1", "silent", {}, LONG));
    // Answered, so the one before has been sent.
    await bus.calls.callNode("n1", "name");
    proxy.say(connectionForced());
    expect((await waiting).code).toBe("unavailable");
    await until("the loss was noticed", () => !bus.connected);
    expect(await bus.calls.callNode("n1", "name", {}, LONG)).toBe("n1");
  });

  it("reach a node again when its connection was lost: its own, and those to every node", async () => {
    const proxy = await under.proxy();
    const node = await under.started({ urls: [proxy.url] });
    const told: unknown[] = [];
    await node.calls.serveNode(under.node("n1"), { tell: async (args) => void told.push(args) });
    const bus = await under.started();
    proxy.cut();
    await until("the loss was noticed", () => !node.connected);
    await until("its own commands arrive", async () => {
      await bus.calls.commandNode("n1", "tell", { one: true }).catch(() => {});
      return told.length > 0;
    });
    await bus.calls.broadcast("tell", { all: true });
    await until("those to every node arrive", () => told.some((args) => Object.hasOwn(Object(args), "all")));
  });

  it("that one master holds go to another when it dies over them", async () => {
    const proxy = await under.proxy();
    const dying = await under.started({ urls: [proxy.url] });
    const { opened: taken, open: took } = gate();
    await dying.calls.serveMaster("dying", {
      work: () => {
        took();
        return new Promise(() => {});
      },
    });
    const bus = await under.started();
    const answer = bus.calls.callMaster("work", {}, LONG);
    await taken;
    const other = await under.started();
    await other.calls.serveMaster("other", { work: async () => "done by the other" });
    await proxy.close();
    expect(await answer).toBe("done by the other");
  });

  it("at hand are answered before a master leaves", async () => {
    const { opened: taken, open: took } = gate();
    const { opened, open } = gate();
    const master = await under.started();
    const stop = await master.calls.serveMaster("m1", {
      work: async () => {
        took();
        await opened;
        return "done";
      },
    });
    const bus = await under.started();
    const answer = bus.calls.callMaster("work", {}, LONG);
    await taken;
    const stopped = stop();
    open();
    expect(await answer).toBe("done");
    await stopped;
    await master.stop();
    expect(await under.ready(under.names.master())).toBe(0);
  });

  it("to every node reach them all; the answers are gathered, and who kept silent is named", async () => {
    await nodes("n1", "n2");
    const bus = await under.started();
    const all = await bus.calls.broadcastCall("name", {}, { ...LONG, expected: ["n1", "n2"] });
    expect(all.silent).toEqual([]);
    expect([...all.answers].sort((a, b) => a.node.localeCompare(b.node))).toEqual([
      { node: "n1", ok: true, result: "n1" },
      { node: "n2", ok: true, result: "n2" },
    ]);
    const some = await bus.calls.broadcastCall("fail", {}, { timeoutMs: 300, expected: ["n1", "n2", "n3"] });
    expect(some.silent).toEqual(["n3"]);
    expect(some.answers.map((answer) => !answer.ok && answer.error.code)).toEqual(["internal", "internal"]);
  });

  it("to every node are not ended by an answer of nobody's", async () => {
    await nodes("n1");
    const bus = await under.started();
    // A node of some other make, which does not say who it is.
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, under.names.broadcast(), "");
    await channel.consume(
      queue,
      (message) => {
        const { replyTo, correlationId } = message?.properties ?? {};
        channel.sendToQueue(String(replyTo), Buffer.from('{"ok":true,"result":1}'), { correlationId });
      },
      { noAck: true },
    );
    const { answers, silent } = await bus.calls.broadcastCall("name", {}, { ...LONG, expected: ["n1"] });
    expect(answers).toEqual([{ node: "n1", ok: true, result: "n1" }]);
    expect(silent).toEqual([]);
  });

  it("by strangers are answered through the default exchange, garbage included", async () => {
    await nodes("n1");
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const ask = async (body: string) => {
      channel.publish(under.names.node("n1"), "command", Buffer.from(body), {
        replyTo: queue,
        correlationId: `id-${body.length}`,
      });
      const message = await found("an answer", async () => {
        const got = await channel.get(queue, { noAck: true });
        return got === false ? undefined : got;
      });
      expect(message.properties.correlationId).toBe(`id-${body.length}`);
      expect(message.properties.headers).toMatchObject({ "x-node": "n1" });
      return JSON.parse(message.content.toString());
    };
    expect(await ask('{"type":"name"}')).toEqual({ ok: true, result: "n1" });
    for (const body of [
      "",
      "garbage",
      "[]",
      "{}",
      '{"type":1}',
      '{"type":"echo","args":[]}',
      "[".repeat(1_000),
    ]) {
      expect(await ask(body)).toEqual({ ok: false, error: { code: "invalid", message: expect.any(String) } });
    }
  });

  /** Asks n1 for its name as a program does that consumes direct replies; resolves with the answer. */
  async function askDirectly(): Promise<unknown> {
    const channel = await under.stranger();
    const answered = new Promise<unknown>((resolve) => {
      void channel.consume(
        "amq.rabbitmq.reply-to",
        (message) => resolve(message === null ? undefined : JSON.parse(message.content.toString())),
        { noAck: true },
      );
    });
    const replyTo = "amq.rabbitmq.reply-to";
    channel.publish(under.names.node("n1"), "command", Buffer.from('{"type":"name"}'), { replyTo });
    return answered;
  }

  it("by strangers are answered as direct replies", async () => {
    await nodes("n1");
    expect(await askDirectly()).toEqual({ ok: true, result: "n1" });
  });

  it.each([
    ["that the broker cannot read", "g1h2AA5yZXBseQ==.x"],
    ["of a cluster node that is gone", "g1h3CXJlcGx5QDEyMwEBAQEBAQEBAQEBAQ==.QUJD"],
  ])("cost nobody else an answer when they ask for it at an address %s", async (_, suffix) => {
    const { logger, lines } = heedingLogger();
    const node = await under.started({}, { logger });
    const { open, opened } = gate();
    await node.calls.serveNode(under.node("n1"), {
      name: async () => "n1",
      bad: async () => open(),
    });
    const channel = await under.stranger();
    const replyTo = `amq.rabbitmq.reply-to.${suffix}`;
    channel.publish(under.names.node("n1"), "command", Buffer.from('{"type":"bad"}'), { replyTo });
    await opened;
    const bus = await under.started();
    expect(await bus.calls.callNode("n1", "name")).toBe("n1");
    expect(await askDirectly()).toEqual({ ok: true, result: "n1" });
    expect(lines.filter((line) => /"purpose":"(publish|consume)"/.test(line))).toEqual([]);
    expect(await node.calls.reply(replyTo, "c", {}).then(() => "sent")).toBe("sent");
  });

  it("are nothing to warn of when they go to nodes that were never there", async () => {
    const { logger, lines } = heedingLogger();
    const bus = await under.started({}, { logger });
    for (const name of ["never-there", "nor-this-one"]) {
      expect((await failure(bus.calls.callNode(name, "ping", {}, LONG))).code).toBe("unavailable");
    }
    expect(lines).toEqual([]);
  });

  it("to every node tell apart who kept silent from whose answer was lost", async () => {
    const proxy = await under.proxy();
    await nodes("n1");
    const bus = await under.started({ urls: [proxy.url] });
    const all = bus.calls.broadcastCall("silent", {}, { ...LONG, expected: ["n1"] });
    await bus.calls.callNode("n1", "name");
    proxy.say(connectionForced());
    expect((await failure(all)).code).toBe("unavailable");
  });

  it("to every node end when their caller gives up", async () => {
    await nodes("n1");
    const bus = await under.started();
    const givingUp = new AbortController();
    const options = { ...LONG, expected: ["n1"], signal: givingUp.signal };
    const all = bus.calls.broadcastCall("silent", {}, options);
    await bus.calls.callNode("n1", "name");
    givingUp.abort();
    expect((await failure(all)).code).toBe("cancelled");
  });
});

describe("an answer", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  it("outlives the broker in a queue that does", async () => {
    const bus = await under.started();
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await bus.calls.reply(queue, "c", { url: "http://a.test/" });
    const message = await channel.get(queue, { noAck: true });
    if (message === false) throw new Error("there should be an answer");
    expect(message.properties).toMatchObject({ deliveryMode: 2, correlationId: "c" });
    expect(JSON.parse(message.content.toString())).toEqual({ url: "http://a.test/" });
  });

  it("is sent again when the connection is lost before the broker has confirmed it", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    proxy.freeze();
    const sent = bus.calls.reply(queue, "c", 1);
    // The request is written at the end of this turn; it never reaches the broker.
    await new Promise((resolve) => setImmediate(resolve));
    proxy.cut();
    await until("the loss was noticed", () => !bus.connected);
    proxy.thaw();
    await sent;
    expect(await channel.get(queue, { noAck: true })).not.toBe(false);
  });

  it("to a queue that is gone is nobody's fault", async () => {
    const bus = await under.started();
    expect(await bus.calls.reply("gone", undefined, 1).then(() => "sent")).toBe("sent");
  });
});
