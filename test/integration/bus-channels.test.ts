import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TaskDelivery } from "../../src/bus/index.js";
import { declareTopology, TOPOLOGY_DEFAULTS } from "../../src/bus/topology.js";
import { amqpUrl, BusUnderTest, until } from "../support/bus-under-test.js";
import type { TcpProxy } from "../support/tcp-proxy.js";
import { FAULTS, WorkQueueUnderTest } from "../support/work-queue-under-test.js";

const ACK = { kind: "ack" } as const;

describe("a channel that the broker closes", () => {
  let under: BusUnderTest;
  let work: WorkQueueUnderTest;
  let proxy: TcpProxy;
  beforeEach(async () => {
    under = new BusUnderTest();
    proxy = await under.proxy();
    work = await new WorkQueueUnderTest(proxy.url, { namespace: under.namespace }).start();
  });
  afterEach(async () => {
    await work.stop();
    await under.dispose();
  });

  async function taking(prefetch: number): Promise<TaskDelivery[]> {
    const taken: TaskDelivery[] = [];
    await work.queue.consume({ prefetch }, (delivery) => taken.push(delivery));
    return taken;
  }

  it.each(Object.entries(FAULTS))(
    "for %s is the only one, and its deliveries come again",
    async (_, fault) => {
      const others = await taking(1);
      await work.publish(["theirs"]);
      await until("the other consumer has its message", () => others.length === 1);
      const taken = await taking(10);
      await work.publish(["a", "b", "c"]);
      await until("all were taken", () => taken.length === 3);
      const connections = proxy.connections;
      const before = taken.splice(0);

      fault(work.consuming.ofConsumer, work.names.tasks());
      await until("they came again", () => taken.length === 3);

      expect(before.map(({ signal }) => signal.aborted)).toEqual([true, true, true]);
      expect(taken.map(({ redelivered }) => redelivered)).toEqual([true, true, true]);
      expect(others[0]?.signal.aborted).toBe(false);
      expect(work.consuming.isReady).toBe(true);
      expect(proxy.connections).toBe(connections);
      // The tags of the dead channel are those of the living one: to acknowledge them would lose these.
      work.queue.settle(before, ACK);
      work.queue.settle(others, ACK);
      await work.stop();
      await until("all three wait", async () => (await under.ready(work.names.tasks())) === 3);
    },
  );
});

describe("a connection that the broker takes for alive after it was lost", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  it("keeps nobody from serving, listening and being answered on the next one", async () => {
    const proxy = await under.proxy();
    const node = under.node("n1");
    const bus = await under.started({ urls: [proxy.url], heartbeatSeconds: 1 });
    await bus.calls.serveNode(node, { echo: async (args) => args });
    await bus.calls.serveMaster("m1", { echo: async (args) => args });
    const heard: string[] = [];
    await bus.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    const other = await under.started({ urls: [amqpUrl()] });

    // Its queues are locked for the one that is gone until the broker misses its heartbeats.
    proxy.strand();
    await until("the loss was noticed", () => !bus.connected);
    await until("it is back", () => bus.connected);

    expect(await other.calls.callNode(node, "echo", { n: 1 })).toEqual({ n: 1 });
    const gathered = await other.calls.broadcastCall("echo", {}, { expected: [node] });
    expect(gathered.silent).toEqual([]);
    await until("events are heard", () => {
      other.events.publish("task.started", [
        { type: "task.started", at: new Date().toISOString(), data: {} },
      ]);
      return heard.length > 0;
    });
    // What the broker hands to the one that is gone comes to the next when it has found out.
    const calls = [2, 3].map((n) => other.calls.callMaster("echo", { n }, { timeoutMs: 60_000 }));
    expect(await Promise.all(calls)).toEqual([{ n: 2 }, { n: 3 }]);
  });
});

describe("what others remove", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  it("is made again: nodes are reached and events are heard, though their exchanges were deleted", async () => {
    const node = under.node("n1");
    const bus = await under.started({ refreshMs: 100 });
    await bus.calls.serveNode(node, { echo: async (args) => args });
    const heard: string[] = [];
    await bus.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    const other = await under.started();
    const channel = await under.stranger();
    const { names } = under;
    for (const exchange of [names.node(node), names.broadcast(), names.events()]) {
      await channel.deleteExchange(exchange);
    }

    await until("the node is reached", () =>
      other.calls.callNode(node, "echo", {}).then(
        () => true,
        () => false,
      ),
    );
    await until("it hears what is for every node", async () => {
      const asking = other.calls.broadcastCall("echo", {}, { expected: [node], timeoutMs: 200 });
      return (await asking.catch(() => undefined))?.silent.length === 0;
    });
    await until("events are heard", () => {
      other.events.publish("task.started", [
        { type: "task.started", at: new Date().toISOString(), data: {} },
      ]);
      return heard.length > 0;
    });
  });

  it("is no end to consuming when it is there again at once: the broker may forget who consumed", async () => {
    const bus = await under.started({ refreshMs: 100 });
    const taken: TaskDelivery[] = [];
    await bus.tasks.consume({ prefetch: 2 }, (delivery) => {
      taken.push(delivery);
      bus.tasks.settle([delivery], ACK);
    });
    const channel = await under.stranger();
    await Promise.all([
      channel.deleteQueue(under.names.tasks()),
      declareTopology(channel, under.names, TOPOLOGY_DEFAULTS),
    ]);
    await until("messages are taken", async () => {
      await bus.tasks.publish([{ body: "after", contentType: "text/plain" }]);
      return taken.length > 0;
    });
  });

  it("is not needed for what a closed channel had: a node that serves no more is known to be away at once", async () => {
    const node = under.node("n1");
    const bus = await under.started();
    const stop = await bus.calls.serveNode(node, { echo: async (args) => args });
    const other = await under.started();
    await stop();
    expect(bus.connected).toBe(true);
    const call = other.calls.callNode(node, "echo", {}, { timeoutMs: 20_000 });
    await expect(call).rejects.toMatchObject({ code: "unavailable" });
  });
});
