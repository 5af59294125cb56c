import { z } from "zod";
import {
  type BusEvent,
  CallError,
  PublishReturnedError,
  type TaskMessage,
  type WorkQueue,
} from "../bus/index.js";
import type { Crawl, FinishReason } from "../crawl/crawl.js";
import { Dispatcher, type DispatcherOptions } from "../crawl/dispatch/dispatcher.js";
import { toForeignTask } from "../crawl/foreign-task.js";
import type { OpenedUrl } from "../crawl/frontier.js";
import { ANY_NODE, type NodeSelection, placeOf } from "../crawl/node-selection.js";
import { Recrawler } from "../crawl/recrawler.js";
import { encodeTask, handBack, TASK_CONTENT_TYPE, type Task, type TaskEnd } from "../crawl/task.js";
import { shardOf } from "../crawl/urls/url.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import type { WarrenBus } from "../protocol/index.js";
import type { Store } from "../store/index.js";
import type { EventFeed } from "./event-feed.js";
import type { ForeignWorkers } from "./foreign-workers.js";
import type { NodeMonitor } from "./node-monitor.js";

export type DispatchServiceOptions = {
  /** This master's id, unique among all that ever run. */
  readonly masterId: string;
  /** How long shards stay leased to a master that is silent, in milliseconds. @default 10_000 */
  readonly leaseMs: number;
  /** How often the running crawls are read, in milliseconds; events bring most changes sooner. @default 1_000 */
  readonly crawlsMs: number;
  /** How often what is in flight is compared with the frontier, in milliseconds. @default 5_000 */
  readonly reconcileMs: number;
  /** Tasks in flight for each task that workers can run at once. @default 3 */
  readonly windowPerCapacity: number;
  /** Tasks of an external spider in flight for each consumer of its queue. @default 20 */
  readonly tasksPerConsumer: number;
  readonly dispatcher?: Partial<DispatcherOptions>;
};

const DEFAULTS = {
  leaseMs: 10_000,
  crawlsMs: 1_000,
  reconcileMs: 5_000,
  windowPerCapacity: 3,
  tasksPerConsumer: 20,
};

export type DispatchServiceDeps = {
  readonly store: Store;
  readonly bus: WarrenBus;
  readonly feed: EventFeed;
  readonly nodes: NodeMonitor;
  readonly foreign: Pick<ForeignWorkers, "vet">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
};

const RECONCILE_SLICES = 4;

/** How long a worker that asked for a task is taken to want another, in milliseconds. */
const ASKED_FOR_MS = 30_000;

/** Wait of a task that could not be sent to a worker that is not ours, in milliseconds. */
const SEND_AGAIN_MS = 1_000;

/** A worker that was silent for so long has no connection any more, and so no tasks. */
const MAY_HOLD_TASKS_MS = 300_000;

const activeTasks = z.object({ tasks: z.array(z.object({ id: z.string() })) });

/**
 * Runs a dispatcher on this master's share of the shards.
 *
 * 1. It leases shards: its fair share among the masters that live, renewed three times within a lease. What
 *    it holds is known with the instant until which that is certain, on a clock that does not jump; past it
 *    nothing is sent, so a master that slept wakes up harmless.
 * 2. It feeds the dispatcher: running crawls, the workers' capacity, what was added, what ended.
 * 3. It ends crawls: when nothing of one waits or runs here it asks the store whether that is so everywhere.
 * 4. It reconciles now and then, because events may get lost.
 */
export class DispatchService implements Service {
  readonly name = "dispatch service";
  readonly #options: DispatchServiceOptions;
  readonly #deps: DispatchServiceDeps;
  readonly #dispatcher: Dispatcher;
  readonly #recrawler: Recrawler;
  readonly #loops: Loop[] = [];
  readonly #finishing = new Map<string, { again: boolean }>();
  /** Crawls whose page budget is used up, as far as dispatching here has shown. */
  readonly #budgetSpent = new Set<string>();
  #running = new Map<string, Crawl>();
  /** External spiders by name, with how many tasks of each may be handed out at once over all masters. */
  #external = new Map<string, { readonly window: number }>();
  /** What the running crawls have selected of the nodes, by its name. */
  #places = new Map<string, NodeSelection>();
  /** Tasks on their way to workers that are not ours. */
  readonly #sendingAway = new Set<Promise<void>>();
  readonly #shardCount: number;
  /** Monotonic instant until which the shards held are certainly ours. */
  #certainUntil = Number.NEGATIVE_INFINITY;
  #stopExpiry: StopTimer | undefined;
  #stopListening: (() => void)[] = [];
  #reconcileSlice = 0;
  #isStopped = false;

