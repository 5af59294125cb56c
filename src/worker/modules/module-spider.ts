import { LateOutputs } from "../../crawl/late-outputs.js";
import { FileView } from "../../crawl/pages/file-view.js";
import { PageView } from "../../crawl/pages/page-view.js";
import type { Page, Spider, SpiderContext, SpiderFile, SpiderSettings } from "../../crawl/spider.js";
import { errorFacts, type ModuleDescription } from "./messages.js";
import type { ModuleCrawl, ModuleJobInput, ModuleWork } from "./module-job.js";
import type { ModuleCode } from "./module-process.js";
import type { ProcessPool } from "./process-pool.js";

/**
 * A user's module as the engine sees it: a spider like any other. What it does is done in processes of their own; its
 * items come checked, and its pages are ended in time there.
 */
export class ModuleSpider implements Spider {
  readonly name: string;
  readonly version: string;
  readonly keepsTime = true;
  readonly seeds?: readonly string[];
  readonly fileTypes?: readonly string[];
  readonly settings?: SpiderSettings;
  readonly callbacks: NonNullable<Spider["callbacks"]>;
  readonly file?: NonNullable<Spider["file"]>;
  readonly error?: NonNullable<Spider["error"]>;
  readonly #pool: ProcessPool;
  readonly #description: ModuleDescription;

  constructor({ name, version }: ModuleCode, description: ModuleDescription, pool: ProcessPool) {
    this.name = name;
    this.version = version;
    this.#pool = pool;
    this.#description = description;
    const { seeds, fileTypes, settings, callbacks, hooks } = description;
    if (seeds !== undefined) this.seeds = seeds;
    if (fileTypes !== undefined) this.fileTypes = fileTypes;
    if (settings !== undefined) this.settings = settings;
    this.callbacks = Object.fromEntries(
      callbacks.map((callback) => [callback, (page) => this.#read(page, callback)]),
    );
    if (hooks.includes("file")) this.file = (file) => this.#take(file);
    if (hooks.includes("error")) this.error = (error, page, context) => this.#tell(error, page.url, context);
  }

  /** What the module says of itself. */
  describe(): ModuleDescription {
    return this.#description;
  }

  /** Its processes. */
  get pids(): readonly number[] {
    return this.#pool.pids;
  }

  parse(page: Page): LateOutputs {
    return this.#read(page, undefined);
  }

  /** Nothing yet: each process opens the crawl for itself, before its first page. */
  open(context: SpiderContext): void {
    this.#pool.know(crawlOf(context));
  }

  async close(context: SpiderContext): Promise<void> {
    await this.#pool.close(this.#pool.crawl(context.crawl.id) ?? crawlOf(context));
  }

  /** Ends its processes. */
  async stop(): Promise<void> {
    await this.#pool.stop();
  }

  #read(page: Page, callback: string | undefined): LateOutputs {
    if (!(page instanceof PageView)) throw new Error("a module reads the pages that the engine makes");
    const { links, ...parts } = page.parts;
    const work: ModuleWork = {
      kind: "page",
      page: { ...parts, ...(links !== undefined && { links }) },
      ...(callback !== undefined && { callback }),
    };
    const { body } = page;
    const log = () => page.log;
    const answer = (method: string) => (method === "markdown" ? page.markdown() : page.article());
    return this.#outputsOf({ crawl: this.#crawlOf(page), work, body, log, answer });
  }

  #take(file: SpiderFile): LateOutputs {
    const { url, id, name, bytes, sha256, contentType, foundOn, meta } = file;
    const work: ModuleWork = {
      kind: "file",
      file: { url, id, name, bytes, sha256, contentType, foundOn, meta },
    };
    const crawl = file instanceof FileView ? this.#pool.crawl(file.crawl) : undefined;
    if (crawl === undefined) throw new Error("a file of a crawl that was not opened");
    const answer = (method: string) => (method === "pdf" ? file.pdf() : file.text());
    return this.#outputsOf({ crawl, work, log: () => crawl.log, answer });
  }

  #outputsOf(input: ModuleJobInput): LateOutputs {
    const job = this.#pool.run(input);
    return new LateOutputs(job.ended, () => this.#pool.cancel(job));
  }

  async #tell(error: Error, url: string, context: SpiderContext): Promise<void> {
    const crawl = this.#pool.crawl(context.crawl.id) ?? crawlOf(context);
    const work: ModuleWork = { kind: "error", url, error: errorFacts(error) };
    await this.#pool.run({ crawl, work, log: () => context.log }).ended;
  }

  #crawlOf({ crawl, log }: Page): ModuleCrawl {
    const known = this.#pool.crawl(crawl.id);
    if (known !== undefined) return known;
    const met = { ...crawl, log, node: "" };
    this.#pool.know(met);
    return met;
  }
}

function crawlOf({ crawl, log, node }: SpiderContext): ModuleCrawl {
  return { id: crawl.id, params: crawl.params, state: crawl.state, log, node };
}
