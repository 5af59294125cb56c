import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { ConsumeMessage } from "amqplib";
import {
  type CircuitBreakerPolicy,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleType,
  isBrokenCircuitError,
  retry,
} from "cockatiel";
import { LRUCache } from "lru-cache";
import type { Clock } from "../lib/clock.js";
import { fieldErrorsOf, summaryOf } from "../lib/field-errors.js";
import type { Metrics } from "../lib/metrics.js";
import type { TraceContext } from "../lib/trace-context.js";
import type { CallDefinition } from "./call-table.js";
import { AnswerLostError, CallError, PublishUnknownError } from "./errors.js";
import { CANCEL_CALL, expirationOf, LAST_HEADER, PART_HEADER, parseReply } from "./messages.js";
import type { Outgoing, Publisher } from "./publisher.js";
import { CREDIT_HEADER, CREDIT_TYPE, type ReplyQueue } from "./reply-queue.js";
import { Room } from "./room.js";

export type CallOptions = {
  /** Longest wait for the answer, or for the next part of one, in milliseconds. @default 10_000 */
  readonly timeoutMs?: number;
  /** Gives up when it is aborted, and tells the other side to stop. */
  readonly signal?: AbortSignal;
  /** The trace that the call is part of. */
  readonly trace?: TraceContext;
};

export type NodeAnswer<Result> = { readonly node: string } & (
  | { readonly ok: true; readonly result: Result }
  | { readonly ok: false; readonly error: CallError }
);

export type BroadcastCallOptions<Result = unknown> = CallOptions & {
  /** Nodes that should answer: the wait ends when all of them have. */
  readonly expected?: readonly string[];
  /** Called with each answer as it comes. */
  readonly onAnswer?: (answer: NodeAnswer<Result>) => void;
};

/** What came of a call to every node. */
export type Gathered<Result = unknown> = {
  readonly answers: readonly NodeAnswer<Result>[];
  /** Expected nodes that did not answer in time. */
  readonly silent: readonly string[];
};

/** Where a request goes. */
export type Address = {
  /** For people. */
  readonly whom: string;
  readonly exchange: string;
  readonly routingKey: string;
  readonly publisher: Publisher;
  readonly mandatory: boolean;
  /** Where those who may be at it hear that it is cancelled. */
  readonly cancels: { readonly exchange: string; readonly routingKey: string };
  /** One whose silence is remembered: see `BREAKS_AFTER`. */
  readonly peer?: string;
};

export type Request = {
  readonly type: string;
  /** An object. */
  readonly args: unknown;
  readonly definition: CallDefinition;
};

/** Why a call is over. */
type Ending =
  | { readonly kind: "enough" | "timeout" | "cancelled" | "lost" }
  | { readonly kind: "unsent"; readonly error: CallError };

type Answer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: CallError };

/** What someone who does something until it is over may tell of it. */
type Progress = { readonly finish: (ending: Ending) => void; sent: () => void; extend: () => void };

const DEFAULT_TIMEOUT_MS = 10_000;

/** Parts of an answer that may be under way to a caller who has not looked at them yet. */
const PARTS_WINDOW = 16;

/**
 * Calls in a row to one peer that end by their time-out before further ones are refused at once, and how long
 * that goes on until one is let through to see, in milliseconds. A peer that is not there at all needs none of
 * this: the broker says so within a millisecond.
 */
const BREAKS_AFTER = 5;
const BREAK_MS = 2_000;
const MAX_PEERS = 10_000;

/** Waits before a call whose answer was lost is sent again, in milliseconds. */
const RETRY = { initialDelay: 20, maxDelay: 1_000 };

/**
 * The asking side of calls: sends requests and waits for what comes back to the queue of replies, for so long
 * and no longer. At most so many calls wait at once; more of them wait for their turn, within their own time.
 */
