import { randomUUID } from "node:crypto";
import { connect } from "amqplib";
import { Bus, type Handlers } from "../../src/bus/index.js";
import { Names } from "../../src/bus/topology.js";
import type { Spider } from "../../src/crawl/spider.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { Metrics } from "../../src/lib/metrics.js";
import type { ApiToken } from "../../src/lib/setting-values.js";
import type { ApiParts } from "../../src/master/api/parts.js";
import { ApiServer } from "../../src/master/api/server.js";
import { BusCalls } from "../../src/master/bus-calls.js";
import { CrawlService } from "../../src/master/crawl-service.js";
import { DeadLetterService } from "../../src/master/dead-letter-service.js";
import { EventFeed } from "../../src/master/event-feed.js";
import { ForeignGate } from "../../src/master/foreign-gate.js";
import { ForeignWorkers } from "../../src/master/foreign-workers.js";
import { NodeMonitor, type NodeMonitorOptions } from "../../src/master/node-monitor.js";
import { NotificationRuleService } from "../../src/master/notification-rule-service.js";
import { ScheduleService } from "../../src/master/schedule-service.js";
import { SpiderCatalog } from "../../src/master/spider-catalog.js";
import { TickStarter } from "../../src/master/tick-starter.js";
import { WaitReasons } from "../../src/master/wait-reasons.js";
import { CALLS, type WarrenBus } from "../../src/protocol/index.js";
import { Store } from "../../src/store/index.js";

const SPIDERS: readonly Pick<Spider, "name" | "version" | "seeds" | "settings">[] = [
  { name: "links" },
  { name: "pdf" },
  {
    name: "seeded",
    seeds: ["http://seeded.test/one", "http://seeded.test/two"],
    settings: {
      limits: { maxDepth: 5, maxPages: 1_000 },
      urls: { sortQuery: true, dropTracking: true },
      fetch: { auth: { "https://seeded.test": { bearer: "s3cret" } } },
    },
  },
];

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
export type Answer = { readonly status: number; readonly headers: Headers; readonly body: any };

export type ApiMasterOptions = {
  readonly tokens?: readonly ApiToken[];
  readonly namespace?: string;
  readonly nodeMonitor?: Partial<NodeMonitorOptions>;
};

/** One master's API on real servers, in a namespace of its own unless it is given another master's. */
export class ApiMaster {
  readonly namespace: string;
  readonly store: Store;
  readonly nodes: NodeMonitor;
  readonly parts: ApiParts;
  readonly api: ApiServer;
  /** Items that any stream took from the database so far. */
  itemsRead = 0;
  readonly #bus: WarrenBus;
  /** Knows nothing of what there is to call. */
  readonly #stranger: Bus;
  readonly #feed: EventFeed;
  readonly #calls: BusCalls;
  readonly #ownsNamespace: boolean;
  readonly #servedNodes: string[] = [];

