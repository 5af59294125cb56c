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

  it("drops what cannot be written as JSON, without harm to whoever tells", async () => {
    const bus = await under.started();
    bus.events.publish("a", [event("a", { large: 1n })]);
    expect(bus.events.dropped).toBe(1);
  });
});
