import type { Channel, ConsumeMessage } from "amqplib";
import { messageOf } from "../lib/errors.js";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import { PublishReturnedError } from "./errors.js";
import { expirationOf } from "./messages.js";
import type { Outgoing, Publisher, PublishOutcome } from "./publisher.js";

/** A message for the work queue. */
export type TaskMessage = {
  readonly body: string | Buffer;
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, unknown>>;
  readonly replyTo?: string;
  readonly correlationId?: string;
  /** Shown to whoever looks at the message. */
  readonly messageId?: string;
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

export type WorkQueueParts = {
  readonly publisher: Publisher;
  readonly consuming: SupervisedConnection;
  /** A channel to ask the broker on. @default one of its own */
  readonly inspecting?: SupervisedChannel;
  /** What was taken and is not settled, by the signal of its channel; shared by queues whose deliveries are settled together. */
  readonly unsettled: WeakMap<AbortSignal, Unsettled>;
};

/** The durable queue of tasks, for which workers compete. */
export class WorkQueue {
  readonly #queue: string;
  readonly #publisher: Publisher;
  readonly #consuming: SupervisedConnection;
  readonly #inspecting: SupervisedChannel;
  readonly #unsettled: WeakMap<AbortSignal, Unsettled>;

  constructor(queue: string, parts: WorkQueueParts) {
    const { publisher, consuming } = parts;
    this.#queue = queue;
    this.#publisher = publisher;
    this.#consuming = consuming;
    this.#inspecting = parts.inspecting ?? consuming.channel("queue inspection", async () => {});
    this.#unsettled = parts.unsettled;
  }

  /**
   * Sends tasks, all on their way together; resolves with what became of each, in their order. Should the queue
   * be missing because someone deleted it, it is declared anew and they are sent once more.
   */
  async publish(messages: readonly TaskMessage[], signal?: AbortSignal): Promise<readonly PublishOutcome[]> {
    const outcomes = await this.#publisher.publish(
      messages.map((each) => this.#addressed(each)),
      signal,
    );
    const returned = messages.filter((_, index) => isReturned(outcomes[index]));
    if (returned.length === 0) return outcomes;
    try {
      await this.#consuming.redeclare();
    } catch {
      return outcomes;
    }
    const again = await this.#publisher.publish(
      returned.map((each) => this.#addressed(each)),
      signal,
    );
    let next = 0;
    return outcomes.map((outcome) => {
      if (!isReturned(outcome)) return outcome;
      next += 1;
      return again[next - 1] ?? outcome;
    });
  }

  #addressed(message: TaskMessage): Outgoing {
    const { body, contentType, headers, replyTo, correlationId, messageId, expirationMs } = message;
    return {
      exchange: "",
      routingKey: this.#queue,
      body: typeof body === "string" ? Buffer.from(body) : body,
      options: {
        persistent: true,
        mandatory: true,
        contentType,
        ...(headers !== undefined && { headers: { ...headers } }),
        ...(replyTo !== undefined && { replyTo }),
        ...(correlationId !== undefined && { correlationId }),
        ...(messageId !== undefined && { messageId }),
        ...(expirationMs !== undefined && { expiration: expirationOf(expirationMs) }),
      },
    };
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
    return (await this.check()).messages === 0;
  }

  /**
   * How many messages wait, and how many consumers there are.
   * @throws when the broker cannot be asked
   */
  async check(): Promise<{ readonly messages: number; readonly consumers: number }> {
    const { messageCount, consumerCount } = await this.#inspectionChannel().checkQueue(this.#queue);
    return { messages: messageCount, consumers: consumerCount };
  }

  /**
   * The body of the next message, which is the broker's no more; undefined when none waits.
   * @throws when the broker cannot be asked
   */
  async take(): Promise<Buffer | undefined> {
    const message = await this.#inspectionChannel().get(this.#queue, { noAck: true });
    return message === false ? undefined : message.content;
  }

  #inspectionChannel(): Channel {
    const open = this.#inspecting.current;
    if (open === undefined) throw new Error("RabbitMQ is away");
    return open.channel;
  }

  /** Settles deliveries, of this queue or one that it shares them with. Those whose channel was lost are the broker's again: nothing is sent for them. */
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
export type Unsettled = { readonly channel: Channel; readonly tags: Set<number> };

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

/** What a consumer does on the channel that it has now. */
type Taking = {
  readonly channel: Channel;
  readonly signal: AbortSignal;
  consumerTag: string | undefined;
  prefetch: number | undefined;
  /** Messages taken so far. */
  taken: number;
  /** How many those were at the last look. */
  takenAtLook: number;
  /** Looks in a row between which nothing was taken. */
  quietLooks: number;
  /** Those among them at which messages waited in the queue though there was room for them here. */
  owedLooks: number;
};

/** How often a consumer looks whether it gets what it should, in milliseconds: three looks end its silence. */
const LOOK_MS = 700;

/**
 * One that is at work, or has had nothing for this many looks, has less to fear: only every look of this number asks
 * the broker then.
 */
const LOOKS_A_QUESTION = 10;

