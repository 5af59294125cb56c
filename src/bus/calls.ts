import { randomUUID } from "node:crypto";
import type { Channel, ConsumeMessage } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import { CallError, callErrorCodeOf } from "./errors.js";
import { parseReply, parseRequest } from "./messages.js";
import type { Outgoing, Publisher, PublishOutcome } from "./publisher.js";
import { COMMAND_KEY, type Names } from "./topology.js";

export type CallOptions = {
  /** Longest wait for the answer, in milliseconds. @default 10_000 */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
};

export type BroadcastCallOptions = CallOptions & {
  /** Nodes that should answer: the wait ends when all of them have. */
  readonly expected?: readonly string[];
};

/** What came of a call to every node. */
export type Gathered = {
  readonly answers: readonly ({ readonly node: string } & (
    | { readonly ok: true; readonly result: unknown }
    | { readonly ok: false; readonly error: CallError }
  ))[];
  /** Expected nodes that did not answer in time. */
  readonly silent: readonly string[];
};

/** Who asks, and how. */
export type CallContext = {
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
};

type Args = Readonly<Record<string, unknown>>;

/**
 * What is done with calls and commands, by their type. What it resolves with is the answer; an error with one
 * of the codes of calls keeps it, any other is `internal`.
 */
export type Handlers = Readonly<Record<string, (args: Args, context: CallContext) => Promise<unknown>>>;

export type Stop = () => Promise<void>;

type Answer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: CallError };
type Waiter = (answer: Answer, node: string | undefined) => void;

const DEFAULT_TIMEOUT_MS = 10_000;

/** Calls that are worked on at once, of those that any master may answer. */
const MASTER_PREFETCH = 64;

/**
 * Calls and commands, both ways. Answers come to one queue of this process, exclusive to its connection, and
 * find their caller by correlation id; those that come too late are dropped and counted. When the connection
 * is lost, whoever waits is told at once.
 */
export class Calls {
  readonly #names: Names;
  readonly #publisher: Publisher;
  /** For addresses that may not be there: the broker closes the channel for that, and all on it suffer. */
  readonly #risky: Publisher;
  readonly #consuming: SupervisedConnection;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #metrics: Metrics | undefined;
  readonly #waiting = new Map<string, Waiter>();
  readonly #replies: SupervisedChannel;
  #replyQueue: string | undefined;
  #late = 0;

