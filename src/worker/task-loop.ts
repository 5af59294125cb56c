import { LRUCache } from "lru-cache";
import type { Consumer, TaskDelivery, WorkQueue } from "../bus/index.js";
import type { Crawl } from "../crawl/crawl.js";
import { TaskRound } from "../crawl/dispatch/task-round.js";
import type { Engine } from "../crawl/engine.js";
import type { FailReason, Frontier } from "../crawl/frontier.js";
import { type Death, describeDeaths, mustRunAlone, type Suspect } from "../crawl/suspicion.js";
import { decodeTask, handBack, TASK_CONTENT_TYPE, type Task } from "../crawl/task.js";
import type { TaskResult } from "../crawl/task-result.js";
import type { Clock } from "../lib/clock.js";
import { messageOf, WarrenError } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import { traceFields } from "../lib/trace-context.js";
import type { Committer } from "../results/index.js";
import type { CrawlView } from "./crawl-view.js";
import type { StallWatch } from "./stall-watch.js";

/** What a result carries to its commit: the task it came from and the message to acknowledge. */
export type TaskContext = { readonly task: Task; readonly delivery: TaskDelivery };

export type TaskLoopOptions = {
  /** Tasks that run at once. */
  readonly concurrency: number;
  /** Longest time for one task, in milliseconds. @default 120_000 */
  readonly taskTimeoutMs: number;
  /** How long a stop lets tasks run before it aborts them and hands them back, in ms. @default 20_000 */
  readonly drainMs: number;
  /** Workers that a URL may end before it is set aside as poison. @default 3 */
  readonly maxCrashes: number;
};

export type TaskLoopDeps = {
  readonly queue: Pick<WorkQueue, "consume">;
  readonly engine: Engine;
  readonly crawls: CrawlView;
  readonly committer: Committer<TaskContext>;
  readonly suspects: Pick<Frontier, "begin" | "vouch">;
  /** This node's id. */
  readonly node: string;
  readonly stalls: Pick<StallWatch, "hasStalledWithin">;
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
  /** Keeps a URL that ended so many workers, with its evidence; resolves with whether it is kept. */
  readonly onPoison: (task: Task, deaths: readonly Death[], signal: AbortSignal) => Promise<boolean>;
};

/** What was stopped of a crawl: fetches that ran, and tasks that had not begun. */
export type Stopped = { readonly aborted: number; readonly dropped: number };

/** Closed crawls of which is remembered what was stopped. */
const MAX_STOPPED = 1_000;

type Taken = { readonly task: Task; readonly delivery: TaskDelivery };
type Running = Taken & { readonly abort: AbortController };

/** How a task goes back to the frontier. */
type Return = {
  readonly reason: string;
  /** How long it waits there at least, in milliseconds. */
  readonly waitMs?: number;
  readonly suspicion?: "raised";
  /** What of it was fetched nobody knows. */
  readonly isUnknown?: boolean;
};

/**
 * Messages taken for each task that may run. As many as a dispatcher sends for it, so that few wait in the broker, where
 * one crawl's stand behind another's: here they take turns.
 */
const TAKEN_PER_PLACE = 3;

/** Messages taken beyond those that run: what is being committed, and a little in hand. */
const HEADROOM = 16;

/** Suspects that wait in this worker at most: each waits for those before it, and keeps others from coming. */
const MAX_SUSPECTS_WAITING = 8;

/** Wait of a task that came while it could not be taken, in milliseconds. */
const BUSY_WAIT_MS = 1_000;

/** Time in which a worker that lives notices that its connection is lost, and leaves off, in milliseconds. */
const LOSS_NOTICED_MS = 1_000;

/** Time for a worker that lost its connection to say that it lives, before a suspect is begun again, in ms. */
const DOUBT_MS = 5_000;

/** A process that was not itself for this long before it lost a connection vouches for nothing, in ms. */
const STALLED_WITHIN_MS = 60_000;

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
 * A suspect (workers were lost that had it) is begun with a note in the frontier, and not beside another suspect. Once
 * it is charged with a worker, it runs with nothing else in this worker's hands: everything that waits goes back,
 * what runs may end, no more is taken.
 *
 * When the connection is lost the broker gives the messages to others, so what runs here is aborted: nothing
 * is fetched twice at the same time. And this worker vouches for what it had: it lives.
 */
