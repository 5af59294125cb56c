import { Bus, type SecurityOptions, type TopologyOptions } from "../bus/index.js";
import type { Crawl } from "../crawl/crawl.js";
import type { CrawlLogContext } from "../crawl/crawl-log.js";
import { Engine } from "../crawl/engine.js";
import { Fetcher, type FetcherOptions } from "../crawl/fetch/fetcher.js";
import type { TaskLimits } from "../crawl/limits.js";
import type { Documents } from "../crawl/pages/documents.js";
import { Browser } from "../crawl/render/browser.js";
import { Renderer, type RenderingOptions } from "../crawl/render/renderer.js";
import { Robots, robotsOptionsOf } from "../crawl/robots/robots.js";
import type { Spider } from "../crawl/spider.js";
import { type Clock, systemClock } from "../lib/clock.js";
import type { LogRing } from "../lib/log-ring.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import { traceFields } from "../lib/trace-context.js";
import { CALLS, type WarrenBus } from "../protocol/index.js";
import { Aftermath, type CommittedGroup, Committer, Replies, TaskEvents } from "../results/index.js";
import { bundledSpiders } from "../spiders/index.js";
import { type CrawlLogsOptions, type DeadLettersOptions, Store } from "../store/index.js";
import { NodeCode, type NodeCodeOptions } from "./code/node-code.js";
import {
  CrawlLog,
  type CrawlLogOptions,
  LogShipper,
  logSpiderFaults,
  WorkerLines,
} from "./crawl-log/index.js";
import { CrawlView } from "./crawl-view.js";
import { ExternalTasks } from "./external-tasks.js";
import { LogEvents } from "./log-events.js";
import { nodeCommands } from "./node-commands.js";
import { NodeConfiguration } from "./node-configuration.js";
import { NodeIdentity } from "./node-identity.js";
import { NodePresence } from "./node-presence.js";
import type { Checks } from "./probe-server.js";
import { Refusals } from "./refusals.js";
import { RunLoop } from "./runs/run-loop.js";
import { StallWatch } from "./stall-watch.js";
import { TaskIntake } from "./task-intake.js";
import { type Stopped, type TaskContext, TaskLoop } from "./task-loop.js";

export type ClusterWorkerOptions = {
  readonly nodeId: string;
  readonly version: string;
  readonly amqpUrls: readonly string[];
  readonly amqpSecurity: SecurityOptions;
  readonly mongodbUri: string;
  readonly namespace: string;
  readonly concurrency: number;
  /** Runs at once. */
  readonly runs: number;
  /** By which crawls may select this node. @default those that it had when it ran last */
  readonly labels?: Readonly<Record<string, string>>;
  readonly userAgent: string;
  readonly fetcher: Partial<FetcherOptions> & { readonly userAgent: string };
  readonly limits: Partial<TaskLimits>;
  readonly rendering: RenderingOptions;
  /** How long tasks that run may take to end when the worker stops, in milliseconds. */
  readonly shutdownTimeoutMs: number;
  readonly topology: TopologyOptions;
  readonly deadLetters: DeadLettersOptions;
  /** Items of one crawl that are kept though they are not as they should be. */
  readonly invalidItemsKept: number;
  /** How long lines of crawls' logs are kept in the database; and how they are kept here. */
  readonly crawlLogs: CrawlLogsOptions;
  readonly crawlLog: Omit<CrawlLogOptions, "node">;
  /** Workers that a URL may end before it is set aside. */
  readonly maxCrashes: number;
  /** Where spiders' code is kept, how much of it, and how what it needs is installed. */
  readonly spiders: Omit<NodeCodeOptions, "node">;
};

/** Time that a stopping worker keeps for storing and acknowledging, in milliseconds. */
const STORE_GRACE_MS = 8_000;

