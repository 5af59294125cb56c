import type { ConsumeMessage } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import { fieldErrorsOf, summaryOf } from "../lib/field-errors.js";
import type { Logger } from "../lib/logger.js";
import { type TraceContext, traceContextOf, traceFields } from "../lib/trace-context.js";
import type { Answers } from "./answers.js";
import { AtHand } from "./at-hand.js";
import { ANY_CALL, type CallContext, type CallTable, type CheckedHandlers } from "./call-table.js";
import type { OpenChannel, SupervisedChannel, SupervisedConnection } from "./connection.js";
import { CallError, callErrorCodeOf } from "./errors.js";
import { CANCEL_CALL, LAST_HEADER, PART_HEADER, parseRequest } from "./messages.js";
import { CREDIT_HEADER, type ReplyQueue } from "./reply-queue.js";
import { COMMAND_KEY, type Names, OWN_QUEUE } from "./topology.js";

export type Stop = () => Promise<void>;

/** How long a stop waits for calls at hand, in milliseconds. */
const STOP_GRACE_MS = 5_000;

/** Calls that are worked on at once, of those that any master may answer. The rest waits for others. */
const MASTER_PREFETCH = 64;

/** Commands and calls that a node works on at once; more of them are refused. */
const MAX_AT_A_NODE = 4_096;

/** How long a caller who did not say is given between two parts that it has to ask for, in milliseconds. */
const CREDIT_TIMEOUT_MS = 60_000;

/** A call that is being worked on here. */
class ServedCall implements CallContext {
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
  readonly trace: TraceContext | undefined;
  readonly #clock: Clock;
  readonly #timeoutMs: number | undefined;
  /** Made for handlers that look at it: most are over before they could. */
  #over: AbortController | undefined;
  #reason: CallError | undefined;
  #credit: number;
  #stopTimer: () => void = () => {};
  #wake: () => void = () => {};

  constructor({ properties }: ConsumeMessage, clock: Clock) {
    this.messageId = textOf(properties.messageId);
    this.replyTo = textOf(properties.replyTo);
    this.correlationId = textOf(properties.correlationId);
    this.trace = traceContextOf(properties.headers);
    this.#clock = clock;
    const credit: unknown = properties.headers?.[CREDIT_HEADER];
    this.#credit = isCount(credit) ? credit : Number.POSITIVE_INFINITY;
    const expiration = Number(properties.expiration);
    // Nobody waits for the answer any longer than the request itself was allowed to wait.
    this.#timeoutMs = expiration > 0 ? expiration : undefined;
    this.extend();
  }

  get signal(): AbortSignal {
    this.#over ??= new AbortController();
    if (this.#reason !== undefined && !this.#over.signal.aborted) this.#over.abort(this.#reason);
    return this.#over.signal;
  }

  /** Why it was stopped before it was over. */
  get reason(): CallError | undefined {
    return this.#reason;
  }

  /** What its caller knows it by; whoever names no queue or no id cannot speak of it. */
  get key(): string | undefined {
    return keyOf(this.replyTo, this.correlationId);
  }

  /** Its time begins anew. */
  extend(): void {
    this.#stopTimer();
    if (this.#timeoutMs === undefined) return;
    this.#stopTimer = this.#clock.after(this.#timeoutMs, () => {
      this.abort(new CallError("timeout", "nobody waits for the answer any more"));
    });
  }

  abort(reason: CallError): void {
    this.#stopTimer();
    this.#reason ??= reason;
    this.#over?.abort(this.#reason);
    this.#wake();
  }

  /** It is over. */
  end(): void {
    this.#stopTimer();
  }

  /** The caller takes so many more parts. */
  grant(parts: number): void {
    this.#credit += parts;
    this.#wake();
  }

  /** Resolves when another part may be sent. @throws CallError when nobody wants it any more */
  async takeCredit(): Promise<void> {
    const stopTimer =
      this.#credit > 0
        ? () => {}
        : this.#clock.after(CREDIT_TIMEOUT_MS, () =>
            this.abort(new CallError("timeout", "the caller asked for no more parts")),
          );
    while (this.#credit <= 0 && this.#reason === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    stopTimer();
    if (this.#reason !== undefined) throw this.#reason;
    this.#credit -= 1;
  }
}

/**
 * The answering side of calls: takes requests, checks them against their table, has them handled and answers, in
 * parts where there are many. Whoever asked can stop it by `cancel-call`.
 */
export class CallServer {
  readonly #names: Names;
  readonly #answers: Answers;
  readonly #consuming: SupervisedConnection;
  readonly #replies: () => ReplyQueue;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #served = new Map<string, ServedCall>();

