import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { Bus, CallError, type CallTable } from "../../src/bus/index.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { connectionForced } from "../support/amqp-frames.js";
import { amqpUrl, BusUnderTest, until } from "../support/bus-under-test.js";

const SHOP = {
  sum: {
    summary: "Adds numbers.",
    args: z.object({ numbers: z.array(z.number()), times: z.int().default(1) }),
    result: z.object({ sum: z.number() }),
    isRepeatable: true,
  },
  count: {
    summary: "Counts up.",
    args: z.object({ to: z.int() }),
    result: z.object({ at: z.int(), text: z.string() }),
    inParts: true,
    isRepeatable: false,
  },
  wait: {
    summary: "Does nothing until it is stopped.",
    args: z.object({}),
    result: z.null(),
    isRepeatable: false,
  },
  once: {
    summary: "Must not be done twice.",
    args: z.object({}),
    result: z.string(),
    isRepeatable: false,
  },
} as const satisfies CallTable;

const NONE = {} as const satisfies CallTable;
const LONG = { timeoutMs: 60_000 };

async function failure(promise: Promise<unknown>): Promise<CallError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof CallError)) throw new Error(`no CallError but ${String(error)}`);
  return error;
}

/** What a node saw of the calls to it. */
class Shop {
  readonly seen: string[] = [];
  /** Parts that were made. */
  made = 0;
  stopped: string[] = [];
}

