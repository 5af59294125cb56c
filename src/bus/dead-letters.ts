import { setMaxListeners } from "node:events";
import type { ConsumeMessage } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { DIRECT_REPLY_TO } from "./answers.js";
import { AtHand } from "./at-hand.js";
import type { OpenChannel, SupervisedConnection } from "./connection.js";
import { PublishAbandonedError, PublishUnencodableError } from "./errors.js";
import { type DeadLetterReason, subjectOf } from "./messages.js";
import type { Outgoing, Publisher, PublishOutcome } from "./publisher.js";
import type { Names } from "./topology.js";

/** A message given up, and what is known about it. */
export type DeadLetter = {
  readonly body: Buffer;
  readonly contentType: string | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
  /** Whether the broker has handed it out before. */
  readonly redelivered?: boolean;
};

export type DeadLetterReport = {
  readonly reason: DeadLetterReason;
  /** What was wrong, for people. */
  readonly error: string;
  /** The queue in which it was. @default the task queue */
  readonly firstQueue?: string;
  /** How often it was handed out. @default as far as the broker tells */
  readonly count?: number;
  /** Of a URL that ended its workers: which, and when, in milliseconds since the epoch. */
  readonly crashes?: readonly { readonly node?: string; readonly at: number }[];
};

/** A letter as it is kept, with what can be told about it. */
export type ArchivedLetter = DeadLetter &
  DeadLetterReport & {
    readonly count: number;
    readonly firstQueue: string;
    /** In milliseconds since the epoch. */
    readonly at: number;
    readonly url?: string;
    readonly host?: string;
    readonly crawl?: string;
  };

/** Where letters are kept, so that they can be looked for, replayed and discarded. */
export interface DeadLetterArchive {
  /** Keeps letters; harmless when one is there already. */
  record(letters: readonly ArchivedLetter[]): Promise<void>;
}

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

/** Letters archived together at most, and their bytes. */
const MAX_TOGETHER = 500;
const MAX_BYTES_TOGETHER = 8 * 1_048_576;

/** What we add to a message on its way to the dead letters. */
const REPORT_HEADERS = ["x-reason", "x-error", "x-first-queue", "x-count", "x-time"] as const;

/**
 * What the broker noted belongs to one passage; sent on, it would be read as the next one's. And whom else a
 * message goes to was for its sender to say, and only once.
 */
const PASSING_HEADERS = [
  "x-death",
  "x-delivery-count",
  "x-first-death-exchange",
  "x-first-death-queue",
  "x-first-death-reason",
  "x-last-death-exchange",
  "x-last-death-queue",
  "x-last-death-reason",
  "CC",
  "BCC",
] as const;

/** On a message that is replayed: its URL is to be fetched again although it has ended. */
export const AGAIN_HEADER = "x-again";

/** A letter on its way to the archive and the dead letters. */
type Pending = {
  readonly letter: ArchivedLetter;
  readonly signal: AbortSignal | undefined;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
};

/**
 * Messages that could not be processed, for whoever wants to look at them: kept in the archive first, then sent to
 * everyone who listens. Those that come together are archived together, so that a flood of garbage costs a command
 * now and then.
 */
export class DeadLetters {
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #consuming: SupervisedConnection;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #archive: DeadLetterArchive | undefined;
  readonly #deliveryLimit: number;
  #pending: Pending[] = [];
  #isArchiving = false;

  constructor(parts: {
    readonly names: Names;
    readonly publisher: Publisher;
    readonly consuming: SupervisedConnection;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly archive?: DeadLetterArchive;
    /** Of the task queue. */
    readonly deliveryLimit: number;
  }) {
    this.#archive = parts.archive;
    this.#deliveryLimit = parts.deliveryLimit;
    this.#names = parts.names;
    this.#publisher = parts.publisher;
    this.#consuming = parts.consuming;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
  }

  /**
   * Sends a message to the dead letters, as it came, after it is kept in the archive.
   * @param signal ends the wait for a connection, for example because the broker has the message again
   * @throws BusError when it could not be sent; whatever the archive throws
   */
  async send(letter: DeadLetter, report: DeadLetterReport, signal?: AbortSignal): Promise<void> {
    const archived: ArchivedLetter = {
      body: letter.body,
      contentType: letter.contentType,
      headers: withoutHeaders(letter.headers, [...PASSING_HEADERS, ...REPORT_HEADERS]),
      messageId: letter.messageId,
      replyTo: letter.replyTo,
      correlationId: letter.correlationId,
      redelivered: letter.redelivered === true,
      count: deliveriesOf(letter),
      firstQueue: this.#names.tasks(),
      ...report,
      error: report.error.slice(0, MAX_ERROR_CHARACTERS),
      at: this.#clock.now(),
      ...subjectOf(letter),
    };
    await new Promise<void>((resolve, reject) => {
      this.#pending.push({ letter: archived, signal, resolve, reject });
      if (!this.#isArchiving) void this.#archivePending();
    });
  }

  /**
   * Hands messages in again, each as it came to the queue in which it was; resolves with what became of each.
   * @param signal ends the wait for room or a connection
   */
  async replay(
    letters: readonly (DeadLetter & { readonly firstQueue: string })[],
    signal?: AbortSignal,
  ): Promise<readonly PublishOutcome[]> {
    return this.#publisher.publish(
      letters.map((letter) => ({
        exchange: "",
        routingKey: letter.firstQueue,
        body: letter.body,
        options: {
          persistent: true,
          mandatory: true,
          headers: withoutHeaders(letter.headers, [...PASSING_HEADERS, ...REPORT_HEADERS]),
          ...propertiesOf(letter),
        },
      })),
      signal,
    );
  }