  constructor(parts: {
    readonly names: Names;
    readonly answers: Answers;
    readonly consuming: SupervisedConnection;
    /** Where whoever gets parts of an answer asks for more. */
    readonly replies: () => ReplyQueue;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#names = parts.names;
    this.#answers = parts.answers;
    this.#consuming = parts.consuming;
    this.#replies = parts.replies;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
  }

  /** Serves the commands and calls to a node, its own and those to every node. */
  async serveNode(node: string, table: CallTable, handlers: CheckedHandlers): Promise<Stop> {
    let atWork = 0;
    const serve = async (message: ConsumeMessage) => {
      atWork += 1;
      await this.#serve(message, table, atWork > MAX_AT_A_NODE ? undefined : handlers, { "x-node": node });
      atWork -= 1;
    };
    const channel = this.#consuming.channel("commands", async (open) => {
      const exchange = this.#names.node(node);
      // Named by the broker and gone with the connection, so that a command to a dead node comes back at once.
      const { queue } = await open.channel.assertQueue("", OWN_QUEUE);
      await open.keep(async () => {
        await open.channel.assertExchange(exchange, "direct", { durable: true });
        await open.channel.bindQueue(queue, exchange, COMMAND_KEY);
        await open.channel.bindQueue(queue, this.#names.broadcast(), "");
      });
      await consumeOwn(open, queue, channel, (message) => void serve(message));
    });
    await channel.opened();
    return () => channel.close();
  }

  /**
   * Serves the calls that any master may answer. One is the broker's again if this process dies over it.
   * @returns ends it: takes no more, and resolves when those at hand are answered
   */
  async serveMaster(master: string, table: CallTable, handlers: CheckedHandlers): Promise<Stop> {
    const atHand = new AtHand(this.#clock);
    let isStopping = false;
    const supervised = this.#consuming.channel("master calls", async ({ channel, signal }) => {
      const serve = async (message: ConsumeMessage) => {
        await this.#serve(message, table, handlers, { "x-master": master });
        if (!signal.aborted) channel.ack(message);
      };
      await channel.prefetch(MASTER_PREFETCH);
      await channel.consume(this.#names.master(), (message) => {
        if (message === null) supervised.renew();
        else if (!isStopping) atHand.add(serve(message));
      });
    });
    // Who is at a call that any master may answer, its caller cannot know: that it is cancelled is told to all, on an
    // exchange of its own, since whoever may call masters need not have the right to command nodes.
    const cancels = this.#consuming.channel("cancelled calls", async (open) => {
      const { queue } = await open.channel.assertQueue("", OWN_QUEUE);
      await open.keep(() => open.channel.bindQueue(queue, this.#names.cancels(), ""));
      await consumeOwn(open, queue, cancels, (message) => this.#cancelBy(message));
    });
    await Promise.all([supervised.opened(), cancels.opened()]);
    return async () => {
      // What is delivered from now on goes to another master when the channel is closed.
      isStopping = true;
      await atHand.settled(STOP_GRACE_MS);
      await Promise.all([supervised.close(), cancels.close()]);
    };
  }

  /** Someone who gets parts of an answer takes more of them. */
  grant({ properties }: ConsumeMessage): void {
    const key = keyOf(textOf(properties.replyTo), textOf(properties.correlationId));
    const parts: unknown = properties.headers?.[CREDIT_HEADER];
    if (key !== undefined && isCount(parts)) this.#served.get(key)?.grant(parts);
  }

