import type { ConfirmChannel, Options } from "amqplib";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import {
  type BusError,
  PublishAbandonedError,
  PublishRejectedError,
  PublishReturnedError,
  PublishUnknownError,
} from "./errors.js";

/** A message and its address. */
export type Outgoing = {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly options: Options.Publish;
};

export type PublishOutcome = { readonly ok: true } | { readonly ok: false; readonly error: BusError };

const TAKEN: PublishOutcome = { ok: true };

export type PublisherOptions = {
  /** Messages sent and not yet confirmed at most; more have to wait. */
  readonly maxUnconfirmed: number;
  /** Their bytes at most. */
  readonly maxUnconfirmedBytes: number;
};

/**
 * Sends messages and learns what became of each: taken, refused, returned because nobody takes them, or
 * unknown because the channel was lost. What is under way is bounded; senders wait for room, in their order.
 */
export class Publisher {
  readonly #connection: SupervisedConnection;
  readonly #channel: SupervisedChannel<ConfirmChannel>;
  readonly #options: PublisherOptions;
  /** Message ids that the broker returned; it does so before it confirms. */
  readonly #returned = new Set<string>();
  #unconfirmed = 0;
  #unconfirmedBytes = 0;
  #sent = 0;
  readonly #waiting = new Set<() => void>();

  constructor(connection: SupervisedConnection, name: string, options: PublisherOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#channel = connection.confirmChannel(name, async ({ channel }) => {
      this.#returned.clear();
      channel.on("return", ({ properties }) => this.#returned.add(String(properties.messageId)));
      channel.on("drain", () => this.#wake());
    });
    connection.onUnblocked(() => this.#wake());
  }

  /** Whether a message could be sent at once. */
  get isOpen(): boolean {
    return this.#channel.current !== undefined && !this.#connection.isBlocked;
  }

  /**
   * Sends messages, all on their way together; resolves with what became of each, in their order.
   * @param signal ends the wait for room or a connection; those not sent by then are abandoned
   */
  async publish(messages: readonly Outgoing[], signal?: AbortSignal): Promise<readonly PublishOutcome[]> {
    const outcomes: PublishOutcome[] = new Array(messages.length);
    let pending = messages.length;
    if (pending === 0) return outcomes;
    let settle: () => void = () => {};
    const settled = new Promise<void>((resolve) => {
      settle = resolve;
    });
    const conclude = (index: number, outcome: PublishOutcome) => {
      outcomes[index] = outcome;
      pending -= 1;
      if (pending === 0) settle();
    };
    for (let index = 0; index < messages.length; index += 1) {
      const message = messages[index];
      if (message === undefined) continue;
      while (!this.#hasRoomFor(message)) {
        if (!(await this.#roomMade(signal))) break;
      }
      if (this.#hasRoomFor(message)) this.#send(message, (outcome) => conclude(index, outcome));
      else
        conclude(index, { ok: false, error: new PublishAbandonedError("gave up waiting to send a message") });
    }
    await settled;
    return outcomes;
  }

  #hasRoomFor(message: Outgoing): boolean {
    if (!this.isOpen || this.#unconfirmed >= this.#options.maxUnconfirmed) return false;
    // One that is larger than the bound by itself may go alone.
    const bytes = this.#unconfirmedBytes + message.body.length;
    return this.#unconfirmed === 0 || bytes <= this.#options.maxUnconfirmedBytes;
  }

  #send(message: Outgoing, conclude: (outcome: PublishOutcome) => void): void {
    const open = this.#channel.current;
    if (open === undefined) return;
    const { exchange, routingKey, body, options } = message;
    this.#sent += 1;
    const messageId = options.messageId ?? `${this.#sent}`;
    this.#unconfirmed += 1;
    this.#unconfirmedBytes += body.length;
    const done = (error: unknown) => {
      this.#unconfirmed -= 1;
      this.#unconfirmedBytes -= body.length;
      this.#wake();
      if (options.mandatory === true && this.#returned.delete(messageId)) {
        const to = exchange === "" ? routingKey : exchange;
        conclude({ ok: false, error: new PublishReturnedError(`no queue takes messages to ${to}`) });
      } else if (error === null || error === undefined) {
        conclude(TAKEN);
      } else if (open.signal.aborted || !this.isOpen) {
        const lost = "the connection was lost before a message was confirmed";
        conclude({ ok: false, error: new PublishUnknownError(lost, { cause: error }) });
      } else {
        const refused = `the broker refused a message to ${routingKey}`;
        conclude({ ok: false, error: new PublishRejectedError(refused, { cause: error }) });
      }
    };
    try {
      open.channel.publish(exchange, routingKey, body, { ...options, messageId }, done);
    } catch (error) {
      done(error);
    }
  }

  /** Resolves with whether it is worth looking again. */
  async #roomMade(signal: AbortSignal | undefined): Promise<boolean> {
    if (signal?.aborted === true) return false;
    if (this.#channel.current === undefined) return (await this.#channel.opened(signal)) !== undefined;
    return new Promise((resolve) => {
      const finish = () => {
        this.#waiting.delete(finish);
        signal?.removeEventListener("abort", finish);
        resolve(signal?.aborted !== true);
      };
      signal?.addEventListener("abort", finish, { once: true });
      this.#waiting.add(finish);
    });
  }

  #wake(): void {
    for (const finish of [...this.#waiting]) finish();
  }

  /** Resolves when nothing is unconfirmed any more, or the time is over. */
  async settled(timeoutMs: number): Promise<void> {
    const deadline = AbortSignal.timeout(timeoutMs);
    while (this.#unconfirmed > 0 && !deadline.aborted) {
      await new Promise<void>((resolve) => {
        const finish = () => {
          this.#waiting.delete(finish);
          deadline.removeEventListener("abort", finish);
          resolve();
        };
        deadline.addEventListener("abort", finish, { once: true });
        this.#waiting.add(finish);
      });
    }
  }
}
