import type { StandardSchemaV1 } from "@standard-schema/spec";
import { jsonSchemaItem } from "../../crawl/json-schema-item.js";
import { FileView } from "../../crawl/pages/file-view.js";
import { PROCESS_LIMITS } from "../../crawl/process-manifest.js";
import type {
  Page,
  Spider,
  SpiderContext,
  SpiderFile,
  SpiderOutput,
  SpiderSettings,
} from "../../crawl/spider.js";
import type { Service } from "../../lib/service.js";
import type { ChildCommand } from "./child-process.js";
import { CrawlProcesses } from "./crawl-processes.js";
import { PageJob, type PageJobInput } from "./page-job.js";
import { ProcessRunSpider } from "./process-run-spider.js";
import {
  openMessage,
  type ProcessSpiderSource,
  type ProcessSpidersDeps,
  type ProcessSpidersOptions,
  processEnvironment,
} from "./process-source.js";
import { fileLine, lineOf, pageLine } from "./protocol.js";

const MAX_OUTPUTS = 25_000;

/** Makes spiders of commands that are given pages. */
export class ProcessSpiders implements Service {
  readonly name = "process spiders";
  readonly #deps: ProcessSpidersDeps;
  readonly #options: ProcessSpidersOptions;
  readonly #spiders = new Set<ProcessSpider>();

  constructor(deps: ProcessSpidersDeps, options: ProcessSpidersOptions = {}) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Nothing yet: processes come with the pages. */
  async start(): Promise<void> {}

  /** @throws Error if its `itemSchema` is none */
  async load(source: ProcessSpiderSource): Promise<ProcessSpider> {
    const spider: ProcessSpider = new ProcessSpider(source, this.#deps, this.#options, () =>
      this.#spiders.delete(spider),
    );
    this.#spiders.add(spider);
    return spider;
  }

  /** One of mode `run`. @throws Error if its `itemSchema` is none */
  loadRun(source: ProcessSpiderSource): ProcessRunSpider {
    return new ProcessRunSpider(source, this.#deps, this.#options);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#spiders].map((spider) => spider.stop()));
  }
}

/** A command in any language as a spider: it is given pages as JSON lines, and answers with what it finds on them. */
export class ProcessSpider implements Spider {
  readonly name: string;
  readonly version: string;
  readonly seeds?: readonly string[];
  readonly settings?: SpiderSettings;
  readonly fileTypes?: readonly string[];
  readonly item?: StandardSchemaV1<unknown, Record<string, unknown>>;
  /** Only those that ask for files are told of them. */
  readonly file?: (file: SpiderFile) => AsyncIterable<SpiderOutput>;
  /** A page may wait for a process, and be begun anew in another one. */
  readonly keepsTime = true;
  /** It has one for each name: which there are, the process knows. */
  readonly callbacks: Readonly<Record<string, (page: Page) => AsyncIterable<SpiderOutput>>>;
  readonly #source: ProcessSpiderSource;
  readonly #deps: ProcessSpidersDeps;
  readonly #options: ProcessSpidersOptions;
  readonly #onStopped: () => void;
  /** By crawl. */
  readonly #opened = new Map<
    string,
    { readonly context: SpiderContext; readonly processes: CrawlProcesses }
  >();

  constructor(
    source: ProcessSpiderSource,
    deps: ProcessSpidersDeps,
    options: ProcessSpidersOptions,
    onStopped: () => void,
  ) {
    const { seeds, settings, fileTypes, itemSchema } = source.manifest;
    this.name = source.manifest.name;
    this.version = source.version;
    if (seeds !== undefined) this.seeds = seeds;
    // Checked where it came from.
    if (settings !== undefined) this.settings = settings as SpiderSettings;
    if (fileTypes !== undefined) {
      this.fileTypes = fileTypes;
      this.file = (file) => this.#file(file);
    }
    if (itemSchema !== undefined) this.item = jsonSchemaItem(itemSchema);
    this.#source = source;
    this.#deps = deps;
    this.#options = options;
    this.#onStopped = onStopped;
    this.callbacks = new Proxy(Object.create(null) as Record<string, never>, {
      get: (_, name) => (page: Page) => this.#parse(page, String(name)),
    });
  }

  open(context: SpiderContext): void {
    this.#processesFor(context);
  }

  parse(page: Page): AsyncIterable<SpiderOutput> {
    return this.#parse(page, undefined);
  }

  async close({ crawl }: SpiderContext): Promise<void> {
    const opened = this.#opened.get(crawl.id);
    this.#opened.delete(crawl.id);
    await opened?.processes.close();
  }

  /** Ends all of its processes at once. */
  async stop(): Promise<void> {
    this.#onStopped();
    const all = [...this.#opened.values()];
    this.#opened.clear();
    await Promise.all(all.map(({ processes }) => processes.close("kill")));
  }

  #file(file: SpiderFile): AsyncIterable<SpiderOutput> {
    const opened = file instanceof FileView ? this.#opened.get(file.crawl) : undefined;
    if (opened === undefined) throw new Error("the crawl of the file is not open here");
    const line = (id: number) => fileLine(id, file);
    return this.#job(opened.processes, { line, about: file.url, log: () => opened.context.log });
  }

  #parse(page: Page, callback: string | undefined): AsyncIterable<SpiderOutput> {
    const { manifest } = this.#source;
    const { node } = this.#deps;
    const processes =
      this.#opened.get(page.crawl.id)?.processes ??
      this.#processesFor({ crawl: page.crawl, log: page.log, node });
    const line = (id: number) => pageLine(id, page, callback, manifest.links);
    return this.#job(processes, { line, about: page.url, log: () => page.log, signal: page.signal });
  }

  #job(processes: CrawlProcesses, about: Omit<PageJobInput, "maxOutputs" | "onAbandoned">): PageJob {
    const job = new PageJob({
      ...about,
      maxOutputs: this.#options.maxOutputs ?? MAX_OUTPUTS,
      onAbandoned: (abandoned) => processes.remove(abandoned),
    });
    if (!job.isOver) processes.add(job);
    return job;
  }

  #processesFor(context: SpiderContext): CrawlProcesses {
    const known = this.#opened.get(context.crawl.id);
    if (known !== undefined) return known.processes;
    const { children, clock } = this.#deps;
    const run = (command: ChildCommand) => children.run(command);
    const processes = new CrawlProcesses(this.#processOptions(context), { run, clock, context });
    this.#opened.set(context.crawl.id, { context, processes });
    return processes;
  }

  #processOptions({ crawl, node }: SpiderContext) {
    const { folder, manifest, version, env } = this.#source;
    const { maxLogLinesPerSecond } = this.#options;
    const limits = { ...PROCESS_LIMITS, ...manifest.limits };
    return {
      ...limits,
      stdout: manifest.stdout,
      ...(maxLogLinesPerSecond !== undefined && { maxLogLinesPerSecond }),
      command: {
        command: manifest.command,
        cwd: folder,
        env: { ...env, ...manifest.env, ...processEnvironment({ crawl, node }, manifest, version) },
        limits: { memoryBytes: limits.memoryBytes, graceMs: limits.graceMs },
      },
      openLine: lineOf(openMessage({ crawl, node }, manifest, version)),
    };
  }
}
