import type { Consumer, TaskDelivery, WorkQueue } from "../bus/index.js";
import type { Crawl } from "../crawl/crawl.js";
import type { Engine, TaskResult } from "../crawl/engine.js";
import type { FailReason } from "../crawl/frontier.js";
import { decodeTask, handBack, TASK_CONTENT_TYPE, type Task } from "../crawl/task.js";
import type { Clock } from "../lib/clock.js";
import { messageOf, WarrenError } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import type { Committer } from "../results/index.js";
import type { CrawlView } from "./crawl-view.js";

/** What a result carries to its commit: the task it came from and the message to acknowledge. */
export type TaskContext = { readonly task: Task; readonly delivery: TaskDelivery };

export type TaskLoopOptions = {
  /** Tasks that run at once. */
  readonly concurrency: number;
  /** Longest time for one task, in milliseconds. @default 120_000 */
  readonly taskTimeoutMs: number;
  /** How long a stop lets tasks run before it aborts them and hands them back, in ms. @default 20_000 */
  readonly drainMs: number;
};

export type TaskLoopDeps = {
  readonly queue: WorkQueue;
  readonly engine: Engine;
  readonly crawls: CrawlView;
  readonly committer: Committer<TaskContext>;
  /** Takes the messages that the dispatcher did not send. */
  readonly external: { admit(delivery: TaskDelivery): void; flush(): Promise<void> };
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Whether the pages of this spider are read by workers that are not Warren's. */
  readonly isExternal: (spider: string) => boolean | Promise<boolean>;
  readonly onStarted: (task: Task) => void;
  /** Called with messages that are none of ours and cannot be read. */
  readonly onGarbage: (delivery: TaskDelivery) => void;
};

type Running = { readonly task: Task; readonly delivery: TaskDelivery; readonly abort: AbortController };

/** Messages taken beyond those that run: what is being committed, and a little in hand. */
const HEADROOM = 16;

/**
 * The life of a message.
 *
 * 1. It is taken: `prefetch` bounds how many, the rest of the window stays in the broker for other workers.
 * 2. A task from outside goes to admission. A dispatched one is checked: too late, dispatched by a master
 *    that had lost the shard, delivered before (its first worker died, so its host's delay must run again),
 *    or its crawl no longer running: then it goes back to the frontier untried.
 * 3. It waits for a free place, is checked against its crawl again, and runs.
 * 4. What it brought is committed in a group, and only then is the message acknowledged.
 *
 * When the connection is lost the broker gives the messages to others, so what runs here is aborted: nothing
 * is fetched twice at the same time.
 */
export class TaskLoop implements Service {
  readonly name = "task loop";
  readonly #deps: TaskLoopDeps;
  #options: TaskLoopOptions;
  #consumer: Consumer | undefined;
  readonly #waiting: { task: Task; delivery: TaskDelivery }[] = [];
  readonly #running = new Map<TaskDelivery, Running>();
  /** Everything that was taken and is not settled: it waits, runs, or is being stored. */
  readonly #held = new Map<TaskDelivery, Task>();
  readonly #watched = new WeakSet<AbortSignal>();
  #checking = 0;
  #isPaused = false;
  #isDraining = false;
  #isStopping = false;
  #onQuiet: (() => void)[] = [];

  constructor(deps: TaskLoopDeps, options: Partial<TaskLoopOptions> & Pick<TaskLoopOptions, "concurrency">) {
    this.#deps = deps;
    this.#options = { taskTimeoutMs: 120_000, drainMs: 20_000, ...options };
  }