export class TaskLoop implements Service {
  readonly name = "task loop";
  readonly #deps: TaskLoopDeps;
  #options: TaskLoopOptions;
  #consumer: Consumer | undefined;
  readonly #waiting = new TaskRound<Taken>();
  readonly #suspects: (Taken & { readonly suspect: Suspect })[] = [];
  readonly #running = new Map<TaskDelivery, Running>();
  /** Everything that was taken and is not settled: it waits, runs, or is being stored. */
  readonly #held = new Map<TaskDelivery, Task>();
  /** By crawl and generation. */
  readonly #stopped = new LRUCache<string, Stopped>({ max: MAX_STOPPED });
  readonly #watched = new WeakSet<AbortSignal>();
  /** The suspect that is being begun, or runs. */
  #suspect: TaskDelivery | undefined;
  /** That suspect is to have this worker for itself. */
  #isAlone = false;
  /** Those with a note in the frontier. */
  readonly #noted = new WeakSet<TaskDelivery>();
  #onFewerHeld: (() => void)[] = [];
  #checking = 0;
  #isPaused = false;
  #isDraining = false;
  #isStopping = false;
  #onQuiet: (() => void)[] = [];

  constructor(deps: TaskLoopDeps, options: Partial<TaskLoopOptions> & Pick<TaskLoopOptions, "concurrency">) {
    this.#deps = deps;
    this.#options = { taskTimeoutMs: 120_000, drainMs: 20_000, maxCrashes: 3, ...options };
  }

  async start(): Promise<void> {
    this.#consumer = await this.#deps.queue.consume({ prefetch: this.#prefetch }, (delivery) =>
      this.#receive(delivery),
    );
    if (this.#isPaused) await this.pause();
  }

  /** Takes no more, gives back what has not begun, lets what runs end if it does so in time, and stores it. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#consumer?.stop();
    this.#returnWaiting({ reason: "worker stopping" });
    this.#tellFewerHeld();
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
    this.#returnWaiting({ reason: "worker paused" });
  }

  /** Takes no more tasks until `resume`, because the node is to be emptied. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    await this.pause();
  }

  async resume(): Promise<void> {
    this.#isPaused = false;
    this.#isDraining = false;
    if (!this.#isAlone) await this.#consumer?.resume();
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
    this.#tellFewerHeld();
  }

  /** Tasks here that have yet to bring a result. */
  get unfinished(): number {
    return this.#running.size + this.#checking + this.#waiting.size;
  }

  /**
   * Stops everything of a crawl here and gives it back to the frontier.
   * @param generation that of the crawl since it was closed, if that is why: then all counts that was stopped
   *   because of it, also when it became known by another way before
   * @returns how many fetches were aborted and how many tasks had not begun
   */
  cancelCrawl(crawl: string, generation?: number): Stopped {
    this.#deps.crawls.invalidate(crawl);
    this.#deps.engine.over(crawl);
    let aborted = 0;
    for (const { task, abort } of this.#running.values()) {
      if (task.crawl !== crawl) continue;
      if (!abort.signal.aborted) this.#noteStopped(task, { aborted: 1, dropped: 0 });
      abort.abort();
      aborted += 1;
    }
    const dropped = this.#removeWaiting(({ task }) => task.crawl === crawl);
    for (const each of dropped) {
      this.#noteStopped(each.task, { aborted: 0, dropped: 1 });
      this.#giveBack(each, { reason: "crawl cancelled on this node" });
    }
    if (generation === undefined) return { aborted, dropped: dropped.length };
    // What ran or waited here was dispatched under the generation before.
    return this.#stopped.get(`${crawl}.${generation - 1}`) ?? { aborted: 0, dropped: 0 };
  }