  constructor(name: string, options: ApiMasterOptions) {
    const { AMQP_URL, MONGODB_URI } = process.env;
    if (AMQP_URL === undefined || MONGODB_URI === undefined)
      throw new Error("AMQP_URL and MONGODB_URI must be set");
    const clock = systemClock;
    const logger = silentLogger;
    const metrics = new Metrics();
    this.#ownsNamespace = options.namespace === undefined;
    this.namespace = options.namespace ?? `test-${name}-${randomUUID().slice(0, 8)}`;
    this.store = new Store({ uri: MONGODB_URI, namespace: this.namespace }, { logger });
    const identity = { role: "master", id: randomUUID(), version: "0" } as const;
    const reaching = { urls: [AMQP_URL], namespace: this.namespace, identity };
    this.#bus = new Bus(reaching, { logger, clock, metrics, tables: CALLS, archive: this.store.deadLetters });
    this.#stranger = new Bus(reaching, { logger, clock });
    this.#feed = new EventFeed({ events: this.#bus.events, logger });
    this.nodes = new NodeMonitor(
      {
        nodes: this.store.nodes,
        bus: this.#bus,
        feed: this.#feed,
        metrics,
        clock,
        logger,
      },
      options.nodeMonitor,
    );
    const bundled = {
      get: (spider: string) => SPIDERS.find((known) => known.name === spider),
      list: () => SPIDERS,
    };
    const spiders = new SpiderCatalog({ bundled, store: this.store, bus: this.#bus, logger });
    const crawls = new CrawlService({ store: this.store, bus: this.#bus, spiders, clock, logger });
    const foreign = new ForeignWorkers({
      masterId: "master-1",
      store: this.store,
      bus: this.#bus,
      gate: new ForeignGate({
        fetcher: { userAgent: "warren-test" },
        robots: this.store.robots,
        hosts: this.store.hosts,
        clock,
        logger,
      }),
      metrics,
      clock,
      logger,
    });
    this.#calls = new BusCalls({
      foreign,
      masterId: "master-1",
      bus: this.#bus,
      crawls,
      nodes: this.nodes,
      store: this.store,
      clock,
      logger,
    });
    this.parts = {
      store: this.store,
      bus: this.#bus,
      crawls,
      deadLetters: new DeadLetterService({ store: this.store, bus: this.#bus, clock, logger }),
      nodes: this.nodes,
      feed: this.#feed,
      spiders,
      notificationRules: new NotificationRuleService({ store: this.store, clock }, { hasMail: true }),
      schedules: new ScheduleService({
        store: this.store,
        crawls,
        starter: new TickStarter({ store: this.store, crawls, bus: this.#bus, clock, logger }),
        clock,
      }),
      waitReasons: new WaitReasons({
        hosts: this.store.hosts,
        capacity: (nodes) => this.nodes.capacity(nodes),
        clock,
      }),
      metrics,
      clock,
      logger,
    };
    this.api = new ApiServer(
      { host: "127.0.0.1", port: 0, tokens: options.tokens ?? [], namespace: this.namespace, version: "0" },
      this.parts,
    );
    this.#countItemsRead();
  }

  async start(): Promise<this> {
    for (const service of [
      this.store,
      this.#bus,
      this.#stranger,
      this.#feed,
      this.nodes,
      this.#calls,
      this.api,
    ])
      await service.start();
    return this;
  }

  async dispose(): Promise<void> {
    for (const service of [this.api, this.#calls, this.nodes, this.#feed, this.#stranger, this.#bus])
      await service.stop();
    if (this.#ownsNamespace) {
      await this.#emptyBroker();
      await this.store.dropDatabase();
    }
    await this.#removeNodes();
    await this.store.stop();
  }

  get url(): string {
    return this.api.url;
  }

  async send(
    method: string,
    path: string,
    init: { readonly headers?: Record<string, string>; readonly body?: string } = {},
  ): Promise<Answer> {
    const response = await fetch(this.url + path, { method, ...init });
    const text = await response.text();
    const isJson = /json/.test(response.headers.get("content-type") ?? "");
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
  }

  get(path: string): Promise<Answer> {
    return this.send("GET", path);
  }

  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send("POST", path, {
      body: JSON.stringify(body),
      headers: { "content-type": "application/json", ...headers },
    });
  }

  patch(path: string, body: unknown): Promise<Answer> {
    const headers = { "content-type": "application/json" };
    return this.send("PATCH", path, { body: JSON.stringify(body), headers });
  }

  /** Calls any master, as a node or a stranger would. */
  callMaster(type: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    return this.#stranger.calls.callMaster(type, args);
  }

  /** Does what a worker would when it is told to. */
  async serveNode(node: string, handlers: Handlers): Promise<void> {
    this.#servedNodes.push(node);
    await this.#stranger.calls.serveNode(node, handlers);
  }

  /** Something happened, says someone. */
  publish(type: string, data: Readonly<Record<string, unknown>>): void {
    this.#bus.events.publish(type, [{ type, at: new Date().toISOString(), data }]);
  }

  /** Ends all URLs of a crawl, as workers would, and the crawl with them. */
  async finish(crawl: string): Promise<void> {
    const { items } = await this.store.urls.list(crawl, { state: "queued" });
    const ids = items.map(({ id }) => id);
    const now = Date.now();
    const token = randomUUID();
    await this.store.frontier.dispatch(ids, {
      token,
      generation: 1,
      dispatchedAt: now,
      notAfter: now + 60_000,
    });
    await this.store.frontier.commit(
      ids.map((id) => ({
        id,
        crawl,
        token,
        attempts: 1,
        statusCode: 200,
        state: "done",
        items: 0,
        files: 0,
      })),
    );
    await this.store.crawls.finishIfOver(crawl);
  }

  /** Whether this became true within ten seconds. */
  async until(isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
    const deadline = Date.now() + 10_000;
    while (!(await isTrue())) {
      if (Date.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return true;
  }

  /** A number, once it is the same at ten looks in a row. */
  async settled(look: () => number): Promise<number> {
    let last = look();
    for (let same = 0; same < 10; ) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const now = look();
      same = now === last ? same + 1 : 0;
      last = now;
    }
    return last;
  }

  async #emptyBroker(): Promise<void> {
    const names = new Names(this.namespace);
    const connection = await connect(process.env.AMQP_URL ?? "");
    const channel = await connection.createChannel();
    const external = (await this.store.spiders.list()).map(({ name }) => names.tasksOf(name));
    for (const queue of [names.tasks(), names.rejected(), names.dead(), names.master(), ...external]) {
      await channel.deleteQueue(queue);
    }
    for (const exchange of [
      names.events(),
      names.broadcast(),
      names.cancels(),
      names.items(),
      names.dead(),
      names.rejected(),
    ]) {
      await channel.deleteExchange(exchange);
    }
    await connection.close();
  }

  async #removeNodes(): Promise<void> {
    if (this.#servedNodes.length === 0) return;
    const names = new Names(this.namespace);
    const connection = await connect(process.env.AMQP_URL ?? "");
    const channel = await connection.createChannel();
    for (const node of this.#servedNodes) await channel.deleteExchange(names.node(node));
    await connection.close();
  }

  /** The real stream, with a count of what went through it. */
  #countItemsRead(): void {
    const { items } = this.store;
    const stream = items.stream.bind(items);
    const count = () => {
      this.itemsRead += 1;
    };
    items.stream = async function* (crawl, range) {
      for await (const item of stream(crawl, range)) {
        count();
        yield item;
      }
    };
  }
}

export function startApiMaster(name: string, options: ApiMasterOptions = {}): Promise<ApiMaster> {
  return new ApiMaster(name, options).start();
}

export type Received = {
  readonly id: string;
  readonly event: { type: string; crawl?: string; node?: string; data: Record<string, unknown> };
};

/** Reads server-sent events as they come. */
export async function listen(master: ApiMaster, query: string, headers: Record<string, string> = {}) {
  const abort = new AbortController();
  const response = await fetch(`${master.url}/api/v1/events${query}`, { headers, signal: abort.signal });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const waiting: Received[] = [];
  let rest = "";
  return {
    response,
    stop: () => abort.abort(),
    async next(): Promise<Received> {
      for (;;) {
        const received = waiting.shift();
        if (received !== undefined) return received;
        const chunk = await reader?.read();
        if (chunk === undefined || chunk.done) throw new Error("the stream ended");
        const parts = (rest + chunk.value).split("\n\n");
        rest = parts.pop() ?? "";
        for (const part of parts) {
          const data = /^data: (.*)$/m.exec(part)?.[1];
          if (data !== undefined)
            waiting.push({ id: /^id: (.*)$/m.exec(part)?.[1] ?? "", event: JSON.parse(data) });
        }
      }
    },
  };
}
