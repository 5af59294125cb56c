import type { Channel, ConsumeMessage } from "amqplib";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import type { Outgoing, Publisher, PublishOutcome } from "./publisher.js";

/** A message for the work queue. */
export type TaskMessage = {
  readonly body: string | Buffer;
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, unknown>>;
  readonly replyTo?: string;
  readonly correlationId?: string;
  /** How long it may wait in the queue, in milliseconds. */
  readonly expirationMs?: number;
};

/** What becomes of a delivery. */
export type DeliveryOutcome =
  | { readonly kind: "ack" }
  | { readonly kind: "requeue" }
  | { readonly kind: "reject" };

/** A message taken from the work queue and not yet settled. */
export class TaskDelivery {
  readonly body: Buffer;
  readonly contentType: string | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
  /** How long it was allowed to wait, in milliseconds, as its sender wrote it. */
  readonly expiration: string | undefined;
  /** Whether it was given out before and not acknowledged. */
  readonly redelivered: boolean;
  /** Aborted when its channel is lost: the broker then gives it to someone else. Shared by all of a channel. */
  readonly signal: AbortSignal;
  readonly tag: number;

  constructor(message: ConsumeMessage, signal: AbortSignal) {
    const { properties, fields } = message;
    this.body = message.content;
    this.contentType = textOf(properties.contentType);
    this.headers = properties.headers ?? {};
    this.messageId = textOf(properties.messageId);
    this.replyTo = textOf(properties.replyTo);
    this.correlationId = textOf(properties.correlationId);
    this.expiration = textOf(properties.expiration);
    this.redelivered = fields.redelivered;
    this.tag = fields.deliveryTag;
    this.signal = signal;
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** Someone who takes messages from the work queue. */
export interface Consumer {
  /** How many messages may be taken and not yet settled. */
  setPrefetch(prefetch: number): Promise<void>;
  /** Takes no more; what was taken can still be settled. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Takes no more, for good; what was taken can still be settled until the bus is stopped. */
  stop(): Promise<void>;
}

/** The durable queue of tasks, for which workers compete. */
export class WorkQueue {
  readonly #queue: string;
  readonly #publisher: Publisher;
  readonly #consuming: SupervisedConnection;
  readonly #inspecting: SupervisedChannel;
  /** By the signal of their channel. */
  readonly #unsettled = new WeakMap<AbortSignal, Unsettled>();

  constructor(queue: string, publisher: Publisher, consuming: SupervisedConnection) {
    this.#queue = queue;
    this.#publisher = publisher;
    this.#consuming = consuming;
    this.#inspecting = consuming.channel("queue inspection", async () => {});
  }

  /** Sends tasks, all on their way together; resolves with what became of each, in their order. */
  publish(messages: readonly TaskMessage[], signal?: AbortSignal): Promise<readonly PublishOutcome[]> {
    return this.#publisher.publish(
      messages.map(
        (message): Outgoing => ({
          exchange: "",
          routingKey: this.#queue,
          body: typeof message.body === "string" ? Buffer.from(message.body) : message.body,
          options: {
            persistent: true,
            mandatory: true,
            contentType: message.contentType,
            ...(message.headers !== undefined && { headers: { ...message.headers } }),
            ...(message.replyTo !== undefined && { replyTo: message.replyTo }),
            ...(message.correlationId !== undefined && { correlationId: message.correlationId }),
            ...(message.expirationMs !== undefined && { expiration: String(message.expirationMs) }),
          },
        }),
      ),
      signal,
    );
  }

  /**
   * Takes messages from now on, over reconnects as well, until the consumer is stopped.
   * @param handle called for each message, which must be settled in the end; must not throw
   */
  async consume(options: { prefetch: number }, handle: (delivery: TaskDelivery) => void): Promise<Consumer> {
    const consumer = new QueueConsumer(this.#queue, options.prefetch, this.#unsettled, handle);
    await consumer.begin(this.#consuming);
    return consumer;
  }

  /**
   * Whether no message waits in the queue: all that were sent before are in some consumer's hands, or settled.
   * @throws when the broker cannot be asked
   */
  async isEmpty(): Promise<boolean> {
    const open = this.#inspecting.current;
    if (open === undefined) throw new Error("RabbitMQ is away");
    const { messageCount } = await open.channel.checkQueue(this.#queue);
    return messageCount === 0;
  }

  /** Settles deliveries. Those whose channel was lost are the broker's again: nothing is sent for them. */
  settle(deliveries: readonly TaskDelivery[], outcome: DeliveryOutcome): void {
    const bySignal = new Map<AbortSignal, number[]>();
    for (const { signal, tag } of deliveries) {
      if (signal.aborted) continue;
      const tags = bySignal.get(signal);
      if (tags === undefined) bySignal.set(signal, [tag]);
      else tags.push(tag);
    }
    for (const [signal, tags] of bySignal) {
      const unsettled = this.#unsettled.get(signal);
      if (unsettled === undefined) continue;
      try {
        settleOn(unsettled, tags, outcome);
      } catch {
        // The channel closed this instant: the broker gives them to someone else.
      }
    }
  }
}

/** The channel on which deliveries came, and those that were not settled, in the order of their tags. */
type Unsettled = { readonly channel: Channel; readonly tags: Set<number> };

function settleOn(
  { channel, tags: unsettled }: Unsettled,
  tags: readonly number[],
  outcome: DeliveryOutcome,
): void {
  const settled = new Set(tags.filter((tag) => unsettled.has(tag)));
  if (outcome.kind !== "ack") {
    for (const tag of settled) {
      unsettled.delete(tag);
      channel.nack(reference(tag), false, outcome.kind === "requeue");
    }
    return;
  }
  // The run of the oldest is acknowledged with one frame, whatever its length.
  let upTo = 0;
  for (const tag of unsettled) {
    if (!settled.has(tag)) break;
    upTo = tag;
    settled.delete(tag);
    unsettled.delete(tag);
  }
  if (upTo > 0) channel.ack(reference(upTo), true);
  for (const tag of settled) {
    unsettled.delete(tag);
    channel.ack(reference(tag), false);
  }
}

/** All that amqplib looks at in a message that is settled. */
function reference(deliveryTag: number): ConsumeMessage {
  return { fields: { deliveryTag } } as ConsumeMessage;
}

class QueueConsumer implements Consumer {
  readonly #queue: string;
  readonly #unsettled: WeakMap<AbortSignal, Unsettled>;
  readonly #handle: (delivery: TaskDelivery) => void;
  #prefetch: number;
  #channel: SupervisedChannel | undefined;
  #consumerTag: string | undefined;
  #isPaused = false;

  constructor(
    queue: string,
    prefetch: number,
    unsettled: WeakMap<AbortSignal, Unsettled>,
    handle: (delivery: TaskDelivery) => void,
  ) {
    this.#queue = queue;
    this.#prefetch = prefetch;
    this.#unsettled = unsettled;
    this.#handle = handle;
  }

  async begin(connection: SupervisedConnection): Promise<void> {
    this.#channel = connection.channel("work queue", async ({ channel, signal }) => {
      this.#unsettled.set(signal, { channel, tags: new Set() });
      await channel.prefetch(this.#prefetch);
      this.#consumerTag = undefined;
      if (!this.#isPaused) await this.#consumeOn(channel, signal);
    });
    await this.#channel.opened();
  }

  async setPrefetch(prefetch: number): Promise<void> {
    this.#prefetch = prefetch;
    const open = this.#channel?.current;
    if (open === undefined) return;
    // A prefetch counts for consumers that begin after it.
    await this.#quietly(async () => {
      const wasConsuming = this.#consumerTag !== undefined;
      if (wasConsuming) await this.#cancel();
      await open.channel.prefetch(prefetch);
      if (wasConsuming && !this.#isPaused) await this.#consumeOn(open.channel, open.signal);
    });
  }

  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#quietly(() => this.#cancel());
  }

  async resume(): Promise<void> {
    this.#isPaused = false;
    const open = this.#channel?.current;
    if (open === undefined || this.#consumerTag !== undefined) return;
    await this.#quietly(() => this.#consumeOn(open.channel, open.signal));
  }

  stop(): Promise<void> {
    return this.pause();
  }

  async #consumeOn(channel: Channel, signal: AbortSignal): Promise<void> {
    const tags = this.#unsettled.get(signal)?.tags;
    const { consumerTag } = await channel.consume(this.#queue, (message) => {
      if (message === null) {
        // Cancelled by the broker: the queue is gone, or its consumer took too long.
        this.#channel?.renew();
        return;
      }
      tags?.add(message.fields.deliveryTag);
      this.#handle(new TaskDelivery(message, signal));
    });
    this.#consumerTag = consumerTag;
  }

  async #cancel(): Promise<void> {
    const tag = this.#consumerTag;
    this.#consumerTag = undefined;
    if (tag !== undefined) await this.#channel?.current?.channel.cancel(tag);
  }

  /** The channel may close at any moment: when it opens again it is set up as it should be by then. */
  async #quietly(run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch {
      this.#channel?.renew();
    }
  }
}