  constructor(parts: {
    readonly names: Names;
    readonly publisher: Publisher;
    readonly risky: Publisher;
    readonly consuming: SupervisedConnection;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics?: Metrics;
  }) {
    this.#names = parts.names;
    this.#publisher = parts.publisher;
    this.#risky = parts.risky;
    this.#consuming = parts.consuming;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
    this.#metrics = parts.metrics;
    this.#replies = this.#consuming.channel("replies", async ({ channel, signal }) => {
      const { queue } = await channel.assertQueue("", { exclusive: true, durable: false });
      await channel.consume(
        queue,
        (message) => {
          if (message === null) this.#replies.renew();
          else this.#receiveReply(message);
        },
        { noAck: true },
      );
      this.#replyQueue = queue;
      signal.addEventListener("abort", () => this.#abandonAll(), { once: true });
    });
  }

  /** Answers that came when nobody waited for them any more. */
  get late(): number {
    return this.#late;
  }

  /** @throws CallError what the node answered; `unavailable` at once when it is not there; `timeout` */
  callNode(node: string, type: string, args: Args = {}, options: CallOptions = {}): Promise<unknown> {
    const to = { exchange: this.#names.node(node), routingKey: COMMAND_KEY, publisher: this.#risky };
    return this.#call(`node "${node}"`, to, type, args, options);
  }

  /** Calls whichever master is free. @throws CallError */
  callMaster(type: string, args: Args = {}, options: CallOptions = {}): Promise<unknown> {
    const to = { exchange: "", routingKey: this.#names.master(), publisher: this.#publisher };
    return this.#call("any master", to, type, args, options);
  }

  /** Tells a node something, without waiting for what it makes of it. @throws CallError `unavailable` */
  async commandNode(node: string, type: string, args: Args = {}, options: CallOptions = {}): Promise<void> {
    const message = request(this.#names.node(node), COMMAND_KEY, { type, args }, {});
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const [outcome] = await this.#risky.publish([message], AbortSignal.timeout(timeoutMs));
    if (outcome?.ok === false) throw unavailable(`node "${node}"`, outcome);
  }

  /** Tells every node something. Nodes that are away miss it. */
  async broadcast(type: string, args: Args = {}): Promise<void> {
    const message = request(this.#names.broadcast(), "", { type, args }, { mandatory: false });
    const [outcome] = await this.#publisher.publish([message], AbortSignal.timeout(DEFAULT_TIMEOUT_MS));
    if (outcome?.ok === false) throw unavailable("the nodes", outcome);
  }

  /** Calls every node and gathers what they answer until all expected ones have, or the time is over. */
  async broadcastCall(type: string, args: Args = {}, options: BroadcastCallOptions = {}): Promise<Gathered> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, expected = [] } = options;
    const missing = new Set(expected);
    const answers: Gathered["answers"][number][] = [];
    const { correlationId, over } = await this.#expect(
      "the nodes",
      timeoutMs,
      options.signal,
      (answer, node) => {
        // Nobody's answer: the connection was lost, and no more will come.
        if (node === undefined) return true;
        answers.push({ node, ...answer });
        missing.delete(node);
        return expected.length > 0 && missing.size === 0;
      },
    );
    const message = request(
      this.#names.broadcast(),
      "",
      { type, args },
      { mandatory: false, correlationId, replyTo: this.#replyQueue ?? "", expiration: String(timeoutMs) },
    );
    await this.#publisher.publish([message], AbortSignal.timeout(timeoutMs));
    await over;
    return { answers, silent: [...missing] };
  }

  /** Answers whoever handed in something, on the queue that it named. @throws BusError when it could not be sent */
  async reply(replyTo: string, correlationId: string | undefined, body: unknown): Promise<void> {
    const message: Outgoing = {
      exchange: "",
      routingKey: replyTo,
      body: Buffer.from(JSON.stringify(body)),
      options: {
        contentType: "application/json",
        ...(correlationId !== undefined && { correlationId }),
      },
    };
    const [outcome] = await this.#publisher.publish([message], AbortSignal.timeout(DEFAULT_TIMEOUT_MS));
    if (outcome?.ok === false) throw outcome.error;
  }

  /** Serves the commands and calls to a node, its own and those to every node. */
  async serveNode(node: string, handlers: Handlers): Promise<Stop> {
    const channel = this.#consuming.channel("commands", async (open) => {
      const exchange = this.#names.node(node);
      await open.channel.assertExchange(exchange, "direct", { durable: true });
      // Named by the broker and gone with the connection, so that a command to a dead node comes back at once.
      const { queue } = await open.channel.assertQueue("", { exclusive: true, durable: false });
      await open.channel.bindQueue(queue, exchange, COMMAND_KEY);
      await open.channel.bindQueue(queue, this.#names.broadcast(), "");
      await open.channel.consume(
        queue,
        (message) => {
          if (message === null) channel.renew();
          else void this.#serve(message, handlers, { "x-node": node });
        },
        { noAck: true },
      );
    });
    await channel.opened();
    return () => channel.close();
  }

  /** Serves the calls that any master may answer. One is the broker's again if this process dies over it. */
  async serveMaster(master: string, handlers: Handlers): Promise<Stop> {
    const channel = this.#consuming.channel("master calls", async (open) => {
      await open.channel.prefetch(MASTER_PREFETCH);
      await open.channel.consume(this.#names.master(), (message) => {
        if (message === null) channel.renew();
        else void this.#serveAndAcknowledge(open.channel, open.signal, message, handlers, master);
      });
    });
    await channel.opened();
    return () => channel.close();
  }

  async #serveAndAcknowledge(
    channel: Channel,
    signal: AbortSignal,
    message: ConsumeMessage,
    handlers: Handlers,
    master: string,
  ): Promise<void> {
    await this.#serve(message, handlers, { "x-master": master });
    if (!signal.aborted) channel.ack(message);
  }

  async #serve(message: ConsumeMessage, handlers: Handlers, headers: Record<string, string>): Promise<void> {
    const messageId = textOf(message.properties.messageId);
    const replyTo = textOf(message.properties.replyTo);
    const correlationId = textOf(message.properties.correlationId);
    let answer: unknown;
    try {
      const { type, args } = parseRequest(message.content);
      const handle = Object.hasOwn(handlers, type) ? handlers[type] : undefined;
      if (handle === undefined) {
        const known = Object.keys(handlers).join(", ");
        throw new CallError("invalid", `type: there is no "${type}" here; there are ${known}`);
      }
      const result = await handle(args, { messageId, replyTo, correlationId });
      answer = { ok: true, result: result ?? null };
    } catch (error) {
      const code = callErrorCodeOf(error);
      if (code === "internal") this.#logger.error({ err: error }, "a call failed");
      answer = { ok: false, error: { code, message: messageOf(error) } };
    }
    if (replyTo === undefined) return;
    const body = Buffer.from(JSON.stringify(answer));
    const options = {
      contentType: "application/json",
      headers,
      ...(correlationId !== undefined && { correlationId }),
    };
    const sent = { exchange: "", routingKey: replyTo, body, options };
    const [outcome] = await this.#publisher.publish([sent], AbortSignal.timeout(DEFAULT_TIMEOUT_MS));
    if (outcome?.ok === false)
      this.#logger.warn({ replyTo, error: outcome.error.message }, "could not answer a call");
  }

  async #call(
    whom: string,
    to: { readonly exchange: string; readonly routingKey: string; readonly publisher: Publisher },
    type: string,
    args: Args,
    options: CallOptions,
  ): Promise<unknown> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
    const startedAt = this.#clock.monotonic();
    let received: Answer | undefined;
    const { correlationId, over, giveUp } = await this.#expect(whom, timeoutMs, signal, (answer) => {
      received = answer;
      return true;
    });
    const message = request(
      to.exchange,
      to.routingKey,
      { type, args },
      { correlationId, replyTo: this.#replyQueue ?? "", expiration: String(timeoutMs) },
    );
    const [outcome] = await to.publisher.publish([message], AbortSignal.timeout(timeoutMs));
    if (outcome?.ok === false) giveUp({ ok: false, error: unavailable(whom, outcome) });
    await over;
    this.#metrics?.callDuration.observe({ type }, (this.#clock.monotonic() - startedAt) / 1_000);
    if (received === undefined) {
      if (signal?.aborted === true)
        throw new CallError("cancelled", `the call "${type}" to ${whom} was cancelled`);
      throw new CallError("timeout", `${whom} did not answer "${type}" within ${timeoutMs} ms`);
    }
    if (!received.ok) throw received.error;
    return received.result;
  }

  /** A place for answers. `over` resolves when `take` says that it has enough, or the time is over. */
  async #expect(
    whom: string,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    take: (answer: Answer, node: string | undefined) => boolean,
  ): Promise<{ correlationId: string; over: Promise<void>; giveUp: (answer: Answer) => void }> {
    const deadline = AbortSignal.timeout(timeoutMs);
    const end = signal === undefined ? deadline : AbortSignal.any([deadline, signal]);
    if ((await this.#replies.opened(end)) === undefined) {
      throw new CallError("unavailable", `cannot call ${whom}: RabbitMQ is away`);
    }
    const correlationId = randomUUID();
    let finish: () => void = () => {};
    const over = new Promise<void>((resolve) => {
      finish = () => {
        this.#waiting.delete(correlationId);
        end.removeEventListener("abort", finish);
        resolve();
      };
    });
    end.addEventListener("abort", finish, { once: true });
    if (end.aborted) finish();
    const waiter: Waiter = (answer, node) => {
      if (take(answer, node)) finish();
    };
    this.#waiting.set(correlationId, waiter);
    return { correlationId, over, giveUp: (answer) => waiter(answer, undefined) };
  }

  #receiveReply(message: ConsumeMessage): void {
    const { correlationId, headers } = message.properties;
    const waiter = this.#waiting.get(String(correlationId));
    if (waiter === undefined) {
      this.#late += 1;
      return;
    }
    const node: unknown = headers?.["x-node"];
    waiter(parseReply(message.content), typeof node === "string" ? node : undefined);
  }

  #abandonAll(): void {
    this.#replyQueue = undefined;
    const waiting = [...this.#waiting.values()];
    for (const waiter of waiting) {
      const error = new CallError("unavailable", "the connection was lost while an answer was awaited");
      waiter({ ok: false, error }, undefined);
    }
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function request(
  exchange: string,
  routingKey: string,
  body: { readonly type: string; readonly args: Args },
  options: Outgoing["options"],
): Outgoing {
  return {
    exchange,
    routingKey,
    body: Buffer.from(JSON.stringify(body)),
    options: { mandatory: true, contentType: "application/json", messageId: randomUUID(), ...options },
  };
}

function unavailable(whom: string, outcome: Extract<PublishOutcome, { ok: false }>): CallError {
  return new CallError("unavailable", `${whom} cannot be reached: ${outcome.error.message}`, {
    cause: outcome.error,
  });
}
