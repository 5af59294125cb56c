import { type Crawl, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import { MemoryCrawlStates } from "../../src/crawl/memory-crawl-state.js";
import { Documents } from "../../src/crawl/pages/documents.js";
import { PageView } from "../../src/crawl/pages/page-view.js";
import type { Spider } from "../../src/crawl/spider.js";
import type { Task } from "../../src/crawl/task.js";
import { silentLogger } from "../../src/lib/logger.js";
import { compileSpider } from "../../src/spiders/declarative/index.js";

export type PageGiven = {
  readonly url?: string;
  readonly meta?: Readonly<Record<string, unknown>>;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly contentType?: string;
  readonly depth?: number;
};

export const PAGE_URL = "http://h/dir/p";

/** A page as a spider gets it. */
export function pageOf(html: string, given: PageGiven = {}): PageView {
  const { url = PAGE_URL, meta, params = {}, contentType = "text/html", depth = 0 } = given;
  const crawl: Crawl = {
    ...{ id: "c", status: "running", generation: 1, startedAt: 0, spider: "s", seeds: [], scope: "any" },
    ...{ limits: {}, politeness: DEFAULT_POLITENESS, priority: 5, params },
  };
  const task: Task = {
    ...{ id: "c:1", crawl: "c", generation: 1, url, host: "h", kind: "page", depth },
    ...{ attempts: 0, round: 0, token: "t", shard: 0, epoch: 1, dispatchedAt: 0, notAfter: 0, delayMs: 0 },
    ...(meta !== undefined && { request: { meta } }),
  };
  return new PageView({
    ...{ task, crawl, url, status: 200, contentType, body: Buffer.from(html) },
    headers: { "content-type": contentType },
    documents: new Documents(),
    state: new MemoryCrawlStates().of("c"),
    log: () => silentLogger,
    signal: new AbortController().signal,
  });
}

/** All that a spider yields for a page. */
export async function yielded(spider: Spider, page: PageView, callback?: string): Promise<unknown[]> {
  const outputs: unknown[] = [];
  const parse = callback === undefined ? spider.parse.bind(spider) : spider.callbacks?.[callback];
  for await (const output of parse?.(page) ?? []) outputs.push(output);
  return outputs;
}

/** What one field finds on a page; the reasons if its item is invalid; undefined if there is no item. */
export async function fieldOn(field: unknown, html: string, given: PageGiven = {}): Promise<unknown> {
  const spider = compileSpider({ name: "s", items: [{ fields: { x: field } }] });
  const [output] = (await yielded(spider, pageOf(html, given))) as [
    { item?: { x: unknown }; invalidItem?: { reasons: string[] } } | undefined,
  ];
  return output?.item === undefined ? output?.invalidItem?.reasons : output.item.x;
}