  #noteStopped({ crawl, generation }: Task, { aborted, dropped }: Stopped): void {
    const key = `${crawl}.${generation}`;
    const before = this.#stopped.get(key) ?? { aborted: 0, dropped: 0 };
    this.#stopped.set(key, { aborted: before.aborted + aborted, dropped: before.dropped + dropped });
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
    return this.#options.concurrency * TAKEN_PER_PLACE + HEADROOM;
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
    if (delivery.redelivered) {
      this.#giveBackLost({ task, delivery });
      return;
    }
    const refusal = this.#refusal(task);
    if (refusal !== undefined) {
      this.#giveBack({ task, delivery }, refusal);
      return;
    }
    const { suspect } = task;
    if (suspect === undefined) this.#waiting.push({ task, delivery });
    else this.#suspects.push({ task, delivery, suspect });
    this.#fill();
  }

  #refusal(task: Task): Return | undefined {
    const { clock, crawls } = this.#deps;
    if (clock.now() > task.notAfter) return { reason: "waited too long to begin" };
    if (crawls.isStale(task.shard, task.epoch, task.dispatchedAt))
      return { reason: "dispatched under a lease that had ended" };
    if (this.#isStopping) return { reason: "worker stopping" };
    if (this.#isPaused) return { reason: "worker paused" };
    if (this.#isAlone) return { reason: "worker runs a suspect alone", waitMs: BUSY_WAIT_MS };
    if (task.suspect !== undefined && this.#suspects.length >= MAX_SUSPECTS_WAITING)
      return { reason: "other suspects run first", waitMs: BUSY_WAIT_MS };
    return undefined;
  }

  get #hasRoom(): boolean {
    return this.#running.size + this.#checking < this.#options.concurrency && !this.#isPaused;
  }

  #fill(): void {
    if (this.#suspect === undefined && this.#hasRoom) {
      const next = this.#suspects.shift();
      if (next !== undefined) void this.#beginSuspect(next, next.suspect);
    }
    while (this.#hasRoom && !this.#isAlone) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      const crawl = this.#deps.crawls.peek(next.task.crawl);
      if (crawl !== undefined) this.#begin(next, crawl);
      else void this.#beginLater(next);
    }
  }

  async #beginLater(taken: Taken): Promise<void> {
    this.#checking += 1;
    try {
      const crawl = await this.#load(taken);
      this.#checking -= 1;
      if (crawl !== undefined) this.#begin(taken, crawl);
    } catch (error) {
      this.#checking -= 1;
      this.#deps.logger.debug(
        { crawl: taken.task.crawl, error: messageOf(error) },
        "could not look at a crawl",
      );
      this.#giveBack(taken, { reason: "its crawl could not be looked at" });
    } finally {
      this.#fill();
      this.#announceQuiet();
    }
  }

  /** The task's crawl; undefined when it is gone, and the task given back for that. */
  async #load(taken: Taken): Promise<Crawl | undefined> {
    const { crawls } = this.#deps;
    const crawl = crawls.peek(taken.task.crawl) ?? (await crawls.load(taken.task.crawl));
    if (crawl === undefined) this.#giveBack(taken, { reason: "its crawl is gone" });
    return crawl;
  }

  /** Begins a suspect when it may: noted, and alone if it must be; or sets it aside. */
  async #beginSuspect(taken: Taken, suspect: Suspect): Promise<void> {
    const { suspects, node, onPoison, clock } = this.#deps;
    const { maxCrashes } = this.#options;
    const { task, delivery } = taken;
    this.#suspect = delivery;
    this.#checking += 1;
    try {
      if (mustRunAlone(suspect, maxCrashes)) await this.#emptyHands(delivery);
      const crawl = await this.#load(taken);
      if (crawl === undefined || !this.#mayBegin(taken, crawl)) return;
      const beginning = await suspects.begin({ id: task.id, token: task.token, node, maxCrashes });
      switch (beginning.kind) {
        case "stale":
          this.#giveBack(taken, { reason: "no longer dispatched" });
          return;
        case "poison":
          if (await onPoison(task, beginning.deaths, delivery.signal))
            this.#commit(taken, poisoned(task, beginning.deaths, clock.now()));
          else this.#giveBack(taken, { reason: "could not be set aside" });
          return;
        case "begun":
          this.#noted.add(delivery);
          // Crawls and connections may have come to their end meanwhile.
          this.#begin(taken, this.#deps.crawls.peek(task.crawl) ?? crawl);
          return;
        default:
          return beginning satisfies never;
      }
    } catch (error) {
      this.#giveBack(taken, { reason: messageOf(error), waitMs: UNAVAILABLE_WAIT_MS });
    } finally {
      this.#checking -= 1;
      if (!this.#running.has(delivery)) this.#releaseSuspect(delivery);
      this.#fill();
      this.#announceQuiet();
    }
  }

  /** Resolves when nothing but this is in the worker's hands, or it need not wait for that any more. */
  async #emptyHands(only: TaskDelivery): Promise<void> {
    this.#isAlone = true;
    await this.#consumer?.pause();
    this.#returnWaiting({ reason: "worker runs a suspect alone", waitMs: BUSY_WAIT_MS });
    const isHeldWithOthers = () => this.#held.has(only) && this.#held.size > 1;
    while (isHeldWithOthers() && !this.#isStopping) {
      await new Promise<void>((resolve) => this.#onFewerHeld.push(resolve));
    }
  }

  /** The suspect is over: others may run. */
  #releaseSuspect(delivery: TaskDelivery): void {
    if (this.#suspect !== delivery) return;
    this.#suspect = undefined;
    if (!this.#isAlone) return;
    this.#isAlone = false;
    if (!this.#isPaused && !this.#isStopping) void this.#consumer?.resume();
  }

  /** Whether a task may begin now; if not, it is given back. */
  #mayBegin(taken: Taken, crawl: Crawl): boolean {
    const { task, delivery } = taken;
    if (delivery.signal.aborted) return false;
    let reason: string | undefined;
    if (crawl.status !== "running" || crawl.generation !== task.generation)
      reason = `its crawl is ${crawl.status}`;
    else if (this.#deps.clock.now() > task.notAfter) reason = "waited too long to begin";
    else if (this.#isStopping) reason = "worker stopping";
    else if (this.#isPaused) reason = "worker paused";
    if (reason !== undefined) this.#giveBack(taken, { reason });
    return reason === undefined;
  }

  #begin(taken: Taken, crawl: Crawl): void {
    if (!this.#mayBegin(taken, crawl)) return;
    const abort = new AbortController();
    this.#running.set(taken.delivery, { ...taken, abort });
    this.#deps.metrics.tasksActive.set(this.#running.size);
    this.#deps.onStarted(taken.task);
    void this.#run(taken, crawl, abort);
  }

  async #run(taken: Taken, crawl: Crawl, abort: AbortController): Promise<void> {
    const { engine, clock, logger, isExternal } = this.#deps;
    const { task, delivery } = taken;
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
        this.#giveBack(taken, { reason: "its spider is external", waitMs: UNAVAILABLE_WAIT_MS });
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
        this.#giveBack(taken, { reason: messageOf(error), waitMs: UNAVAILABLE_WAIT_MS });
        return;
      }
      // Not a page's fault but ours; it counts as an attempt so that it cannot go on for ever.
      logger.error(
        { err: error, url: task.url, ...traceFields(task.request?.trace) },
        "a task failed in a way that was not foreseen",
      );
      result = failedAttempt(task, "spider-error", messageOf(error), clock.now());
    }
    stopTimer();
    if (result !== undefined) this.#commit(taken, result);
    else if (!delivery.signal.aborted) this.#giveBack(taken, { reason: "aborted", isUnknown: true });
    this.#end(delivery);
  }

  #end(delivery: TaskDelivery): void {
    this.#running.delete(delivery);
    this.#releaseSuspect(delivery);
    this.#deps.metrics.tasksActive.set(this.#running.size);
    this.#fill();
    this.#announceQuiet();
  }

  /**
   * Back to the frontier, a little later: whoever had it before may live, and have a fetch of it under way until the loss
   * of the connection is noticed there too. Until then it keeps its place in its host's lane.
   */
  #giveBackLost(taken: Taken): void {
    const { delivery, task } = taken;
    const reason = "delivered before, to a worker that did not acknowledge it";
    this.#deps.clock.after(LOSS_NOTICED_MS, () => {
      // If it went to yet another worker that one does so.
      if (delivery.signal.aborted) return;
      // Only a suspect can have been noted as begun; whoever did so may live, and needs time to say so.
      const waitMs = task.suspect === undefined ? 0 : DOUBT_MS;
      this.#giveBack(taken, { reason, suspicion: "raised", waitMs, isUnknown: true });
    });
  }

  /** Back to the frontier untried: the state is written and the message acknowledged with the next group. */
  #giveBack(taken: Taken, { reason, waitMs = 0, suspicion, isUnknown = false }: Return): void {
    const { task } = taken;
    const now = this.#deps.clock.now();
    const { ending, end } = handBack(task, reason, now, now + waitMs);
    this.#commit(taken, {
      ending: suspicion === undefined ? ending : { ...ending, suspicion },
      end: isUnknown ? { ...end, isUnknown } : end,
      ...NOTHING,
      ...(task.delayMs > 0 && { hostState: { host: task.host, lastEndedAt: now } }),
    });
  }

  /** Everything that has not begun, back to the frontier. */
  #returnWaiting(how: Return): void {
    for (const taken of this.#removeWaiting(() => true)) this.#giveBack(taken, how);
  }

  /** Takes out those that have not begun and are meant. */
  #removeWaiting(isMeant: (taken: Taken) => boolean): readonly Taken[] {
    const suspects = this.#suspects.filter(isMeant);
    this.#suspects.splice(0, this.#suspects.length, ...this.#suspects.filter((taken) => !isMeant(taken)));
    return [...suspects, ...this.#waiting.remove(isMeant)];
  }

  #commit({ task, delivery }: Taken, result: TaskResult): void {
    let { ending } = result;
    if (ending.state === "queued" && this.#noted.has(delivery)) ending = { ...ending, suspicion: "survived" };
    this.#deps.committer.add({ result: { ...result, ending }, context: { task, delivery } });
  }

  #tellFewerHeld(): void {
    const waiting = this.#onFewerHeld;
    this.#onFewerHeld = [];
    for (const resolve of waiting) resolve();
  }

  /** This worker lives, whatever the broker may have thought: what it had lost is nothing against it. */
  #vouchFor(taken: Iterable<readonly [TaskDelivery, Task]>): void {
    const { stalls, suspects, logger } = this.#deps;
    // Who was held up by one of these for so long that the connection was lost would go on vouching for it.
    if (stalls.hasStalledWithin(STALLED_WITHIN_MS)) return;
    const dispatches = [...taken].flatMap(([delivery, { id, token }]) =>
      // What had been lost by another is not ours to vouch for.
      delivery.redelivered ? [] : [{ id, token }],
    );
    suspects.vouch(dispatches).catch((error: unknown) => {
      logger.warn({ tasks: dispatches.length, error: messageOf(error) }, "could not vouch for tasks");
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
        const lost = [...this.#held].filter(([delivery]) => delivery.signal === signal);
        for (const [delivery] of lost) this.#held.delete(delivery);
        this.#removeWaiting(({ delivery }) => delivery.signal === signal);
        this.#vouchFor(lost);
        this.#tellFewerHeld();
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

const NOTHING = { pages: [], items: [], files: [], links: [] } as const;

function failedAttempt(task: Task, reason: FailReason, error: string, now: number): TaskResult {
  const back = handBack(task, error, now, now + 1_000);
  const attempts = task.attempts + 1;
  if (attempts < MAX_FAILED_ATTEMPTS) return { ...back, ending: { ...back.ending, attempts }, ...NOTHING };
  const { id, crawl, host, token } = task;
  return {
    ending: { id, crawl, token, attempts, state: "failed", reason, error, items: 0, files: 0 },
    end: { id, crawl, host, token, endedAt: now },
    ...NOTHING,
  };
}

function poisoned(task: Task, deaths: readonly Death[], now: number): TaskResult {
  const { id, crawl, host, token, attempts } = task;
  const error = describeDeaths(deaths);
  return {
    ending: { id, crawl, token, attempts, state: "failed", reason: "poison", error, items: 0, files: 0 },
    end: { id, crawl, host, token, endedAt: now, untouched: true },
    ...NOTHING,
  };
}
