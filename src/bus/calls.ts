import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { ConsumeMessage } from "amqplib";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Answers } from "./answers.js";
import { AtHand } from "./at-hand.js";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import { CallError, callErrorCodeOf } from "./errors.js";
import { expirationOf, parseReply, parseRequest } from "./messages.js";
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
/** Someone who waits for answers: told of each, or that there will be no more. */
type Waiter = {
  readonly take: (answer: Answer, node: string | undefined) => void;
  readonly lose: () => void;
};

/** Why a call is over. */
type Ending =
  | { readonly kind: "enough" | "timeout" | "cancelled" | "lost" }
  | { readonly kind: "unsent"; readonly error: CallError };

type Address = {
  /** For people. */
  readonly whom: string;
  readonly exchange: string;
  readonly routingKey: string;
  readonly publisher: Publisher;
  readonly mandatory: boolean;
};

type Request = { readonly type: string; readonly args: Args };

const DEFAULT_TIMEOUT_MS = 10_000;

/** How long a stop waits for calls at hand, in milliseconds. */
const STOP_GRACE_MS = 5_000;

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
  readonly #answers: Answers;
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
    readonly answers: Answers;
    readonly consuming: SupervisedConnection;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics?: Metrics;
  }) {
    this.#names = parts.names;
    this.#publisher = parts.publisher;
    this.#risky = parts.risky;
    this.#answers = parts.answers;
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
      signal.addEventListener("abort", () => this.#loseAll(), { once: true });
    });
  }

  /** Answers that came when nobody waited for them any more. */
  get late(): number {
    return this.#late;
  }

  /** @throws CallError what the node answered; `unavailable` at once when it is not there; `timeout` */
  callNode(node: string, type: string, args: Args = {}, options: CallOptions = {}): Promise<unknown> {
    const to = this.#toNode(node);
    return this.#call(to, { type, args }, options);
  }

  /** Calls whichever master is free. @throws CallError */
  callMaster(type: string, args: Args = {}, options: CallOptions = {}): Promise<unknown> {
    const to = {
      whom: "any master",
      exchange: "",
      routingKey: this.#names.master(),
      publisher: this.#publisher,
      mandatory: true,
    };
    return this.#call(to, { type, args }, options);
  }

  /** Tells a node something, without waiting for what it makes of it. @throws CallError `unavailable` */
  commandNode(node: string, type: string, args: Args = {}, options: CallOptions = {}): Promise<void> {
    return this.#tell(this.#toNode(node), { type, args }, options);
  }

  /** Tells every node something. Nodes that are away miss it. @throws CallError `unavailable` */
  broadcast(type: string, args: Args = {}): Promise<void> {
    return this.#tell(this.#toNodes(), { type, args }, {});
  }

  /**
   * Calls every node and gathers what they answer until all expected ones have, or the time is over.
   * @throws CallError `unavailable` when it could not be sent, or answers may have been lost; `cancelled`
   */
  async broadcastCall(type: string, args: Args = {}, options: BroadcastCallOptions = {}): Promise<Gathered> {
    const missing = new Set(options.expected);
    const isAwaited = missing.size > 0;
    const answers = new Map<string, Gathered["answers"][number]>();
    const [to, request] = [this.#toNodes(), { type, args }];
    const ending = await this.#ask(to, request, options, (answer, node) => {
      if (node === undefined || answers.has(node)) return false;
      answers.set(node, { node, ...answer });
      missing.delete(node);
      return isAwaited && missing.size === 0;
    });
    if (ending.kind === "unsent") throw ending.error;
    // Whose answer may be on a lost channel has not been silent.
    if (ending.kind === "lost" || ending.kind === "cancelled") {
      throw unanswered(to, request, ending.kind, options);
    }
    return { answers: [...answers.values()], silent: [...missing] };
  }

  /**
   * Answers whoever handed in something, on the queue that it named; nothing is wrong when that is gone. It may
   * arrive twice when the connection is lost meanwhile.
   * @throws BusError when it could not be sent, for example because RabbitMQ is away for more than ten seconds
   */
  async reply(replyTo: string, correlationId: string | undefined, body: unknown): Promise<void> {
    const outcome = await this.#answers.send({
      replyTo,
      correlationId,
      body: Buffer.from(JSON.stringify(body)),
      persistent: true,
    });
    if (!outcome.ok) throw outcome.error;
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

  /**
   * Serves the calls that any master may answer. One is the broker's again if this process dies over it.
   * @returns ends it: takes no more, and resolves when those at hand are answered
   */
  async serveMaster(master: string, handlers: Handlers): Promise<Stop> {
    const atHand = new AtHand(this.#clock);
    let isStopping = false;
    const supervised = this.#consuming.channel("master calls", async ({ channel, signal }) => {
      const serve = async (message: ConsumeMessage) => {
        await this.#serve(message, handlers, { "x-master": master });
        if (!signal.aborted) channel.ack(message);
      };
      await channel.prefetch(MASTER_PREFETCH);
      await channel.consume(this.#names.master(), (message) => {
        if (message === null) supervised.renew();
        else if (!isStopping) atHand.add(serve(message));
      });
    });
    await supervised.opened();
    return async () => {
      // What is delivered from now on goes to another master when the channel is closed.
      isStopping = true;
      await atHand.settled(STOP_GRACE_MS);
      await supervised.close();
    };
  }

  async #serve(message: ConsumeMessage, handlers: Handlers, headers: Record<string, string>): Promise<void> {
    const messageId = textOf(message.properties.messageId);
    const replyTo = textOf(message.properties.replyTo);
    const correlationId = textOf(message.properties.correlationId);
    let body: Buffer;
    try {
      const { type, args } = parseRequest(message.content);
      const handle = Object.hasOwn(handlers, type) ? handlers[type] : undefined;
      if (handle === undefined) {
        const known = Object.keys(handlers).join(", ");
        throw new CallError("invalid", `type: there is no "${type}" here; there are ${known}`);
      }
      const result = await handle(args, { messageId, replyTo, correlationId });
      body = Buffer.from(JSON.stringify({ ok: true, result: result ?? null }));
    } catch (error) {
      const code = callErrorCodeOf(error);
      if (code === "internal") this.#logger.error({ err: error }, "a call failed");
      body = Buffer.from(JSON.stringify({ ok: false, error: { code, message: messageOf(error) } }));
    }
    if (replyTo === undefined) return;
    const outcome = await this.#answers.send({ replyTo, correlationId, body, headers });
    if (!outcome.ok) this.#logger.warn({ replyTo, error: outcome.error.message }, "could not answer a call");
  }

  #toNode(node: string): Address {
    return {
      whom: `node "${node}"`,
      exchange: this.#names.node(node),
      routingKey: COMMAND_KEY,
      publisher: this.#risky,
      mandatory: true,
    };
  }

  #toNodes(): Address {
    return {
      whom: "the nodes",
      exchange: this.#names.broadcast(),
      routingKey: "",
      publisher: this.#publisher,
      mandatory: false,
    };
  }

  async #tell(to: Address, request: Request, options: CallOptions): Promise<void> {
    const ending = await this.#untilOver(to, options, async (over, finish) => {
      const [outcome] = await to.publisher.publish([messageOfRequest(to, request, {})], over);
      if (outcome?.ok === false) finish({ kind: "unsent", error: unavailable(to.whom, outcome) });
      else finish({ kind: "enough" });
    });
    if (ending.kind === "unsent") throw ending.error;
    if (ending.kind !== "enough") throw unanswered(to, request, ending.kind, options);
  }

  async #call(to: Address, request: Request, options: CallOptions): Promise<unknown> {
    const startedAt = this.#clock.monotonic();
    let received: Answer | undefined;
    const ending = await this.#ask(to, request, options, (answer) => {
      received = answer;
      return true;
    });
    const seconds = (this.#clock.monotonic() - startedAt) / 1_000;
    this.#metrics?.callDuration.observe({ type: request.type }, seconds);
    if (ending.kind === "unsent") throw ending.error;
    if (ending.kind !== "enough" || received === undefined) {
      throw unanswered(to, request, ending.kind === "enough" ? "lost" : ending.kind, options);
    }
    if (!received.ok) throw received.error;
    return received.result;
  }

  /** Sends a request and hands what comes back to `take`, until that says that it has enough. */
  #ask(
    to: Address,
    request: Request,
    options: CallOptions,
    take: (answer: Answer, node: string | undefined) => boolean,
  ): Promise<Ending> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const correlationId = randomUUID();
    return this.#untilOver(to, options, async (over, finish, sent) => {
      await this.#replies.opened(over);
      const replyTo = this.#replyQueue;
      if (over.aborted) return;
      if (replyTo === undefined) {
        const error = new CallError("unavailable", `${to.whom} cannot be called: the bus is stopped`);
        finish({ kind: "unsent", error });
        return;
      }
      this.#waiting.set(correlationId, {
        take: (answer, node) => {
          if (take(answer, node)) finish({ kind: "enough" });
        },
        lose: () => finish({ kind: "lost" }),
      });
      over.addEventListener("abort", () => this.#waiting.delete(correlationId), { once: true });
      const expiration = expirationOf(timeoutMs);
      const message = messageOfRequest(to, request, { correlationId, replyTo, expiration });
      const [outcome] = await to.publisher.publish([message], over);
      if (outcome?.ok === false) finish({ kind: "unsent", error: unavailable(to.whom, outcome) });
      else sent();
    });
  }

  /** Does something that ends by itself, or when its time is over, or when whoever asked for it gives up. */
  async #untilOver(
    { whom }: Address,
    { timeoutMs = DEFAULT_TIMEOUT_MS, signal }: CallOptions,
    run: (over: AbortSignal, finish: (ending: Ending) => void, sent: () => void) => Promise<void>,
  ): Promise<Ending> {
    if (signal?.aborted === true) return { kind: "cancelled" };
    const over = new AbortController();
    let isSent = false;
    const timeout = (): Ending => {
      if (isSent) return { kind: "timeout" };
      const message = `${whom} could not be reached within ${timeoutMs} ms: RabbitMQ is away or takes no messages`;
      return { kind: "unsent", error: new CallError("unavailable", message) };
    };
    return new Promise((resolve, reject) => {
      const finish = (ending: Ending) => {
        stopTimer();
        signal?.removeEventListener("abort", cancel);
        over.abort();
        resolve(ending);
      };
      const cancel = () => finish({ kind: "cancelled" });
      const stopTimer = this.#clock.after(timeoutMs, () => finish(timeout()));
      if (signal !== undefined) {
        // Many calls may well share one.
        setMaxListeners(0, signal);
        signal.addEventListener("abort", cancel, { once: true });
      }
      const sent = () => {
        isSent = true;
      };
      run(over.signal, finish, sent).catch((error: unknown) => {
        reject(error);
        cancel();
      });
    });
  }

  #receiveReply(message: ConsumeMessage): void {
    const { correlationId, headers } = message.properties;
    const waiter = this.#waiting.get(String(correlationId));
    if (waiter === undefined) {
      this.#late += 1;
      return;
    }
    waiter.take(parseReply(message.content), textOf(headers?.["x-node"]));
  }

  #loseAll(): void {
    this.#replyQueue = undefined;
    for (const waiter of [...this.#waiting.values()]) waiter.lose();
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function messageOfRequest(
  { exchange, routingKey, mandatory }: Address,
  { type, args }: Request,
  options: Outgoing["options"],
): Outgoing {
  return {
    exchange,
    routingKey,
    body: Buffer.from(JSON.stringify({ type, args })),
    options: { mandatory, contentType: "application/json", messageId: randomUUID(), ...options },
  };
}

function unavailable(whom: string, outcome: Extract<PublishOutcome, { ok: false }>): CallError {
  return new CallError("unavailable", `${whom} cannot be reached: ${outcome.error.message}`, {
    cause: outcome.error,
  });
}

function unanswered(
  { whom }: Address,
  { type }: Request,
  why: "timeout" | "cancelled" | "lost",
  { timeoutMs = DEFAULT_TIMEOUT_MS }: CallOptions,
): CallError {
  switch (why) {
    case "timeout":
      return new CallError("timeout", `${whom} did not answer "${type}" within ${timeoutMs} ms`);
    case "cancelled":
      return new CallError("cancelled", `the call "${type}" to ${whom} was cancelled`);
    case "lost":
      return new CallError(
        "unavailable",
        `the connection was lost while ${whom} was awaited to answer "${type}"`,
      );
    default:
      return why satisfies never;
  }
}
