import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { TraceContext } from "../lib/trace-context.js";
import type { Answers } from "./answers.js";
import { CallServer, type Stop } from "./call-server.js";
import {
  ANY_CALL,
  type AnyCalls,
  type ArgsOf,
  type CallTable,
  type CheckedHandlers,
  type HandlersOf,
  type ResultOf,
} from "./call-table.js";
import {
  type Address,
  type BroadcastCallOptions,
  Caller,
  type CallOptions,
  type Gathered,
  type Request,
} from "./caller.js";
import type { SupervisedConnection } from "./connection.js";
import type { Publisher } from "./publisher.js";
import { ReplyQueue } from "./reply-queue.js";
import { COMMAND_KEY, type Names } from "./topology.js";

/** The calls that nodes and masters serve. */
export type CallTables<Node extends CallTable = AnyCalls, Master extends CallTable = AnyCalls> = {
  readonly node: Node;
  readonly master: Master;
};

/** Arguments may be left out when none are needed. */
type Asking<Args, Options> =
  Record<never, never> extends Args ? [args?: Args, options?: Options] : [args: Args, options?: Options];

/**
 * Calls and commands, both ways: to one node, to every node, and to whichever master is free. What there is to
 * call is in two tables, from which come types, checks and documents.
 */
export class Calls<Node extends CallTable = AnyCalls, Master extends CallTable = AnyCalls> {
  readonly #names: Names;
  readonly #publisher: Publisher;
  /** For addresses that may not be there: the broker closes the channel for that, and all on it suffer. */
  readonly #risky: Publisher;
  readonly #answers: Answers;
  readonly #replies: ReplyQueue;
  readonly #caller: Caller;
  readonly #server: CallServer;
  readonly #tables: CallTables<CallTable, CallTable>;

  constructor(parts: {
    readonly names: Names;
    readonly publisher: Publisher;
    readonly risky: Publisher;
    readonly answers: Answers;
    readonly consuming: SupervisedConnection;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics?: Metrics;
    /** Calls that wait for their answer at once. */
    readonly maxCalls: number;
    readonly tables?: CallTables<Node, Master>;
  }) {
    this.#names = parts.names;
    this.#publisher = parts.publisher;
    this.#risky = parts.risky;
    this.#answers = parts.answers;
    this.#tables = parts.tables ?? { node: {}, master: {} };
    this.#replies = new ReplyQueue(parts.consuming, (message) => this.#server.grant(message));
    this.#caller = new Caller({ ...parts, replies: this.#replies });
    this.#server = new CallServer({ ...parts, replies: () => this.#replies });
  }

  /** Answers that came when nobody waited for them any more. */
  get late(): number {
    return this.#replies.late;
  }

  /**
   * @throws CallError what the node answered; `unavailable` at once when it is not there, or was silent so often
   *   that it is given a rest; `timeout`; `cancelled`
   */
  async callNode<Type extends keyof Node & string>(
    node: string,
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Node, Type>, CallOptions>
  ): Promise<ResultOf<Node, Type>> {
    const result = await this.#caller.call(this.#toNode(node), this.#toAsk("node", type, args), options);
    return result as ResultOf<Node, Type>;
  }

  /**
   * Calls a node that answers in parts, and yields them as they come. They are sent as fast as they are taken, a few
   * ahead; whoever stops early stops the node. @throws CallError
   */
  streamNode<Type extends keyof Node & string>(
    node: string,
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Node, Type>, CallOptions>
  ): AsyncGenerator<ResultOf<Node, Type>, void> {
    const parts = this.#caller.stream(this.#toNode(node), this.#toAsk("node", type, args), options);
    return parts as AsyncGenerator<ResultOf<Node, Type>, void>;
  }

  /** Calls whichever master is free. @throws CallError */
  async callMaster<Type extends keyof Master & string>(
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Master, Type>, CallOptions>
  ): Promise<ResultOf<Master, Type>> {
    const result = await this.#caller.call(this.#toMasters(), this.#toAsk("master", type, args), options);
    return result as ResultOf<Master, Type>;
  }

