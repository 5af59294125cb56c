import type { SpiderUnavailableError } from "../../crawl/errors.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { ModuleCall, ModuleDescription } from "./messages.js";
import { type ModuleCrawl, ModuleJob, type ModuleJobInput } from "./module-job.js";
import { type ModuleCode, ModuleProcess, type ProcessEnd } from "./module-process.js";
import type { ModuleSettings } from "./module-settings.js";

/** Starts that may fail one after the other before what waits is given up. */
const MAX_FAILED_STARTS = 3;
/** After the first of them is waited for so long before another process is started, twice as long after the second. */
const PAUSE_MS = 100;
const MAX_PAUSE_MS = 10_000;
/** Processes that may end with a page before it fails, whoever was to blame. */
const MAX_DEATHS = 5;

/**
 * The processes of one spider, and what waits for them. A process begins with one page, and gets one more at a time with
 * each that went well.
 *
 * When a process ends, the one page that it had is to blame, if it had never had another. Otherwise that is to be found
 * out: the page that it began with last is suspected, the others are begun anew, and suspected too if a second process
 * ends with them. A suspect runs alone in a process that has had nothing else; so whatever ends it fails, and only that.
 */
export class ProcessPool {
  readonly #code: ModuleCode;
  readonly #settings: ModuleSettings;
  readonly #logger: Logger;
  readonly #processes = new Set<ModuleProcess>();
  readonly #crawls = new Map<string, ModuleCrawl>();
  #waiting: ModuleJob[] = [];
  #suspects: ModuleJob[] = [];
  #starting = 0;
  #failedStarts = 0;
  #lastJob = 0;
  #isStopped = false;
  #idleTimer: NodeJS.Timeout | undefined;
  /** Set while no process is to be started. */
  #pause: NodeJS.Timeout | undefined;

  constructor(code: ModuleCode, settings: ModuleSettings, logger: Logger) {
    this.#code = code;
    this.#settings = settings;
    this.#logger = logger;
  }

  /** Starts the first process. @throws SpiderUnavailableError when the module cannot be loaded */
  async load(): Promise<ModuleDescription> {
    const description = await this.#start();
    this.#watchIdle();
    return description;
  }

