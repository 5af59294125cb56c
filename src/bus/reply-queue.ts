import type { ConsumeMessage } from "amqplib";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import { OWN_QUEUE } from "./topology.js";

/** AMQP `type` of the message by which a caller asks for more parts of an answer; its header says how many. */
export const CREDIT_TYPE = "credit";
export const CREDIT_HEADER = "x-credit";

/** Someone who waits for answers: told of each, or that there will be no more. */
export type Waiter = {
  readonly take: (message: ConsumeMessage) => void;
  readonly lose: () => void;
};

/**
 * The queue of this process to which answers come, exclusive to its connection. They find their caller by
 * correlation id; those that come too late are dropped and counted. When the connection is lost, whoever waits
 * is told at once.
 */
export class ReplyQueue {
  readonly #channel: SupervisedChannel;
  readonly #onCredit: (message: ConsumeMessage) => void;
  readonly #waiting = new Map<string, Waiter>();
  #name: string | undefined;
  #late = 0;

  /** @param onCredit takes what comes here that is no answer: someone wants more parts of one of ours */
  constructor(consuming: SupervisedConnection, onCredit: (message: ConsumeMessage) => void) {
    this.#onCredit = onCredit;
    this.#channel = consuming.channel("replies", async ({ channel, signal }) => {
      const { queue } = await channel.assertQueue("", OWN_QUEUE);
      await channel.consume(
        queue,
        (message) => {
          if (message === null) this.#channel.renew();
          else this.#receive(message);
        },
        { noAck: true },
      );
      this.#name = queue;
      signal.addEventListener("abort", () => this.#loseAll(), { once: true });
    });
  }

  /** Answers that came when nobody waited for them any more. */
  get late(): number {
    return this.#late;
  }

  /** Its name, once there is one; undefined when the bus is stopped, or whoever waited gave up. */
  async opened(signal?: AbortSignal): Promise<string | undefined> {
    await this.#channel.opened(signal);
    return this.#name;
  }

  /** The name that it has now. */
  get name(): string | undefined {
    return this.#name;
  }

  /** @returns ends the wait */
  expect(correlationId: string, waiter: Waiter): () => void {
    this.#waiting.set(correlationId, waiter);
    return () => void this.#waiting.delete(correlationId);
  }

  #receive(message: ConsumeMessage): void {
    const { correlationId, type } = message.properties;
    if (type === CREDIT_TYPE) {
      this.#onCredit(message);
      return;
    }
    const waiter = this.#waiting.get(String(correlationId));
    if (waiter === undefined) this.#late += 1;
    else waiter.take(message);
  }

  #loseAll(): void {
    this.#name = undefined;
    for (const waiter of [...this.#waiting.values()]) waiter.lose();
  }
}