/**
 * What is wanted is written down at once and then brought about, one step after the other: what is asked for
 * while a channel opens, or in quick succession, would otherwise consume twice or not at all.
 */
class QueueConsumer implements Consumer {
  readonly #queue: string;
  readonly #unsettled: WeakMap<AbortSignal, Unsettled>;
  readonly #handle: (delivery: TaskDelivery) => void;
  #prefetch: number;
  #isPaused = false;
  #mayLook = true;
  #isStopped = false;
  #channel: SupervisedChannel | undefined;
  #taking: Taking | undefined;
  #changing: Promise<void> = Promise.resolve();

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
    this.#channel = connection.channel("work queue", async ({ channel, signal, keep }) => {
      this.#unsettled.set(signal, { channel, tags: new Set() });
      const taking: Taking = {
        ...{ channel, signal, consumerTag: undefined, prefetch: undefined },
        ...{ taken: 0, takenAtLook: 0, quietLooks: 0, owedLooks: 0 },
      };
      this.#taking = taking;
      await this.#adapt();
      await keep(() => this.#renewIfForgotten(taking), LOOK_MS);
    });
    await this.#channel.opened();
  }

  setPrefetch(prefetch: number): Promise<void> {
    this.#prefetch = prefetch;
    return this.#adaptOrRenew();
  }

  pause(): Promise<void> {
    this.#isPaused = true;
    return this.#adaptOrRenew();
  }

  resume(): Promise<void> {
    this.#isPaused = false;
    return this.#adaptOrRenew();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#adaptOrRenew();
    this.#channel?.stop();
  }

  /** The channel may close at any moment: when it opens again it is set up as it should be by then. */
  async #adaptOrRenew(): Promise<void> {
    const taking = this.#taking;
    try {
      await this.#adapt();
    } catch {
      if (taking === this.#taking) this.#channel?.renew();
    }
  }

  #adapt(): Promise<void> {
    const change = this.#changing.then(() => this.#bringAbout());
    this.#changing = change.catch(() => {});
    return change;
  }

  async #bringAbout(): Promise<void> {
    const taking = this.#taking;
    if (taking === undefined || taking.signal.aborted) return;
    const { channel, consumerTag } = taking;
    const isWanted = !this.#isPaused && !this.#isStopped;
    if (consumerTag !== undefined && (!isWanted || taking.prefetch !== this.#prefetch)) {
      taking.consumerTag = undefined;
      await channel.cancel(consumerTag);
    }
    if (!isWanted || taking.consumerTag !== undefined) return;
    // A prefetch counts for consumers that begin after it.
    taking.prefetch = this.#prefetch;
    await channel.prefetch(taking.prefetch);
    await this.#consumeOn(taking);
  }

  async #consumeOn(taking: Taking): Promise<void> {
    const { channel, signal } = taking;
    const tags = this.#unsettled.get(signal)?.tags;
    const { consumerTag } = await channel.consume(this.#queue, (message) => {
      if (signal.aborted) return;
      if (message === null) {
        // Cancelled by the broker: the queue is gone, or its consumer took too long.
        this.#channel?.renew();
        return;
      }
      taking.taken += 1;
      tags?.add(message.fields.deliveryTag);
      this.#handle(new TaskDelivery(message, signal));
    });
    taking.consumerTag = consumerTag;
  }

  /**
   * A quorum queue that is deleted and declared again by someone else at once forgets its consumers without a word
   * (seen with 3.10.8). One that gets nothing from one look to the next, though there was something both times,
   * is such a one.
   */
  async #renewIfForgotten(taking: Taking): Promise<void> {
    const { channel, signal, consumerTag, taken } = taking;
    if (taking.takenAtLook !== taken) {
      taking.takenAtLook = taken;
      taking.quietLooks = 0;
      taking.owedLooks = 0;
      return;
    }
    taking.quietLooks += 1;
    const unsettled = this.#unsettled.get(signal)?.tags.size ?? 0;
    const mayGetMore = consumerTag !== undefined && unsettled < this.#prefetch;
    if (!this.#mayLook || !mayGetMore) return;
    const isPressing = taking.owedLooks > 0 || (unsettled === 0 && taking.quietLooks < LOOKS_A_QUESTION);
    if (!isPressing && taking.quietLooks % LOOKS_A_QUESTION !== 0) return;
    const messageCount = await this.#countOn(channel);
    if (taking.taken !== taken || taking.consumerTag !== consumerTag) return;
    taking.owedLooks = messageCount === 0 ? 0 : taking.owedLooks + 1;
    if (taking.owedLooks > 1) this.#channel?.renew();
  }

  async #countOn(channel: Channel): Promise<number> {
    try {
      return (await channel.checkQueue(this.#queue)).messageCount;
    } catch (error) {
      // It costs the channel each time, and some brokers want more rights for it than for consuming.
      if (/ACCESS[_-]REFUSED/.test(messageOf(error))) this.#mayLook = false;
      throw error;
    }
  }
}

function isReturned(outcome: PublishOutcome | undefined): boolean {
  return outcome?.ok === false && outcome.error instanceof PublishReturnedError;
}