  get pids(): readonly number[] {
    return [...this.#processes].flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  know(crawl: ModuleCrawl): void {
    this.#crawls.set(crawl.id, crawl);
  }

  crawl(id: string): ModuleCrawl | undefined {
    return this.#crawls.get(id);
  }

  /** Takes a job, and sees to it that it is done, or fails. */
  run(input: ModuleJobInput): ModuleJob {
    const job = this.#jobOf(input);
    if (this.#isStopped) job.fail(new Error("the program is ending"));
    else {
      this.#waiting.push(job);
      this.#handOut();
    }
    return job;
  }

  /** Nobody waits for it any more. */
  cancel(job: ModuleJob): void {
    if (job.isSettled) return;
    job.fail(new Error("the task was stopped"));
    this.#waiting = this.#waiting.filter((other) => other !== job);
    this.#suspects = this.#suspects.filter((other) => other !== job);
    for (const process of this.#processes) process.abort(job);
  }

  /** Closes a crawl in each process that has worked for it. @throws what the first of their hooks throws */
  async close(crawl: ModuleCrawl): Promise<void> {
    const jobs: ModuleJob[] = [];
    for (const process of this.#processes) {
      if (!process.isReady || !process.crawls.has(crawl.id)) continue;
      const job = this.#jobOf({ crawl, work: { kind: "close" }, log: () => crawl.log });
      jobs.push(job);
      process.give(job);
    }
    try {
      await Promise.all(jobs.map(({ ended }) => ended));
    } finally {
      if (this.#crawls.get(crawl.id) === crawl) this.#crawls.delete(crawl.id);
    }
  }

  /** Resolves when no process is left. What runs or waits fails. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#idleTimer);
    clearTimeout(this.#pause);
    for (const job of [...this.#waiting, ...this.#suspects]) job.fail(new Error("the program is ending"));
    this.#waiting = [];
    this.#suspects = [];
    await Promise.all([...this.#processes].map((process) => process.stop()));
  }

  #jobOf(input: ModuleJobInput): ModuleJob {
    this.#lastJob += 1;
    return new ModuleJob(this.#lastJob, input);
  }

  #handOut(): void {
    if (this.#isStopped) return;
    this.#handOutSuspects();
    while (this.#waiting.length > 0) {
      const process = this.#leastBusy();
      const job = process && this.#waiting.shift();
      if (process === undefined || job === undefined) break;
      if (!this.#give(process, job)) continue;
    }
    const inHand = [...this.#processes].reduce((sum, { inFlight }) => sum + inFlight, this.#waiting.length);
    if (inHand > this.#processes.size && this.#starting === 0) this.#startAnother();
  }

  #handOutSuspects(): void {
    while (this.#suspects.length > 0) {
      const fresh = [...this.#processes].find((process) => process.hasRoom && process.isFresh);
      if (fresh === undefined) {
        if (this.#starting === 0) this.#makeRoomForFresh();
        return;
      }
      const job = this.#suspects.shift();
      if (job !== undefined) this.#give(fresh, job);
    }
  }

  #makeRoomForFresh(): void {
    if (this.#processes.size < this.#settings.processes) {
      this.#startAnother();
      return;
    }
    const processes = [...this.#processes];
    const leaving =
      processes.find(({ isRetiring }) => isRetiring) ??
      processes.filter(({ isReady }) => isReady).sort((one, other) => one.inFlight - other.inFlight)[0];
    if (leaving === undefined) return;
    leaving.isRetiring = true;
    if (leaving.inFlight === 0) void leaving.stop();
  }

  #leastBusy(): ModuleProcess | undefined {
    let least: ModuleProcess | undefined;
    for (const process of this.#processes) {
      if (process.hasRoom && (least === undefined || process.inFlight < least.inFlight)) least = process;
    }
    return least;
  }

  /** @returns false when it cannot be sent at all */
  #give(process: ModuleProcess, job: ModuleJob): boolean {
    try {
      process.give(job);
      return true;
    } catch (error) {
      job.fail(new Error(`cannot be handed to the spider's process: ${messageOf(error)}`, { cause: error }));
      return false;
    }
  }

  #startAnother(): void {
    if (this.#processes.size >= this.#settings.processes || this.#isStopped) return;
    if (this.#pause !== undefined) return;
    void this.#start().then(
      () => this.#handOut(),
      (error: SpiderUnavailableError) => this.#onFailedStart(error),
    );
  }

  async #start(): Promise<ModuleDescription> {
    const process = new ModuleProcess({
      code: this.#code,
      settings: this.#settings,
      log: () => this.#logOfAll(),
      answer: (call) => this.#answer(call),
      logLine: (crawl, job, line) => this.#logLine(crawl, job, line),
      onRoom: () => this.#onRoom(process),
      onEnd: (_, end) => this.#onEnd(process, end),
    });
    this.#processes.add(process);
    this.#starting += 1;
    try {
      const description = await process.load();
      this.#failedStarts = 0;
      return description;
    } catch (error) {
      process.kill({ kind: "fault", message: messageOf(error) });
      await process.gone;
      throw error;
    } finally {
      this.#starting -= 1;
    }
  }

  /** The module was loaded before, so it may be the machine that has no room. */
  #onFailedStart(error: SpiderUnavailableError): void {
    if (this.#isStopped) return;
    this.#failedStarts += 1;
    this.#logger.warn({ err: error, spider: this.#code.name }, "a spider's process could not be started");
    if (this.#failedStarts >= MAX_FAILED_STARTS && this.#processes.size === 0) {
      for (const job of [...this.#waiting.splice(0), ...this.#suspects.splice(0)]) job.fail(error);
    }
    this.#pause = setTimeout(
      () => {
        this.#pause = undefined;
        this.#handOut();
      },
      Math.min(MAX_PAUSE_MS, PAUSE_MS * 2 ** this.#failedStarts),
    );
    this.#pause.unref();
  }

  #onRoom(process: ModuleProcess): void {
    if (process.isRetiring && process.inFlight === 0) void process.stop();
    this.#handOut();
  }

  #onEnd(process: ModuleProcess, end: ProcessEnd): void {
    this.#processes.delete(process);
    const jobs = process.takeJobs().filter(({ isSettled }) => !isSettled);
    const [first, ...others] = jobs;
    if (this.#isStopped || end.kind === "stopped") {
      for (const job of jobs) job.fail(new Error(end.message));
    } else if (first !== undefined) {
      this.#logger.warn(
        { spider: this.#code.name, version: this.#code.version, pid: process.pid, pages: jobs.length },
        `a spider's process ended: ${end.message}`,
      );
      if (others.length === 0 && process.served === 0) first.fail(new Error(end.message));
      else this.#tryAgain(first, others, process.hasBegun(first), end);
    }
    this.#handOut();
  }

  #tryAgain(first: ModuleJob, others: readonly ModuleJob[], isFirstKnown: boolean, end: ProcessEnd): void {
    for (const job of [first, ...others]) {
      job.beginAnew();
      if (job.input.work.kind === "close") job.done();
      else if (job.deaths >= MAX_DEATHS) job.fail(new Error(end.message));
      else {
        job.isSuspect = job.isSuspect || job.deaths > 1 || !isFirstKnown || job === first;
        (job.isSuspect ? this.#suspects : this.#waiting).unshift(job);
      }
    }
  }

  async #answer(call: ModuleCall): Promise<unknown> {
    if (call.about !== "state") throw new Error(`there is no ${call.about} to ask about`);
    const crawl = this.#crawls.get(call.crawl);
    if (crawl === undefined) throw new Error(`crawl "${call.crawl}" is over here`);
    switch (call.method) {
      case "get":
        return await crawl.state.get(call.name);
      case "set":
        return await crawl.state.set(call.name, call.value);
      case "add":
        return await crawl.state.add(call.name, call.value as number);
      case "delete":
        return await crawl.state.delete(call.name);
      default:
        call satisfies never;
        throw new Error("a question of a kind that there is not");
    }
  }

  #logLine(crawl: string, job: ModuleJob | undefined, line: string): void {
    const log = job?.input.log() ?? this.#crawls.get(crawl)?.log;
    if (log === undefined || line.length > MAX_LINE_CHARACTERS) return;
    const { level, msg, ...fields } = JSON.parse(line) as { level: string; msg?: string };
    const write = isLevel(level) ? level : "info";
    log[write](fields, msg ?? "");
  }

  /** Where that goes which belongs to no page: the crawl's log when there is only one. */
  #logOfAll(): Logger {
    const [only, ...others] = this.#crawls.values();
    return only !== undefined && others.length === 0 ? only.log : this.#logger;
  }

  #watchIdle(): void {
    const { idleMs } = this.#settings;
    this.#idleTimer = setInterval(() => {
      const nowMs = performance.now();
      for (const process of this.#processes) {
        const isIdle = process.isReady && process.inFlight === 0 && process.crawls.size === 0;
        if (isIdle && nowMs - process.idleSinceMs > idleMs) void process.stop();
      }
    }, idleMs / 4);
    this.#idleTimer.unref();
  }
}

/** The process itself shortens its lines to less. */
const MAX_LINE_CHARACTERS = 131_072;

const LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"] as const;

function isLevel(level: unknown): level is (typeof LEVELS)[number] {
  return LEVELS.some((known) => known === level);
}
