import { randomBytes } from "node:crypto";
import type { Channel } from "amqplib";
import { SupervisedConnection } from "../../src/bus/connection.js";
import { Publisher } from "../../src/bus/publisher.js";
import { declareTopology, Names, TOPOLOGY_DEFAULTS } from "../../src/bus/topology.js";
import { WorkQueue } from "../../src/bus/work-queue.js";
import { systemClock } from "../../src/lib/clock.js";
import { type Logger, silentLogger } from "../../src/lib/logger.js";

/** A work queue on connections of its own, at whose channels a test can get, to have the broker close them. */
export class WorkQueueUnderTest {
  readonly names: Names;
  readonly queue: WorkQueue;
  readonly consuming: WatchedConnection;
  readonly #publishing: SupervisedConnection;

  constructor(
    url: string,
    {
      namespace = `test-queue-${randomBytes(5).toString("hex")}`,
      logger = silentLogger as Logger,
      reconnect = { minMs: 200, maxMs: 3_000 },
    } = {},
  ) {
    const names = new Names(namespace);
    const options = {
      urls: [url],
      identity: { role: "tool", id: namespace, version: "0" },
      heartbeatSeconds: 10,
      connectTimeoutMs: 10_000,
      reconnect,
      refreshMs: 15_000,
    } as const;
    const deps = {
      logger,
      clock: systemClock,
      random: Math.random,
      check: (channel: Channel) => channel.checkQueue(names.tasks()),
      declare: (channel: Channel) => declareTopology(channel, names, TOPOLOGY_DEFAULTS),
    };
    this.names = names;
    this.#publishing = new SupervisedConnection({ ...options, purpose: "publish" }, deps);
    this.consuming = new WatchedConnection({ ...options, purpose: "consume" }, deps);
    const publisher = new Publisher(this.#publishing, "tasks", {
      maxUnconfirmed: 512,
      maxUnconfirmedBytes: 1_048_576,
    });
    this.queue = new WorkQueue(names.tasks(), {
      publisher,
      consuming: this.consuming,
      unsettled: new WeakMap(),
    });
  }

  async start(): Promise<this> {
    await Promise.all([this.consuming.start(), this.#publishing.start()]);
    return this;
  }

  async publish(bodies: readonly string[]): Promise<void> {
    const outcomes = await this.queue.publish(bodies.map((body) => ({ body, contentType: "text/plain" })));
    for (const outcome of outcomes) if (!outcome.ok) throw outcome.error;
  }

  async stop(): Promise<void> {
    await Promise.all([this.consuming.stop(), this.#publishing.stop()]);
  }
}

/** Keeps the channels that it opens, by their names, the last of each name. */
class WatchedConnection extends SupervisedConnection {
  readonly opened = new Map<string, Channel>();

  override channel(...[name, setUp]: Parameters<SupervisedConnection["channel"]>) {
    return super.channel(name, async (open) => {
      this.opened.set(name, open.channel);
      await setUp(open);
    });
  }

  /** The channel of the consumer that began last. */
  get ofConsumer(): Channel {
    const channel = this.opened.get("work queue");
    if (channel === undefined) throw new Error("there is no consumer");
    return channel;
  }
}

/** What may be done on a channel for which the broker closes it, as a faulty program might. */
export const FAULTS: Readonly<Record<string, (channel: Channel, queue: string) => void>> = {
  "an exchange that is not there (404)": (channel) => {
    channel.publish("nowhere", "", Buffer.alloc(0));
  },
  "a delivery tag that was never given out (406)": (channel) => {
    channel.ack({ fields: { deliveryTag: 1_000_000 } } as Parameters<Channel["ack"]>[0]);
  },
  "a queue declared with other arguments (406)": (channel, queue) => {
    channel.assertQueue(queue, { durable: true, arguments: {} }).catch(() => {});
  },
};
