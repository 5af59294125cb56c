import type { SpiderContext } from "../../crawl/spider.js";
import type { Clock, StopTimer } from "../../lib/clock.js";
import type { ChildCommand, ChildProcess } from "./child-process.js";
import { CrawlStats } from "./crawl-stats.js";
import type { PageJob } from "./page-job.js";
import { type ProcessEnd, SpiderProcess, type SpiderProcessOptions } from "./spider-process.js";

export type CrawlProcessesOptions = SpiderProcessOptions & {
  /** Processes at once. */
  readonly processes: number;
  /** How long a process is kept without a page, in milliseconds. */
  readonly idleMs: number;
};

export type CrawlProcessesDeps = {
  readonly run: (command: ChildCommand) => ChildProcess;
  readonly clock: Clock;
  readonly context: SpiderContext;
};

/**
 * The processes of one spider for one crawl. Pages go to the process that has the fewest; another process is started when
 * all have as many as they may. Pages that were with a process when it ended, and of which nobody knows whether they are
 * to blame, are begun anew, each alone in a process: the one that ends that as well is the one that fails.
 */
export class CrawlProcesses {
  readonly #options: CrawlProcessesOptions;
  readonly #deps: CrawlProcessesDeps;
  readonly #stats: CrawlStats;
  readonly #processes = new Set<SpiderProcess>();
  /** Also those that have no page any more and take their leave. */
  readonly #ending = new Set<Promise<void>>();
  readonly #idleTimers = new Map<SpiderProcess, StopTimer>();
  readonly #waiting: PageJob[] = [];
  #lastId = 0;
  #isClosed = false;

  constructor(options: CrawlProcessesOptions, deps: CrawlProcessesDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#stats = new CrawlStats(deps.context.crawl.state, deps.context.log, deps.clock);
  }

  add(job: PageJob): void {
    if (this.#isClosed) job.fail("the crawl is over");
    else {
      this.#waiting.push(job);
      this.#fill();
    }
  }

  /** Nobody wants it any more; a process that has it goes on with it for as long as it may. */
  remove(job: PageJob): void {
    const index = this.#waiting.indexOf(job);
    if (index >= 0) this.#waiting.splice(index, 1);
  }

  /** Ends all processes: those without a page after a short while, the others at once. */
  async close(how: "close" | "kill" = "close"): Promise<void> {
    this.#isClosed = true;
    for (const job of this.#waiting.splice(0)) job.fail("the crawl is over");
    for (const stop of this.#idleTimers.values()) stop();
    this.#idleTimers.clear();
    await Promise.all([...[...this.#processes].map((process) => process[how]()), ...this.#ending]);
    await this.#stats.flush();
  }

  #fill(): void {
    for (;;) {
      const [job] = this.#waiting;
      if (job === undefined || this.#isClosed) return;
      const isAlone = job.deaths > 0;
      const process = this.#roomFor(isAlone);
      if (process === undefined) return;
      this.#waiting.shift();
      this.#idleTimers.get(process)?.();
      this.#idleTimers.delete(process);
      this.#lastId += 1;
      process.give(job, this.#lastId, isAlone);
    }
  }

  #roomFor(isAlone: boolean): SpiderProcess | undefined {
    const free = [...this.#processes].filter(
      (process) => process.room > 0 && (!isAlone || (process.isIdle && process.pages === 0)),
    );
    const [best] = free.sort((a, b) => b.room - a.room);
    if (best !== undefined) return best;
    if (this.#processes.size < this.#options.processes) return this.#start();
    if (isAlone) this.#makeRoom();
    return undefined;
  }

  /** A page that may be the one that ends processes gets one of its own: one that has nothing to do makes way for it. */
  #makeRoom(): void {
    const idle = [...this.#processes].filter((process) => process.isIdle);
    const [first] = idle;
    if (first !== undefined && !idle.some((process) => process.isClosing)) this.#dismiss(first);
  }

  #start(): SpiderProcess {
    const { run, clock, context } = this.#deps;
    const process = new SpiderProcess(this.#options, {
      run,
      clock,
      context,
      stats: this.#stats,
      onRoom: () => {
        this.#fill();
        this.#watchIdle(process);
      },
      onEnded: (end) => this.#onEnded(end),
    });
    this.#processes.add(process);
    return process;
  }

  #watchIdle(process: SpiderProcess): void {
    if (!process.isIdle || this.#isClosed || this.#idleTimers.has(process)) return;
    const { idleMs } = this.#options;
    this.#idleTimers.set(
      process,
      this.#deps.clock.after(idleMs, () => this.#dismiss(process)),
    );
  }

  #dismiss(process: SpiderProcess): void {
    this.#idleTimers.get(process)?.();
    this.#idleTimers.delete(process);
    const ending = process.close();
    this.#ending.add(ending);
    void ending.then(() => this.#ending.delete(ending));
  }

  #onEnded(end: ProcessEnd): void {
    const { process, why, unfinished, culprit, isForMemory } = end;
    this.#processes.delete(process);
    this.#idleTimers.get(process)?.();
    this.#idleTimers.delete(process);
    const wanted = unfinished.filter((job) => !job.isOver);
    if (this.#isClosed) {
      for (const job of wanted) job.fail("the crawl is over");
      return;
    }
    culprit?.fail(`the process ${why}`);
    const others = wanted.filter((job) => job !== culprit);
    const [only] = others;
    // What fills the memory may be an earlier page's doing: that one counts only in a process that had no other.
    const isProven = culprit === undefined && unfinished.length === 1 && !(isForMemory && process.pages > 1);
    if (only !== undefined && isProven) only.fail(`the process ${why}`);
    else {
      for (const job of others) job.beginAnew();
      this.#waiting.unshift(...others);
    }
    const level = unfinished.length === 0 && end.isOrderly ? "debug" : "warn";
    const pages = unfinished.map(({ about }) => about);
    this.#deps.context.log[level]({ pages }, `a process of the spider ${why}`);
    this.#fill();
  }
}