describe("calls of a table", () => {
  let under: BusUnderTest;
  let buses: Bus<typeof SHOP, typeof SHOP>[];
  beforeEach(() => {
    under = new BusUnderTest();
    buses = [];
  });
  afterEach(async () => {
    await Promise.all(buses.map((bus) => bus.stop()));
    await under.dispose();
  });

  async function started(url = amqpUrl()): Promise<Bus<typeof SHOP, typeof SHOP>> {
    const bus = new Bus(
      {
        urls: [url],
        namespace: under.namespace,
        identity: { role: "tool", id: "shop", version: "0" },
        reconnect: { minMs: 10, maxMs: 100 },
      },
      { logger: silentLogger, clock: systemClock, tables: { node: SHOP, master: SHOP } },
    );
    buses.push(bus);
    await bus.start();
    return bus;
  }

  function handlers(shop: Shop) {
    return {
      sum: async ({ numbers, times }: { numbers: number[]; times: number }) => {
        shop.seen.push("sum");
        return { sum: numbers.reduce((sum, each) => sum + each, 0) * times };
      },
      async *count({ to }: { to: number }, { signal }: { signal: AbortSignal }) {
        try {
          for (let at = 0; at < to; at += 1) {
            signal.throwIfAborted();
            shop.made += 1;
            yield { at, text: "x".repeat(1_000) };
          }
        } finally {
          shop.stopped.push("count");
        }
      },
      wait: async (_: unknown, { signal }: { signal: AbortSignal }) => {
        shop.seen.push("wait");
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
        shop.stopped.push(signal.reason instanceof CallError ? signal.reason.code : "unknown");
        return null;
      },
      once: async () => {
        shop.seen.push("once");
        return "done";
      },
    };
  }

  async function shopAt(node: string, url?: string): Promise<Shop> {
    const shop = new Shop();
    const bus = await started(url);
    await bus.calls.serveNode(under.node(node), handlers(shop));
    return shop;
  }

  it("fill in defaults, and name each argument that is wrong", async () => {
    await shopAt("n1");
    const { calls } = await started();
    expect(await calls.callNode("n1", "sum", { numbers: [1, 2] })).toEqual({ sum: 3 });
    const stranger = await under.started();
    const error = await failure(stranger.calls.callNode("n1", "sum", { numbers: ["1"], times: 0.5 }));
    expect(error).toMatchObject({
      code: "invalid",
      message: expect.stringMatching(/numbers\.0: must be a number; times: /),
    });
  });

  it("refuse an answer that is not what the table says, and name what is wrong with it", async () => {
    const stranger = await under.started();
    await stranger.calls.serveNode(under.node("other"), { sum: async () => ({ sum: "3" }) });
    const { calls } = await started();
    expect(await failure(calls.callNode("other", "sum", { numbers: [] }))).toMatchObject({
      code: "internal",
      message: 'the answer of node "other" to "sum" is not what it should be: sum: must be a number',
    });
  });

  it("are answered in parts, in order, and no further ahead than was asked for", async () => {
    const shop = await shopAt("n1");
    const { calls } = await started();
    const parts = calls.streamNode("n1", "count", { to: 1_000 });
    const first = await parts.next();
    expect(first.value).toMatchObject({ at: 0 });
    // The node stops where its window ends: a part is held back, and one more may be on its way into it.
    await until("the node has filled the window", () => shop.made >= 16);
    expect(await calls.callNode("n1", "sum", { numbers: [1] })).toEqual({ sum: 1 });
    expect(shop.made).toBeLessThanOrEqual(18);
    const rest: number[] = [];
    for await (const { at } of parts) rest.push(at);
    expect(rest).toEqual(Array.from({ length: 999 }, (_, index) => index + 1));
    expect(shop.stopped).toEqual(["count"]);
  });

  it("in parts are stopped at the other side when whoever takes them stops", async () => {
    const shop = await shopAt("n1");
    const { calls } = await started();
    for await (const { at } of calls.streamNode("n1", "count", { to: 1_000_000 })) if (at === 20) break;
    await until("the node has stopped", () => shop.stopped.length === 1);
    expect(shop.made).toBeLessThan(60);
  });

  it("in parts reach a program that asks for no window, each part numbered and the last one marked", async () => {
    await shopAt("n1");
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const parts: { part: unknown; last: unknown; at: unknown }[] = [];
    const ended = new Promise<void>((resolve) => {
      void channel.consume(
        queue,
        (message) => {
          if (message === null) return;
          const { headers } = message.properties;
          const { result } = JSON.parse(message.content.toString());
          parts.push({ part: headers?.["x-part"], last: headers?.["x-last"], at: result.at });
          if (headers?.["x-last"] === true) resolve();
        },
        { noAck: true },
      );
    });
    const body = Buffer.from('{"type":"count","args":{"to":40}}');
    channel.publish(under.names.node("n1"), "command", body, { replyTo: queue, correlationId: "c" });
    await ended;
    expect(parts).toEqual(
      Array.from({ length: 40 }, (_, at) => ({ part: at, last: at === 39 ? true : undefined, at })),
    );
  });

  it("in parts stop when the queue of whoever asked is gone", async () => {
    const shop = await shopAt("n1");
    const channel = await under.stranger();
    const body = Buffer.from('{"type":"count","args":{"to":1000000}}');
    channel.publish(under.names.node("n1"), "command", body, { replyTo: "gone", correlationId: "c" });
    await until("the node has stopped", () => shop.stopped.length === 1);
    expect(shop.made).toBeLessThan(10);
  });

  it("in parts end with an error that comes in the middle", async () => {
    const bus = await started();
    const shop = new Shop();
    await bus.calls.serveNode(under.node("n1"), {
      ...handlers(shop),
      async *count() {
        yield { at: 0, text: "" };
        yield { at: 1, text: "" };
        throw new CallError("not-found", "no more of them");
      },
    });
    const { calls } = await started();
    const seen: number[] = [];
    const all = async () => {
      for await (const { at } of calls.streamNode("n1", "count", { to: 9 })) seen.push(at);
    };
    expect(await failure(all())).toMatchObject({ code: "not-found", message: "no more of them" });
    expect(seen).toEqual([0, 1]);
  });

  it("in parts must be asked for as such", async () => {
    await shopAt("n1");
    const { calls } = await started();
    expect(await failure(calls.callNode("n1", "count", { to: 3 }))).toMatchObject({
      code: "internal",
      message: 'node "n1" answers "count" in parts: it must be asked for them',
    });
  });

  it.each(["node", "master"] as const)("stop at a %s when their caller gives up", async (side) => {
    const shop = new Shop();
    const serving = await started();
    if (side === "node") await serving.calls.serveNode(under.node("n1"), handlers(shop));
    else await serving.calls.serveMaster("m1", handlers(shop));
    const { calls } = await started();
    const givingUp = new AbortController();
    const options = { ...LONG, signal: givingUp.signal };
    const call =
      side === "node" ? calls.callNode("n1", "wait", {}, options) : calls.callMaster("wait", {}, options);
    const failed = failure(call);
    await until("it is being worked on", () => shop.seen.length === 1);
    givingUp.abort();
    expect((await failed).code).toBe("cancelled");
    await until("it was stopped", () => shop.stopped.length === 1);
    expect(shop.stopped).toEqual(["cancelled"]);
  });

  it("stop at the node when their time is over", async () => {
    const shop = await shopAt("n1");
    const { calls } = await started();
    expect((await failure(calls.callNode("n1", "wait", {}, { timeoutMs: 50 }))).code).toBe("timeout");
    await until("it was stopped", () => shop.stopped.length === 1);
    expect(shop.stopped).toEqual(["timeout"]);
  });

  it("are asked again when the connection is lost, if they may be, and not if they may not", async () => {
    const proxy = await under.proxy();
    const shop = new Shop();
    const serving = await started();
    let open: () => void = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const ids: (string | undefined)[] = [];
    await serving.calls.serveNode(under.node("n1"), {
      ...handlers(shop),
      sum: async (_: unknown, { messageId }: { messageId: string | undefined }) => {
        ids.push(messageId);
        await opened;
        return { sum: 7 };
      },
    });
    const { calls } = await started(proxy.url);
    const repeatable = calls.callNode("n1", "sum", { numbers: [] }, LONG);
    const single = failure(calls.callNode("n1", "wait", {}, LONG));
    await until("both are being worked on", () => ids.length === 1 && shop.seen.length === 1);
    proxy.say(connectionForced());
    expect((await single).code).toBe("unavailable");
    await until("it was asked again", () => ids.length >= 2);
    open();
    expect(await repeatable).toEqual({ sum: 7 });
    expect(new Set(ids).size).toBe(1);
  });

  it("to a node that was silent again and again are refused at once, until it answers", async () => {
    let isSilent = true;
    const bus = await started();
    await bus.calls.serveNode(under.node("n1"), {
      ...handlers(new Shop()),
      once: () => (isSilent ? new Promise(() => {}) : Promise.resolve("done")),
    });
    const { calls } = await started();
    const ask = (timeoutMs: number) => calls.callNode("n1", "once", {}, { timeoutMs });
    for (let calls = 0; calls < 5; calls += 1) expect((await failure(ask(20))).code).toBe("timeout");
    const refused = await failure(ask(60_000));
    expect(refused).toMatchObject({
      code: "unavailable",
      message: 'node "n1" did not answer its last 5 calls; it is asked again within 2000 ms',
    });
    isSilent = false;
    await until("it is asked again", async () => (await ask(60_000).catch(() => "")) === "done");
    expect(await ask(60_000)).toBe("done");
  });

  it("wait for their turn when too many wait for their answers, and within their own time", async () => {
    const shop = await shopAt("n1");
    const bus = new Bus(
      {
        urls: [amqpUrl()],
        namespace: under.namespace,
        identity: { role: "tool", id: "few", version: "0" },
        maxCalls: 2,
      },
      { logger: silentLogger, clock: systemClock, tables: { node: SHOP, master: NONE } },
    );
    await bus.start();
    const givingUp = new AbortController();
    const { signal } = givingUp;
    const first = [1, 2].map(() => failure(bus.calls.callNode("n1", "wait", {}, { ...LONG, signal })));
    await until("two are being worked on", () => shop.seen.length === 2);
    expect((await failure(bus.calls.callNode("n1", "once", {}, { timeoutMs: 30 }))).code).toBe("unavailable");
    const third = bus.calls.callNode("n1", "once", {}, LONG);
    givingUp.abort();
    await Promise.all(first);
    expect(await third).toBe("done");
    expect(shop.seen).toEqual(["wait", "wait", "once"]);
    await bus.stop();
  });

  it("carry the trace that their caller gives, there and back", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const bus = await started();
    const traces: unknown[] = [];
    await bus.calls.serveNode(under.node("n1"), {
      ...handlers(new Shop()),
      once: async (_: unknown, { trace }: { trace: unknown }) => {
        traces.push(trace);
        return "done";
      },
    });
    const { calls } = await started();
    await calls.callNode("n1", "once", {}, { trace: { traceparent, tracestate: "a=b" } });
    await calls.callNode("n1", "once");
    expect(traces).toEqual([{ traceparent, tracestate: "a=b" }, undefined]);
  });

  it("to every node are told of one by one as they come", async () => {
    await shopAt("n1");
    await shopAt("n2");
    const { calls } = await started();
    const told: string[] = [];
    const { answers } = await calls.broadcastCall(
      "sum",
      { numbers: [4] },
      { ...LONG, expected: ["n1", "n2"], onAnswer: ({ node }) => told.push(node) },
    );
    expect(told).toEqual(answers.map(({ node }) => node));
    expect(answers.map((answer) => answer.ok && answer.result.sum)).toEqual([4, 4]);
  });
});
