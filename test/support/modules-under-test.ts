import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { CrawlState } from "../../src/crawl/crawl-state.js";
import { MemoryCrawlStates } from "../../src/crawl/memory-crawl-state.js";
import { PageView } from "../../src/crawl/pages/page-view.js";
import type { SpiderContext, SpiderOutput } from "../../src/crawl/spider.js";
import { createLogger, type Logger } from "../../src/lib/logger.js";
import { ModuleHost, type ModuleSettings, type ModuleSpider } from "../../src/worker/modules/index.js";
import { documentsUnderTest } from "./documents-under-test.js";

/** Processes run JavaScript: the program that was built. */
export const SPIDER_PROCESS_PROGRAM = fileURLToPath(
  new URL("../../dist/worker/modules/spider-process.js", import.meta.url),
);

export type LogLine = { readonly level: string; readonly msg: string; readonly [field: string]: unknown };

export type PageGiven = {
  readonly url?: string;
  readonly body?: string | Buffer;
  readonly contentType?: string;
  readonly meta?: Readonly<Record<string, unknown>>;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly signal?: AbortSignal;
};

/** A host of modules, whose files a test writes, and what pages its spiders are given. */
export class ModulesUnderTest {
  readonly host: ModuleHost;
  readonly lines: LogLine[] = [];
  readonly states = new MemoryCrawlStates();
  readonly folder: string;
  readonly #logger: Logger;
  readonly documents = documentsUnderTest();
  #spiders = 0;

  private constructor(folder: string, settings: Partial<ModuleSettings>) {
    this.folder = folder;
    const write = (line: string) => void this.lines.push(JSON.parse(line) as LogLine);
    this.#logger = createLogger({ level: "debug", destination: { write } });
    this.host = new ModuleHost(
      { logger: this.#logger },
      { program: SPIDER_PROCESS_PROGRAM, processes: 2, ...settings },
    );
  }

  static async start(settings: Partial<ModuleSettings> = {}): Promise<ModulesUnderTest> {
    return new ModulesUnderTest(await mkdtemp(path.join(tmpdir(), "warren-modules-")), settings);
  }

  async dispose(): Promise<void> {
    await this.host.stop();
    await this.documents.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Files of a spider, the first of which is its entry. */
  async load(files: Readonly<Record<string, string>> | string): Promise<ModuleSpider> {
    const all = typeof files === "string" ? { "spider.mjs": files } : files;
    this.#spiders += 1;
    const folder = path.join(this.folder, String(this.#spiders));
    for (const [name, text] of Object.entries(all)) {
      await mkdir(path.dirname(path.join(folder, name)), { recursive: true });
      await writeFile(path.join(folder, name), text);
    }
    return await this.host.load({ folder, entry: Object.keys(all)[0] ?? "", version: "7" });
  }

  state(crawl = "crawl"): CrawlState {
    return this.states.of(crawl);
  }

  context(crawl = "crawl", params: Readonly<Record<string, unknown>> = {}): SpiderContext {
    return { crawl: { id: crawl, params, state: this.state(crawl) }, node: "node-1", log: this.#logger };
  }

  page({
    url = "http://h/dir/page",
    body = "",
    contentType = "text/html",
    ...given
  }: PageGiven = {}): PageView {
    const { meta = {}, params = {}, signal = new AbortController().signal } = given;
    return new PageView({
      task: { depth: 1, request: { meta } },
      crawl: { id: "crawl", params },
      url,
      status: 200,
      headers: { "content-type": contentType, "x-own": "yes" },
      contentType,
      body: Buffer.from(body),
      state: this.state(),
      documents: this.documents,
      log: () => this.#logger.child({ crawl: "crawl", url }),
      signal,
    });
  }
}

/** All that a spider yields. */
export async function outputsOf(
  outputs: AsyncIterable<SpiderOutput> | Iterable<SpiderOutput>,
): Promise<SpiderOutput[]> {
  const all: SpiderOutput[] = [];
  for await (const output of outputs) all.push(output);
  return all;
}
