import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "amqplib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BusLoad, report } from "../support/bus-load.js";
import { until } from "../support/bus-under-test.js";
import { PrivateBroker } from "../support/private-broker.js";

/** How much longer than its time-out a call may take on a machine that has other things to do, in ms. */
const MAX_OVERRUN_MS = 2_000;
/** Consuming again takes less than so much from the broker's return, in milliseconds. */
const MAX_WAIT_MS = 5_000;
const NOTHING_LOST = { lost: 0, pending: 0, unexpected: [] };

describe("a bus under load whose broker fails", () => {
  let broker: PrivateBroker;
  let load: BusLoad;

  beforeAll(async () => {
    broker = await PrivateBroker.start();
  });
  afterAll(() => broker?.stop());

  beforeEach(async ({ task }) => {
    load = await BusLoad.start(broker.url, `load-${task.id}`);
    await load.tookAgain(performance.now());
  });
  afterEach(() => load?.dispose());

  async function expectNothingLost(
    what: string,
    more: Readonly<Record<string, unknown>> = {},
  ): Promise<void> {
    await load.end();
    const figures = load.figures();
    report(what, { ...more, ...figures, reconnects: await load.reconnects() });
    expect(figures).toMatchObject(NOTHING_LOST);
    expect(figures.worstOverrunMs).toBeLessThan(MAX_OVERRUN_MS);
  }

  it("loses nothing when it is stopped and started, and consumes again soon after", async () => {
    await broker.rabbit.stop();
    // Long enough for the waits between attempts to have grown.
    await sleep(12_000);
    await broker.rabbit.start();
    const waitMs = await load.tookAgain(performance.now());
    await expectNothingLost("broker stopped and started", { waitMs });
    expect(waitMs).toBeLessThan(MAX_WAIT_MS);
  });

  it("loses nothing when it is killed and comes back", async () => {
    await broker.rabbit.kill();
    await broker.rabbit.start();
    const waitMs = await load.tookAgain(performance.now());
    await expectNothingLost("broker killed", { waitMs });
    expect(waitMs).toBeLessThan(MAX_WAIT_MS);
  });

  it("loses nothing when an operator closes all connections, again and again", async () => {
    const waits: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const before = await load.reconnects();
      await broker.rabbit.control("close_all_connections", "a test");
      await until("the connections are back", async () => (await load.reconnects()) > before);
      waits.push(await load.tookAgain(performance.now()));
    }
    await expectNothingLost("all connections closed", { waits });
    expect(Math.max(...waits)).toBeLessThan(MAX_WAIT_MS);
  });

  it("goes on when its queues and exchanges are deleted under its feet", async () => {
    const connection = await connect(broker.url, { noDelay: true });
    const channel = await connection.createChannel();
    const waits: number[] = [];
    const { names } = load;
    for (const queue of [names.tasks(), names.master(), names.rejected()]) {
      await channel.deleteQueue(queue);
      waits.push(await load.tookAgain(performance.now()));
    }
    for (const exchange of [names.events(), names.broadcast(), names.dead()]) {
      await channel.deleteExchange(exchange);
      waits.push(await load.tookAgain(performance.now()));
    }
    await connection.close();
    const calls = load.sender.bus.calls;
    await until("masters answer", () => isAnswered(calls.callMaster("echo", {}, { timeoutMs: 1_000 })));
    const expected = load.workers.map(({ name }) => name);
    await until("all nodes answer", async () => {
      const gathering = calls.broadcastCall("echo", {}, { timeoutMs: 1_000, expected });
      const { silent } = await gathering.catch(() => ({ silent: expected }));
      return silent.length === 0;
    });
    await load.end();
    const figures = load.figures();
    report("queues and exchanges deleted", { waits, ...figures });
    // What was in a queue that was deleted is gone with it; everyone was told, and everything goes on.
    expect(figures).toMatchObject({ pending: 0, unexpected: [] });
    expect(figures.worstOverrunMs).toBeLessThan(MAX_OVERRUN_MS);
    expect(Math.max(...waits)).toBeLessThan(MAX_WAIT_MS);
  });

  it("stops those who publish while an alarm is on, not those who consume, and loses nothing", async () => {
    // Something to consume that was published before.
    for (const each of load.workers) each.proxy.mute("server");
    const before = load.tasks;
    await until("there is a backlog", () => load.tasks > before + 200);
    await broker.raiseAlarm();
    const refused = async () => {
      const patience = AbortSignal.timeout(300);
      const [outcome] = await load.sender.bus.tasks.publish(
        [{ body: "0", contentType: "text/plain" }],
        patience,
      );
      return outcome?.ok === false && outcome.error.code === "PUBLISH_ABANDONED";
    };
    await until("publishers wait", refused);
    const backlog = load.figures().tasks - load.figures().consumed;
    for (const each of load.workers) each.proxy.thaw();
    const thawedAt = performance.now();
    // More than was handed out before the alarm: the broker must take acknowledgements for that.
    await until("the backlog is consumed", () => {
      const { consumed, published } = load.figures();
      return consumed >= (published.confirmed ?? 0);
    });
    const waitMs = performance.now() - thawedAt;
    const published = load.figures().published.confirmed;
    await sleep(5_000);
    expect(load.figures().published.confirmed).toBe(published);
    expect(await refused()).toBe(true);
    await broker.liftAlarm();
    const againMs = await load.tookAgain(performance.now());
    await expectNothingLost("memory alarm", { backlog, waitMs, againMs });
    expect(againMs).toBeLessThan(MAX_WAIT_MS);
  });
});

async function isAnswered(call: Promise<unknown>): Promise<boolean> {
  return call.then(
    () => true,
    () => false,
  );
}