export class Caller {
  readonly #replies: ReplyQueue;
  readonly #publisher: Publisher;
  readonly #clock: Clock;
  readonly #metrics: Metrics | undefined;
  readonly #room: Room;
  readonly #breakers = new LRUCache<string, CircuitBreakerPolicy>({ max: MAX_PEERS });
  readonly #untilAnswered = retry(handleType(AnswerLostError), {
    maxAttempts: Number.MAX_SAFE_INTEGER,
    backoff: new ExponentialBackoff(RETRY),
  });

  constructor(parts: {
    readonly replies: ReplyQueue;
    readonly publisher: Publisher;
    readonly clock: Clock;
    readonly metrics?: Metrics;
    /** Calls that wait for their answer at once. */
    readonly maxCalls: number;
  }) {
    this.#replies = parts.replies;
    this.#publisher = parts.publisher;
    this.#clock = parts.clock;
    this.#metrics = parts.metrics;
    this.#room = new Room(parts.maxCalls);
  }

  /** Sends a request and resolves with its result. @throws CallError */
  async call(to: Address, request: Request, options: CallOptions): Promise<unknown> {
    const { type, definition } = request;
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const startedAt = this.#clock.monotonic();
    const messageId = randomUUID();
    const ask = () => {
      const leftMs = timeoutMs - (this.#clock.monotonic() - startedAt);
      if (leftMs <= 0) throw unanswered(to, request, "timeout", options);
      return this.#askOnce(to, request, { ...options, timeoutMs: leftMs }, messageId, timeoutMs);
    };
    try {
      const attempt = definition.isRepeatable ? () => this.#untilAnswered.execute(ask, options.signal) : ask;
      return await this.#unlessSilent(to, attempt);
    } finally {
      this.#metrics?.callDuration.observe({ type }, (this.#clock.monotonic() - startedAt) / 1_000);
    }
  }

  /**
   * Sends a request and yields the parts of its answer as they come. Whoever stops early stops the other side.
   * @throws CallError
   */
  async *stream(to: Address, request: Request, options: CallOptions): AsyncGenerator<unknown, void> {
    const leaving = new AbortController();
    const signals = options.signal === undefined ? [leaving.signal] : [leaving.signal, options.signal];
    const arrived: unknown[] = [];
    let wake: () => void = () => {};
    let ending: Ending | undefined;
    let failure: CallError | undefined;
    let received = 0;
    let server: string | undefined;
    const progress = { extend: () => {} };
    const correlationId = randomUUID();
    const take = (message: ConsumeMessage, extend: () => void): boolean => {
      progress.extend = extend;
      const part = partOf(message);
      // One that was sent again because its confirm was lost.
      if (part.index < received) return false;
      server = part.server;
      const answer = part.index > received ? missingPart(to, request) : resultOf(to, request, message);
      received += 1;
      if (answer.ok) arrived.push(answer.result);
      else failure = answer.error;
      extend();
      wake();
      return part.isLast || !answer.ok;
    };
    void this.#ask(to, request, {
      ...{ ...options, signal: AbortSignal.any(signals) },
      ...{ correlationId, messageId: randomUUID(), take, credit: PARTS_WINDOW },
    }).then((over) => {
      ending = over;
      wake();
    });
    let taken = 0;
    try {
      for (;;) {
        while (arrived.length > 0) {
          yield arrived.shift();
          progress.extend();
          taken += 1;
          if (taken % (PARTS_WINDOW / 2) === 0 && server !== undefined) {
            void this.#grant(server, correlationId, PARTS_WINDOW / 2);
          }
        }
        if (failure !== undefined) throw failure;
        if (ending !== undefined) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      leaving.abort();
    }
    if (ending.kind === "unsent") throw ending.error;
    if (ending.kind !== "enough") throw unanswered(to, request, ending.kind, options);
  }

  /**
   * Sends a request to every node and gathers their answers until all expected ones are there, or the time is over.
   * @throws CallError `unavailable` when it could not be sent, or answers may have been lost; `cancelled`
   */
  async gather(to: Address, request: Request, options: BroadcastCallOptions): Promise<Gathered> {
    const missing = new Set(options.expected);
    const isAwaited = missing.size > 0;
    const answers = new Map<string, NodeAnswer<unknown>>();
    const ending = await this.#ask(to, request, {
      ...options,
      ...{ correlationId: randomUUID(), messageId: randomUUID() },
      take: (message) => {
        const node: unknown = message.properties.headers?.["x-node"];
        if (typeof node !== "string" || answers.has(node)) return false;
        const answer = { node, ...resultOf(to, request, message) };
        answers.set(node, answer);
        missing.delete(node);
        options.onAnswer?.(answer);
        return isAwaited && missing.size === 0;
      },
    });
    if (ending.kind === "unsent") throw ending.error;
    // Whose answer may be on a lost channel has not been silent.
    if (ending.kind === "lost" || ending.kind === "cancelled") {
      throw unanswered(to, request, ending.kind, options);
    }
    return { answers: [...answers.values()], silent: [...missing] };
  }

  /** Sends a request for which no answer is wanted. @throws CallError `unavailable`, `cancelled` */
  async tell(to: Address, request: Request, options: CallOptions): Promise<void> {
    const ending = await this.#untilOver(to, options, async (over, { finish }) => {
      const message = messageOfRequest(to, request, { messageId: randomUUID() }, options.trace);
      const outcome = await to.publisher.send(message, over.signal);
      finish(outcome.ok ? { kind: "enough" } : { kind: "unsent", error: unsent(to, outcome.error) });
    });
    if (ending.kind === "unsent") throw ending.error;
    if (ending.kind !== "enough") throw unanswered(to, request, ending.kind, options);
  }

  /** Refuses at once what goes to a peer that was silent again and again. */
  async #unlessSilent(to: Address, attempt: () => Promise<unknown>): Promise<unknown> {
    if (to.peer === undefined) return attempt();
    try {
      return await this.#breakerOf(to.peer).execute(attempt);
    } catch (error) {
      if (!isBrokenCircuitError(error)) throw error;
      const silent = `${to.whom} did not answer its last ${BREAKS_AFTER} calls; it is asked again within ${BREAK_MS} ms`;
      throw new CallError("unavailable", silent, { cause: error });
    }
  }

  #breakerOf(peer: string): CircuitBreakerPolicy {
    let breaker = this.#breakers.get(peer);
    if (breaker === undefined) {
      breaker = circuitBreaker(
        handleType(CallError, ({ code }) => code === "timeout"),
        { halfOpenAfter: BREAK_MS, breaker: new ConsecutiveBreaker(BREAKS_AFTER) },
      );
      this.#breakers.set(peer, breaker);
    }
    return breaker;
  }

  /** @param wholeMs how long the caller is ready to wait in all, which is what an error tells */
  async #askOnce(
    to: Address,
    request: Request,
    options: CallOptions,
    messageId: string,
    wholeMs: number,
  ): Promise<unknown> {
    let received: Answer | undefined;
    const ending = await this.#ask(to, request, {
      ...options,
      ...{ correlationId: randomUUID(), messageId },
      take: (message) => {
        const inParts = message.properties.headers?.[PART_HEADER] !== undefined;
        received = inParts ? unasked(to, request) : resultOf(to, request, message);
        return true;
      },
    });
    if (ending.kind === "unsent") throw ending.error;
    if (ending.kind !== "enough" || received === undefined) {
      const why = ending.kind === "enough" ? "lost" : ending.kind;
      throw unanswered(to, request, why, { ...options, timeoutMs: wholeMs });
    }
    if (!received.ok) throw received.error;
    return received.result;
  }

  /** Sends a request and hands what comes back to `take`, until that says that it has enough. */
  async #ask(
    to: Address,
    request: Request,
    options: CallOptions & {
      readonly correlationId: string;
      readonly messageId: string;
      readonly credit?: number;
      readonly take: (message: ConsumeMessage, extend: () => void) => boolean;
    },
  ): Promise<Ending> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, correlationId, messageId, credit, take, trace } = options;
    let isSent = false;
    const ending = await this.#untilOver(to, options, async (over, { finish, sent, extend }) => {
      // Who waits for something waits for its end as well; mostly there is nothing to wait for.
      if (!this.#room.tryToEnter() && !(await this.#room.enter(over.signal()))) return;
      if (over.isOver) return this.#room.leave();
      over.afterwards(() => this.#room.leave());
      const replyTo = this.#replies.name ?? (await this.#replies.opened(over.signal()));
      if (over.isOver) return;
      if (replyTo === undefined) {
        const error = new CallError("unavailable", `${to.whom} cannot be called: the bus is stopped`);
        finish({ kind: "unsent", error });
        return;
      }
      const forget = this.#replies.expect(correlationId, {
        take: (message) => {
          if (take(message, extend)) finish({ kind: "enough" });
        },
        lose: () => finish({ kind: "lost" }),
      });
      over.afterwards(forget);
      const properties = { correlationId, replyTo, messageId, expiration: expirationOf(timeoutMs) };
      isSent = true;
      const message = messageOfRequest(to, request, properties, trace, credit);
      const outcome = await to.publisher.send(message, over.signal);
      if (outcome.ok) sent();
      else if (outcome.error instanceof PublishUnknownError) finish({ kind: "lost" });
      else finish({ kind: "unsent", error: unsent(to, outcome.error) });
    });
    if (ending.kind === "cancelled" && isSent) this.#cancel(to, correlationId);
    return ending;
  }

  /** Tells whoever is at a call that nobody waits for it. When that gets lost, its deadline ends it. */
  #cancel({ cancels, publisher }: Address, call: string): void {
    const replyTo = this.#replies.name;
    if (replyTo === undefined) return;
    const body = Buffer.from(JSON.stringify({ type: CANCEL_CALL, args: { call, replyTo } }));
    const options = { contentType: "application/json", expiration: expirationOf(DEFAULT_TIMEOUT_MS) };
    void publisher.publish([{ ...cancels, body, options }], AbortSignal.timeout(DEFAULT_TIMEOUT_MS));
  }

  /** Lets the other side send more parts. */
  async #grant(server: string, correlationId: string, parts: number): Promise<void> {
    const replyTo = this.#replies.name;
    if (replyTo === undefined) return;
    const options = { correlationId, replyTo, type: CREDIT_TYPE, headers: { [CREDIT_HEADER]: parts } };
    const message = { exchange: "", routingKey: server, body: Buffer.alloc(0), options };
    await this.#publisher.publish([message], AbortSignal.timeout(DEFAULT_TIMEOUT_MS));
  }

  /** Does something that ends by itself, or when its time is over, or when whoever asked for it gives up. */
  async #untilOver(
    { whom }: Address,
    { timeoutMs = DEFAULT_TIMEOUT_MS, signal }: CallOptions,
    run: (over: Over, progress: Progress) => Promise<void>,
  ): Promise<Ending> {
    if (signal?.aborted === true) return { kind: "cancelled" };
    const over = new Over();
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
        over.end();
        resolve(ending);
      };
      const cancel = () => finish({ kind: "cancelled" });
      const startTimer = () => this.#clock.after(timeoutMs, () => finish(timeout()));
      let stopTimer = startTimer();
      if (signal !== undefined) {
        // Many calls may well share one.
        setMaxListeners(0, signal);
        signal.addEventListener("abort", cancel, { once: true });
      }
      const sent = () => {
        isSent = true;
      };
      const extend = () => {
        if (over.isOver) return;
        stopTimer();
        stopTimer = startTimer();
      };
      run(over, { finish, sent, extend }).catch((error: unknown) => {
        reject(error);
        cancel();
      });
    });
  }
}

