import { writeSync } from "node:fs";
import type { CrawlState } from "../../crawl/crawl-state.js";
import { PageView } from "../../crawl/pages/page-view.js";
import type { PdfText, Spider, SpiderContext, SpiderFile } from "../../crawl/spider.js";
import { JobLog } from "./job-log.js";
import { JobRun } from "./job-run.js";
import {
  type CrawlMessage,
  type ErrorJob,
  errorFacts,
  errorOf,
  type FileFacts,
  type FileJob,
  type JobMessage,
  LEASH_FD,
  type PageJob,
  type ProcessLimits,
  packed,
} from "./messages.js";
import type { ProcessChannel } from "./process-channel.js";

/** A crawl that this process works for. */
type CrawlHere = {
  readonly context: SpiderContext;
  readonly facts: CrawlMessage;
  isOpen: boolean;
  opening?: Promise<void>;
};

type Job = { readonly run: JobRun; readonly log: JobLog };

/**
 * The spider at work in a process of its own: begins with one page after the other, each in a turn of the event loop, so
 * that timers and messages have theirs; pages that wait for something run beside each other.
 */
export class SpiderJobs {
  readonly #spider: Spider;
  readonly #channel: ProcessChannel;
  readonly #limits: ProcessLimits;
  readonly #crawls = new Map<string, CrawlHere>();
  readonly #running = new Map<number, Job>();
  readonly #waiting: { readonly job: JobMessage; readonly body: Buffer }[] = [];
  #isBeginning = false;

  constructor(spider: Spider, channel: ProcessChannel, limits: ProcessLimits) {
    this.#spider = spider;
    this.#channel = channel;
    this.#limits = limits;
  }

