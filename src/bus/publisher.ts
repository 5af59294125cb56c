import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { type ConfirmChannel, IllegalOperationError, type Options } from "amqplib";
import { messageOf } from "../lib/errors.js";
import type { OpenChannel, SupervisedChannel, SupervisedConnection } from "./connection.js";
import {
  type BusError,
  PublishAbandonedError,
  PublishRejectedError,
  PublishReturnedError,
  PublishUnencodableError,
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
  /** Whether it sends to what Warren itself declares, so that what is missing there is declared anew. @default true */
  readonly redeclares?: boolean;
  /**
   * All that it sends goes to one quorum queue. A channel that is opened while another member of a cluster comes to
   * lead such a queue may refuse everything for it until the former leader is back (seen with 3.10.8), where a newer
   * channel would not. So one that refuses before it has ever taken anything is replaced. @default false
   */
  readonly toOneQueue?: boolean;
};

/**
 * Ends the wait for room or a connection. Most messages need not wait, and a signal costs as much as sending one:
 * a function is asked for its signal by the first message that has to.
 */
export type Patience = AbortSignal | (() => AbortSignal);

/** A message that waits for room. */
type Waiting = {
  readonly message: Outgoing;
  readonly patience: PatienceOfSender | undefined;
  readonly conclude: (outcome: PublishOutcome) => void;
};

/** What is known about a channel that was used for sending. */
type Sending = {
  readonly open: OpenChannel<ConfirmChannel>;
  /** How many messages of an id the broker returned; it does so before it confirms. */
  readonly returned: Map<string, number>;
  /** The exchange for which the broker closed the channel, since it is not there or we have no right to it. */
  refusedExchange: { readonly name: string; readonly isMissing: boolean } | undefined;
  /** The message that asked for it was come upon: those sent after it were never looked at. */
  isCulpritFound: boolean;
  /** The broker took something that was sent on it. */
  hasTaken: boolean;
  /** To be replaced as soon as nothing is under way on it. */
  isDoubtful: boolean;
};

/**
 * Sends messages and learns what became of each: taken, refused, returned because nobody takes them, or
 * unknown because the channel was lost. What is under way is bounded; messages wait for room in the order in
 * which they came, whoever sends them, so that neither a large one nor a small sender is passed over.
 *
 * An exchange that does not exist, or that we have no right to, costs the channel. The broker works off a channel in order, so what was sent
 * before the message with that address was routed, and what was sent after it was not: that is sent again.
 */
export class Publisher {
  readonly #connection: SupervisedConnection;
  readonly #channel: SupervisedChannel<ConfirmChannel>;
  readonly #options: PublisherOptions;
  readonly #idPrefix = randomUUID().slice(0, 8);
  readonly #waiting = new Set<Waiting>();
  readonly #onQuiet = new Set<() => void>();
  #sending: Sending | undefined;
  #unconfirmed = 0;
  #unconfirmedBytes = 0;
  #sent = 0;
  #isAwaitingChannel = false;

  constructor(connection: SupervisedConnection, name: string, options: PublisherOptions) {
    this.#connection = connection;
    this.#options = options;
    const { redeclares = true } = options;
    this.#channel = connection.confirmChannel(name, redeclares, async (open) => {
      const sending: Sending = {
        open,
        returned: new Map(),
        refusedExchange: undefined,
        isCulpritFound: false,
        hasTaken: false,
        isDoubtful: false,
      };
      const { returned } = sending;
      open.channel.on("return", ({ properties }) => {
        const id = String(properties.messageId);
        returned.set(id, (returned.get(id) ?? 0) + 1);
      });
      open.channel.on("error", (error: unknown) => {
        sending.refusedExchange = refusedExchangeIn(messageOf(error));
      });
      this.#sending = sending;
      // What was about to be sent when it closed must not wait for the next sender to come along.
      open.signal.addEventListener("abort", () => this.#pump(), { once: true });
    });
    connection.onUnblocked(() => this.#pump());
  }

  /** Whether a message could be sent at once. */
  get isOpen(): boolean {
    return this.#channel.current !== undefined && !this.#connection.isBlocked;
  }

  /**
   * Sends a message; resolves with what became of it.
   * @param patience ends the wait for room or a connection; what was not sent by then is abandoned
   */
  send(message: Outgoing, patience?: Patience): Promise<PublishOutcome> {
    return new Promise((resolve) => {
      const own = this.#patienceOf(patience, () => [waiting]);
      const conclude = (outcome: PublishOutcome) => {
        own?.end();
        resolve(outcome);
      };
      const waiting: Waiting = { message, patience: own, conclude };
      this.#enqueue([waiting], own);
    });
  }