/**
 * That something is over, for those who have a part in it. An AbortSignal is made only for those who ask for one:
 * with its error and its listeners it costs as much as a whole call.
 */
class Over {
  #isOver = false;
  #controller: AbortController | undefined;
  readonly #cleanUps: (() => void)[] = [];

  get isOver(): boolean {
    return this.#isOver;
  }

  readonly signal = (): AbortSignal => {
    this.#controller ??= new AbortController();
    if (this.#isOver) this.#controller.abort(OVER);
    return this.#controller.signal;
  };

  afterwards(cleanUp: () => void): void {
    if (this.#isOver) cleanUp();
    else this.#cleanUps.push(cleanUp);
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#controller?.abort(OVER);
    for (const cleanUp of this.#cleanUps) cleanUp();
  }
}

/** Given as a reason, lest each signal make an error of its own. */
const OVER = new Error("it is over");

function partOf(message: ConsumeMessage): {
  readonly index: number;
  readonly isLast: boolean;
  readonly server: string | undefined;
} {
  const { headers, replyTo } = message.properties;
  const index: unknown = headers?.[PART_HEADER];
  const server = typeof replyTo === "string" && replyTo !== "" ? replyTo : undefined;
  // An answer that is none of parts is one of a single part.
  if (typeof index !== "number") return { index: 0, isLast: true, server };
  return { index, isLast: headers?.[LAST_HEADER] === true, server };
}

/** What a message says, checked against what it should be. */
function resultOf({ whom }: Address, { type, definition }: Request, message: ConsumeMessage): Answer {
  const answer = parseReply(message.content);
  if (!answer.ok) return answer;
  const parsed = definition.result.safeParse(answer.result);
  if (parsed.success) return { ok: true, result: parsed.data };
  const faults = summaryOf(fieldErrorsOf(parsed.error));
  const error = new CallError(
    "internal",
    `the answer of ${whom} to "${type}" is not what it should be: ${faults}`,
  );
  return { ok: false, error };
}

function missingPart({ whom }: Address, { type }: Request): Answer {
  const message = `a part of the answer of ${whom} to "${type}" was lost on the way`;
  return { ok: false, error: new CallError("unavailable", message) };
}

function unasked({ whom }: Address, { type }: Request): Answer {
  const message = `${whom} answers "${type}" in parts: it must be asked for them`;
  return { ok: false, error: new CallError("internal", message) };
}

function messageOfRequest(
  { exchange, routingKey, mandatory }: Address,
  { type, args }: Request,
  properties: Outgoing["options"],
  trace: TraceContext | undefined,
  credit?: number,
): Outgoing {
  const headers = { ...trace, ...(credit !== undefined && { [CREDIT_HEADER]: credit }) };
  return {
    exchange,
    routingKey,
    body: Buffer.from(JSON.stringify({ type, args })),
    options: {
      mandatory,
      contentType: "application/json",
      ...properties,
      ...((trace !== undefined || credit !== undefined) && { headers }),
    },
  };
}

function unsent({ whom }: Address, error: Error): CallError {
  return new CallError("unavailable", `${whom} cannot be reached: ${error.message}`, { cause: error });
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
      return new AnswerLostError(`the connection was lost while ${whom} was awaited to answer "${type}"`);
    default:
      return why satisfies never;
  }
}
