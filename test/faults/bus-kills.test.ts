import { setTimeout as sleep } from "node:timers/promises";
import { type Channel, type ChannelModel, connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Consumer, TaskDelivery } from "../../src/bus/index.js";
import { report } from "../support/bus-load.js";
import { found, until } from "../support/bus-under-test.js";
import { PrivateBroker } from "../support/private-broker.js";
import { SeededRandom } from "../support/seeded-random.js";
import { TcpProxy } from "../support/tcp-proxy.js";
import { FAULTS, WorkQueueUnderTest } from "../support/work-queue-under-test.js";

const KILLS = 200;
/** They are killed at the same time. */
const VICTIMS = 8;
const SET_UP_BYTES = 1_600;
const CONSUMER_TIMEOUT_MS = 3_000;
/** Consuming again takes less than so much, in milliseconds. */
const MAX_WAIT_MS = 5_000;
const KINDS = ["socket", "channel", "queue", "acknowledgement time-out", "set-up"] as const;
type Kind = (typeof KINDS)[number];

/** A consumer that is killed again and again, and how long it took each time until it consumed again. */
class Victim {
  readonly #work: WorkQueueUnderTest;
  readonly #proxy: TcpProxy;
  readonly #admin: Channel;
  readonly #random: SeededRandom;
  #latest: TaskDelivery | undefined;
  #isHolding = false;
  readonly #past: Kind[] = [];

  private constructor(work: WorkQueueUnderTest, proxy: TcpProxy, admin: Channel, random: SeededRandom) {
    this.#work = work;
    this.#proxy = proxy;
    this.#admin = admin;
    this.#random = random;
  }

  static async start(url: string, admin: Channel, random: SeededRandom): Promise<Victim> {
    const proxy = await new TcpProxy(url).open();
    const work = await new WorkQueueUnderTest(proxy.url).start();
    const victim = new Victim(work, proxy, admin, random);
    await victim.#consume();
    await victim.#nextDelivery(undefined);
    return victim;
  }

  async #consume(): Promise<Consumer> {
    return this.#work.queue.consume({ prefetch: 10 }, (delivery) => {
      this.#latest = delivery;
      if (!this.#isHolding) this.#work.queue.settle([delivery], { kind: "ack" });
    });
  }

  /** Kills it; resolves with how long it took until it consumed again, in milliseconds. */
  async kill(kind: Kind): Promise<number> {
    this.#past.push(kind);
    try {
      const before = await this.#nextDelivery(undefined);
      await sleep(this.#random.between(0, 50));
      const killedAt = await this.#do(kind, before);
      const again = await this.#nextDelivery(before.signal);
      return again - killedAt;
    } catch (cause) {
      const { isUp, isReady } = this.#work.consuming;
      const state = isReady ? "ready" : isUp ? "up" : "down";
      const past = this.#past.slice(-4).join(", ");
      throw new Error(`it never came back (seed ${this.#random.seed}): ${state} after ${past}`, { cause });
    }
  }

  /** @returns when it was done */
  async #do(kind: Kind, { signal }: TaskDelivery): Promise<number> {
    const queue = this.#work.names.tasks();
    switch (kind) {
      case "socket":
        this.#proxy.cut();
        break;
      case "channel": {
        const faults = Object.values(FAULTS);
        faults[this.#random.between(0, faults.length - 1)]?.(this.#work.consuming.ofConsumer, queue);
        break;
      }
      case "queue":
        await this.#admin.deleteQueue(queue);
        break;
      case "acknowledgement time-out":
        this.#isHolding = true;
        this.#send();
        await found("the broker to lose its patience", () => signal.aborted || undefined, 60_000);
        this.#isHolding = false;
        break;
      case "set-up":
        // Anywhere between the first byte of the handshake and the answer to the consumer's request.
        this.#proxy.cutNextAfter(this.#random.between(1, 1_500));
        this.#proxy.cut();
        break;
      default:
        return kind satisfies never;
    }
    return performance.now();
  }

  /** The next message that is taken, on another channel than that of the signal; resolves with its instant. */
  async #nextDelivery(signal: undefined): Promise<TaskDelivery>;
  async #nextDelivery(signal: AbortSignal): Promise<number>;
  async #nextDelivery(signal: AbortSignal | undefined): Promise<TaskDelivery | number> {
    this.#latest = undefined;
    let sentAt = 0;
    const delivery = await found(
      "a message to be taken again",
      () => {
        // The queue may not be there; what is sent to it then is gone.
        if (performance.now() - sentAt > 50) {
          this.#send();
          sentAt = performance.now();
        }
        const latest = this.#latest;
        return latest === undefined || latest.signal.aborted || latest.signal === signal ? undefined : latest;
      },
      60_000,
    );
    return signal === undefined ? delivery : performance.now();
  }

  #send(): void {
    this.#admin.sendToQueue(this.#work.names.tasks(), Buffer.from("x"));
  }

  async stop(): Promise<void> {
    await this.#work.stop();
    await this.#proxy.close();
  }
}

