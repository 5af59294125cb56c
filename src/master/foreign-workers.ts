import type { Crawl } from "../crawl/crawl.js";
import type { HostState } from "../crawl/dispatch/host-state.js";
import { type ForeignResult, toObjectedResult, toTaskResult } from "../crawl/foreign-result.js";
import { decodeTaskKey, encodeTaskKey, type ForeignTask, type TaskKey } from "../crawl/foreign-task.js";
import type { QueuedUrl } from "../crawl/frontier.js";
import { DEFAULT_TASK_LIMITS } from "../crawl/limits.js";
import type { Task } from "../crawl/task.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import { foreignTask, type WarrenBus } from "../protocol/index.js";
import { Aftermath, type CommittedGroup, Committer, Replies, TaskEvents } from "../results/index.js";
import type { Store } from "../store/index.js";
import { invalid, notFound, RequestError } from "./errors.js";
import type { ForeignGate } from "./foreign-gate.js";

export type ForeignWorkersParts = {
  readonly masterId: string;
  readonly store: Store;
  readonly bus: Pick<WarrenBus, "events" | "calls" | "spiderQueues">;
  readonly gate: ForeignGate;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** The answer to a result that is stored, however often it is handed in. */
export type Accepted = { readonly task: string; readonly accepted: true };

type Submitted = {
  readonly task: Pick<QueuedUrl, "id" | "crawl" | "url" | "attempts">;
  readonly node: string;
  /** Called once it is stored, with whether its dispatch was still the current one. */
  readonly settle: (isApplied: boolean) => void;
};

/**
 * What workers in other languages ask of masters. Results that they hand in are stored the way those of our own
 * workers are: in groups, links and items first, the end of the URL last and only if its dispatch is the current
 * one. A result is remembered by its dispatch, so that the same one handed in again gets the same answer.
 */
export class ForeignWorkers implements Service {
  readonly name = "foreign workers";
  readonly #parts: ForeignWorkersParts;
  readonly #committer: Committer<Submitted>;
  readonly #aftermath: Aftermath;
  /** Results that are being stored, so that one that comes twice at once is counted once. */
  readonly #underWay = new Map<string, Promise<Accepted>>();

  constructor(parts: ForeignWorkersParts) {
    this.#parts = parts;
    const { store, bus, metrics, clock, logger, masterId } = parts;
    this.#aftermath = new Aftermath({
      events: new TaskEvents(bus.events, masterId, clock),
      replies: new Replies(store.replies, bus.calls, logger),
      crawls: store.crawls,
      metrics,
    });
    this.#committer = new Committer<Submitted>({
      frontier: store.frontier,
      results: store.results,
      hosts: store.hosts,
      clock,
      logger,
      expected: () => 0,
      onCommitted: (group) => this.#committed(group),
    });
  }

  async start(): Promise<void> {}

  /** Stores what was handed in before it stops. */
  async stop(): Promise<void> {
    await this.#committer.flush();
    this.#committer.stop();
    await this.#parts.gate.close();
  }

  /**
   * Whether a task may go to a worker that asks neither robots.txt nor whose address it is. If not, that is stored
   * as its end.
   */
  async vet(task: Task, crawl: Crawl): Promise<{ readonly mayGo: boolean; readonly learnt?: HostState }> {
    const { gate, clock, masterId } = this.#parts;
    const { objection, learnt } = await gate.ask(task, crawl);
    const news = learnt === undefined ? {} : { learnt };
    if (objection === undefined) return { mayGo: true, ...news };
    const result = toObjectedResult(objection, task, task.token, {
      limits: DEFAULT_TASK_LIMITS,
      now: clock.now(),
    });
    this.#committer.add({ result, context: { task, node: masterId, settle: () => {} } });
    return { mayGo: false, ...news };
  }

  /**
   * The next task for a worker that cannot consume; undefined when there is none within a moment. It is the
   * worker's until its deadline: if its result does not come by then, it is dispatched again.
   * @throws RequestError `not-found` when there is no such external spider
   */
  async fetch(spider: string | undefined, signal: AbortSignal): Promise<ForeignTask | undefined> {
    const { store, clock } = this.#parts;
    const until = clock.monotonic() + LONGEST_ASK_MS;
    let isDemandKnown = false;
    for (;;) {
      const spiders = await this.#externalSpiders(spider);
      for (const name of spiders) {
        const task = await this.#take(name, signal);
        if (task !== undefined) return task;
      }
      if (!isDemandKnown) {
        isDemandKnown = true;
        await Promise.all(spiders.map((name) => store.spiders.askedFor(name, clock.now())));
        this.#tellOfDemand();
      }
      if (signal.aborted || clock.monotonic() + ASK_AGAIN_MS > until || spiders.length === 0)
        return undefined;
      await new Promise<void>((resolve) => clock.after(ASK_AGAIN_MS, resolve));
    }
  }

  async #externalSpiders(wanted: string | undefined): Promise<readonly string[]> {
    const { spiders } = this.#parts.store;
    if (wanted === undefined) return (await spiders.list({ kind: "external" })).map(({ name }) => name);
    if ((await spiders.get(wanted))?.kind !== "external") throw notFound("external spider", wanted);
    return [wanted];
  }

  /** Takes one task of a spider that may still be begun, passing over those that may not. */
  async #take(spider: string, signal: AbortSignal): Promise<ForeignTask | undefined> {
    const { bus, logger } = this.#parts;
    try {
      const queue = await bus.spiderQueues.open(spider);
      for (;;) {
        const body = await queue.take();
        if (body === undefined) return undefined;
        const task = parseForeignTask(body);
        if (task === undefined || !(await this.#isWaitedFor(task))) continue;
        if (!signal.aborted) return task;
        // Whoever asked is gone: someone else may have it at once.
        await this.submit(task.task, { node: this.#parts.masterId, error: NOT_BEGUN });
        return undefined;
      }
    } catch (error) {
      logger.debug({ spider, error: messageOf(error) }, "cannot take a task");
      throw new RequestError(
        "unavailable",
        `the queue of spider "${spider}" cannot be asked: RabbitMQ is away`,
        {
          cause: error,
        },
      );
    }
  }

  async #isWaitedFor({ task, notAfter }: ForeignTask): Promise<boolean> {
    const { store, clock } = this.#parts;
    const key = decodeTaskKey(task);
    const known = key === undefined ? undefined : await store.frontier.find(key.id);
    if (known?.dispatch === undefined || known.dispatch.token !== key?.token) return false;
    const crawl = await store.crawls.get(known.url.crawl);
    if (crawl?.status !== "running" || crawl.generation !== known.dispatch.generation) return false;
    if (clock.now() <= notAfter) return true;
    await this.submit(task, { node: this.#parts.masterId, error: NOT_BEGUN });
    return false;
  }

  /** Dispatchers give a spider's tasks out when they know that someone wants them. */
  #tellOfDemand(): void {
    const at = new Date(this.#parts.clock.now()).toISOString();
    this.#parts.bus.events.publish("spider.wanted", [{ type: "spider.wanted", at, data: {} }]);
  }

  /**
   * Takes the result of a task.
   * @throws RequestError `invalid`; `not-found` when its URL is gone; `conflict` when it is not the result that is
   *   waited for: the task was given to someone else since, or its crawl was closed
   */
  async submit(task: string, found: ForeignResult): Promise<Accepted> {
    const key = decodeTaskKey(task);
    if (key === undefined) throw invalid("task", "is not one that was handed out");
    const name = encodeTaskKey(key);
    const underWay = this.#underWay.get(name);
    if (underWay !== undefined) return underWay;
    const storing = this.#store(name, key, found).finally(() => this.#underWay.delete(name));
    this.#underWay.set(name, storing);
    return storing;
  }

  async #store(name: string, key: TaskKey, found: ForeignResult): Promise<Accepted> {
    const { store, clock } = this.#parts;
    const accepted: Accepted = { task: name, accepted: true };
    const known = await store.frontier.find(key.id);
    if (known === undefined) throw notFound("task", name);
    if (known.endedBy === key.token) return accepted;
    const { url, dispatch } = known;
    if (dispatch?.token !== key.token) throw stale("it has ended, or was dispatched again, since");
    const crawl = await store.crawls.get(url.crawl);
    if (crawl === undefined) throw notFound("crawl", url.crawl);
    const goesOn = crawl.status === "running" || crawl.status === "paused";
    if (!goesOn || crawl.generation !== dispatch.generation) throw stale(`its crawl was ${crawl.status}`);
    const result = await toTaskResult(found, url, key.token, crawl, {
      claims: store.frontier,
      limits: DEFAULT_TASK_LIMITS,
      now: clock.now(),
    });
    const isApplied = await new Promise<boolean>((settle) => {
      this.#committer.add({ result, context: { task: url, node: found.node, settle } });
    });
    // Through another master it may have come in at the same instant.
    if (!isApplied && (await store.frontier.find(key.id))?.endedBy !== key.token) {
      throw stale("it was dispatched again, or its crawl closed, this instant");
    }
    return accepted;
  }

  async #committed(group: CommittedGroup<Submitted>): Promise<void> {
    for (const { result, context } of group.members) context.settle(group.applied.has(result.ending.id));
    await this.#aftermath.follow(group);
  }
}

/** How long a worker that asks for a task is kept waiting for one, and how often it is looked for meanwhile, in ms. */
const LONGEST_ASK_MS = 2_000;
const ASK_AGAIN_MS = 100;

const NOT_BEGUN = { code: "expired", message: "" } as const;

/** A task as some master wrote it; undefined when it is none. */
function parseForeignTask(body: Buffer): ForeignTask | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
  const parsed = foreignTask.safeParse(value);
  return parsed.success ? (parsed.data as ForeignTask) : undefined;
}

function stale(why: string): RequestError {
  return new RequestError("conflict", `this task's result is not waited for: ${why}`);
}