  constructor(
    options: Pick<DispatchServiceOptions, "masterId"> & Partial<DispatchServiceOptions>,
    deps: DispatchServiceDeps,
  ) {
    this.#options = { ...DEFAULTS, ...options };
    this.#deps = deps;
    const { store, clock, logger, metrics } = deps;
    this.#shardCount = store.leases.shardCount;
    this.#dispatcher = new Dispatcher(
      {
        id: this.#options.masterId,
        frontier: store.frontier,
        hosts: store.hosts,
        tasks: { send: (tasks) => this.#send(tasks) },
        budget: store.crawls,
        locate: () => this.#locate(),
        crewOf: (spider, crawl) =>
          this.#external.has(spider) ? crewOfSpider(spider) : crewOfPlace(placeOf(crawl.nodes)),
        clock,
        logger,
        onIdle: (crawl) => this.#finishIfOver(crawl),
        onBudgetSpent: (crawl) => {
          this.#budgetSpent.add(crawl);
          this.#finishIfOver(crawl);
        },
        onDispatched: (tasks) => {
          for (const [crawl, dispatched] of countBy(tasks, (task) => task.crawl)) {
            store.crawls.count(crawl, { queued: -dispatched, active: dispatched });
          }
          metrics.dispatchLag.observe(0);
        },
      },
      { shardCount: this.#shardCount, ...this.#options.dispatcher },
    );
    this.#recrawler = new Recrawler({
      rounds: store.rounds,
      clock,
      logger,
      heldShards: () => this.#dispatcher.heldShards,
      onOpened: (opened) => this.#urlsOpened(opened),
    });
  }

  async start(): Promise<void> {
    const { feed, nodes } = this.#deps;
    const { leaseMs, crawlsMs, reconcileMs } = this.#options;
    this.#stopListening = [
      feed.on("task.", (events) => this.#tasksEnded(events)),
      feed.on("frontier.added", (events) => this.#urlsAdded(events)),
      feed.on("host.learnt", (events) => this.#hostsLearnt(events)),
      feed.on("crawl.", () => this.#loops[1]?.runNow()),
      feed.on("spider.wanted", () => this.#loops[1]?.runNow()),
      nodes.onCapacityChange(() => this.#resize()),
    ];
    await this.#readCrawls();
    this.#loops.push(
      this.#loop("leases", leaseMs / 3, () => this.#renewLeases()),
      this.#loop("crawls", crawlsMs, () => this.#readCrawls()),
      this.#loop("reconciler", Math.min(reconcileMs, leaseMs / 2), () => this.#reconcile()),
    );
    await this.#loops[0]?.runNow();
  }

  /** Stops dispatching and gives the shards back, so that others need not wait for the lease to end. */
  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    for (const stopListening of this.#stopListening) stopListening();
    await Promise.all(this.#loops.map((loop) => loop.stop()));
    this.#stopExpiry?.();
    this.#certainUntil = Number.NEGATIVE_INFINITY;
    await this.#recrawler.stop();
    await this.#dispatcher.stop();
    await Promise.all(this.#sendingAway);
    try {
      await this.#deps.store.leases.leave(this.#options.masterId);
    } catch (error) {
      this.#deps.logger.warn(
        { error: messageOf(error) },
        "could not give the shards back; their leases will end",
      );
    }
  }

  /** Why a crawl's next URL on a host waits, as far as this master knows. */
  waitReason(crawl: string, host: string): string | undefined {
    return this.#dispatcher.waitReason({ crawl, host });
  }

  #loop(what: string, everyMs: number, run: () => Promise<void>): Loop {
    return new Loop(everyMs, this.#deps.clock, async () => {
      try {
        await run();
      } catch (error) {
        this.#deps.logger.warn(
          { what, error: messageOf(error) },
          "dispatching: a step failed and will be tried again",
        );
      }
    });
  }

  // ---- leases ----

  async #renewLeases(): Promise<void> {
    const { store, logger } = this.#deps;
    const { masterId } = this.#options;
    const { shards: leased, validUntil } = await store.leases.heartbeat(masterId);
    const live = await store.leases.liveMasters();
    this.#certainUntil = validUntil;
    this.#armExpiry();
    const held = new Map(leased);
    const lost = this.#dispatcher.heldShards.filter((shard) => !held.has(shard));
    if (lost.length > 0) {
      logger.info({ shards: lost.length }, "shards went to another master");
      this.#dispatcher.drop(lost);
    }
    const fairShare = Math.ceil(this.#shardCount / Math.max(1, live.length));
    const surplus = [...held.keys()].slice(fairShare);
    if (surplus.length > 0) {
      this.#dispatcher.drop(surplus);
      for (const shard of surplus) held.delete(shard);
      await store.leases.release(masterId, surplus);
    } else if (held.size < fairShare) {
      const { shards } = await store.leases.claim(masterId, fairShare - held.size);
      const claimed = [...shards].filter(([shard]) => !held.has(shard));
      for (const [shard, epoch] of claimed) held.set(shard, epoch);
      if (claimed.length > 0) logger.info({ shards: held.size, of: this.#shardCount }, "dispatching");
    }
    await this.#dispatcher.hold(held);
    this.#resize();
  }

  /** Lets go of everything at the instant at which it may belong to someone else. */
  #armExpiry(): void {
    const { clock, logger } = this.#deps;
    this.#stopExpiry?.();
    this.#stopExpiry = clock.after(Math.max(0, this.#certainUntil - clock.monotonic()), () => {
      const held = this.#dispatcher.heldShards;
      if (held.length === 0) return;
      logger.warn(
        { shards: held.length },
        "leases could not be renewed in time: dispatching nothing until they are",
      );
      this.#dispatcher.drop(held);
    });
  }

  #resize(): void {
    const capacity = this.#deps.nodes.capacity();
    const share = this.#dispatcher.heldShards.length / this.#shardCount;
    this.#dispatcher.setWindow(Math.ceil(capacity * this.#options.windowPerCapacity * share));
    for (const [spider, { window }] of this.#external) {
      this.#dispatcher.setWindow(Math.ceil(window * share), crewOfSpider(spider));
    }
    for (const [place, selection] of this.#places) {
      const room = this.#deps.nodes.capacity(selection) * this.#options.windowPerCapacity;
      this.#dispatcher.setWindow(Math.ceil(room * share), crewOfPlace(place));
    }
  }

  // ---- tasks ----

  /** Each task goes to the queue of its crew. */
  async #send(tasks: readonly Task[]): Promise<readonly string[]> {
    const { bus, clock } = this.#deps;
    const certainMs = this.#certainUntil - clock.monotonic();
    if (certainMs <= 0) return tasks.map((task) => task.id);
    // What cannot be sent while the shards are certainly ours must not be sent later.
    const signal = AbortSignal.timeout(Math.ceil(certainMs));
    const own: Task[] = [];
    const placed = new Map<string, Task[]>();
    for (const task of tasks) {
      const crawl = this.#running.get(task.crawl);
      const spider = task.request?.spider ?? crawl?.spider ?? "";
      const queue = this.#external.has(spider) ? bus.spiderQueues.get(spider) : undefined;
      if (queue !== undefined && crawl !== undefined) {
        this.#track(this.#sendAway(task, crawl, queue));
        continue;
      }
      const place = placeOf(crawl?.nodes);
      const there = place === undefined ? own : placed.get(place);
      if (there !== undefined) there.push(task);
      else if (place !== undefined) placed.set(place, [task]);
    }
    const sending = [...placed].map(([place, each]) =>
      this.#sendTo(bus.placedQueues.get(place) ?? bus.placedQueues.at(place), each, toMessage, signal),
    );
    if (own.length > 0) sending.push(this.#sendTo(bus.tasks, own, toMessage, signal));
    return (await Promise.all(sending)).flat();
  }

  #track(sending: Promise<void>): void {
    this.#sendingAway.add(sending);
    void sending.finally(() => this.#sendingAway.delete(sending));
  }

  /**
   * Sends a task to a worker that is not ours once nothing speaks against it; to ask a host's robots.txt may take
   * long, and what else there is to send does not wait for that. What cannot be sent after all goes back.
   */
  async #sendAway(task: Task, crawl: Crawl, queue: WorkQueue): Promise<void> {
    const { foreign, store, clock, logger } = this.#deps;
    try {
      const { mayGo, learnt } = await foreign.vet(task, crawl);
      if (learnt !== undefined) this.#dispatcher.learnt(learnt);
      if (!mayGo) return;
      const certainMs = this.#certainUntil - clock.monotonic();
      const goesOn = this.#running.get(task.crawl)?.generation === task.generation;
      if (goesOn && certainMs > 0 && this.#dispatcher.heldShards.includes(task.shard)) {
        const signal = AbortSignal.timeout(Math.ceil(certainMs));
        const unsent = await this.#sendTo(queue, [task], (one) => toForeignMessage(one, crawl), signal);
        if (unsent.length === 0) return;
      }
    } catch (error) {
      logger.warn({ url: task.url, error: messageOf(error) }, "a task could not be sent to others' workers");
    }
    const now = clock.now();
    const { ending, end } = handBack(task, "could not be sent", now, now + SEND_AGAIN_MS);
    try {
      await store.frontier.commit([ending]);
      this.#dispatcher.ended({ ...end, untouched: true });
    } catch {
      // The database is away: it goes back at its deadline.
    }
  }

  /** Resolves with the ids of those that were certainly not taken. */
  async #sendTo(
    queue: WorkQueue,
    tasks: readonly Task[],
    toMessage: (task: Task) => TaskMessage,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const { logger } = this.#deps;
    const outcomes = await queue.publish(tasks.map(toMessage), signal);
    const unsent: string[] = [];
    let reason: string | undefined;
    outcomes.forEach((outcome, index) => {
      const task = tasks[index];
      if (outcome.ok || task === undefined) return;
      // A message whose fate is unknown may be in the queue: it stays in flight until its end or its deadline.
      if (outcome.error.code === "PUBLISH_UNKNOWN") return;
      unsent.push(task.id);
      reason ??= outcome.error.message;
    });
    if (unsent.length > 0) logger.warn({ tasks: unsent.length, error: reason }, "tasks could not be sent");
    return unsent;
  }

  /** Ids of all tasks that workers have; undefined while one of them does not say, or messages wait. */
  async #locate(): Promise<ReadonlySet<string> | undefined> {
    const { bus, store, logger } = this.#deps;
    try {
      if (!(await bus.tasks.isEmpty())) return undefined;
      const nodes = await store.nodes.heardOf(MAY_HOLD_TASKS_MS);
      const held = await Promise.all(nodes.map((node) => this.#heldBy(node)));
      return new Set(held.flat());
    } catch (error) {
      logger.debug({ error: messageOf(error) }, "cannot tell who has which task");
      return undefined;
    }
  }

  async #heldBy(node: string): Promise<readonly string[]> {
    try {
      const answer = await this.#deps.bus.calls.callNode(node, "active-tasks", {}, { timeoutMs: 2_000 });
      return activeTasks.parse(answer).tasks.map(({ id }) => id);
    } catch (error) {
      // Its queue is gone, so its connection is, so the broker has given its messages to others.
      if (error instanceof CallError && error.cause instanceof PublishReturnedError) return [];
      throw error;
    }
  }

  #tasksEnded(events: readonly BusEvent[]): void {
    for (const event of events) {
      const { end } = event.data;
      if (!isTaskEnd(end)) continue;
      this.#dispatcher.ended(end);
      this.#recrawler.ended(end);
    }
  }

  /** URLs wait again whose time for another round has come. */
  #urlsOpened(opened: readonly OpenedUrl[]): void {
    const hostsByCrawl = new Map<string, Set<string>>();
    for (const { crawl, host, was } of opened) {
      this.#deps.store.crawls.count(crawl, { [was]: -1, queued: 1 });
      const hosts = hostsByCrawl.get(crawl);
      if (hosts === undefined) hostsByCrawl.set(crawl, new Set([host]));
      else hosts.add(host);
    }
    for (const [crawl, hosts] of hostsByCrawl) {
      this.#dispatcher.added(crawl, hosts);
      // A redirect had led here from a host that may be another master's.
      const held = new Set(this.#dispatcher.heldShards);
      const others = [...hosts].filter((host) => !held.has(shardOf(host, this.#shardCount)));
      if (others.length === 0) continue;
      const at = new Date(this.#deps.clock.now()).toISOString();
      this.#deps.bus.events.publish("frontier.added", [
        { type: "frontier.added", at, crawl, data: { hosts: others } },
      ]);
    }
  }

  #hostsLearnt(events: readonly BusEvent[]): void {
    for (const { data } of events) {
      const { host, crawlDelayMs, backoffUntil } = data;
      if (typeof host !== "string") continue;
      if (isFiniteNumber(backoffUntil)) {
        this.#dispatcher.learnt({ host, backoffUntil });
        if (this.#dispatcher.inFlightOn(host) > 1) this.#leaveAlone(host, backoffUntil);
      }
      if (isFiniteNumber(crawlDelayMs) && crawlDelayMs >= 0) this.#dispatcher.learnt({ host, crawlDelayMs });
    }
  }

  /** What was dispatched to this host before it asked to be left alone is to begin nowhere. */
  #leaveAlone(host: string, until: number): void {
    const { bus, logger } = this.#deps;
    bus.calls.broadcast("leave-host", { host, until }).catch((error: unknown) => {
      logger.debug({ host, error: messageOf(error) }, "could not tell workers to leave a host alone");
    });
  }

  #urlsAdded(events: readonly BusEvent[]): void {
    for (const { crawl, data } of events) {
      if (crawl === undefined || !Array.isArray(data.hosts)) continue;
      const hosts = data.hosts.filter((host): host is string => typeof host === "string");
      if (this.#dispatcher.hasCrawl(crawl)) this.#dispatcher.added(crawl, hosts);
      else void this.#loops[1]?.runNow();
    }
  }

  // ---- crawls ----

  async #readCrawls(): Promise<void> {
    const { store, clock } = this.#deps;
    const crawls = await store.crawls.running();
    // After the crawls: whoever named a spider found it there.
    await this.#readSpiders();
    const before = this.#running;
    this.#running = new Map(crawls.map((crawl) => [crawl.id, crawl]));
    await this.#openPlaces();
    for (const id of this.#budgetSpent) {
      const { maxPages } = before.get(id)?.limits ?? {};
      if (this.#running.get(id)?.limits.maxPages !== maxPages || !this.#running.has(id)) {
        this.#budgetSpent.delete(id);
      }
    }
    this.#dispatcher.setCrawls(crawls);
    this.#recrawler.setCrawls(crawls);
    const { frontierUrls } = this.#deps.metrics;
    frontierUrls.set({ state: "queued" }, sum(crawls.map(({ counts }) => counts.queued)));
    frontierUrls.set({ state: "active" }, sum(crawls.map(({ counts }) => counts.active)));
    for (const crawl of crawls) {
      const { maxDurationMs, maxBytes } = crawl.limits;
      const isOverTime = maxDurationMs !== undefined && clock.now() - crawl.startedAt >= maxDurationMs;
      const isOverBytes = maxBytes !== undefined && crawl.counts.bytes >= maxBytes;
      if (isOverTime) await this.#cutCrawl(crawl.id, "maxDurationMs");
      else if (isOverBytes) await this.#cutCrawl(crawl.id, "maxBytes");
      if (this.#dispatcher.isIdle(crawl.id)) this.#finishIfOver(crawl.id);
    }
  }

  /** Which spiders are external, and how much their workers can take: as the broker tells of their queues. */
  async #readSpiders(): Promise<void> {
    const { store, bus, clock, logger } = this.#deps;
    const spiders = await store.spiders.list({ kind: "external" });
    const external = await Promise.all(
      spiders.map(async ({ name, askedForAt = 0 }) => {
        try {
          const queue = await bus.spiderQueues.open(name);
          const { consumers } = await queue.check();
          const takers = consumers + (clock.now() - askedForAt < ASKED_FOR_MS ? 1 : 0);
          return [name, { window: takers * this.#options.tasksPerConsumer }] as const;
        } catch (error) {
          logger.debug({ spider: name, error: messageOf(error) }, "cannot tell who takes a spider's tasks");
          return [name, this.#external.get(name) ?? { window: 0 }] as const;
        }
      }),
    );
    const known = this.#external;
    this.#external = new Map(external);
    for (const name of known.keys()) if (!this.#external.has(name)) bus.spiderQueues.forget(name);
    this.#resize();
  }

  /** The nodes that crawls have selected, each selection with a queue of its own. */
  async #openPlaces(): Promise<void> {
    const { bus, logger } = this.#deps;
    const places = new Map<string, NodeSelection>();
    for (const { nodes = ANY_NODE } of this.#running.values()) {
      const place = placeOf(nodes);
      if (place !== undefined) places.set(place, nodes);
    }
    for (const place of this.#places.keys()) if (!places.has(place)) bus.placedQueues.forget(place);
    const fresh = [...places.keys()].filter((place) => bus.placedQueues.get(place) === undefined);
    this.#places = places;
    for (const place of fresh) {
      try {
        await bus.placedQueues.open(place);
      } catch (error) {
        logger.debug({ place, error: messageOf(error) }, "cannot declare the queue of selected nodes yet");
      }
    }
    this.#resize();
  }

  /** Gives up what of a crawl was never tried: one of its limits is reached. */
  async #cutCrawl(crawl: string, reason: FinishReason): Promise<void> {
    const { crawls, runs } = this.#deps.store;
    await crawls.cut(crawl, reason);
    if (this.#running.get(crawl)?.runs === true) await runs.cut(crawl);
    this.#finishIfOver(crawl);
  }

  /** Asks whether a crawl is over everywhere, and ends it if so; asked again meanwhile, it looks once more. */
  #finishIfOver(crawl: string): void {
    const under = this.#finishing.get(crawl);
    if (under !== undefined) {
      under.again = true;
      return;
    }
    if (this.#isStopped) return;
    const state = { again: false };
    this.#finishing.set(crawl, state);
    void this.#tryToFinish(crawl)
      .catch((error: unknown) => {
        this.#deps.logger.debug({ crawl, error: messageOf(error) }, "could not tell whether a crawl is over");
      })
      .finally(() => {
        this.#finishing.delete(crawl);
        if (state.again) this.#finishIfOver(crawl);
      });
  }

  async #tryToFinish(id: string): Promise<void> {
    const { store, bus, logger, clock } = this.#deps;
    if (this.#budgetSpent.has(id) && this.#dispatcher.isIdle(id)) await this.#settleBudget(id);
    const finished = await store.crawls.finishIfOver(id);
    if (finished === undefined) return;
    this.#running.delete(id);
    this.#dispatcher.setCrawls([...this.#running.values()]);
    this.#recrawler.setCrawls([...this.#running.values()]);
    logger.info(
      { crawl: id, counts: finished.counts, finishReason: finished.finishReason },
      "crawl finished",
    );
    const { counts, finishReason, error } = finished;
    const type = finished.status === "failed" ? "crawl.failed" : "crawl.finished";
    bus.events.publish(type, [
      {
        type,
        at: new Date(clock.now()).toISOString(),
        crawl: id,
        data: { counts, finishReason, ...(error !== undefined && { error }) },
      },
    ]);
  }

  /** The page budget is used up, and nothing runs: what of it was not used after all may be used now. */
  async #settleBudget(id: string): Promise<void> {
    const { crawls } = this.#deps.store;
    // Pages that another master reserved a moment ago may not be dispatched yet. Past a lease they cannot be.
    const holdsAll = this.#dispatcher.heldShards.length === this.#shardCount;
    const settled = await crawls.settleBudget(id, holdsAll ? 0 : this.#options.leaseMs);
    if (settled === "wait") return;
    this.#budgetSpent.delete(id);
    if (settled === "spent") await crawls.cut(id, "maxPages");
    else this.#dispatcher.budgetReturned(id);
  }

  async #reconcile(): Promise<void> {
    this.#reconcileSlice = (this.#reconcileSlice + 1) % RECONCILE_SLICES;
    await this.#dispatcher.reconcile([this.#reconcileSlice, RECONCILE_SLICES]);
    await this.#recrawler.look();
  }
}

/** Names of spiders and of places are told apart by what stands before them. */
function crewOfSpider(spider: string): string {
  return `spider ${spider}`;
}

function crewOfPlace(place: string): string;
function crewOfPlace(place: string | undefined): string | undefined;
function crewOfPlace(place: string | undefined): string | undefined {
  return place === undefined ? undefined : `nodes ${place}`;
}

function toForeignMessage(task: Task, crawl: Crawl): TaskMessage {
  const foreign = toForeignTask(task, crawl);
  return {
    body: JSON.stringify(foreign),
    contentType: "application/json",
    messageId: foreign.task,
    ...traceOf(task),
  };
}

function toMessage(task: Task): TaskMessage {
  return { body: encodeTask(task), contentType: TASK_CONTENT_TYPE, messageId: task.token, ...traceOf(task) };
}

/** The trace of a task goes with its message, also to workers of others. */
function traceOf({ request }: Task): Pick<TaskMessage, "headers"> {
  return request?.trace === undefined ? {} : { headers: request.trace };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function countBy<T>(values: readonly T[], keyOf: (value: T) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(keyOf(value), (counts.get(keyOf(value)) ?? 0) + 1);
  return counts;
}

function isFiniteNumber(value: unknown): value is number {
  return Number.isFinite(value);
}

function isTaskEnd(value: unknown): value is TaskEnd {
  if (typeof value !== "object" || value === null) return false;
  const end = value as Record<string, unknown>;
  return (
    typeof end.id === "string" &&
    typeof end.crawl === "string" &&
    typeof end.host === "string" &&
    typeof end.token === "string" &&
    Number.isFinite(end.endedAt)
  );
}
