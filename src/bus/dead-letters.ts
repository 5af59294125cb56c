import { setMaxListeners } from "node:events";
import type { ConsumeMessage } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { DIRECT_REPLY_TO } from "./answers.js";
import { AtHand } from "./at-hand.js";
import type { OpenChannel, SupervisedConnection } from "./connection.js";
import { PublishUnencodableError } from "./errors.js";
import type { DeadLetterReason } from "./messages.js";
import type { Outgoing, Publisher } from "./publisher.js";
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

/** Rejected messages that are handled at once. */
const PREFETCH = 50;

/** How long a stop waits for those at hand, in milliseconds. */
const STOP_GRACE_MS = 5_000;

/** Longest wait before one that could not be dealt with is tried again, in milliseconds. */
const MAX_RETRY_MS = 10_000;

const MAX_ERROR_CHARACTERS = 2_000;

/** Messages that could not be processed, for whoever wants to look at them. */
export class DeadLetters {
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #consuming: SupervisedConnection;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(parts: {
    readonly names: Names;
    readonly publisher: Publisher;
    readonly consuming: SupervisedConnection;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#names = parts.names;
    this.#publisher = parts.publisher;
    this.#consuming = parts.consuming;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
  }

  /**
   * Sends a message to the dead letters, as it came.
   * @param signal ends the wait for a connection, for example because the broker has the message again
   * @throws BusError when it could not be sent
   */
  async send(letter: DeadLetter, report: DeadLetterReport, signal?: AbortSignal): Promise<void> {
    const { contentType, messageId, replyTo, correlationId, headers } = letter;
    // What the broker noted belongs to this passage; sent on, it would be read as the next one's.
    // And whom else a message goes to was for its sender to say, and only once.
    const { "x-death": _death, "x-delivery-count": _count, CC: _cc, BCC: _bcc, ...kept } = headers;
    const ours = {
      "x-reason": report.reason,
      "x-error": report.error.slice(0, MAX_ERROR_CHARACTERS),
      "x-first-queue": this.#names.tasks(),
    };
    const message: Outgoing = {
      exchange: this.#names.dead(),
      routingKey: "",
      body: letter.body,
      options: { persistent: true, headers: ours },
    };
    const whole: Outgoing = {
      ...message,
      options: {
        persistent: true,
        headers: { ...kept, ...ours },
        ...(contentType !== undefined && { contentType }),
        ...(messageId !== undefined && { messageId }),
        // By that name the broker would look for a consumer of ours, and close the channel for want of one.
        ...(replyTo !== undefined && replyTo !== DIRECT_REPLY_TO && { replyTo }),
        ...(correlationId !== undefined && { correlationId }),
      },
    };
    let [outcome] = await this.#publisher.publish([whole], signal);
    // What came in cannot always go out again: headers may be larger than our client sends. The body can.
    if (outcome?.ok === false && outcome.error instanceof PublishUnencodableError) {
      [outcome] = await this.#publisher.publish([message], signal);
    }
    if (outcome?.ok === false) throw outcome.error;
  }

  /**
   * Takes what the broker itself gave up (expired, delivered too often), from now on.
   * @param handle resolves when it has been dealt with; when it rejects, it is called again after a while
   * @returns ends it: takes no more, and resolves when what is being handled is over
   */
  async takeRejected(
    handle: (letter: DeadLetter, report: DeadLetterReport) => Promise<void>,
  ): Promise<() => Promise<void>> {
    const atHand = new AtHand(this.#clock);
    const stopping = new AbortController();
    setMaxListeners(0, stopping.signal);
    const take = async (message: ConsumeMessage, { channel, signal }: OpenChannel) => {
      let failures = 0;
      // Given back to the broker it would come again at once, and be dropped when that has happened too often.
      while (!signal.aborted && !stopping.signal.aborted) {
        try {
          await handle(letterOf(message), reportOf(message));
          if (!signal.aborted) channel.ack(message);
          return;
        } catch (error) {
          failures += 1;
          const waitMs = Math.min(MAX_RETRY_MS, 100 * 2 ** Math.min(failures, 10));
          const facts = { error: messageOf(error), attempt: failures, waitMs };
          this.#logger.warn(facts, "could not deal with a rejected message; trying again");
          await this.#wait(waitMs, [signal, stopping.signal]);
        }
      }
    };
    const supervised = this.#consuming.channel("rejected messages", async (open) => {
      await open.channel.prefetch(PREFETCH);
      await open.channel.consume(this.#names.rejected(), (message) => {
        if (message === null) {
          supervised.renew();
          return;
        }
        if (stopping.signal.aborted) return;
        atHand.add(take(message, open));
      });
    });
    await supervised.opened();
    return async () => {
      stopping.abort();
      await atHand.settled(STOP_GRACE_MS);
      await supervised.close();
    };
  }

  /** Resolves after a while, or as soon as one of the signals is aborted. */
  async #wait(ms: number, signals: readonly AbortSignal[]): Promise<void> {
    await new Promise<void>((resolve) => {
      const finish = () => {
        stopTimer();
        for (const signal of signals) signal.removeEventListener("abort", finish);
        resolve();
      };
      const stopTimer = this.#clock.after(ms, finish);
      for (const signal of signals) signal.addEventListener("abort", finish, { once: true });
    });
  }
}

function letterOf({ content, properties }: ConsumeMessage): DeadLetter {
  const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);
  return {
    body: content,
    contentType: text(properties.contentType),
    headers: properties.headers ?? {},
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
