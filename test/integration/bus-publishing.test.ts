import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Bus, PublishOutcome, TaskMessage } from "../../src/bus/index.js";
import { connectionBlocked, connectionUnblocked } from "../support/amqp-frames.js";
import { BusUnderTest, until } from "../support/bus-under-test.js";

const warnings: string[] = [];
const onWarning = (warning: Error) => warnings.push(`${warning.name}: ${warning.message}`);
process.on("warning", onWarning);

function task(body: string, more: Partial<TaskMessage> = {}): TaskMessage {
  return { body, contentType: "text/plain", ...more };
}

function tasks(count: number, size = 10): TaskMessage[] {
  return Array.from({ length: count }, (_, index) => task(`${index}`.padEnd(size, ".")));
}

/** What became of messages, each in a word. */
function words(outcomes: readonly PublishOutcome[]): string[] {
  return outcomes.map((outcome) => (outcome.ok ? "taken" : outcome.error.code));
}

describe("publishing", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());
  afterAll(() => {
    process.off("warning", onWarning);
  });

  it("resolves once the broker has taken every message, in their order", async () => {
    const bus = await under.started();
    const outcomes = await bus.tasks.publish([
      task("http://a.test/", {
        headers: { "x-a": 1 },
        replyTo: "someone",
        correlationId: "c",
        messageId: "m-1",
        expirationMs: 60_000.4,
      }),
      task("http://b.test/"),
    ]);
    expect(words(outcomes)).toEqual(["taken", "taken"]);
    const channel = await under.stranger();
    const first = await channel.get(under.names.tasks(), { noAck: true });
    const second = await channel.get(under.names.tasks(), { noAck: true });
    if (first === false || second === false) throw new Error("there should be two messages");
    expect(first.content.toString()).toBe("http://a.test/");
    expect(first.properties).toMatchObject({
      contentType: "text/plain",
      headers: { "x-a": 1 },
      replyTo: "someone",
      correlationId: "c",
      messageId: "m-1",
      expiration: "60001",
      deliveryMode: 2,
    });
    expect(second.content.toString()).toBe("http://b.test/");
  });

  it("tells a message that the broker refuses from one that was lost", async () => {
    const bus = await under.started({ topology: { maxTasks: 1 } });
    const refused = async () => words(await bus.tasks.publish([task("x")])).includes("PUBLISH_REJECTED");
    await until("the queue is full", refused);
    expect(words(await bus.tasks.publish([task("x")]))).toEqual(["PUBLISH_REJECTED"]);
  });

  it("lets an outsider know that the queue is full, and that it no longer is", async () => {
    const bus = await under.started({ topology: { maxTasks: 2 } });
    const outsider = await under.strangerWithConfirms();
    const returned: unknown[] = [];
    outsider.on("return", (message) => returned.push(message));
    const hand = async () => {
      outsider.sendToQueue(under.names.tasks(), Buffer.from("http://a.test/"), { mandatory: true });
      return outsider.waitForConfirms().then(
        () => "taken",
        (error: Error) => error.message,
      );
    };
    await until("it is refused", async () => (await hand()) === "message nacked");
    const waiting = await under.ready(under.names.tasks());

    expect(await hand()).toBe("message nacked");

    // Refused is not returned: the queue is there. And what was refused is not in it.
    expect(returned).toEqual([]);
    expect(await under.ready(under.names.tasks())).toBe(waiting);
    await bus.tasks.consume({ prefetch: 10 }, (delivery) => bus.tasks.settle([delivery], { kind: "ack" }));
    await until("it is taken again", async () => (await hand()) === "taken");
  });

  it("declares the task queue anew and sends again when someone has deleted it", async () => {
    const bus = await under.started();
    const channel = await under.stranger();
    await channel.deleteQueue(under.names.tasks());
    expect(words(await bus.tasks.publish(tasks(50)))).toEqual(new Array(50).fill("taken"));
    expect(await under.ready(under.names.tasks())).toBe(50);
  });

  it("keeps senders waiting while the window is full, and lets go of those that give up", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url], maxUnconfirmed: 10 });
    proxy.freeze();
    const patient = bus.tasks.publish(tasks(15));
    const giveUp = new AbortController();
    const hasty = bus.tasks.publish(tasks(3), giveUp.signal);
    giveUp.abort();
    expect(words(await hasty)).toEqual(new Array(3).fill("PUBLISH_ABANDONED"));
    proxy.thaw();
    expect(words(await patient)).toEqual(new Array(15).fill("taken"));
    expect(await under.ready(under.names.tasks())).toBe(15);
  });

  it("sends nothing for someone who has given up already", async () => {
    const bus = await under.started();
    expect(words(await bus.tasks.publish(tasks(2), AbortSignal.abort()))).toEqual(
      new Array(2).fill("PUBLISH_ABANDONED"),
    );
    expect(await under.ready(under.names.tasks())).toBe(0);
  });

  it("bounds the bytes under way, and lets a message larger than the bound go alone", async () => {
    const bus = await under.started({ maxUnconfirmedBytes: 1_000 });
    const outcomes = await bus.tasks.publish([...tasks(3, 900), ...tasks(1, 5_000), ...tasks(20, 100)]);
    expect(words(outcomes)).toEqual(new Array(24).fill("taken"));
  });

  it("serves senders in the order in which they came, the large message as well as the small", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url], maxUnconfirmedBytes: 1_000 });
    const ended: string[] = [];
    const send = (name: string, size: number) =>
      bus.tasks.publish([task(name.padEnd(size, "."))]).then(() => ended.push(name));
    proxy.freeze();
    const all = [send("first", 900), send("large", 900)];
    for (let index = 0; index < 5; index += 1) all.push(send(`small-${index}`, 90));
    proxy.thaw();
    await Promise.all(all);
    expect(ended).toEqual(["first", "large", "small-0", "small-1", "small-2", "small-3", "small-4"]);
  });

  it("says that it does not know about messages that were under way when the connection was lost", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url], maxUnconfirmed: 5 });
    proxy.freeze();
    const sent = bus.tasks.publish(tasks(8));
    proxy.thaw();
    proxy.cut();
    const ends = words(await sent);
    // Those beyond the window had not been sent, so there is nothing not to know about them.
    expect(ends.slice(5)).toEqual(new Array(3).fill("taken"));
    for (const end of ends.slice(0, 5)) expect(["taken", "PUBLISH_UNKNOWN"]).toContain(end);
    expect(ends.slice(0, 5)).toContain("PUBLISH_UNKNOWN");
  });

  it("waits for a connection, and sends when there is one", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    await proxy.close();
    await until("the loss was noticed", () => !bus.connected);
    const sent = bus.tasks.publish(tasks(3));
    await proxy.open();
    expect(words(await sent)).toEqual(new Array(3).fill("taken"));
  });

  it("sends nothing while the broker says that it takes nothing", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    proxy.say(connectionBlocked());
    const probe = async () => words(await bus.tasks.publish([task("probe")], AbortSignal.timeout(50)));
    await until("the alarm is known", async () => (await probe()).includes("PUBLISH_ABANDONED"));
    const before = await under.ready(under.names.tasks());
    const sent = bus.tasks.publish(tasks(3));
    expect(await under.ready(under.names.tasks())).toBe(before);
    proxy.say(connectionUnblocked());
    expect(words(await sent)).toEqual(new Array(3).fill("taken"));
  });

  it("stops at once while the broker says that it takes nothing", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    proxy.say(connectionBlocked());
    const probe = async () => words(await bus.tasks.publish([task("probe")], AbortSignal.timeout(50)));
    await until("the alarm is known", async () => (await probe()).includes("PUBLISH_ABANDONED"));
    await bus.stop();
    expect(bus.connected).toBe(false);
  });

  it("reports a message that AMQP cannot carry, and goes on with the others", async () => {
    const bus = await under.started();
    const outcomes = await bus.tasks.publish([
      task("a"),
      task("b", { headers: { large: "x".repeat(100_000) } }),
      task("c"),
    ]);
    expect(words(outcomes)).toEqual(["taken", "PUBLISH_UNENCODABLE", "taken"]);
  });

  it("waits at its stop until what is under way is confirmed", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url], maxUnconfirmed: 10 });
    proxy.freeze();
    const sent = bus.tasks.publish(tasks(100));
    const stopped = bus.stop();
    proxy.thaw();
    await stopped;
    expect(words(await sent)).toEqual(new Array(100).fill("taken"));
    expect(await under.ready(under.names.tasks())).toBe(100);
  });

  it("abandons what waits when the bus is stopped, rather than leave anyone waiting", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    await proxy.close();
    await until("the loss was noticed", () => !bus.connected);
    const sent = bus.tasks.publish(tasks(2));
    await bus.stop();
    expect(words(await sent)).toEqual(new Array(2).fill("PUBLISH_ABANDONED"));
    expect(words(await bus.tasks.publish(tasks(1)))).toEqual(["PUBLISH_ABANDONED"]);
  });

  it("lets a thousand senders share one signal", async () => {
    const proxy = await under.proxy();
    const bus: Bus = await under.started({ urls: [proxy.url], maxUnconfirmed: 5 });
    const { signal } = new AbortController();
    proxy.freeze();
    const all = Array.from({ length: 1_000 }, () => bus.tasks.publish(tasks(1), signal));
    proxy.thaw();
    expect(words((await Promise.all(all)).flat())).toEqual(new Array(1_000).fill("taken"));
    await new Promise((resolve) => setImmediate(resolve));
    expect(warnings.filter((warning) => /MaxListeners/.test(warning))).toEqual([]);
  });
});
