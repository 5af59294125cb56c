import type { Channel } from "amqplib";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import { Answers } from "./answers.js";
import type { AnyCalls, CallTable } from "./call-table.js";
import { Calls, type CallTables } from "./calls.js";
import { type ConnectionOptions, type Identity, SupervisedConnection } from "./connection.js";
import { type DeadLetterArchive, DeadLetters } from "./dead-letters.js";
import { Events } from "./events.js";
import { ItemStream } from "./item-stream.js";
import { NodeClaim } from "./node-claim.js";
import { Publisher } from "./publisher.js";
import type { SecurityOptions } from "./security.js";
import { TaskQueues } from "./task-queues.js";
import { declareTopology, Names, TOPOLOGY_DEFAULTS, type TopologyOptions } from "./topology.js";
import { WorkQueue } from "./work-queue.js";

export type BusOptions = {
  /** `amqp://` or `amqps://`, tried in turn. */
  readonly urls: readonly string[];
  /** Prefix of every name on the broker. */
  readonly namespace: string;
  readonly identity: Identity;
  /** For `amqps://`: whom to trust, and what to show. @default none of it */
  readonly security?: SecurityOptions;
  /** A peer that is silent for two of these is gone, in seconds. A URL's `heartbeat` goes first. @default 10 */
  readonly heartbeatSeconds?: number;
  /** Longest time for one attempt to connect, in milliseconds. @default 10_000 */
  readonly connectTimeoutMs?: number;
  /** Bounds of the wait between attempts, which grows with jitter, in ms. @default 200 to 3_000 */
  readonly reconnect?: ConnectionOptions["reconnect"];
  /** How often bindings are made again, should someone have removed them, in milliseconds, about. @default 15_000 */
  readonly refreshMs?: number;
  /** Messages sent and not yet confirmed at most. @default 512 */
  readonly maxUnconfirmed?: number;
  /** Their bytes at most. @default 16 MiB */
  readonly maxUnconfirmedBytes?: number;
  /** Calls that wait for their answer at most; more of them wait for their turn. @default 1_000 */
  readonly maxCalls?: number;
  readonly topology?: Partial<TopologyOptions>;
};

export type BusDeps = {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metrics?: Metrics;
  /** Where dead letters are kept, besides their queue. */
  readonly archive?: DeadLetterArchive;
  readonly random?: () => number;
};

const DEFAULTS = {
  heartbeatSeconds: 10,
  connectTimeoutMs: 10_000,
  // A broker that is back is noticed within the longer one.
  reconnect: { minMs: 200, maxMs: 3_000 },
  refreshMs: 15_000,
  maxUnconfirmed: 512,
  maxUnconfirmedBytes: 16 * 1_048_576,
  maxCalls: 1_000,
};

/** A queue of nodes that a crawl had selected goes when nothing was done with it for so long, in milliseconds. */
const UNUSED_PLACE_MS = 600_000;

/** How long a stop waits for messages under way to be confirmed, in milliseconds. */
const STOP_GRACE_MS = 5_000;

/** Waits of the connection for direct replies, which strangers can make us lose: never long, in milliseconds. */
const DIRECT_RECONNECT = { minMs: 50, maxMs: 1_000 };

/**
 * The bus: everything that goes over RabbitMQ. Two connections, because an alarm of the broker blocks those
 * that publish, and acknowledgements must not wait for that; and a third once it is needed, see `Answers`.
 */
export class Bus<Node extends CallTable = AnyCalls, Master extends CallTable = AnyCalls> implements Service {
  readonly name = "bus";
  readonly tasks: WorkQueue;
  /** Of spiders whose pages are read by workers that are not Warren's. */
  readonly spiderQueues: TaskQueues;
  /** Of nodes that crawls have selected. */
  readonly placedQueues: TaskQueues;
  readonly events: Events;
  readonly items: ItemStream;
  readonly calls: Calls<Node, Master>;
  readonly deadLetters: DeadLetters;
  readonly #publishing: SupervisedConnection;
  readonly #consuming: SupervisedConnection;
  readonly #direct: SupervisedConnection;
  readonly #names: Names;
  readonly #onReconnect = new Set<() => void>();
  readonly #publishers: readonly (Publisher | Answers)[];

