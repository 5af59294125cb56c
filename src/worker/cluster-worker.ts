import { Bus, type DeadLetterReason, type TaskDelivery } from "../bus/index.js";
import { Engine } from "../crawl/engine.js";
import { Fetcher, type FetcherOptions } from "../crawl/fetcher.js";
import type { TaskLimits } from "../crawl/limits.js";
import { Robots } from "../crawl/robots.js";
import { type Clock, systemClock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { LogRing } from "../lib/log-ring.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import { CALLS, type WarrenBus } from "../protocol/index.js";
import { Aftermath, type CommittedGroup, Committer, Replies, TaskEvents } from "../results/index.js";
import { bundledSpiders } from "../spiders/index.js";
import { Store } from "../store/index.js";
import { CrawlView } from "./crawl-view.js";
import { ExternalTasks } from "./external-tasks.js";
import { nodeCommands } from "./node-commands.js";
import { NodePresence } from "./node-presence.js";
import type { Checks } from "./probe-server.js";
import { type TaskContext, TaskLoop } from "./task-loop.js";

export type ClusterWorkerOptions = {
  readonly nodeId: string;
  readonly version: string;
  readonly amqpUrls: readonly string[];
  readonly mongodbUri: string;
  readonly namespace: string;
  readonly concurrency: number;
  readonly userAgent: string;
  readonly fetcher: Partial<FetcherOptions> & { readonly userAgent: string };
  readonly limits: Partial<TaskLimits>;
  /** How long tasks that run may take to end when the worker stops, in milliseconds. */
  readonly shutdownTimeoutMs: number;
};

/** Time that a stopping worker keeps for storing and acknowledging, in milliseconds. */
const STORE_GRACE_MS = 8_000;

export type ClusterWorkerDeps = {
  readonly logger: Logger;
  /** What the logger has written of late. */
  readonly log: LogRing;
  readonly metrics: Metrics;
  /** Asks the program to stop in the orderly way. */
  readonly shutdown: () => void;
};

/** One node of the cluster: everything a worker runs, in the order in which it starts and stops. */
export class ClusterWorker implements Service {
  readonly name = "worker";
  readonly checks: Checks;
  readonly #options: ClusterWorkerOptions;
  readonly #deps: ClusterWorkerDeps;
  readonly #clock: Clock;
  readonly #store: Store;
  readonly #bus: WarrenBus;
  readonly #fetcher: Fetcher;
  readonly #crawls: CrawlView;
  readonly #engine: Engine;
  readonly #committer: Committer<TaskContext>;
  readonly #events: TaskEvents;
  readonly #replies: Replies;
  readonly #aftermath: Aftermath;
  readonly #loop: TaskLoop;
  readonly #presence: NodePresence;
  readonly #epoch: number;
  #stopServing: (() => Promise<void>) | undefined;
  #isReady = false;

  constructor(options: ClusterWorkerOptions, deps: ClusterWorkerDeps) {
    this.#options = options;
    this.#deps = deps;
    const { logger, metrics } = deps;
    const { nodeId, namespace, version, userAgent } = options;
    this.#epoch = Date.now();
    this.#store = new Store({ uri: options.mongodbUri, namespace }, { logger });
    // Instants that masters and workers compare are read off one clock: the database server's.
    const clock = { ...systemClock, now: () => this.#store.serverClock.now() };
    this.#clock = clock;
    this.#bus = new Bus(
      { urls: options.amqpUrls, namespace, identity: { role: "worker", id: nodeId, version } },
      { logger, clock, metrics, tables: CALLS },
    );
    this.#fetcher = new Fetcher(options.fetcher);
    this.#crawls = new CrawlView({
      crawls: this.#store.crawls,
      leases: this.#store.leases,
      serverClock: this.#store.serverClock,
      clock,
      logger,
      onStopped: (crawl) => this.#loop.cancelCrawl(crawl),
    });
    this.#engine = new Engine(
      {
        fetcher: this.#fetcher,
        robots: new Robots({ fetcher: this.#fetcher, store: this.#store.robots, clock, userAgent, logger }),
        files: this.#store.contents,
        spiders: bundledSpiders,
        claims: this.#store.frontier,
        clock,
        logger,
        metrics,
        node: nodeId,
      },
      options.limits,
    );
    this.#events = new TaskEvents(this.#bus.events, nodeId, clock);
    this.#replies = new Replies(this.#store.replies, this.#bus.calls, logger);
    this.#aftermath = new Aftermath({
      events: this.#events,
      replies: this.#replies,
      crawls: this.#store.crawls,
      metrics,
    });
    this.#committer = new Committer<TaskContext>({
      frontier: this.#store.frontier,
      results: this.#store.results,
      hosts: this.#store.hosts,
      clock,
      logger,
      expected: () => this.#loop.unfinished,
      onCommitted: (group) => this.#committed(group),
    });
    const external = new ExternalTasks({
      store: this.#store,
      crawls: this.#crawls,
      spiders: bundledSpiders,
      replies: this.#replies,
      events: this.#events,
      clock,
      logger,
      acknowledge: (deliveries) => this.#bus.tasks.settle(deliveries, { kind: "ack" }),
      giveUp: (delivery, reason, error) => this.#giveUp(delivery, reason, error),
    });
    this.#loop = new TaskLoop(
      {
        queue: this.#bus.tasks,
        engine: this.#engine,
        crawls: this.#crawls,
        committer: this.#committer,
        external,
        clock,
        logger,
        metrics,
        isExternal: (spider) => !bundledSpiders.has(spider) && this.#isStored(spider),
        onStarted: (task) => this.#events.started(task),
        onGarbage: (delivery) => {
          void this.#giveUp(delivery, "invalid-message", "is not a dispatched task").catch(
            (error: unknown) => {
              logger.warn({ error: messageOf(error) }, "could not give up a message; it will come again");
            },
          );
        },
      },
      {
        concurrency: options.concurrency,
        // What is handed back at the last moment has to be stored and acknowledged as well.
        drainMs: Math.max(options.shutdownTimeoutMs / 2, options.shutdownTimeoutMs - STORE_GRACE_MS),
      },
    );
    this.#presence = new NodePresence(
      { node: nodeId, epoch: this.#epoch, version, heartbeatMs: 2_000 },
      {
        calls: this.#bus.calls,
        loop: this.#loop,
        clock,
        logger,
        onClosed: (crawls) => {
          for (const crawl of crawls) this.#loop.cancelCrawl(crawl);
        },
      },
    );
    this.checks = { amqp: () => this.#bus.connected, started: () => this.#isReady };
  }

  async start(): Promise<void> {
    const { logger, shutdown } = this.#deps;
    const { nodeId, version } = this.#options;
    await Promise.all([this.#store.start(), this.#bus.start()]);
    await this.#crawls.start();
    const handlers = nodeCommands({
      node: nodeId,
      version,
      epoch: this.#epoch,
      loop: this.#loop,
      spiders: bundledSpiders,
      log: this.#deps.log,
      clock: this.#clock,
      logger,
      shutdown,
      onChange: () => this.#presence.beatNow(),
    });
    this.#stopServing = await this.#bus.calls.serveNode(nodeId, handlers);
    await this.#loop.start();
    await this.#presence.start();
    this.#isReady = true;
    logger.info({ concurrency: this.#options.concurrency }, "ready");
  }

  /** Ends what runs before it leaves, so that nothing is in flight that nobody works on. */
  async stop(): Promise<void> {
    this.#isReady = false;
    if (this.#bus.connected) await this.#loop.stop();
    await this.#presence.stop();
    this.#events.flush();
    await this.#stopServing?.();
    await this.#crawls.stop();
    await this.#bus.stop();
    await this.#store.stop();
    await this.#fetcher.close();
  }

  async #isStored(spider: string): Promise<boolean> {
    return (await this.#store.spiders.get(spider)) !== undefined;
  }

  /** A group is stored: now it may be acknowledged, told and answered. */
  async #committed(group: CommittedGroup<TaskContext>): Promise<void> {
    const deliveries = group.members.map(({ context }) => context.delivery);
    this.#bus.tasks.settle(deliveries, { kind: "ack" });
    this.#loop.settled(deliveries);
    await this.#aftermath.follow(group);
  }

  /** Sends a message to the dead letters, tells who asked for an answer, and only then acknowledges it. */
  async #giveUp(delivery: TaskDelivery, reason: DeadLetterReason, error: string): Promise<void> {
    this.#deps.logger.info({ reason, error }, "a message was given up");
    this.#deps.metrics.deadLetters.inc({ reason });
    await this.#bus.deadLetters.send(delivery, { reason, error }, delivery.signal);
    if (delivery.replyTo !== undefined) {
      const url = delivery.body.subarray(0, 2_048).toString("utf8");
      const body = { url, state: "failed", reason, items: 0, files: 0, error: `${reason}: ${error}` };
      await this.#bus.calls
        .reply(delivery.replyTo, delivery.correlationId, body)
        .catch((failure: unknown) => {
          this.#deps.logger.warn({ error: messageOf(failure) }, "could not send a reply");
        });
    }
    this.#bus.tasks.settle([delivery], { kind: "ack" });
  }
}