  async #serve(
    message: ConsumeMessage,
    table: CallTable,
    handlers: CheckedHandlers | undefined,
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    const call = new ServedCall(message, this.#clock);
    const { key } = call;
    if (key !== undefined) this.#served.set(key, call);
    try {
      const { type, args } = parseRequest(message.content);
      if (type === CANCEL_CALL) {
        this.#cancel(args);
        return;
      }
      if (handlers === undefined) {
        throw new CallError("unavailable", `busy: ${MAX_AT_A_NODE} calls are being worked on here`);
      }
      const handle = Object.hasOwn(handlers, type) ? handlers[type] : undefined;
      if (handle === undefined) {
        const known = Object.keys(handlers).join(", ");
        throw new CallError("invalid", `type: there is no "${type}" here; there are ${known}`);
      }
      const definition = (Object.hasOwn(table, type) ? table[type] : undefined) ?? ANY_CALL;
      const parsed = definition.args.safeParse(args);
      if (!parsed.success) throw new CallError("invalid", summaryOf(fieldErrorsOf(parsed.error)));
      const answer = handle(parsed.data, call);
      if (isInParts(answer)) await this.#answerInParts(call, answer, headers);
      else await this.#answer(call, { ok: true, result: (await answer) ?? null }, headers);
    } catch (error) {
      await this.#answerFailure(call, error, headers);
    } finally {
      call.end();
      if (key !== undefined && this.#served.get(key) === call) this.#served.delete(key);
    }
  }

  async #answerInParts(
    call: ServedCall,
    parts: AsyncIterable<unknown>,
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    let index = 0;
    const send = async (result: unknown, isLast: boolean) => {
      await call.takeCredit();
      const numbered = { ...headers, [PART_HEADER]: index, ...(isLast && { [LAST_HEADER]: true }) };
      await this.#answer(call, { ok: true, result: result ?? null }, numbered, true);
      index += 1;
      call.extend();
    };
    try {
      for await (const { part, isLast } of withLastMarked(parts)) {
        await send(part, isLast);
        if (!isLast && call.reason !== undefined) throw call.reason;
      }
    } catch (error) {
      await this.#answerFailure(call, error, { ...headers, [PART_HEADER]: index, [LAST_HEADER]: true });
    }
  }

  async #answerFailure(
    call: ServedCall,
    error: unknown,
    headers: Readonly<Record<string, string | number | boolean>>,
  ): Promise<void> {
    // Nobody waits for what was cancelled, or took too long.
    if (call.reason !== undefined && error === call.reason) return;
    const code = callErrorCodeOf(error);
    if (code === "internal") this.#logger.error({ err: error, ...traceFields(call.trace) }, "a call failed");
    await this.#answer(call, { ok: false, error: { code, message: messageOf(error) } }, headers);
  }

  /** @throws BusError when parts of it are wanted no more, because their queue is gone */
  async #answer(
    { replyTo, correlationId, trace }: ServedCall,
    answer: unknown,
    headers: Readonly<Record<string, string | number | boolean>>,
    isPart = false,
  ): Promise<void> {
    const body = Buffer.from(JSON.stringify(answer));
    if (replyTo === undefined) return;
    const from = isPart ? this.#replies().name : undefined;
    const outcome = await this.#answers.send({
      ...{ replyTo, correlationId, body, headers: { ...headers, ...trace }, mandatory: isPart },
      ...(from !== undefined && { from }),
    });
    if (outcome.ok) return;
    if (isPart) throw outcome.error;
    this.#logger.warn({ replyTo, error: outcome.error.message }, "could not answer a call");
  }

  #cancelBy(message: ConsumeMessage): void {
    try {
      const { type, args } = parseRequest(message.content);
      if (type === CANCEL_CALL) this.#cancel(args);
    } catch {
      // Nobody waits to hear what is wrong with it.
    }
  }

  #cancel({ call, replyTo }: Readonly<Record<string, unknown>>): void {
    const key = keyOf(textOf(replyTo), textOf(call));
    if (key !== undefined) this.#served.get(key)?.abort(new CallError("cancelled", "its caller gave up"));
  }
}

/** Consumes from a queue of our own, where nothing has to be acknowledged: it is gone when we are. */
async function consumeOwn(
  { channel }: OpenChannel,
  queue: string,
  supervised: SupervisedChannel,
  take: (message: ConsumeMessage) => void,
): Promise<void> {
  const consume = (message: ConsumeMessage | null) => (message === null ? supervised.renew() : take(message));
  await channel.consume(queue, consume, { noAck: true });
}

/** Each is held back until it is known whether it is the last; nothing at all is one part of nothing. */
async function* withLastMarked(
  parts: AsyncIterable<unknown>,
): AsyncGenerator<{ readonly part: unknown; readonly isLast: boolean }, void> {
  let held: { readonly part: unknown } | undefined;
  try {
    for await (const part of parts) {
      if (held !== undefined) yield { part: held.part, isLast: false };
      held = { part };
    }
  } catch (error) {
    if (held !== undefined) yield { part: held.part, isLast: false };
    throw error;
  }
  yield { part: held?.part, isLast: true };
}

function isInParts(answer: Promise<unknown> | AsyncIterable<unknown>): answer is AsyncIterable<unknown> {
  return Symbol.asyncIterator in answer;
}

function keyOf(replyTo: string | undefined, correlationId: string | undefined): string | undefined {
  return replyTo === undefined || correlationId === undefined ? undefined : `${replyTo}\n${correlationId}`;
}

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) <= 1_000;
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