  /** The same for a master's answer in parts. @throws CallError */
  streamMaster<Type extends keyof Master & string>(
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Master, Type>, CallOptions>
  ): AsyncGenerator<ResultOf<Master, Type>, void> {
    const parts = this.#caller.stream(this.#toMasters(), this.#toAsk("master", type, args), options);
    return parts as AsyncGenerator<ResultOf<Master, Type>, void>;
  }

  /** Tells a node something, without waiting for what it makes of it. @throws CallError `unavailable` */
  commandNode<Type extends keyof Node & string>(
    node: string,
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Node, Type>, CallOptions>
  ): Promise<void> {
    return this.#caller.tell(this.#toNode(node), this.#toAsk("node", type, args), options);
  }

  /** Tells every node something. Nodes that are away miss it. @throws CallError `unavailable` */
  broadcast<Type extends keyof Node & string>(
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Node, Type>, CallOptions>
  ): Promise<void> {
    return this.#caller.tell(this.#toNodes(), this.#toAsk("node", type, args), options);
  }

  /**
   * Calls every node and gathers what they answer until all expected ones have, or the time is over.
   * @throws CallError `unavailable` when it could not be sent, or answers may have been lost; `cancelled`
   */
  async broadcastCall<Type extends keyof Node & string>(
    type: Type,
    ...[args, options = {}]: Asking<ArgsOf<Node, Type>, BroadcastCallOptions<ResultOf<Node, Type>>>
  ): Promise<Gathered<ResultOf<Node, Type>>> {
    const gathered = await this.#caller.gather(
      this.#toNodes(),
      this.#toAsk("node", type, args),
      options as BroadcastCallOptions,
    );
    return gathered as Gathered<ResultOf<Node, Type>>;
  }

  /**
   * Answers whoever handed in something, on the queue that it named; nothing is wrong when that is gone. It may
   * arrive twice when the connection is lost meanwhile.
   * @throws BusError when it could not be sent, for example because RabbitMQ is away for more than ten seconds
   */
  async reply(
    replyTo: string,
    correlationId: string | undefined,
    body: unknown,
    trace?: TraceContext,
  ): Promise<void> {
    const outcome = await this.#answers.send({
      replyTo,
      correlationId,
      body: Buffer.from(JSON.stringify(body)),
      persistent: true,
      ...(trace !== undefined && { headers: trace }),
    });
    if (!outcome.ok) throw outcome.error;
  }

  /** Serves the commands and calls to a node, its own and those to every node. */
  serveNode(node: string, handlers: HandlersOf<Node>): Promise<Stop> {
    return this.#server.serveNode(node, this.#tables.node, handlers as CheckedHandlers);
  }

  /**
   * Serves the calls that any master may answer. One is the broker's again if this process dies over it.
   * @returns ends it: takes no more, and resolves when those at hand are answered
   */
  serveMaster(master: string, handlers: HandlersOf<Master>): Promise<Stop> {
    return this.#server.serveMaster(master, this.#tables.master, handlers as CheckedHandlers);
  }

  #toAsk(side: "node" | "master", type: string, args: unknown): Request {
    const table = this.#tables[side];
    const definition = (Object.hasOwn(table, type) ? table[type] : undefined) ?? ANY_CALL;
    return { type, args: args ?? {}, definition };
  }

  #toNode(node: string): Address {
    const at = { exchange: this.#names.node(node), routingKey: COMMAND_KEY };
    return {
      whom: `node "${node}"`,
      ...at,
      publisher: this.#risky,
      mandatory: true,
      cancels: at,
      peer: node,
    };
  }

  #toMasters(): Address {
    return {
      whom: "any master",
      exchange: "",
      routingKey: this.#names.master(),
      publisher: this.#publisher,
      mandatory: true,
      cancels: { exchange: this.#names.cancels(), routingKey: "" },
    };
  }

  #toNodes(): Address {
    const at = { exchange: this.#names.broadcast(), routingKey: "" };
    return { whom: "the nodes", ...at, publisher: this.#publisher, mandatory: false, cancels: at };
  }
}
