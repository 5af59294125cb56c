import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Bus, TaskDelivery } from "../../src/bus/index.js";
import { connectionForced } from "../support/amqp-frames.js";
import { BusUnderTest, until } from "../support/bus-under-test.js";

async function publish(bus: Bus, bodies: readonly string[]): Promise<void> {
  const outcomes = await bus.tasks.publish(bodies.map((body) => ({ body, contentType: "text/plain" })));
  for (const outcome of outcomes) if (!outcome.ok) throw outcome.error;
}

function numbers(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${index}`);
}

/** Takes messages and keeps them. */
async function taking(bus: Bus, prefetch: number) {
  const taken: TaskDelivery[] = [];
  const consumer = await bus.tasks.consume({ prefetch }, (delivery) => taken.push(delivery));
  return { taken, consumer };
}

function isAmong(bodies: readonly string[], deliveries: readonly TaskDelivery[]): boolean {
  const taken = new Set(deliveries.map(({ body }) => body.toString()));
  return bodies.every((body) => taken.has(body));
}

const ACK = { kind: "ack" } as const;

describe("consuming tasks", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  it("hands out no more than the prefetch until some are settled", async () => {
    const bus = await under.started();
    await publish(bus, numbers(10));
    const { taken, consumer } = await taking(bus, 4);
    await until("four were taken", () => taken.length === 4);
    expect(await under.ready(under.names.tasks())).toBe(6);
    bus.tasks.settle(taken.slice(0, 3), ACK);
    await until("three more were taken", () => taken.length === 7);
    await consumer.stop();
  });

  it("leaves nothing unsettled, in whatever order and groups deliveries are acknowledged", async () => {
    const bus = await under.started();
    const count = 600;
    await publish(bus, numbers(count));
    const { taken } = await taking(bus, count);
    await until("all were taken", () => taken.length === count);
    // Every third alone, then backwards in pairs, then the rest with some that were settled before.
    const settled = new Set<TaskDelivery>();
    const settle = (deliveries: readonly TaskDelivery[]) => {
      bus.tasks.settle(deliveries, ACK);
      for (const delivery of deliveries) settled.add(delivery);
    };
    for (let index = 0; index < 200; index += 3) settle(taken.slice(index, index + 1));
    for (let index = 398; index >= 200; index -= 2) settle(taken.slice(index, index + 2).reverse());
    settle(taken);
    expect(settled.size).toBe(count);
    // As many again are only handed out when the broker has noted each of those: the window was full.
    await publish(bus, numbers(count));
    await until("as many again were taken", () => taken.length === 2 * count);
    settle(taken);
    await bus.stop();
    expect(await under.ready(under.names.tasks())).toBe(0);
  });

  it("never acknowledges what nobody settled", async () => {
    const bus = await under.started();
    await publish(bus, numbers(20));
    const { taken } = await taking(bus, 20);
    await until("all were taken", () => taken.length === 20);
    bus.tasks.settle(
      taken.filter((_, index) => index % 2 === 1),
      ACK,
    );
    bus.tasks.settle(taken.slice(0, 2), ACK);
    await bus.stop();
    expect(await under.ready(under.names.tasks())).toBe(9);
  });

  it("gives back and rejects as it is told", async () => {
    const bus = await under.started();
    await publish(bus, ["back", "bad"]);
    const { taken, consumer } = await taking(bus, 2);
    await until("both were taken", () => taken.length === 2);
    await consumer.stop();
    bus.tasks.settle(
      taken.filter(({ body }) => body.toString() === "back"),
      { kind: "requeue" },
    );
    bus.tasks.settle(
      taken.filter(({ body }) => body.toString() === "bad"),
      { kind: "reject" },
    );
    await until("one is back", async () => (await under.ready(under.names.tasks())) === 1);
    await until("one is rejected", async () => (await under.ready(under.names.rejected())) === 1);
  });

  it.each([
    ["the connection is cut", (say: { cut(): void }) => say.cut()],
    ["the broker closes it", (say: { say(bytes: Buffer): void }) => say.say(connectionForced())],
  ])("takes messages again after %s, and settles nothing for a channel that is gone", async (_, disturb) => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    await publish(bus, numbers(3));
    const { taken } = await taking(bus, 10);
    await until("all were taken", () => taken.length === 3);
    const before = taken.splice(0);
    disturb(proxy);
    await until("they came again", () => taken.length === 3);
    for (const { signal, redelivered } of before) {
      expect(signal.aborted).toBe(true);
      expect(redelivered).toBe(false);
    }
    for (const { signal, redelivered } of taken) {
      expect(signal.aborted).toBe(false);
      expect(redelivered).toBe(true);
    }
    // Their tags are the same as those of the new ones.
    bus.tasks.settle(before, ACK);
    await bus.stop();
    expect(await under.ready(under.names.tasks())).toBe(3);
  });

  it("declares the queue anew when it is deleted under a consumer, and takes from it again", async () => {
    const bus = await under.started();
    const { taken } = await taking(bus, 10);
    await publish(bus, ["before"]);
    await until("it was taken", () => taken.length === 1);
    const channel = await under.stranger();
    await channel.deleteQueue(under.names.tasks());
    await until("the channel is given up", () => taken[0]?.signal.aborted === true);
    await publish(bus, ["after"]);
    await until("the next was taken", () => taken.length === 2);
    expect(taken[1]?.body.toString()).toBe("after");
  });

  it("survives a queue that is deleted again and again", async () => {
    const bus = await under.started();
    const { taken } = await taking(bus, 10);
    const channel = await under.stranger();
    for (let round = 1; round <= 5; round += 1) {
      await channel.deleteQueue(under.names.tasks());
      await publish(bus, [`round ${round}`]);
      await until(`round ${round}`, () => taken.some(({ body }) => body.toString() === `round ${round}`));
    }
  });

  it("takes nothing while it is paused, over a reconnect as well, and all when it resumes", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    const { taken, consumer } = await taking(bus, 10);
    await consumer.pause();
    await publish(bus, numbers(3));
    proxy.cut();
    await until("the loss was noticed", () => !bus.connected);
    await until("it is up again", () => bus.connected);
    await publish(bus, ["3"]);
    expect(await under.ready(under.names.tasks())).toBe(4);
    expect(taken).toEqual([]);
    await consumer.resume();
    await until("all were taken", () => taken.length === 4);
  });

  it("ends as it was asked last, however quickly it was asked", async () => {
    const bus = await under.started();
    const { taken, consumer } = await taking(bus, 5);
    await Promise.all([
      consumer.pause(),
      consumer.resume(),
      consumer.setPrefetch(3),
      consumer.resume(),
      consumer.pause(),
      consumer.resume(),
      consumer.setPrefetch(2),
    ]);
    await publish(bus, numbers(10));
    await until("two were taken", () => taken.length === 2);
    // One consumer, with a prefetch of two: a second one would have taken more.
    expect(await under.ready(under.names.tasks())).toBe(8);
    const channel = await under.stranger();
    expect((await channel.checkQueue(under.names.tasks())).consumerCount).toBe(1);
    await Promise.all([consumer.resume(), consumer.setPrefetch(9), consumer.stop(), consumer.resume()]);
    // One that is cancelled is counted for as long as it holds messages.
    bus.tasks.settle(taken, ACK);
    await until("nobody consumes any more", async () => {
      return (await channel.checkQueue(under.names.tasks())).consumerCount === 0;
    });
  });

  it("stays paused when that was asked for while the channel opened", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    const other = await under.started();
    const { taken, consumer } = await taking(bus, 50);
    for (let round = 0; round < 5; round += 1) {
      proxy.cut();
      await until("the loss was noticed", () => !bus.connected);
      await until("it is up again", () => bus.connected);
      // The connection is up, its channels are only now being opened.
      await consumer.pause();
      const { taken: byOther, consumer: otherConsumer } = await taking(other, 50);
      const bodies = numbers(6).map((number) => `${round}:${number}`);
      await publish(other, bodies);
      // Had the first one consumed as well, it would have been given half of them.
      await until("the other took all", () => isAmong(bodies, byOther));
      other.tasks.settle(byOther, ACK);
      await otherConsumer.stop();
      await consumer.resume();
      await publish(other, [`${round}:more`]);
      await until("it takes again", () => isAmong([`${round}:more`], taken));
      bus.tasks.settle(taken, ACK);
    }
  });

  it("goes on after a handler of messages has thrown", async () => {
    const bus = await under.started();
    const taken: string[] = [];
    await bus.tasks.consume({ prefetch: 1 }, (delivery) => {
      taken.push(delivery.body.toString());
      bus.tasks.settle([delivery], ACK);
      if (taken.length === 1) throw new Error("a handler's fault");
    });
    await publish(bus, ["one", "two"]);
    await until("both were taken", () => taken.length === 2);
  });

  it("opens a channel that the broker closed, and leaves the others alone", async () => {
    const bus = await under.started();
    const { taken } = await taking(bus, 10);
    await publish(bus, ["one"]);
    await until("it was taken", () => taken.length === 1);
    const channel = await under.stranger();
    await channel.deleteExchange(under.names.events());
    const heard: string[] = [];
    const at = new Date().toISOString();
    // The first costs the channel of events (404); when that opens again, the exchange is there again.
    bus.events.publish("task.started", [{ type: "task.started", at, data: {} }]);
    await until("the exchange is back", async () => {
      const own = await under.stranger();
      return own.checkExchange(under.names.events()).then(
        () => true,
        () => false,
      );
    });
    await bus.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    await until("events go through", () => {
      bus.events.publish("task.started", [{ type: "task.started", at, data: {} }]);
      return heard.length > 0;
    });
    expect(taken[0]?.signal.aborted).toBe(false);
    bus.tasks.settle(taken, ACK);
    await bus.stop();
    expect(await under.ready(under.names.tasks())).toBe(0);
  });

  it("tells whether the queue is empty, also after it had to be declared anew", async () => {
    const bus = await under.started();
    await until("it can be asked", () => bus.tasks.isEmpty().catch(() => false));
    await publish(bus, ["one"]);
    expect(await bus.tasks.isEmpty()).toBe(false);
    const channel = await under.stranger();
    await channel.deleteQueue(under.names.tasks());
    await expect(bus.tasks.isEmpty()).rejects.toThrow(/NOT_FOUND|404/);
    await until("it can be asked again", () => bus.tasks.isEmpty().catch(() => false));
  });
});
