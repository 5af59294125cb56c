import type { SpiderContext } from "../../crawl/spider.js";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { ChildCommand, ChildProcess, ChildResult } from "./child-process.js";
import type { CrawlStats } from "./crawl-stats.js";
import type { PageJob } from "./page-job.js";
import { type LogFields, ProcessOutput, type ProcessOutputOptions } from "./process-output.js";
import { CLOSE_LINE, type LineLevel, outputOf, type ProcessMessage } from "./protocol.js";
import { answerTo } from "./state-calls.js";

export type SpiderProcessOptions = ProcessOutputOptions & {
  readonly pageTimeoutMs: number;
  readonly pagesAtOnce: number;
  /** How long it may go on after it was asked to end, in milliseconds; no longer than a crawl's end waits for it. */
  readonly graceMs: number;
  readonly command: Omit<ChildCommand, "onLine">;
  /** The line with which it begins. */
  readonly openLine: string;
};

export type SpiderProcessDeps = {
  readonly run: (command: ChildCommand) => ChildProcess;
  readonly clock: Clock;
  readonly context: SpiderContext;
  readonly stats: CrawlStats;
  /** Told when it has room for another page. */
  readonly onRoom: () => void;
  /** Told of its end, before anybody else. `unfinished`: the pages that it had, in the order in which it got them. */
  readonly onEnded: (end: ProcessEnd) => void;
};

export type ProcessEnd = {
  readonly process: SpiderProcess;
  /** In words, fit to follow "the process". */
  readonly why: string;
  readonly unfinished: readonly PageJob[];
  /** The one that is at fault, if that is known. */
  readonly culprit?: PageJob;
  readonly isForMemory: boolean;
  /** It was to end, or did so without a complaint. */
  readonly isOrderly: boolean;
};

const MAX_WHY_CHARACTERS = 2_000;
const LAST_LINES = 5;
/** Time to take leave in when it is closed and has nothing to do, before it is asked to end by a signal. */
const LEAVE_MS = 2_000;
/** Time between SIGTERM and SIGKILL for one whose crawl is over while it still has pages. */
const SHORT_GRACE_MS = 500;

/**
 * One process of a spider, working for one crawl. It is given some pages at a time; which of them it is at is not known,
 * but those that say nothing of a page are taken to be about the first that it has not done with.
 */
export class SpiderProcess {
  readonly #options: SpiderProcessOptions;
  readonly #deps: SpiderProcessDeps;
  readonly #child: ChildProcess;
  readonly #output: ProcessOutput;
  /** By the number under which it knows them; the first is the one it got first. */
  readonly #jobs = new Map<number, PageJob>();
  /** When nothing of it is left. */
  readonly ended: Promise<void>;
  /** Pages that it was given. */
  #given = 0;
  #isClosing = false;
  #isAlone = false;
  #verdict: { readonly culprit?: PageJob; readonly why: string } | undefined;
  #stopTimer: StopTimer | undefined;
  #firstId = -1;
  #strayLines = 0;

  constructor(options: SpiderProcessOptions, deps: SpiderProcessDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#output = new ProcessOutput(
      options,
      {
        onMessage: (message, characters) => this.#onMessage(message, characters),
        onLog: (level, text, fields) => this.#onLog(level, text, fields),
        onBroken: (page, why) => this.#onBroken(page, why),
      },
      deps.clock,
    );
    this.#child = deps.run({
      ...options.command,
      onLine: (stream, line) => {
        const taken = this.#output.take(stream, line);
        // Of one that has ended what little is left is read at once: pages wait to hear of its end.
        return taken === undefined ? undefined : Promise.race([taken, this.#child.exited]);
      },
    });
    if (this.#isTalking) void this.#child.write(options.openLine);
    this.ended = this.#child.ended.then((result) => this.#onEnded(result));
  }

  /** It is given nothing more. */
  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Whether it has no page. */
  get isIdle(): boolean {
    return this.#jobs.size === 0;
  }

