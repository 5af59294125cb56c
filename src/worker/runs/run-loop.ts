import { randomUUID } from "node:crypto";
import type { Events } from "../../bus/index.js";
import type { Crawl } from "../../crawl/crawl.js";
import type { CrawlStates } from "../../crawl/crawl-state.js";
import type { Frontier } from "../../crawl/frontier.js";
import type { ResultSink } from "../../crawl/records.js";
import { isRunnable, type RunEnd, type RunnableSpider } from "../../crawl/run.js";
import { type RunBatch, type RunCounts, RunOutputs } from "../../crawl/run-outputs.js";
import type { Spider } from "../../crawl/spider.js";
import type { SpiderCatalog } from "../../crawl/spider-catalog.js";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import { Loop } from "../../lib/loop.js";
import type { Service } from "../../lib/service.js";
import type { TaskEvents } from "../../results/index.js";
import type { Crawls, HeldRun, MongoResultSink, RunStop, Runs } from "../../store/index.js";

export type RunLoopOptions = {
  readonly node: string;
  /** Runs at once. */
  readonly concurrency: number;
  /** How often what is held is renewed and it is looked for more, in milliseconds. @default 1_000 */
  readonly lookMs?: number;
};

export type RunLoopDeps = {
  readonly runs: Runs;
  readonly crawls: { load(id: string): Promise<Crawl | undefined> };
  readonly counts: Pick<Crawls, "count">;
  readonly spiders: SpiderCatalog;
  readonly states: CrawlStates;
  readonly frontier: Pick<Frontier, "add">;
  readonly results: ResultSink & Pick<MongoResultSink, "removeItems">;
  readonly events: Pick<Events, "publish">;
  readonly taskEvents: Pick<TaskEvents, "added">;
  /** Whether this node may take more now. */
  readonly mayTake: () => boolean;
  readonly logOf: (crawl: Crawl, spider: Spider, run: string) => Logger;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** Why a run of this node is ended before it has come to its own end. */
type Interruption = RunStop | "closed" | "stopping" | "lost";

type Active = {
  readonly run: HeldRun;
  readonly abort: AbortController;
  /** Of its crawl when it was taken. */
  readonly generation: number;
  why?: Interruption;
  stored: RunCounts;
  ended: Promise<void>;
};

const NOTHING: RunCounts = { items: 0, invalidItems: 0, requests: 0 };

/** Time before the end of a lease from which on it is not relied on any more, in milliseconds. */
const LEASE_MARGIN_MS = 3_000;
/** How long a run waits whose spider cannot be had here, in milliseconds. */
const UNAVAILABLE_WAIT_MS = 5_000;
/** How often a spider may not be had, or fail in an unforeseen way, before its run is given up. */
const MAX_FAILURES = 3;

/**
 * The runs of this node: takes those that are for it, or for any, while it has room, and holds each by a lease that is
 * renewed every second. What a run brings is stored while it goes on. A run whose lease is lost is ended here before
 * another node can begin it, and stores nothing any more.
 */
export class RunLoop implements Service {
  readonly name = "run loop";
  readonly #options: Required<RunLoopOptions>;
  readonly #deps: RunLoopDeps;
  readonly #active = new Map<string, Active>();
  #loop: Loop | undefined;
  #isStopping = false;
  /** Monotonic instant until which what is active is certainly ours. */
  #certainUntil = Number.NEGATIVE_INFINITY;

  constructor(options: RunLoopOptions, deps: RunLoopDeps) {
    this.#options = { lookMs: 1_000, ...options };
    this.#deps = deps;
  }

  async start(): Promise<void> {
    this.#loop = new Loop(this.#options.lookMs, this.#deps.clock, () => this.#look());
  }

  /** Ends what runs, and gives it back. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#loop?.stop();
    for (const active of this.#active.values()) interrupt(active, "stopping");
    await Promise.all([...this.#active.values()].map(({ ended }) => ended));
  }

  get active(): readonly HeldRun[] {
    return [...this.#active.values()].map(({ run }) => run);
  }

  /** Ends what runs of a crawl; it waits again. @returns how many that were */
  cancelCrawl(crawl: string): number {
    const own = [...this.#active.values()].filter(({ run }) => run.crawl === crawl);
    for (const active of own) interrupt(active, "closed");
    return own.length;
  }

  async #look(): Promise<void> {
    try {
      await this.#renew();
      if (this.#isStopping || !this.#deps.mayTake()) return;
      await this.#takeMore();
    } catch (error) {
      this.#deps.logger.debug({ error: messageOf(error) }, "could not look after runs");
      if (this.#deps.clock.monotonic() < this.#certainUntil) return;
      // Someone else may have them by now.
      for (const active of this.#active.values()) interrupt(active, "lost");
    }
  }

  async #renew(): Promise<void> {
    const { runs, clock } = this.#deps;
    if (this.#active.size === 0) return;
    const askedAt = clock.monotonic();
    const asked = [...this.#active.keys()];
    const held = await runs.renew(asked);
    this.#certainUntil = askedAt + runs.leaseMs - LEASE_MARGIN_MS;
    for (const token of asked) {
      const active = this.#active.get(token);
      if (active === undefined) continue;
      const stop = held.get(token);
      if (!held.has(token)) interrupt(active, "lost");
      else if (stop !== undefined) interrupt(active, stop);
      else await this.#endIfClosed(active);
    }
  }

  /** A crawl that is paused lets what runs go on. */
  async #endIfClosed(active: Active): Promise<void> {
    const crawl = await this.#deps.crawls.load(active.run.crawl);
    // A spider that nobody asks for is unloaded, and its code may go.
    const kept = crawl && this.#deps.spiders.get(crawl.spider, crawl.spiderVersion);
    // Not loaded yet: what comes of it is for who began the run to see to.
    if (kept instanceof Promise) kept.catch(() => {});
    const isOpen = crawl?.status === "running" || crawl?.status === "paused";
    if (!isOpen || crawl.generation !== active.generation) interrupt(active, "closed");
  }

  async #takeMore(): Promise<void> {
    const { runs, crawls, clock } = this.#deps;
    const { node, concurrency } = this.#options;
    if (this.#active.size >= concurrency) return;
    for (const { id, crawl: crawlId } of await runs.waitingFor(node)) {
      if (this.#active.size >= concurrency) return;
      const crawl = await crawls.load(crawlId);
      if (crawl?.status !== "running") continue;
      const token = randomUUID();
      const askedAt = clock.monotonic();
      const run = await runs.take(id, node, token);
      if (run === undefined) continue;
      if (this.#active.size === 0) this.#certainUntil = askedAt + runs.leaseMs - LEASE_MARGIN_MS;
      const active: Active = {
        ...{ run, abort: new AbortController(), generation: crawl.generation },
        ...{ stored: NOTHING, ended: Promise.resolve() },
      };
      this.#active.set(token, active);
      active.ended = this.#run(active, crawl).finally(() => this.#active.delete(token));
    }
  }

  /** Never rejects. */
  async #run(active: Active, crawl: Crawl): Promise<void> {
    const { logger, spiders } = this.#deps;
    const { run } = active;
    this.#tell("run.started", run, { attempt: run.attempt });
    logger.info({ crawl: run.crawl, run: run.id, attempt: run.attempt }, "run begins");
    try {
      const spider = await spiders.get(crawl.spider, crawl.spiderVersion);
      if (spider === undefined || !isRunnable(spider)) {
        const error =
          spider === undefined
            ? `there is no spider "${crawl.spider}" here`
            : `the spider "${crawl.spider}" does not run as a whole`;
        await this.#conclude(active, { state: "failed", reason: "spider-error", error });
        return;
      }
      if (run.attempt > 1) await this.#deps.results.removeItems(`${run.id}.`);
      await this.#conclude(active, await this.#execute(active, crawl, spider));
    } catch (error) {
      active.abort.abort();
      await this.#giveUp(active, error);
    }
  }

  /** Resolves when all that it has brought is stored. */
  async #execute(active: Active, crawl: Crawl, spider: RunnableSpider): Promise<RunEnd> {
    const { states, logOf, clock } = this.#deps;
    const { run, abort } = active;
    const { node } = this.#options;
    const outputs = new RunOutputs({
      ...{ crawl, run: run.id, attempt: run.attempt, spider, version: spider.version ?? "1", node, clock },
      store: (batch) => this.#store(active, batch),
    });
    try {
      const end = await spider.run({
        crawl: { id: crawl.id, params: crawl.params, state: states.of(crawl.id) },
        node,
        log: logOf(crawl, spider, run.id),
        run: run.id,
        attempt: run.attempt,
        seeds: crawl.seeds,
        signal: abort.signal,
        take: (output) => outputs.take(output),
      });
      if (active.why === undefined) await outputs.flush();
      return end;
    } finally {
      outputs.stop();
    }
  }

  async #store(active: Active, { items, invalidItems, links }: RunBatch): Promise<void> {
    const { results, frontier, counts, taskEvents, clock, runs } = this.#deps;
    const { run } = active;
    if (active.why !== undefined) throw new Error("the run was ended");
    if (clock.monotonic() > this.#certainUntil) throw new Error("the run may be another node's by now");
    const [added, kept] = await Promise.all([
      links.length > 0 ? frontier.add(links) : undefined,
      items.length + invalidItems.length > 0
        ? results.store({ pages: [], items, invalidItems, files: [] })
        : undefined,
    ]);
    const queued = added?.queued ?? [];
    counts.count(run.crawl, {
      ...{
        items: items.length - (kept?.knownItems?.get(run.crawl) ?? 0),
        invalidItems: invalidItems.length,
      },
      ...{ queued: queued.length, skipped: added?.skipped ?? 0 },
    });
    if (queued.length > 0) {
      taskEvents.added(new Map([[run.crawl, new Set(queued.map(({ host }) => host))]]));
    }
    active.stored = {
      items: active.stored.items + items.length,
      invalidItems: active.stored.invalidItems + invalidItems.length,
      requests: active.stored.requests + links.length,
    };
    await runs.progress(run, active.stored);
  }

  /** The run has come to its end, by itself or because it was to. */
  async #conclude({ run, why, stored: counts }: Active, end: RunEnd): Promise<void> {
    const { runs, logger } = this.#deps;
    switch (why) {
      case undefined:
        await runs.end(run, end, counts);
        logger.info({ crawl: run.crawl, run: run.id, ...end, ...counts }, "run ended");
        this.#tell("run.ended", run, {
          state: end.state,
          ...counts,
          ...(end.state === "failed" && { error: end.error }),
        });
        return;
      case "cancelled":
      case "limit":
        await runs.stopped(run, why, counts);
        this.#tell("run.ended", run, { state: "skipped", error: why, ...counts });
        return;
      case "closed":
        await runs.release(run, "its crawl was closed");
        return;
      case "stopping":
        await runs.release(run, "the node stopped");
        return;
      case "lost":
        return;
      default:
        why satisfies never;
    }
  }

  /** It could not be run, or what it brought could not be stored, which need not be its fault. */
  async #giveUp(active: Active, error: unknown): Promise<void> {
    const { runs, logger } = this.#deps;
    const { run } = active;
    const message = messageOf(error);
    try {
      if (active.why !== undefined) {
        await this.#conclude(active, { state: "done" });
      } else if (run.failures + 1 >= MAX_FAILURES) {
        await this.#conclude(active, { state: "failed", reason: "spider-error", error: message });
      } else {
        logger.warn({ crawl: run.crawl, run: run.id, error: message }, "a run is begun anew later");
        await runs.failed(run, message, UNAVAILABLE_WAIT_MS);
        this.#tell("run.ended", run, { state: "queued", error: message });
      }
    } catch (failure) {
      // The database is away: the lease ends, and the run is begun anew.
      logger.warn({ run: run.id, error: messageOf(failure) }, "could not say how a run ended");
    }
  }

  #tell(type: string, { id, crawl }: HeldRun, data: Readonly<Record<string, unknown>>): void {
    const { events, clock } = this.#deps;
    const at = new Date(clock.now()).toISOString();
    events.publish(type, [{ type, at, crawl, node: this.#options.node, data: { run: id, ...data } }]);
  }
}

function interrupt(active: Active, why: Interruption): void {
  active.why ??= why;
  active.abort.abort();
}