export type ClusterWorkerDeps = {
  readonly logger: Logger;
  /** What the logger has written of late. */
  readonly log: LogRing;
  readonly metrics: Metrics;
  /** @default one of its own */
  readonly documents?: Documents;
  /** Asks the program to stop in the orderly way; because of an error, if one is given. */
  readonly shutdown: (error?: Error) => void;
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
  readonly #browser: Browser;
  readonly #renderer: Renderer;
  readonly #crawls: CrawlView;
  readonly #code: NodeCode;
  readonly #engine: Engine;
  readonly #committer: Committer<TaskContext>;
  readonly #events: TaskEvents;
  readonly #logEvents: LogEvents;
  readonly #crawlLog: CrawlLog;
  readonly #logShipper: LogShipper;
  readonly #workerLines: WorkerLines;
  readonly #replies: Replies;
  readonly #aftermath: Aftermath;
  readonly #refusals: Refusals;
  readonly #stalls: StallWatch;
  readonly #loop: TaskLoop;
  readonly #runs: RunLoop;
  readonly #presence: NodePresence;
  readonly #identity: NodeIdentity;
  readonly #configuration: NodeConfiguration;
  #stopServing: (() => Promise<void>) | undefined;
  #isReady = false;

  constructor(options: ClusterWorkerOptions, deps: ClusterWorkerDeps) {
    this.#options = options;
    this.#deps = deps;
    const { logger, metrics } = deps;
    const { nodeId, namespace, version, userAgent } = options;
    this.#store = new Store(
      {
        ...{ uri: options.mongodbUri, namespace },
        invalidItemsKept: options.invalidItemsKept,
        ...{ deadLetters: options.deadLetters, crawlLogs: options.crawlLogs },
      },
      { logger },
    );
    // Instants that masters and workers compare are read off one clock: the database server's.
    const clock = { ...systemClock, now: () => this.#store.serverClock.now() };
    this.#clock = clock;
    this.#bus = new Bus(
      {
        urls: options.amqpUrls,
        security: options.amqpSecurity,
        namespace,
        identity: { role: "worker", id: nodeId, version },
        topology: options.topology,
      },
      { logger, clock, metrics, tables: CALLS, archive: this.#store.deadLetters },
    );
    this.#crawlLog = new CrawlLog(
      { ...options.crawlLog, node: nodeId },
      { epoch: () => this.#identity.epoch, clock, logger },
    );
    const shipping = { log: this.#crawlLog, store: this.#store.crawlLogs, clock, logger };
    this.#logShipper = new LogShipper({ node: nodeId }, shipping);
    this.#workerLines = new WorkerLines({ ring: deps.log, log: this.#crawlLog });
    this.#fetcher = new Fetcher(options.fetcher);
    this.#browser = new Browser(options.rendering.browser, { clock, logger });
    const rendering = { browser: this.#browser, clock };
    this.#renderer = new Renderer(options.rendering.renderer, rendering);
    this.#crawls = new CrawlView({
      crawls: this.#store.crawls,
      leases: this.#store.leases,
      serverClock: this.#store.serverClock,
      clock,
      logger,
      onStopped: (crawl) => this.#cancelCrawl(crawl),
    });
    this.#code = new NodeCode(
      { node: nodeId, ...options.spiders },
      { store: this.#store, bundled: bundledSpiders, clock, logger },
    );
    this.#engine = new Engine(
      {
        fetcher: this.#fetcher,
        robots: new Robots(
          { fetcher: this.#fetcher, store: this.#store.robots, clock, userAgent, logger },
          robotsOptionsOf(options.limits),
        ),
        files: this.#store.contents,
        contents: this.#store.bodies,
        spiders: this.#code.catalog,
        states: this.#store.states,
        ...(deps.documents !== undefined && { documents: deps.documents }),
        claims: this.#store.frontier,
        renderer: this.#renderer,
        clock,
        logger,
        metrics,
        pageLog: (task, crawl, spider) => {
          const logger = this.#crawlLog.loggerFor({ ...aboutOf(crawl, spider), url: task.url });
          return task.request?.trace === undefined ? logger : logger.child(traceFields(task.request.trace));
        },
        hookLog: (crawl, spider) => this.#crawlLog.loggerFor(aboutOf(crawl, spider)),
        onProgress: (task, bytes) => this.#events.progress(task, bytes),
        onHostLearnt: (state) => this.#events.hostLearnt(state),
        // A crawl that logs faster than that can be shipped goes on more slowly.
        whenAwake: () => this.#stalls.whenAwake() ?? this.#crawlLog.whenWritable(),
        node: nodeId,
      },
      options.limits,
    );
    this.#logEvents = new LogEvents({ log: deps.log, events: this.#bus.events, node: nodeId, clock });
    this.#stalls = new StallWatch(clock);
    this.#refusals = new Refusals({ bus: this.#bus, clock, logger, metrics });
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
      giveUp: (delivery, reason, error) => this.#refusals.giveUp(delivery, reason, error),
    });
    this.#loop = new TaskLoop(
      {
        queue: new TaskIntake({
          node: nodeId,
          tasks: this.#bus.tasks,
          placedQueues: this.#bus.placedQueues,
          crawls: this.#store.crawls,
          nodes: this.#store.nodes,
          clock,
          logger,
        }),
        engine: this.#engine,
        crawls: this.#crawls,
        committer: this.#committer,
        suspects: this.#store.frontier,
        node: nodeId,
        stalls: this.#stalls,
        external,
        clock,
        logger,
        metrics,
        isExternal: (spider) => !bundledSpiders.has(spider) && this.#code.directory.isExternal(spider),
        onStarted: (task) => this.#events.started(task),
        onGarbage: (delivery) =>
          this.#refusals.giveUp(delivery, "invalid-message", "is not a dispatched task"),
        onPoison: (task, deaths, signal) => this.#refusals.setAside(task, deaths, signal),
      },
      {
        concurrency: options.concurrency,
        maxCrashes: options.maxCrashes,
        // What is handed back at the last moment has to be stored and acknowledged as well.
        drainMs: Math.max(options.shutdownTimeoutMs / 2, options.shutdownTimeoutMs - STORE_GRACE_MS),
      },
    );
    this.#runs = new RunLoop(
      { node: nodeId, concurrency: options.runs },
      {
        runs: this.#store.runs,
        crawls: this.#crawls,
        counts: this.#store.crawls,
        spiders: this.#code.catalog,
        states: this.#store.states,
        frontier: this.#store.frontier,
        results: this.#store.results,
        events: this.#bus.events,
        taskEvents: this.#events,
        mayTake: () => !this.#loop.isPaused && !this.#loop.isDraining,
        logOf: (crawl, spider, run) => this.#crawlLog.loggerFor({ ...aboutOf(crawl, spider), run }),
        clock,
        logger,
      },
    );
    this.#identity = new NodeIdentity(
      { node: nodeId },
      { bus: this.#bus, clock, logger, onTaken: (error) => deps.shutdown(error) },
    );
    this.#configuration = new NodeConfiguration({
      node: nodeId,
      nodes: this.#store.nodes,
      loop: this.#loop,
      logger,
    });
    this.#presence = new NodePresence(
      {
        node: nodeId,
        version,
        heartbeatMs: 2_000,
        ...(options.labels !== undefined && { labels: options.labels }),
      },
      {
        identity: this.#identity,
        configuration: this.#configuration,
        calls: this.#bus.calls,
        loop: this.#loop,
        clock,
        logger,
        onClosed: (crawls) => {
          for (const crawl of crawls) this.#cancelCrawl(crawl);
        },
      },
    );
    this.checks = { amqp: () => this.#bus.connected, started: () => this.#isReady };
  }

  async start(): Promise<void> {
    const { logger, shutdown } = this.#deps;
    const { nodeId, version } = this.#options;
    // Before anything is taken or served: whoever goes by this id already must not notice us.
    await Promise.all([this.#store.start(), this.#bus.start().then(() => this.#identity.start())]);
    this.#identity.beginEpoch();
    await this.#crawlLog.start();
    await this.#logShipper.start();
    this.#workerLines.begin();
    await this.#crawls.start();
    await this.#configuration.restore();
    await this.#code.start();
    const handlers = nodeCommands({
      node: nodeId,
      version,
      identity: this.#identity,
      loop: this.#loop,
      cancelCrawl: (crawl, generation) => this.#cancelCrawl(crawl, generation),
      engine: this.#engine,
      renderer: this.#renderer,
      configuration: this.#configuration,
      spiders: this.#code,
      log: this.#deps.log,
      crawlLog: this.#crawlLog,
      clock: this.#clock,
      shutdown: () => shutdown(),
      onChange: () => this.#presence.beatNow(),
    });
    this.#stopServing = await this.#bus.calls.serveNode(nodeId, handlers);
    await this.#stalls.start();
    await this.#loop.start();
    await this.#runs.start();
    await this.#presence.start();
    this.#isReady = true;
    this.#logEvents.begin();
    logger.info({ concurrency: this.#options.concurrency }, "ready");
  }

  /** Ends what runs before it leaves, so that nothing is in flight that nobody works on. */
  async stop(): Promise<void> {
    this.#isReady = false;
    this.#refusals.hurry();
    await this.#runs.stop();
    if (this.#bus.connected) await this.#loop.stop();
    await this.#engine.stop();
    await this.#code.stop();
    await this.#browser.stop();
    await this.#refusals.stop();
    await this.#stalls.stop();
    await this.#presence.stop();
    this.#events.flush();
    this.#logEvents.end();
    this.#workerLines.end();
    await this.#logShipper.stop();
    await this.#crawlLog.stop();
    await this.#stopServing?.();
    await this.#crawls.stop();
    await this.#identity.stop();
    await this.#bus.stop();
    await this.#store.stop();
    await this.#fetcher.close();
  }

  /** Stops what of a crawl is in hand here. */
  #cancelCrawl(crawl: string, generation?: number): Stopped {
    const runs = this.#runs.cancelCrawl(crawl);
    const { aborted, dropped } = this.#loop.cancelCrawl(crawl, generation);
    return { aborted: aborted + runs, dropped };
  }

  /** A group is stored: now it may be acknowledged, told and answered. */
  async #committed(group: CommittedGroup<TaskContext>): Promise<void> {
    const deliveries = group.members.map(({ context }) => context.delivery);
    this.#bus.tasks.settle(deliveries, { kind: "ack" });
    this.#loop.settled(deliveries);
    logSpiderFaults(this.#crawlLog, group);
    await this.#aftermath.follow(group);
    // Taken for lost, and given to someone else: but this worker lives.
    await this.#store.frontier.vouch(
      group.members.flatMap(({ context: { task, delivery } }) =>
        task.suspect === undefined || delivery.redelivered || group.applied.has(task.id) ? [] : [task],
      ),
    );
  }
}

/** What the lines of a spider are about. */
function aboutOf({ id }: Crawl, { name, version }: Spider): CrawlLogContext {
  return { crawl: id, spider: name, ...(version !== undefined && { version }) };
}