  /** How many more pages it may be given. */
  get room(): number {
    if (this.#isClosing || !this.#child.isRunning || this.#isAlone) return 0;
    if (!this.#isTalking) return this.#given === 0 ? 1 : 0;
    return this.#options.pagesAtOnce - this.#jobs.size;
  }

  get pages(): number {
    return this.#given;
  }

  /** @param isAlone it is given nothing else until it has done with this one */
  give(job: PageJob, id: number, isAlone: boolean): void {
    let line: string;
    try {
      line = job.line(id);
    } catch (error) {
      job.fail(messageOf(error));
      return;
    }
    this.#given += 1;
    this.#isAlone = isAlone;
    this.#jobs.set(id, job);
    this.#watchFirst();
    void this.#child.write(line);
    if (!this.#isTalking) this.#child.closeInput();
  }

  /** Ends it, politely if it has nothing to do. */
  close(): Promise<void> {
    this.#isClosing = true;
    if (this.isIdle) {
      if (this.#isTalking) void this.#child.write(CLOSE_LINE);
      const leaveMs = Math.min(LEAVE_MS, this.#options.graceMs);
      void this.#child.end({ politeMs: leaveMs, graceMs: leaveMs });
    } else void this.#child.end({ graceMs: Math.min(SHORT_GRACE_MS, this.#options.graceMs) });
    return this.ended;
  }

  kill(): Promise<void> {
    this.#isClosing = true;
    void this.#child.kill();
    return this.ended;
  }

  /** It is told of pages, and tells when it has done with one. Others get one page, and are done with it at their end. */
  get #isTalking(): boolean {
    return this.#options.stdout === "messages";
  }

  #onMessage(message: Exclude<ProcessMessage, { type: "log" }>, characters: number): Promise<void> | void {
    switch (message.type) {
      case "item":
      case "request":
      case "store": {
        const job = this.#jobOf(message.page);
        if (job === undefined) return this.#onStray(`"${message.type}"`);
        const tooMuch = job.found(outputOf(message), characters);
        if (tooMuch !== undefined) this.#end(job, tooMuch);
        return;
      }
      case "stats": {
        const { name, by } = message;
        const job = this.#jobOf(message.page);
        if (job === undefined) this.#deps.stats.add(name, by);
        else job.counted(name, by);
        return;
      }
      case "done":
      case "error": {
        const [id, job] = this.#entryOf(message.page);
        if (job === undefined) return this.#onStray(`"${message.type}"`);
        this.#jobs.delete(id);
        if (message.type === "error") job.fail(message.message.slice(0, MAX_WHY_CHARACTERS));
        else for (const { name, by } of job.finish()) this.#deps.stats.add(name, by);
        this.#isAlone = false;
        this.#watchFirst();
        return this.#deps.onRoom();
      }
      default:
        return this.#answer(message);
    }
  }

  async #answer(call: Parameters<typeof answerTo>[0]): Promise<void> {
    await this.#child.write(await answerTo(call, this.#deps.context.crawl.state));
  }

  #onLog(level: LineLevel, text: string, { page, ...fields }: LogFields): void {
    const job = page === undefined ? this.#jobOf(undefined) : this.#jobs.get(page);
    const log: Logger = job?.log ?? this.#deps.context.log;
    log[level](fields, text);
  }

  /** Something is lost: a page that is not all there must not count as done. */
  #onBroken(page: number | undefined, why: string): void {
    const said = `wrote a message that ${why}`;
    const job = this.#jobOf(page);
    if (job === undefined) this.#deps.context.log.warn({}, `the process ${said}`);
    else job.fail(`the process ${said}`);
  }

  /** The page is over, or never was. */
  #onStray(what: string): void {
    this.#strayLines += 1;
    if (this.#strayLines > 1) return;
    this.#deps.context.log.warn(
      {},
      `the process wrote ${what} for a page that it does not have; passed over, as all further ones`,
    );
  }

  #jobOf(page: number | undefined): PageJob | undefined {
    return this.#entryOf(page)[1];
  }

  #entryOf(page: number | undefined): [number, PageJob | undefined] {
    if (page !== undefined) return [page, this.#jobs.get(page)];
    const [first] = this.#jobs;
    return first ?? [-1, undefined];
  }

  /** Its time runs for the first of its pages: the others may be waiting for that one. */
  #watchFirst(): void {
    const [id, job] = this.#entryOf(undefined);
    if (id === this.#firstId) return;
    this.#firstId = id;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    if (job === undefined) return;
    const { pageTimeoutMs } = this.#options;
    this.#stopTimer = this.#deps.clock.after(pageTimeoutMs, () =>
      this.#end(job, `was not done with the page within ${pageTimeoutMs} ms`),
    );
  }

  #end(culprit: PageJob, why: string): void {
    this.#verdict ??= { culprit, why };
    this.#isClosing = true;
    void this.#child.kill();
  }

  #onEnded(result: ChildResult): void {
    this.#stopTimer?.();
    const unfinished = [...this.#jobs.values()];
    const { culprit } = this.#verdict ?? {};
    if (!this.#isTalking && result.reason === "exited" && result.code === 0) {
      for (const job of unfinished.splice(0))
        for (const { name, by } of job.finish()) this.#deps.stats.add(name, by);
    }
    const why = this.#verdict?.why ?? this.#whyOf(result);
    this.#jobs.clear();
    const lastWords = result.stderrTail.slice(-LAST_LINES).join("\n");
    this.#deps.onEnded({
      process: this,
      why: (lastWords === "" ? why : `${why}: ${lastWords}`).slice(0, MAX_WHY_CHARACTERS),
      unfinished,
      isForMemory: result.reason === "memory",
      isOrderly: this.#verdict === undefined && (result.reason === "ended" || result.code === 0),
      ...(culprit !== undefined && { culprit }),
    });
  }

  #whyOf({ reason, message }: ChildResult): string {
    return reason === "exited" && !this.isIdle ? `${message} before it was done with the page` : message;
  }
}