  constructor(given: BusOptions, deps: BusDeps & { readonly tables?: CallTables<Node, Master> }) {
    const options = { ...DEFAULTS, ...given };
    const names = new Names(options.namespace);
    const topology = { ...TOPOLOGY_DEFAULTS, ...options.topology };
    const { logger, clock, metrics, archive, random = Math.random } = deps;
    const connectionDeps = {
      logger,
      clock,
      random,
      ...(metrics !== undefined && { metrics }),
      declare: async (channel: Channel) => {
        await declareTopology(channel, names, topology);
        await this.spiderQueues.declareOn(channel);
        await this.placedQueues.declareOn(channel);
      },
    };
    const connection = (purpose: "publish" | "consume") =>
      new SupervisedConnection(
        { ...options, purpose },
        { ...connectionDeps, check: (channel) => channel.checkQueue(names.tasks()) },
      );
    const publishing = connection("publish");
    const consuming = connection("consume");
    this.#names = names;
    this.#publishing = publishing;
    this.#consuming = consuming;
    for (const each of [publishing, consuming]) {
      each.onRestored(() => this.#tellOfReconnect(logger));
    }
    const taskPublisher = new Publisher(publishing, "tasks", { ...options, toOneQueue: true });
    const publisher = new Publisher(publishing, "messages", options);
    const risky = new Publisher(publishing, "commands to nodes", { ...options, redeclares: false });
    this.#direct = new SupervisedConnection(
      { ...options, purpose: "answer", reconnect: DIRECT_RECONNECT },
      { ...connectionDeps, declare: async () => {} },
    );
    const answers = new Answers({ publisher, direct: this.#direct, logger });
    this.#publishers = [taskPublisher, publisher, risky, answers];
    const taking = { publisher: taskPublisher, consuming, unsettled: new WeakMap() };
    this.tasks = new WorkQueue(names.tasks(), taking);
    this.spiderQueues = new TaskQueues({ ...taking, names, topology, nameOf: names.tasksOf });
    this.placedQueues = new TaskQueues({
      ...taking,
      names,
      topology,
      nameOf: names.placed,
      expiresMs: UNUSED_PLACE_MS,
    });
    const { role, id } = options.identity;
    this.events = new Events({
      exchange: names.events(),
      source: `/${options.namespace}/${role}/${id}`,
      publishing,
      consuming,
      logger,
      ...(metrics !== undefined && { metrics }),
    });
    this.items = new ItemStream(names.items(), publisher);
    this.calls = new Calls<Node, Master>({
      maxCalls: options.maxCalls,
      ...(deps.tables !== undefined && { tables: deps.tables }),
      names,
      publisher,
      risky,
      answers,
      consuming,
      clock,
      logger,
      ...(metrics !== undefined && { metrics }),
    });
    this.deadLetters = new DeadLetters({
      names,
      publisher,
      consuming,
      clock,
      logger,
      deliveryLimit: topology.deliveryLimit,
      ...(archive !== undefined && { archive }),
    });
  }

  /** Whether messages can be sent and taken now. */
  get connected(): boolean {
    return this.#publishing.isReady && this.#consuming.isReady;
  }

  /**
   * Resolves when the bus can be used; from then on it is kept up until `stop`.
   * @throws ConfigError when trying again cannot help: a wrong URL, password or virtual host, or a queue that
   *   exists with other arguments
   * @throws BusStoppedError when it was stopped meanwhile
   */
  async start(): Promise<void> {
    try {
      await Promise.all([this.#consuming.start(), this.#publishing.start()]);
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  /** Claims a node's id for this process, now and after every reconnect. */
  claimNode(node: string): NodeClaim {
    return new NodeClaim(this.#names.node(node), this.#consuming);
  }

  /**
   * Calls the listener each time that the bus can be used again after a connection was lost: everything is declared
   * and whoever consumes does so again. What came in between is lost to those whose queues are their own.
   * @returns ends it
   */
  onReconnect(listener: () => void): () => void {
    this.#onReconnect.add(listener);
    return () => {
      this.#onReconnect.delete(listener);
    };
  }

  #tellOfReconnect(logger: Logger): void {
    if (!this.connected) return;
    for (const listener of this.#onReconnect) {
      try {
        listener();
      } catch (error) {
        logger.error({ err: error }, "a listener to reconnects failed");
      }
    }
  }

  /** Waits a while for what is under way to be confirmed, then closes. */
  async stop(): Promise<void> {
    if (this.connected) await Promise.all(this.#publishers.map((each) => each.settled(STOP_GRACE_MS)));
    await this.#close();
  }

  async #close(): Promise<void> {
    await Promise.all([this.#consuming, this.#publishing, this.#direct].map((each) => each.stop()));
  }
}