  async start(): Promise<void> {
    this.#consumer = await this.#deps.queue.consume({ prefetch: this.#prefetch }, (delivery) =>
      this.#receive(delivery),
    );
  }

  /** Takes no more, gives back what has not begun, lets what runs end if it does so in time, and stores it. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#consumer?.stop();
    for (const { task, delivery } of this.#waiting.splice(0))
      this.#giveBack(task, delivery, "worker stopping");
    const stopTimer = this.#deps.clock.after(this.#options.drainMs, () => {
      for (const { abort } of this.#running.values()) abort.abort();
    });
    while (this.#running.size > 0 || this.#checking > 0) {
      await new Promise<void>((resolve) => this.#onQuiet.push(resolve));
    }
    stopTimer();
    await this.#deps.external.flush();
    await this.#deps.committer.flush();
    this.#deps.committer.stop();
  }

  /** Takes no more tasks until `resume`; what runs goes on. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#consumer?.pause();
    for (const { task, delivery } of this.#waiting.splice(0)) this.#giveBack(task, delivery, "worker paused");
  }

  /** Takes no more tasks until `resume`, because the node is to be emptied. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    await this.pause();
  }

  async resume(): Promise<void> {
    this.#isPaused = false;
    this.#isDraining = false;
    await this.#consumer?.resume();
    this.#fill();
  }

  async setConcurrency(concurrency: number): Promise<void> {
    this.#options = { ...this.#options, concurrency };
    await this.#consumer?.setPrefetch(this.#prefetch);
    this.#fill();
  }

  get concurrency(): number {
    return this.#options.concurrency;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Tasks that run now. */
  get active(): number {
    return this.#running.size;
  }

  /** All tasks in this worker's hands: those that wait, run, or are being stored. */
  get tasks(): readonly { readonly task: Task; readonly isRunning: boolean }[] {
    return [...this.#held].map(([delivery, task]) => ({ task, isRunning: this.#running.has(delivery) }));
  }

  /** Deliveries are settled: they are in nobody's hands here any more. */
  settled(deliveries: readonly TaskDelivery[]): void {
    for (const delivery of deliveries) this.#held.delete(delivery);
  }

  /** Tasks here that have yet to bring a result. */
  get unfinished(): number {
    return this.#running.size + this.#checking + this.#waiting.length;
  }

  /**
   * Stops everything of a crawl here and gives it back to the frontier.
   * @returns how many fetches were aborted and how many tasks had not begun
   */
  cancelCrawl(crawl: string): { aborted: number; dropped: number } {
    this.#deps.crawls.invalidate(crawl);
    let aborted = 0;
    for (const { task, abort } of this.#running.values()) {
      if (task.crawl !== crawl) continue;
      abort.abort();
      aborted += 1;
    }
    const kept = this.#waiting.filter(({ task }) => task.crawl !== crawl);
    const dropped = this.#waiting.filter(({ task }) => task.crawl === crawl);
    this.#waiting.splice(0, this.#waiting.length, ...kept);
    for (const { task, delivery } of dropped) this.#giveBack(task, delivery, "crawl cancelled on this node");
    return { aborted, dropped: dropped.length };
  }

  /** Aborts one task, by its URL's id, and gives it back to the frontier. @returns whether it ran here */
  cancelTask(id: string): boolean {
    let found = false;
    for (const { task, abort } of this.#running.values()) {
      if (task.id !== id) continue;
      abort.abort();
      found = true;
    }
    return found;
  }

  get #prefetch(): number {
    return this.#options.concurrency * 2 + HEADROOM;
  }

  #receive(delivery: TaskDelivery): void {
    if (delivery.contentType !== TASK_CONTENT_TYPE) {
      this.#deps.external.admit(delivery);
      return;
    }
    const task = decodeTask(delivery.body);
    if (task === undefined) {
      this.#deps.onGarbage(delivery);
      return;
    }
    this.#watch(delivery.signal);
    this.#held.set(delivery, task);
    const refusal = this.#refusal(task, delivery);
    if (refusal !== undefined) {
      this.#giveBack(task, delivery, refusal);
      return;
    }
    this.#waiting.push({ task, delivery });
    this.#fill();
  }

  #refusal(task: Task, delivery: TaskDelivery): string | undefined {
    const { clock, crawls } = this.#deps;
    if (delivery.redelivered) return "delivered before, to a worker that did not acknowledge it";
    if (clock.now() > task.notAfter) return "waited too long to begin";
    if (crawls.isStale(task.shard, task.epoch, task.dispatchedAt))
      return "dispatched under a lease that had ended";
    if (this.#isStopping) return "worker stopping";
    if (this.#isPaused) return "worker paused";
    return undefined;
  }

  #fill(): void {
    while (this.#running.size + this.#checking < this.#options.concurrency && !this.#isPaused) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      const crawl = this.#deps.crawls.peek(next.task.crawl);
      if (crawl !== undefined) this.#begin(next.task, next.delivery, crawl);
      else void this.#beginLater(next.task, next.delivery);
    }
  }

  async #beginLater(task: Task, delivery: TaskDelivery): Promise<void> {
    this.#checking += 1;
    try {
      const crawl = await this.#deps.crawls.load(task.crawl);
      this.#checking -= 1;
      if (crawl !== undefined) this.#begin(task, delivery, crawl);
      else this.#giveBack(task, delivery, "its crawl is gone");
    } catch (error) {
      this.#checking -= 1;
      this.#deps.logger.debug({ crawl: task.crawl, error: messageOf(error) }, "could not look at a crawl");
      this.#giveBack(task, delivery, "its crawl could not be looked at");
    } finally {
      this.#fill();
      this.#announceQuiet();
    }
  }

  #begin(task: Task, delivery: TaskDelivery, crawl: Crawl): void {
    if (delivery.signal.aborted) return;
    if (crawl.status !== "running" || crawl.generation !== task.generation) {
      this.#giveBack(task, delivery, `its crawl is ${crawl.status}`);
      return;
    }
    if (this.#deps.clock.now() > task.notAfter) {
      this.#giveBack(task, delivery, "waited too long to begin");
      return;
    }
    const abort = new AbortController();
    this.#running.set(delivery, { task, delivery, abort });
    this.#deps.metrics.tasksActive.set(this.#running.size);
    this.#deps.onStarted(task);
    void this.#run(task, delivery, crawl, abort);
  }

  async #run(task: Task, delivery: TaskDelivery, crawl: Crawl, abort: AbortController): Promise<void> {
    const { engine, committer, clock, logger, isExternal } = this.#deps;
    const { taskTimeoutMs } = this.#options;
    let tookTooLong = false;
    const stopTimer = clock.after(taskTimeoutMs, () => {
      tookTooLong = true;
      abort.abort();
    });
    let result: TaskResult | undefined;
    try {
      if (await isExternal(task.request?.spider ?? crawl.spider)) {
        // Its master had not heard of the spider yet; the next time it has.
        stopTimer();
        this.#giveBack(task, delivery, "its spider is external", UNAVAILABLE_WAIT_MS);
        this.#end(delivery);
        return;
      }
      result = await engine.run(task, crawl, abort.signal);
      if (tookTooLong && result === undefined) {
        result = failedAttempt(
          task,
          "timeout",
          `the task did not end within ${taskTimeoutMs} ms`,
          clock.now(),
        );
      }
    } catch (error) {
      if (isUnavailable(error)) {
        stopTimer();
        this.#end(delivery);
        this.#giveBack(task, delivery, messageOf(error), UNAVAILABLE_WAIT_MS);
        return;
      }
      // Not a page's fault but ours; it counts as an attempt so that it cannot go on for ever.
      logger.error({ err: error, url: task.url }, "a task failed in a way that was not foreseen");
      result = failedAttempt(task, "spider-error", messageOf(error), clock.now());
    }
    stopTimer();
    if (result !== undefined) committer.add({ result, context: { task, delivery } });
    else if (!delivery.signal.aborted) this.#giveBack(task, delivery, "aborted");
    this.#end(delivery);
  }

  #end(delivery: TaskDelivery): void {
    this.#running.delete(delivery);
    this.#deps.metrics.tasksActive.set(this.#running.size);
    this.#fill();
    this.#announceQuiet();
  }

  /** Back to the frontier untried: the state is written and the message acknowledged with the next group. */
  #giveBack(task: Task, delivery: TaskDelivery, reason: string, waitMs = 0): void {
    const { clock, committer } = this.#deps;
    const now = clock.now();
    const nothing = { pages: [], items: [], files: [], links: [] };
    committer.add({
      result: {
        ...handBack(task, reason, now, now + waitMs),
        ...nothing,
        ...(task.delayMs > 0 && { hostState: { host: task.host, lastEndedAt: now } }),
      },
      context: { task, delivery },
    });
  }

  /** Aborts what runs for a channel when the channel is lost. */
  #watch(signal: AbortSignal): void {
    if (this.#watched.has(signal)) return;
    this.#watched.add(signal);
    signal.addEventListener(
      "abort",
      () => {
        for (const running of this.#running.values()) {
          if (running.delivery.signal === signal) running.abort.abort();
        }
        for (const delivery of this.#held.keys()) {
          if (delivery.signal === signal) this.#held.delete(delivery);
        }
        const kept = this.#waiting.filter(({ delivery }) => delivery.signal !== signal);
        this.#waiting.splice(0, this.#waiting.length, ...kept);
      },
      { once: true },
    );
  }

  #announceQuiet(): void {
    if (this.#running.size > 0 || this.#checking > 0) return;
    const waiting = this.#onQuiet;
    this.#onQuiet = [];
    for (const resolve of waiting) resolve();
  }
}

/** Wait of a task that was handed back because something that it needs was away, in milliseconds. */
const UNAVAILABLE_WAIT_MS = 1_000;

/** Whether something was away that will come back: the database, as a rule. */
function isUnavailable(error: unknown): boolean {
  return error instanceof WarrenError && error.code === "unavailable";
}

/** Attempts after which a task that fails in an unforeseen way is given up. */
const MAX_FAILED_ATTEMPTS = 3;

function failedAttempt(task: Task, reason: FailReason, error: string, now: number): TaskResult {
  const nothing = { pages: [], items: [], files: [], links: [] };
  const back = handBack(task, error, now, now + 1_000);
  const attempts = task.attempts + 1;
  if (attempts < MAX_FAILED_ATTEMPTS) return { ...back, ending: { ...back.ending, attempts }, ...nothing };
  const { id, crawl, host, token } = task;
  return {
    ending: { id, crawl, token, attempts, state: "failed", reason, error, items: 0, files: 0 },
    end: { id, crawl, host, token, endedAt: now },
    ...nothing,
  };
}