  /**
   * Sends messages, all on their way together; resolves with what became of each, in their order.
   * @param patience ends the wait for room or a connection; those not sent by then are abandoned
   */
  publish(messages: readonly Outgoing[], patience?: Patience): Promise<readonly PublishOutcome[]> {
    if (messages.length === 0) return Promise.resolve([]);
    return new Promise((resolve) => {
      const outcomes: PublishOutcome[] = new Array(messages.length);
      let pending = messages.length;
      const own = this.#patienceOf(patience, () => all);
      const all = messages.map(
        (message, index): Waiting => ({
          message,
          patience: own,
          conclude: (outcome) => {
            outcomes[index] = outcome;
            pending -= 1;
            if (pending > 0) return;
            own?.end();
            resolve(outcomes);
          },
        }),
      );
      this.#enqueue(all, own);
    });
  }

  /** Resolves when nothing waits or is unconfirmed any more, or the time is over. */
  async settled(timeoutMs: number): Promise<void> {
    if (this.#isQuiet) return;
    await new Promise<void>((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.#onQuiet.delete(finish);
        resolve();
      };
      const timer = setTimeout(finish, timeoutMs);
      this.#onQuiet.add(finish);
    });
  }

  get #isQuiet(): boolean {
    return this.#unconfirmed === 0 && this.#waiting.size === 0;
  }

  #patienceOf(
    patience: Patience | undefined,
    messages: () => readonly Waiting[],
  ): PatienceOfSender | undefined {
    if (patience === undefined) return undefined;
    return new PatienceOfSender(patience, () => this.#abandon(messages()));
  }

  #enqueue(messages: readonly Waiting[], patience: PatienceOfSender | undefined): void {
    if (patience?.isOver === true) {
      for (const { conclude } of messages) conclude(abandoned());
      return;
    }
    for (const waiting of messages) this.#waiting.add(waiting);
    this.#pump();
    if (patience !== undefined && messages.some((waiting) => this.#waiting.has(waiting))) patience.begin();
  }

  /** Sends what waits, as far as there is room. */
  #pump(): void {
    for (const waiting of this.#waiting) {
      if (!this.#hasRoomFor(waiting.message) || !this.#send(waiting)) break;
    }
    if (this.#waiting.size > 0 && this.#channel.current === undefined) void this.#pumpWhenOpen();
    if (this.#isQuiet) for (const finish of this.#onQuiet) finish();
  }

  async #pumpWhenOpen(): Promise<void> {
    if (this.#isAwaitingChannel) return;
    this.#isAwaitingChannel = true;
    const open = await this.#channel.opened();
    this.#isAwaitingChannel = false;
    if (open === undefined) this.#abandon([...this.#waiting]);
    this.#pump();
  }

  #abandon(waiting: readonly Waiting[]): void {
    for (const each of waiting) {
      if (!this.#waiting.delete(each)) continue;
      each.conclude(abandoned());
    }
    if (this.#isQuiet) for (const finish of this.#onQuiet) finish();
  }

  #hasRoomFor(message: Outgoing): boolean {
    if (!this.isOpen || this.#sending?.isDoubtful === true) return false;
    if (this.#unconfirmed >= this.#options.maxUnconfirmed) return false;
    // One that is larger than the bound by itself may go alone.
    const bytes = this.#unconfirmedBytes + message.body.length;
    return this.#unconfirmed === 0 || bytes <= this.#options.maxUnconfirmedBytes;
  }

  /** @returns false when the channel turned out to be closing, so that the message must wait on */
  #send(waiting: Waiting): boolean {
    const sending = this.#sending;
    if (sending === undefined) return false;
    const { exchange, routingKey, body, options } = waiting.message;
    this.#sent += 1;
    // Only what may be returned must be told apart; nothing else is given an id that its sender did not give it.
    const isReturnable = options.mandatory === true;
    const messageId = options.messageId ?? (isReturnable ? `${this.#idPrefix}-${this.#sent}` : undefined);
    const done = (error: unknown) => {
      this.#unconfirmed -= 1;
      this.#unconfirmedBytes -= body.length;
      const outcome = outcomeOf(waiting.message, messageId, sending, error);
      if (outcome === undefined) {
        this.#waiting.add(waiting);
        waiting.patience?.begin();
      } else {
        this.#judge(sending, outcome);
        waiting.conclude(outcome);
      }
      this.#pump();
    };
    try {
      const properties = messageId === undefined ? options : { ...options, messageId };
      sending.open.channel.publish(exchange, routingKey, body, properties, done);
    } catch (error) {
      if (error instanceof IllegalOperationError) {
        this.#channel.renew();
        return false;
      }
      this.#waiting.delete(waiting);
      const what = `a message to ${addressOf(waiting.message)} cannot be put into AMQP: ${messageOf(error)}`;
      waiting.conclude({ ok: false, error: new PublishUnencodableError(what, { cause: error }) });
      return true;
    }
    this.#waiting.delete(waiting);
    this.#unconfirmed += 1;
    this.#unconfirmedBytes += body.length;
    return true;
  }

  /** Learns from what became of a message whether its channel is any good. */
  #judge(sending: Sending, outcome: PublishOutcome): void {
    if (this.#options.toOneQueue !== true || this.#sending !== sending) return;
    if (outcome.ok) sending.hasTaken = true;
    else if (outcome.error instanceof PublishRejectedError && !sending.hasTaken) sending.isDoubtful = true;
    if (sending.isDoubtful && this.#unconfirmed === 0) this.#channel.renew();
  }
}

/** How long whoever sends some messages together lets them wait. */
class PatienceOfSender {
  readonly #patience: Patience;
  readonly #onOver: () => void;
  /** Once it is listened to. */
  #signal: AbortSignal | undefined;

  constructor(patience: Patience, onOver: () => void) {
    this.#patience = patience;
    this.#onOver = onOver;
  }

  /** Whether it was over before it began. */
  get isOver(): boolean {
    return typeof this.#patience !== "function" && this.#patience.aborted;
  }

  /** Some of them have to wait from now on. */
  begin(): void {
    if (this.#signal !== undefined) return;
    const signal = typeof this.#patience === "function" ? this.#patience() : this.#patience;
    this.#signal = signal;
    if (signal.aborted) {
      this.#onOver();
      return;
    }
    // Many senders may well share one.
    setMaxListeners(0, signal);
    signal.addEventListener("abort", this.#onOver, { once: true });
  }

  /** All of them were sent, or given up. */
  end(): void {
    this.#signal?.removeEventListener("abort", this.#onOver);
  }
}

function abandoned(): PublishOutcome {
  return { ok: false, error: new PublishAbandonedError("gave up waiting to send a message") };
}

/** What became of a message; undefined when it was not taken and is to be sent again. */
function outcomeOf(
  message: Outgoing,
  messageId: string | undefined,
  sending: Sending,
  error: unknown,
): PublishOutcome | undefined {
  const { exchange, options } = message;
  const to = addressOf(message);
  if (options.mandatory === true && wasReturned(sending.returned, messageId)) {
    return { ok: false, error: new PublishReturnedError(`no queue takes messages to ${to}`) };
  }
  if (error === null || error === undefined) return TAKEN;
  // What amqplib says of a negative acknowledgement; all other errors mean that the channel was lost.
  if (messageOf(error) === "message nacked") {
    const refused = `the broker refused a message to ${to}`;
    return { ok: false, error: new PublishRejectedError(refused, { cause: error }) };
  }
  const { refusedExchange } = sending;
  if (refusedExchange !== undefined) {
    if (sending.isCulpritFound) return undefined;
    if (exchange === refusedExchange.name) {
      sending.isCulpritFound = true;
      const refused = refusedExchange.isMissing
        ? new PublishReturnedError(`there is no exchange ${exchange}`)
        : new PublishRejectedError(`the broker's user has no right to publish to ${to}`, { cause: error });
      return { ok: false, error: refused };
    }
    // Routed; what has not been written to a disk yet need not be.
    if (options.persistent !== true) return TAKEN;
  }
  const lost = `the connection was lost before a message to ${to} was confirmed`;
  return { ok: false, error: new PublishUnknownError(lost, { cause: error }) };
}

/** What the broker closed a channel for, if it was an address. */
function refusedExchangeIn(reason: string): Sending["refusedExchange"] {
  const missing = /no exchange '(.*)' in vhost/.exec(reason)?.[1];
  if (missing !== undefined) return { name: missing, isMissing: true };
  const forbidden = /access to exchange '(.*)' in vhost .* refused/.exec(reason)?.[1];
  if (forbidden === undefined) return undefined;
  return { name: forbidden === "amq.default" ? "" : forbidden, isMissing: false };
}

function wasReturned(returned: Map<string, number>, messageId: string | undefined): boolean {
  if (messageId === undefined || returned.size === 0) return false;
  const count = returned.get(messageId);
  if (count === undefined) return false;
  if (count === 1) returned.delete(messageId);
  else returned.set(messageId, count - 1);
  return true;
}

function addressOf({ exchange, routingKey }: Outgoing): string {
  return exchange === "" ? routingKey : exchange;
}
