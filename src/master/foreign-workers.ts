import { type ForeignResult, toTaskResult } from "../crawl/foreign-result.js";
import { decodeTaskKey, encodeTaskKey, type TaskKey } from "../crawl/foreign-task.js";
import type { QueuedUrl } from "../crawl/frontier.js";
import { DEFAULT_TASK_LIMITS } from "../crawl/limits.js";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import type { WarrenBus } from "../protocol/index.js";
import { Aftermath, type CommittedGroup, Committer, Replies, TaskEvents } from "../results/index.js";
import type { Store } from "../store/index.js";
import { invalid, notFound, RequestError } from "./errors.js";

export type ForeignWorkersParts = {
  readonly masterId: string;
  readonly store: Store;
  readonly bus: Pick<WarrenBus, "events" | "calls">;
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

function stale(why: string): RequestError {
  return new RequestError("conflict", `this task's result is not waited for: ${why}`);
}
