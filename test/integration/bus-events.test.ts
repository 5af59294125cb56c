import type { ConsumeMessage } from "amqplib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BusEvent } from "../../src/bus/index.js";
import { connectionBlocked } from "../support/amqp-frames.js";
import { BusUnderTest, until } from "../support/bus-under-test.js";

function event(type: string, data: Record<string, unknown> = {}): BusEvent {
  return { type, at: "2026-01-02T03:04:05.678Z", crawl: "c", node: "n", data };
}

describe("events", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  it("reach everyone who listens to their key, many in one message", async () => {
    const bus = await under.started();
    const other = await under.started();
    const batches: (readonly BusEvent[])[] = [];
    const all: string[] = [];
    await bus.events.subscribe(["task.*"], (events) => batches.push(events));
    await other.events.subscribe(["#"], (events) => all.push(...events.map(({ type }) => type)));
    const sent = [event("task.started", { a: 1 }), event("task.started", { a: 2 })];
    bus.events.publish("task.started", sent);
    bus.events.publish("crawl.finished", [event("crawl.finished")]);
    await until("the other heard all", () => all.length === 3);
    expect(all).toEqual(["task.started", "task.started", "crawl.finished"]);
    await until("the first heard its own", () => batches.length === 1);
    expect(batches).toEqual([sent]);
  });

  it("ignores and counts what is no event, and hears the next", async () => {
    const bus = await under.started();
    const heard: string[] = [];
    await bus.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    const channel = await under.stranger();
    const garbage = [
      "",
      "garbage",
      "null",
      "{}",
      "[[]]",
      '{"type":1,"at":"x","data":{}}',
      '{"type":"a","at":"x","data":[]}',
      `${"[".repeat(100_000)}`,
    ];
    for (const body of [...garbage, Buffer.from([0xff, 0xfe, 0x00])]) {
      channel.publish(under.names.events(), "any", Buffer.from(body));
    }
    channel.publish(under.names.events(), "any", Buffer.from(JSON.stringify(event("good"))));
    await until("the good one was heard", () => heard.length > 0);
    expect(heard).toEqual(["good"]);
    expect(bus.events.unreadable).toBe(garbage.length + 1);
  });

  it("goes on when a listener throws", async () => {
    const bus = await under.started();
    let calls = 0;
    await bus.events.subscribe(["#"], () => {
      calls += 1;
      throw new Error("a listener's fault");
    });
    bus.events.publish("a", [event("a")]);
    bus.events.publish("b", [event("b")]);
    await until("both were handed over", () => calls === 2);
  });

  it("are heard again after the connection was lost", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    const other = await under.started();
    const heard: string[] = [];
    await bus.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    proxy.cut();
    await until("the loss was noticed", () => !bus.connected);
    await until("they are heard again", () => {
      other.events.publish("again", [event("again")]);
      return heard.includes("again");
    });
  });

  it("are not heard any more by someone who left", async () => {
    const bus = await under.started();
    const heard: string[] = [];
    const leave = await bus.events.subscribe(["#"], (events) =>
      heard.push(...events.map(({ type }) => type)),
    );
    const leaveLater = await bus.events.subscribe(["end"], () => heard.push("end"));
    await leave();
    bus.events.publish("a", [event("a")]);
    bus.events.publish("end", [event("end")]);
    await until("the end was heard", () => heard.length > 0);
    expect(heard).toEqual(["end"]);
    await leaveLater();
  });

  it("are dropped and counted while there is no connection", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    await proxy.close();
    await until("the loss was noticed", () => !bus.connected);
    const before = bus.events.dropped;
    bus.events.publish("a", [event("a"), event("b")]);
    expect(bus.events.dropped).toBe(before + 2);
  });

  it("are dropped, not kept, when the broker does not keep up", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    proxy.freeze();
    proxy.say(connectionBlocked());
    const large = event("large", { text: "x".repeat(100_000) });
    await until("events are dropped", async () => {
      for (let index = 0; index < 100; index += 1) bus.events.publish("large", [large]);
      return bus.events.dropped > 0;
    });
    const before = bus.events.dropped;
    bus.events.publish("large", [large]);
    expect(bus.events.dropped).toBe(before + 1);
  });

  it("cost a listener who does not keep up some of them, which it can count, and nobody else anything", async () => {
    const proxy = await under.proxy();
    const [bus, quick, slow] = await Promise.all([
      under.started(),
      under.started(),
      under.started({ urls: [proxy.url] }),
    ]);
    const heard = { quick: 0, slow: [] as unknown[] };
    await quick.events.subscribe(["#"], (events) => {
      heard.quick += events.length;
    });
    await slow.events.subscribe(
      ["#"],
      (events) => heard.slow.push(...events.map(({ data }) => data.number)),
      {
        maxLength: 10,
      },
    );
    proxy.freeze();
    const text = "x".repeat(50_000);
    let number = 0;
    // More than sockets and the queue can hold.
    while (number < 1_000) {
      const before = bus.events.dropped;
      bus.events.publish("large", [event("large", { number, text })]);
      if (bus.events.dropped === before) number += 1;
      await until("the quick one has it", () => heard.quick === number);
    }
    expect(slow.events.missed).toBe(0);
    proxy.thaw();
    await until("the slow one is up to date", () => heard.slow.at(-1) === 999);

    expect(heard.slow.length).toBeLessThan(1_000);
    expect(slow.events.missed).toBe(1_000 - heard.slow.length);
    expect(quick.events.missed).toBe(0);
    expect(await under.metrics.registry.metrics()).toContain(
      `warren_events_missed_total ${slow.events.missed}`,
    );
  });

  it("carry the attributes of CloudEvents in their headers, and a trace if they belong to one", async () => {
    const bus = await under.started();
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, under.names.events(), "#");
    const taken: ConsumeMessage[] = [];
    await channel.consume(queue, (message) => message !== null && taken.push(message), { noAck: true });
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const traced = { ...event("task.started"), traceparent, tracestate: "a=1" };

    bus.events.publish("task.started", [traced]);
    bus.events.publish("task.failed", [event("task.failed"), event("task.failed")]);
    await until("both are there", () => taken.length === 2);

    const [one, several] = taken.map(({ properties }) => properties);
    expect(one).toMatchObject({ contentType: "application/json" });
    expect(one?.headers).toEqual({
      "cloudEvents:specversion": "1.0",
      "cloudEvents:id": expect.stringMatching(/./),
      "cloudEvents:source": `/${under.namespace}/tool/${under.namespace}-0`,
      "cloudEvents:type": "task.started",
      "cloudEvents:time": "2026-01-02T03:04:05.678Z",
      "cloudEvents:subject": "c",
      "cloudEvents:dataschema": "urn:warren:event:1",
      "cloudEvents:sequence": 1,
      traceparent,
      tracestate: "a=1",
    });
    expect(JSON.parse(String(taken[0]?.content))).toEqual(traced);
    expect(several?.headers).toMatchObject({ "cloudEvents:sequence": 2, "cloudEvents:count": 2 });
    expect(several?.headers).not.toHaveProperty("traceparent");
    expect(several?.headers?.["cloudEvents:id"]).not.toBe(one?.headers?.["cloudEvents:id"]);
  });

  it("drops what cannot be written as JSON, without harm to whoever tells", async () => {
    const bus = await under.started();
    bus.events.publish("a", [event("a", { large: 1n })]);
    expect(bus.events.dropped).toBe(1);
    expect(await under.metrics.registry.metrics()).toContain(
      'warren_events_dropped_total{reason="unwritable"} 1',
    );
  });
});
