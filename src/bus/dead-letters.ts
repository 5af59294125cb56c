import type { ConsumeMessage } from "amqplib";
import type { SupervisedConnection } from "./connection.js";
import { PublishUnknownError } from "./errors.js";
import type { DeadLetterReason } from "./messages.js";
import type { Publisher } from "./publisher.js";
import type { Names } from "./topology.js";

/** A message given up, and what is known about it. */
export type DeadLetter = {
  readonly body: Buffer;
  readonly contentType: string | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
};

export type DeadLetterReport = {
  readonly reason: DeadLetterReason;
  /** What was wrong, for people. */
  readonly error: string;
};

/** What the broker calls a reason, and what we do. */
const REASON_OF: Readonly<Record<string, DeadLetterReason>> = {
  expired: "expired",
  delivery_limit: "delivery-limit",
  rejected: "rejected",
  maxlen: "rejected",
};

/** Messages that could not be processed, for whoever wants to look at them. */
export class DeadLetters {
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #consuming: SupervisedConnection;

  constructor(names: Names, publisher: Publisher, consuming: SupervisedConnection) {
    this.#names = names;
    this.#publisher = publisher;
    this.#consuming = consuming;
  }

  /** Sends a message to the dead letters, as it came. @throws BusError when it could not be sent */
  async send(letter: DeadLetter, report: DeadLetterReport): Promise<void> {
    const { contentType, messageId, replyTo, correlationId } = letter;
    const [outcome] = await this.#publisher.publish([
      {
        exchange: this.#names.dead(),
        routingKey: "",
        body: letter.body,
        options: {
          persistent: true,
          headers: {
            ...letter.headers,
            "x-reason": report.reason,
            "x-error": report.error.slice(0, 2_000),
            "x-first-queue": this.#names.tasks(),
          },
          ...(contentType !== undefined && { contentType }),
          ...(messageId !== undefined && { messageId }),
          ...(replyTo !== undefined && { replyTo }),
          ...(correlationId !== undefined && { correlationId }),
        },
      },
    ]);
    if (outcome?.ok === false) throw outcome.error;
  }

  /**
   * Takes what the broker itself gave up (expired, delivered too often), from now on.
   * @param handle resolves when it has been dealt with; when it rejects, the message comes again
   */
  async takeRejected(
    handle: (letter: DeadLetter, report: DeadLetterReport) => Promise<void>,
  ): Promise<() => Promise<void>> {
    const channel = this.#consuming.channel("rejected messages", async (open) => {
      await open.channel.prefetch(50);
      await open.channel.consume(this.#names.rejected(), (message) => {
        if (message === null) {
          channel.renew();
          return;
        }
        handle(letterOf(message), reportOf(message)).then(
          () => {
            if (!open.signal.aborted) open.channel.ack(message);
          },
          (error: unknown) => {
            if (open.signal.aborted || error instanceof PublishUnknownError) return;
            open.channel.nack(message);
          },
        );
      });
    });
    await channel.opened();
    return () => channel.close();
  }
}

function letterOf({ content, properties }: ConsumeMessage): DeadLetter {
  // What the broker noted belongs to this passage; sent on, it would be read as the next one's.
  const { "x-death": _death, ...headers } = properties.headers ?? {};
  const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);
  return {
    body: content,
    contentType: text(properties.contentType),
    headers,
    messageId: text(properties.messageId),
    replyTo: text(properties.replyTo),
    correlationId: text(properties.correlationId),
  };
}

function reportOf({ properties }: ConsumeMessage): DeadLetterReport {
  const brokersReason = String(properties.headers?.["x-first-death-reason"] ?? "rejected");
  return {
    reason: REASON_OF[brokersReason] ?? "rejected",
    error: `the broker gave the message up: ${brokersReason.replaceAll("_", " ")}`,
  };
}