  async #archivePending(): Promise<void> {
    this.#isArchiving = true;
    // What is given up in the same turn is kept together.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#pending.length > 0) {
      const batch = this.#nextBatch();
      try {
        await this.#archive?.record(batch.map(({ letter }) => letter));
      } catch (error) {
        for (const { reject } of batch) reject(error);
        continue;
      }
      // Not waited for: while the broker is away, letters can be kept all the same.
      for (const pending of batch) void this.#publish(pending);
    }
    this.#isArchiving = false;
  }

  #nextBatch(): readonly Pending[] {
    let bytes = 0;
    let end = 0;
    for (const { letter } of this.#pending) {
      bytes += letter.body.length;
      if (end === MAX_TOGETHER || (end > 0 && bytes > MAX_BYTES_TOGETHER)) break;
      end += 1;
    }
    const batch = this.#pending.slice(0, end);
    this.#pending = this.#pending.slice(end);
    const isOver = ({ signal }: Pending) => signal?.aborted === true;
    for (const { reject } of batch.filter(isOver)) {
      reject(new PublishAbandonedError("gave up waiting to send a dead letter"));
    }
    return batch.filter((pending) => !isOver(pending));
  }

  async #publish({ letter, signal, resolve, reject }: Pending): Promise<void> {
    const ours = {
      "x-reason": letter.reason,
      "x-error": letter.error,
      "x-first-queue": letter.firstQueue,
      "x-count": letter.count,
      "x-time": new Date(letter.at).toISOString(),
    };
    const message: Outgoing = {
      exchange: this.#names.dead(),
      routingKey: "",
      body: letter.body,
      options: { persistent: true, headers: ours, ...propertiesOf(letter) },
    };
    const whole: Outgoing = {
      ...message,
      options: { ...message.options, headers: { ...letter.headers, ...ours } },
    };
    let [outcome] = await this.#publisher.publish([whole], signal);
    // What came in cannot always go out again: headers may be larger than our client sends, or of types that it
    // does not write. All else can.
    if (outcome?.ok === false && outcome.error instanceof PublishUnencodableError) {
      [outcome] = await this.#publisher.publish([message], signal);
    }
    if (outcome?.ok === false) reject(outcome.error);
    else resolve();
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
          await handle(letterOf(message), this.#reportOf(message));
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

  #reportOf({ properties }: ConsumeMessage): DeadLetterReport {
    const brokersReason = String(properties.headers?.["x-first-death-reason"] ?? "rejected");
    return {
      reason: REASON_OF[brokersReason] ?? "rejected",
      error: `the broker gave the message up: ${brokersReason.replaceAll("_", " ")}`,
      // The broker does not say how often: it is handed out once more than it may come back.
      firstQueue: this.#taskQueueOf(properties.headers?.["x-first-death-queue"]),
      count: { delivery_limit: this.#deliveryLimit + 1, rejected: 1 }[brokersReason] ?? 0,
    };
  }

  /** A header that anyone may have written: what is replayed must not go to other than a queue of tasks. */
  #taskQueueOf(header: unknown): string {
    const tasks = this.#names.tasks();
    return typeof header === "string" && header.startsWith(this.#names.tasksOf("")) ? header : tasks;
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

function withoutHeaders(
  headers: Readonly<Record<string, unknown>>,
  names: readonly string[],
): Record<string, unknown> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));
}

/** A quorum queue counts from the second time on that it hands a message out. */
function deliveriesOf({ headers }: DeadLetter): number {
  const before = headers["x-delivery-count"];
  return typeof before === "number" ? before + 1 : 1;
}

function propertiesOf({ contentType, messageId, replyTo, correlationId }: DeadLetter) {
  return {
    ...(contentType !== undefined && { contentType }),
    ...(messageId !== undefined && { messageId }),
    // By that name the broker would look for a consumer of ours, and close the channel for want of one.
    ...(replyTo !== undefined && replyTo !== DIRECT_REPLY_TO && { replyTo }),
    ...(correlationId !== undefined && { correlationId }),
  };
}

function letterOf({ content, properties, fields }: ConsumeMessage): DeadLetter {
  const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);
  return {
    body: content,
    contentType: text(properties.contentType),
    headers: properties.headers ?? {},
    messageId: text(properties.messageId),
    replyTo: text(properties.replyTo),
    correlationId: text(properties.correlationId),
    redelivered: fields.redelivered,
  };
}
