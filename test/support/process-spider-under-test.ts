import { MemoryCrawlStates } from "../../src/crawl/memory-crawl-state.js";
import { Documents } from "../../src/crawl/pages/documents.js";
import { PageView } from "../../src/crawl/pages/page-view.js";
import { processManifest } from "../../src/crawl/process-manifest.js";
import type { SpiderContext, SpiderOutput } from "../../src/crawl/spider.js";
import { systemClock } from "../../src/lib/clock.js";
import { createLogger, type Logger } from "../../src/lib/logger.js";
import type { ChildProcesses } from "../../src/worker/processes/child-processes.js";
import type { ProcessSpidersOptions } from "../../src/worker/processes/process-source.js";
import { type ProcessSpider, ProcessSpiders } from "../../src/worker/processes/process-spiders.js";
import { childProcesses } from "./children-under-test.js";

export type LogLine = Readonly<Record<string, unknown>> & { readonly level: string; readonly msg: string };

/** How a page ended, and what was found on it. */
export type PageEnd = { readonly outputs: readonly SpiderOutput[] } | { readonly failed: string };

/** The items of a page. @throws Error if it failed */
export function itemsOf(end: PageEnd): Record<string, unknown>[] {
  if ("failed" in end) throw new Error(`the page failed: ${end.failed}`);
  return end.outputs.flatMap((output) => ("item" in output ? [output.item] : []));
}

/** A process spider at work for one crawl, with pages as a test makes them up. */
export class ProcessSpiderUnderTest {
  readonly children: ChildProcesses;
  readonly log: LogLine[] = [];
  readonly state = new MemoryCrawlStates().of("crawl");
  readonly spiders: ProcessSpiders;
  readonly spider: ProcessSpider;
  readonly #documents = new Documents();
  readonly #logger: Logger;

  private constructor(children: ChildProcesses, spiders: ProcessSpiders, spider: ProcessSpider) {
    this.children = children;
    this.spiders = spiders;
    this.spider = spider;
    this.#logger = createLogger({
      level: "trace",
      destination: { write: (line) => void this.log.push(JSON.parse(line) as LogLine) },
    });
  }

  static async start(
    manifest: Readonly<Record<string, unknown>>,
    options: ProcessSpidersOptions & { readonly folder?: string } = {},
  ): Promise<ProcessSpiderUnderTest> {
    const { folder = import.meta.dirname, ...rest } = options;
    const children = childProcesses();
    const spiders = new ProcessSpiders({ children, clock: systemClock, node: "node-1" }, rest);
    const spider = await spiders.load({
      folder,
      manifest: processManifest.parse({ name: "tested", ...manifest }),
      version: "3",
    });
    return new ProcessSpiderUnderTest(children, spiders, spider);
  }

  async dispose(): Promise<void> {
    await this.spiders.stop();
    await this.children.stop();
    await this.#documents.stop();
  }

  get context(): SpiderContext {
    const crawl = { id: "crawl", params: { depth: "deep" }, state: this.state };
    return { crawl, node: "node-1", log: this.#logger.child({ about: "crawl" }) };
  }

  page(url: string, text: string | Uint8Array, about: PageAbout = {}): PageView {
    const { headers = { "content-type": "text/plain" }, signal = new AbortController().signal, meta } = about;
    return new PageView({
      task: { depth: 1, request: meta === undefined ? undefined : { meta } } as never,
      crawl: { id: "crawl", params: this.context.crawl.params } as never,
      url,
      status: 200,
      headers,
      contentType: headers["content-type"]?.split(";")[0],
      body: Buffer.from(text as string),
      state: this.state,
      documents: this.#documents,
      log: () => this.#logger,
      signal,
    });
  }

  /** Gives it a page, and waits for what comes of it. */
  async run(url: string, text: string | Uint8Array, about: PageAbout = {}): Promise<PageEnd> {
    const page = this.page(url, text, about);
    const { callback } = about;
    const outputs: SpiderOutput[] = [];
    try {
      const yielded =
        callback === undefined ? this.spider.parse(page) : this.spider.callbacks[callback]?.(page);
      for await (const output of yielded ?? []) outputs.push(output);
      return { outputs };
    } catch (error) {
      return { failed: (error as Error).message };
    }
  }
}

type PageAbout = {
  readonly headers?: Readonly<Record<string, string>>;
  readonly meta?: Readonly<Record<string, unknown>>;
  readonly signal?: AbortSignal;
  readonly callback?: string;
};
