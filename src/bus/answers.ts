import type { Logger } from "../lib/logger.js";
import type { SupervisedConnection } from "./connection.js";
import { PublishUnknownError } from "./errors.js";
import { type Outgoing, Publisher, type PublishOutcome } from "./publisher.js";

export type Answer = {
  /** The queue that whoever asked has named. */
  readonly replyTo: string;
  readonly correlationId: string | undefined;
  /** JSON. */
  readonly body: Buffer;
  readonly headers?: Readonly<Record<string, string | number | boolean>>;
  /** Where whoever gets it may answer in turn. */
  readonly from?: string;
  /** A queue that is gone is told as an error; it cannot be told of direct replies. */
  readonly mandatory?: boolean;
  /** Whether it should outlive the broker in a queue that does. */
  readonly persistent?: boolean;
};

/** Longest wait for an answer to be confirmed, in milliseconds. */
const TIMEOUT_MS = 10_000;

/** What the broker makes of the `reply_to` of someone who consumes from the queue of this name, which is none. */
export const DIRECT_REPLY_TO = "amq.rabbitmq.reply-to";

/**
 * Sends answers, through the default exchange, to addresses that anyone may have written.
 *
 * RabbitMQ reads an address of a direct reply (`amq.rabbitmq.reply-to.…`) without checking it, and closes the
 * whole connection (541) when it cannot, or when it names a cluster node that does not run: seen with 3.10.8.
 * What is right cannot be told from here, for it depends on that node. So such answers have a connection of
 * their own, which is opened for the first of them, and go over it one at a time: an address that costs the
 * connection costs nobody else an answer.
 */
export class Answers {
  readonly #publisher: Publisher;
  readonly #directConnection: SupervisedConnection;
  readonly #direct: Publisher;
  readonly #logger: Logger;

  constructor(parts: {
    readonly publisher: Publisher;
    readonly direct: SupervisedConnection;
    readonly logger: Logger;
  }) {
    this.#publisher = parts.publisher;
    this.#directConnection = parts.direct;
    this.#logger = parts.logger;
    const oneAtATime = { maxUnconfirmed: 1, maxUnconfirmedBytes: 1, redeclares: false };
    this.#direct = new Publisher(parts.direct, "direct replies", oneAtATime);
  }

  /**
   * Resolves with whether it was sent; a queue that is not there (any more) is nobody's fault. When the
   * connection is lost it is sent again, so that it may arrive twice; but not as a direct reply: its receiver
   * may be what the connection was lost for, and if not is gone itself.
   */
  async send(answer: Answer): Promise<PublishOutcome> {
    const message = messageOf(answer);
    if (!answer.replyTo.startsWith(DIRECT_REPLY_TO)) return this.#sendUntilKnown(message);
    this.#directConnection.open();
    const outcome = await this.#direct.send(message, () => AbortSignal.timeout(TIMEOUT_MS));
    if (!wasLost(outcome)) return outcome;
    this.#logger.warn({ replyTo: answer.replyTo }, "an answer was lost: RabbitMQ may not know its address");
    return { ok: true };
  }

  /** Resolves when nothing is under way any more, or the time is over. */
  async settled(timeoutMs: number): Promise<void> {
    if (this.#directConnection.isUp) await this.#direct.settled(timeoutMs);
  }

  async #sendUntilKnown(message: Outgoing): Promise<PublishOutcome> {
    let signal: AbortSignal | undefined;
    const patience = () => {
      signal ??= AbortSignal.timeout(TIMEOUT_MS);
      return signal;
    };
    for (;;) {
      const outcome = await this.#publisher.send(message, patience);
      if (!wasLost(outcome) || patience().aborted) return outcome;
    }
  }
}

function wasLost(outcome: PublishOutcome): boolean {
  return !outcome.ok && outcome.error instanceof PublishUnknownError;
}

function messageOf({ replyTo, correlationId, body, headers, from, persistent, mandatory }: Answer): Outgoing {
  return {
    exchange: "",
    routingKey: replyTo,
    body,
    options: {
      contentType: "application/json",
      ...(correlationId !== undefined && { correlationId }),
      ...(headers !== undefined && { headers: { ...headers } }),
      ...(from !== undefined && { replyTo: from }),
      // RabbitMQ returns direct replies that it has delivered: seen with 3.10.8.
      ...(mandatory === true && !replyTo.startsWith(DIRECT_REPLY_TO) && { mandatory }),
      ...(persistent !== undefined && { persistent }),
    },
  };
}
