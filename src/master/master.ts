import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { Bus, type SecurityOptions, type TopologyOptions } from "../bus/index.js";
import type { FetcherOptions } from "../crawl/fetch/fetcher.js";
import { type Clock, systemClock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import type { ApiToken } from "../lib/setting-values.js";
import { CALLS, type WarrenBus } from "../protocol/index.js";
import { bundledSpiders } from "../spiders/index.js";
import { type DeadLettersOptions, type DeliveriesOptions, Store } from "../store/index.js";
import { ApiServer } from "./api/server.js";
import type { SpiderUploadOptions } from "./api/spiders.js";
import { BusCalls } from "./bus-calls.js";
import { CrawlEnds } from "./crawl-ends.js";
import { CrawlService } from "./crawl-service.js";
import { DeadLetterRelay } from "./dead-letter-relay.js";
import { DeadLetterService } from "./dead-letter-service.js";
import { DeliveryService, type DeliveryServiceOptions } from "./delivery-service.js";
import { DispatchService } from "./dispatch-service.js";
import { EventFeed } from "./event-feed.js";
import { ForeignGate } from "./foreign-gate.js";
import { ForeignWorkers } from "./foreign-workers.js";
import { ItemFeed } from "./item-feed.js";
import { Janitor } from "./janitor.js";
import { MailSender } from "./mail-sender.js";
import { MailServer, type MailServerOptions } from "./mail-server.js";
import { NodeMonitor } from "./node-monitor.js";
import { NotificationRuleService } from "./notification-rule-service.js";
import { NotificationWatch } from "./notification-watch.js";
import { Notifier } from "./notifier.js";
import { ScheduleRunner } from "./schedule-runner.js";
import { ScheduleService } from "./schedule-service.js";
import { SpiderCatalog } from "./spider-catalog.js";
import { TickStarter } from "./tick-starter.js";
import { WaitReasons } from "./wait-reasons.js";
import { WebhookSender } from "./webhook-sender.js";

export type MasterOptions = {
  readonly version: string;
  readonly amqpUrls: readonly string[];
  readonly amqpSecurity: SecurityOptions;
  readonly mongodbUri: string;
  readonly namespace: string;
  readonly host: string;
  readonly port: number;
  readonly tokens: readonly ApiToken[];
  readonly leaseMs: number;
  /** How long a host may give no answer at all before its URLs are given up, in milliseconds. */
  readonly hostPatienceMs: number;
  readonly topology: TopologyOptions;
  readonly deadLetters: DeadLettersOptions;
  /** Items of one crawl that are kept though they are not as they should be. */
  readonly invalidItemsKept: number;
  /** How long and how often what is to be posted to others is tried. */
  readonly deliveries: Pick<DeliveryServiceOptions, "maxAttempts" | "maxAgeMs" | "timeoutMs" | "atOnce"> &
    DeliveriesOptions;
  /** What one crawl's log may take in the database, in bytes. */
  readonly crawlLogMaxBytes: number;
  /** Tasks in the queue of an external spider for each worker that consumes from it. */
  readonly externalTasks: number;
  readonly schedules: ScheduleSettings;
  /** Undefined: no mails are sent. */
  readonly mail: MailServerOptions | undefined;
  /** How much code of a spider may be uploaded. */
  readonly uploads: SpiderUploadOptions;
  /** For the robots.txt of hosts whose pages others fetch, and for where may be posted to. */
  readonly fetcher: Partial<FetcherOptions> & Pick<FetcherOptions, "userAgent">;
};

/** Times in milliseconds. */
export type ScheduleSettings = {
  /** Two ticks of a schedule are never closer to each other. */
  readonly minIntervalMs: number;
  /** How late a tick may be recorded without having been missed. */
  readonly missedAfterMs: number;
  /** How long ticks that have ended are kept. */
  readonly keptForMs: number;
  /** Crawls that follow one another at most. */
  readonly maxChain: number;
};

export type MasterDeps = { readonly logger: Logger; readonly metrics: Metrics };

/**
 * One master replica: everything it runs, in the order in which it starts and stops. The API comes first, so
 * that it can say what the master waits for; dispatching comes last, and goes first.
 */
export class Master implements Service {
  readonly name = "master";
  readonly #logger: Logger;
  readonly #store: Store;
  readonly #bus: WarrenBus;
  readonly #api: ApiServer;
  readonly #working: readonly Service[];
  readonly #started: Service[] = [];

  constructor(options: MasterOptions, { logger, metrics }: MasterDeps) {
    const id = `master-${hostname()}-${process.pid}-${randomBytes(4).toString("hex")}`;
    this.#logger = logger;
    const { namespace, leaseMs } = options;
    const store = new Store(
      {
        uri: options.mongodbUri,
        namespace,
        leaseTtlMs: leaseMs,
        deadLetters: options.deadLetters,
        ticksKeptForMs: options.schedules.keptForMs,
        deliveries: options.deliveries,
        invalidItemsKept: options.invalidItemsKept,
      },
      { logger },
    );
    // Instants that masters and workers compare are read off one clock: the database server's.
    const clock: Clock = { ...systemClock, now: () => store.serverClock.now() };
    const identity = { role: "master", id, version: options.version } as const;
    const bus = new Bus(
      {
        urls: options.amqpUrls,
        security: options.amqpSecurity,
        namespace,
        identity,
        topology: options.topology,
      },
      { logger, clock, metrics, tables: CALLS, archive: store.deadLetters },
    );
    const feed = new EventFeed({ events: bus.events, logger });
    const spiders = new SpiderCatalog({ bundled: bundledSpiders, store, bus, logger });
    const nodes = new NodeMonitor({ nodes: store.nodes, bus, feed, metrics, clock, logger });
    const crawls = new CrawlService({ store, bus, spiders, clock, logger });
    const starter = new TickStarter({ store, crawls, bus, clock, logger });
    const schedules = new ScheduleService(
      { store, crawls, starter, clock },
      { minIntervalMs: options.schedules.minIntervalMs },
    );
    const { mail } = options;
    const notifier = new Notifier({
      store,
      deliveries: {
        add: async (deliveries) => {
          await store.deliveries.add(deliveries);
          delivering.wake();
        },
      },
      bus,
      clock,
    });
    const notificationRules = new NotificationRuleService({ store, clock }, { hasMail: mail !== undefined });
    const deadLetters = new DeadLetterService({ store, bus, clock, logger });
    const foreign = new ForeignWorkers({
      masterId: id,
      store,
      bus,
      gate: new ForeignGate({
        fetcher: options.fetcher,
        robots: store.robots,
        hosts: store.hosts,
        clock,
        logger,
      }),
      metrics,
      clock,
      logger,
    });
    const dispatching = new DispatchService(
      {
        masterId: id,
        leaseMs,
        tasksPerConsumer: options.externalTasks,
        dispatcher: { backoff: { patienceMs: options.hostPatienceMs } },
      },
      { store, bus, feed, nodes, foreign, clock, logger, metrics },
    );
    const { fetcher } = options;
    const delivering = new DeliveryService(
      {
        store,
        sender: new WebhookSender(
          {
            userAgent: fetcher.userAgent,
            allowedNetworks: fetcher.allowedNetworks ?? [],
            ca: fetcher.ca,
            timeoutMs: options.deliveries.timeoutMs,
            maxConnections: 2 * options.deliveries.atOnce,
          },
          clock,
        ),
        metrics,
        clock,
        logger,
      },
      options.deliveries,
    );
    const itemFeed = new ItemFeed({
      masterId: id,
      store,
      bus,
      clock,
      logger,
      onDeliveries: () => delivering.wake(),
    });
    const waitReasons = new WaitReasons({
      hosts: store.hosts,
      capacity: (selection) => nodes.capacity(selection),
      dispatcherSays: (crawl, host) => dispatching.waitReason(crawl, host),
      clock,
    });
    this.#store = store;
    this.#bus = bus;
    this.#api = new ApiServer(
      {
        host: options.host,
        port: options.port,
        tokens: options.tokens,
        namespace,
        version: options.version,
        uploads: options.uploads,
      },
      {
        ...{ store, bus, crawls, deadLetters, nodes, feed, spiders, schedules, notificationRules },
        ...{ waitReasons, metrics, clock, logger },
      },
    );
    this.#working = [
      feed,
      nodes,
      foreign,
      new BusCalls({ masterId: id, bus, crawls, nodes, foreign, store, clock, logger }),
      new DeadLetterRelay({ bus, metrics, logger }),
      new ScheduleRunner(
        { store, starter, clock, logger },
        { missedAfterMs: options.schedules.missedAfterMs },
      ),
      new CrawlEnds(
        { store, starter, feed, listeners: [notifier], clock, logger },
        { maxChain: options.schedules.maxChain },
      ),
      new NotificationWatch({ store, notifier, clock, logger }),
      ...(mail === undefined
        ? []
        : [new MailSender({ store, server: new MailServer(mail, clock), clock, logger })]),
      new Janitor({ store, bus, crawls, clock, logger }, { crawlLogMaxBytes: options.crawlLogMaxBytes }),
      delivering,
      itemFeed,
      dispatching,
    ];
  }

  async start(): Promise<void> {
    await this.#begin(this.#api);
    await Promise.all([this.#begin(this.#store), this.#begin(this.#bus)]);
    for (const service of this.#working) await this.#begin(service);
    this.#logger.info({ url: this.#api.url }, "ready");
  }

  async stop(): Promise<void> {
    for (const service of this.#started.splice(0).reverse()) {
      try {
        await service.stop();
      } catch (error) {
        this.#logger.warn({ err: error, service: service.name }, "could not stop cleanly");
      }
    }
  }

  async #begin(service: Service): Promise<void> {
    this.#started.push(service);
    await service.start();
  }
}