describe("a connection", () => {
  it("is back wherever its set-up is cut", async () => {
    const broker = await PrivateBroker.start();
    const proxy = await new TcpProxy(broker.url).open();
    const work = new WorkQueueUnderTest(proxy.url, { reconnect: { minMs: 1, maxMs: 5 } });
    const { consuming } = work;
    let restored = 0;
    consuming.onRestored(() => {
      restored += 1;
    });
    try {
      await consuming.start();
      await work.queue.consume({ prefetch: 1 }, () => {});
      // The answers of a broker to all that is asked for take some 1300 bytes, 12 at least for each of them.
      for (let bytes = 1; bytes < SET_UP_BYTES; bytes += 23) {
        const before = restored;
        proxy.cutNextAfter(bytes);
        proxy.cut();
        await until(`it is back after a cut after ${bytes} bytes`, () => restored > before);
      }
    } finally {
      await work.stop();
      await proxy.close();
      await broker.stop();
    }
  });
});

describe("a consumer", () => {
  let broker: PrivateBroker;
  let connection: ChannelModel;
  let victims: readonly Victim[];
  const random = new SeededRandom();

  beforeAll(async () => {
    broker = await PrivateBroker.start();
    await broker.limitConsumers(CONSUMER_TIMEOUT_MS);
    connection = await connect(broker.url, { noDelay: true });
    const admin = await connection.createChannel();
    victims = await Promise.all(
      Array.from({ length: VICTIMS }, () => Victim.start(broker.url, admin, random)),
    );
  });

  afterAll(async () => {
    await Promise.all(victims?.map((victim) => victim.stop()) ?? []);
    await connection?.close();
    await broker?.stop();
  });

  it(`consumes again within ${MAX_WAIT_MS} ms of each of ${KILLS} kills`, async () => {
    const waits = new Map<Kind, number[]>(KINDS.map((kind) => [kind, []]));
    const plans = victims.map(() => [] as Kind[]);
    for (let number = 0; number < KILLS; number += 1) {
      plans[number % VICTIMS]?.push(random.pick(KINDS));
    }
    await Promise.all(
      victims.map(async (victim, index) => {
        for (const kind of plans[index] ?? []) waits.get(kind)?.push(await victim.kill(kind));
      }),
    );
    const figures = Object.fromEntries(
      [...waits].map(([kind, each]) => {
        const sorted = each.map(Math.round).sort((a, b) => a - b);
        const median = sorted[Math.floor(sorted.length / 2)];
        return [kind, { kills: sorted.length, medianMs: median, worstMs: sorted.at(-1) }];
      }),
    );
    report(`${KILLS} kills`, { seed: random.seed, ...figures });
    const all = [...waits.values()].flat();
    expect(all.length).toBe(KILLS);
    expect(Math.max(...all)).toBeLessThan(MAX_WAIT_MS);
  });

  it("that keeps a message for too long loses its own channel, and nobody else's", async () => {
    const work = await new WorkQueueUnderTest(broker.url).start();
    try {
      const others: TaskDelivery[] = [];
      const held: TaskDelivery[] = [];
      const other = await work.queue.consume({ prefetch: 1 }, (delivery) => others.push(delivery));
      await work.publish(["theirs"]);
      await until("the other has a message", () => others.length === 1);
      // It takes no more; what it has it settles in time.
      await other.pause();
      await work.queue.consume({ prefetch: 1 }, (delivery) => held.push(delivery));
      await work.publish(["held"]);
      await until("it has a message", () => held.length === 1);
      work.queue.settle(others, { kind: "ack" });
      await until("it comes again", () => held.length === 2);
      expect(held.map(({ redelivered }) => redelivered)).toEqual([false, true]);
      expect(held[0]?.signal.aborted).toBe(true);
      expect(others[0]?.signal.aborted).toBe(false);
      expect(work.consuming.isReady).toBe(true);
      // The first is nobody's any more: only the second counts.
      work.queue.settle(held, { kind: "ack" });
      await other.resume();
      await work.publish(["next"]);
      await until("it goes on", () => held.length + others.length === 4);
    } finally {
      await work.stop();
    }
  });
});