  know(facts: CrawlMessage): void {
    const { id, params, node, logLevel } = facts;
    const { maxLogLines } = this.#limits;
    const log = new JobLog(logLevel, maxLogLines, (line) =>
      this.#channel.send({ type: "log", crawl: id, line }),
    );
    const context = {
      crawl: { id, params, state: this.#stateOf(id) },
      node,
      get log() {
        return log.logger;
      },
    };
    this.#crawls.set(id, { context, facts, isOpen: this.#spider.open === undefined });
  }

  add(job: JobMessage, body: Buffer): void {
    this.#waiting.push({ job, body });
    if (!this.#isBeginning) this.#beginSoon();
  }

  abort(id: number): void {
    const at = this.#waiting.findIndex(({ job }) => job.id === id);
    if (at >= 0) {
      this.#waiting.splice(at, 1);
      const error = errorFacts(new Error("the task was stopped"));
      this.#channel.send({ type: "failed", id, error, droppedLines: 0 });
    }
    this.#running.get(id)?.run.abort();
  }

  /** The process is about to end: whatever is open is closed, as far as it has the time. */
  async closeAll(): Promise<void> {
    const open = [...this.#crawls.values()].filter(({ isOpen }) => isOpen);
    this.#crawls.clear();
    await Promise.allSettled(open.map(async ({ context }) => await this.#spider.close?.(context)));
  }

  #beginSoon(): void {
    this.#isBeginning = this.#waiting.length > 0;
    if (this.#isBeginning) setImmediate(() => this.#beginNext());
  }

  #beginNext(): void {
    const next = this.#waiting.shift();
    this.#isBeginning = false;
    if (next === undefined) return;
    void this.#do(next.job, next.body);
    this.#beginSoon();
  }

  async #do(job: JobMessage, body: Buffer): Promise<void> {
    const { id, crawl } = job;
    const here = this.#crawls.get(crawl);
    const logLevel = here?.facts.logLevel ?? "info";
    const log = new JobLog(logLevel, this.#limits.maxLogLines, (line) =>
      this.#channel.send({ type: "log", crawl, job: id, line }),
    );
    const run = new JobRun(this.#limits, (outputs) =>
      this.#channel.send({ type: "outputs", id, outputs: packed(outputs) }),
    );
    this.#running.set(id, { run, log });
    tellBegun(id);
    try {
      if (here === undefined) throw new Error(`crawl "${crawl}" is not known here`);
      await this.#carryOut(job, body, here, run, log);
      this.#channel.send({ type: "done", id, outputs: packed(run.rest), droppedLines: log.dropped });
    } catch (error) {
      this.#channel.send({ type: "failed", id, error: errorFacts(error), droppedLines: log.dropped });
    } finally {
      run.finish();
      this.#running.delete(id);
    }
  }

  async #carryOut(job: JobMessage, body: Buffer, here: CrawlHere, run: JobRun, log: JobLog): Promise<void> {
    const spider = this.#spider;
    if (job.kind === "close") return await this.#close(here, run);
    if (!here.isOpen) await run.inTime(this.#open(here));
    switch (job.kind) {
      case "page": {
        const page = await this.#pageOf(job, body, here, run, log);
        const { callback } = job;
        if (callback === undefined) await run.gather(() => spider.parse(page), spider.item);
        else await run.gather(() => spider.callbacks?.[callback]?.(page) ?? [], spider.item);
        return;
      }
      case "file": {
        const file = this.#fileOf(job);
        await run.gather(() => spider.file?.(file) ?? [], spider.item);
        return;
      }
      case "error":
        return await run.inTime(this.#tell(job, here, log));
      default:
        return job satisfies never;
    }
  }

  async #tell({ error, url }: ErrorJob, { context }: CrawlHere, log: JobLog): Promise<void> {
    await this.#spider.error?.(
      errorOf(error),
      { url },
      { crawl: context.crawl, node: context.node, log: log.logger },
    );
  }

  /** Once, whoever waits for it; if it fails, whoever comes next tries again. */
  #open(here: CrawlHere): Promise<void> {
    if (here.opening === undefined) {
      here.opening = this.#opened(here).finally(() => {
        delete here.opening;
      });
    }
    return here.opening;
  }

  async #opened(here: CrawlHere): Promise<void> {
    try {
      await this.#spider.open?.(here.context);
      here.isOpen = true;
    } catch (error) {
      const facts = errorFacts(error);
      throw errorOf({ ...facts, message: `could not be opened: ${facts.message}` });
    }
  }

  async #close(here: CrawlHere, run: JobRun): Promise<void> {
    const { context, isOpen } = here;
    this.#crawls.delete(context.crawl.id);
    if (isOpen) await run.inTime(this.#spider.close?.(context) ?? undefined);
  }

  async #pageOf(job: PageJob, body: Buffer, here: CrawlHere, run: JobRun, log: JobLog): Promise<PageView> {
    const { depth, meta, rendered, links, ...rest } = job.page;
    const { id, params, state } = here.context.crawl;
    const { tree } = this.#spider;
    const page = new PageView({
      ...rest,
      task: { depth, request: { meta } },
      crawl: { id, params, ...(links !== undefined && { links }) },
      body,
      state,
      ...(rendered && { rendered }),
      documents: { read: (asked) => this.#read(asked.kind, job.id) },
      log: () => log.logger,
      signal: run.signal,
    });
    if (tree === "browser") await run.inTime(page.prepare(tree, false));
    return page;
  }

  /** Documents are read in the worker's thread for them, of the page that the worker has too. */
  // biome-ignore lint/suspicious/noExplicitAny: which of the results it is depends on what was asked.
  async #read(kind: "article" | "markdown" | "pdf", job: number): Promise<any> {
    if (kind === "pdf") throw new Error("a page has no PDF");
    return await this.#channel.call({ about: "page", job, method: kind });
  }

  #fileOf({ id, file }: FileJob): SpiderFile {
    return new RemoteFile(file, (method) => this.#channel.call({ about: "file", job: id, method }));
  }

  #stateOf(crawl: string): CrawlState {
    const ask = (
      call:
        | { method: "get" | "delete"; name: string }
        | { method: "set" | "add"; name: string; value: unknown },
    ) => this.#channel.call({ about: "state", crawl, ...call });
    return {
      get: (name) => ask({ method: "get", name }),
      set: async (name, value) => void (await ask({ method: "set", name, value })),
      add: async (name, by = 1) => (await ask({ method: "add", name, value: by })) as number,
      delete: async (name) => void (await ask({ method: "delete", name })),
    };
  }
}

class RemoteFile implements SpiderFile {
  readonly url: string;
  readonly id: string;
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly contentType: string;
  readonly foundOn: string;
  readonly meta: Readonly<Record<string, unknown>>;
  readonly #ask: (method: "pdf" | "text") => Promise<unknown>;

  constructor(facts: FileFacts, ask: (method: "pdf" | "text") => Promise<unknown>) {
    this.url = facts.url;
    this.id = facts.id;
    this.name = facts.name;
    this.bytes = facts.bytes;
    this.sha256 = facts.sha256;
    this.contentType = facts.contentType;
    this.foundOn = facts.foundOn;
    this.meta = facts.meta;
    this.#ask = ask;
  }

  async pdf(): Promise<PdfText> {
    return (await this.#ask("pdf")) as PdfText;
  }

  async text(): Promise<string> {
    return (await this.#ask("text")) as string;
  }
}

/** Written at once and not queued: if this page ends the process, it is known which it was. */
function tellBegun(id: number): void {
  try {
    writeSync(LEASH_FD, `begun ${id}\n`);
  } catch {
    // The worker is slow to read, or gone. Then it does not know.
  }
}
