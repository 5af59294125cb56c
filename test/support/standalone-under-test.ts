import { mkdtemp, rm } from "node:fs/promises";
import type { LookupFunction } from "node:net";
import os from "node:os";
import path from "node:path";
import { Writable } from "node:stream";
import type { z } from "zod";
import { crawlRequest } from "../../src/crawl/crawl-request.js";
import { Fetcher, type FetcherOptions } from "../../src/crawl/fetch/fetcher.js";
import type { TaskLimits } from "../../src/crawl/limits.js";
import type { Documents } from "../../src/crawl/pages/documents.js";
import type { Spider } from "../../src/crawl/spider.js";
import type { SpiderCatalog } from "../../src/crawl/spider-catalog.js";
import { withSettings } from "../../src/crawl/spider-settings.js";
import { systemClock } from "../../src/lib/clock.js";
import { createLogger } from "../../src/lib/logger.js";
import { bundledSpiders } from "../../src/spiders/index.js";
import { ItemWriter } from "../../src/worker/item-writer.js";
import { Standalone, type StandaloneSummary } from "../../src/worker/standalone.js";

export type StandaloneItem = { readonly url: string; readonly data: Readonly<Record<string, unknown>> };

export type StandaloneOutcome = StandaloneSummary & {
  readonly items: readonly StandaloneItem[];
  /** What was logged, as objects. */
  readonly log: readonly Readonly<Record<string, unknown>>[];
};

/** Runs a crawl in this process to its end, from what a user would give as its configuration. */
export async function crawlStandalone(
  request: z.input<typeof crawlRequest>,
  options: {
    readonly spiders?: readonly Spider[];
    readonly limits?: Partial<TaskLimits>;
    readonly userAgent?: string;
    readonly fetcher?: Partial<FetcherOptions>;
    readonly resolve?: LookupFunction;
    readonly documents?: Documents;
  } = {},
): Promise<StandaloneOutcome> {
  const { userAgent = "Warren/0.1" } = options;
  const folder = await mkdtemp(path.join(os.tmpdir(), "warren-standalone-"));
  const lines: string[] = [];
  const logged: string[] = [];
  const logger = createLogger({ level: "info", destination: { write: (line: string) => logged.push(line) } });
  const own = new Map(options.spiders?.map((spider) => [spider.name, spider]));
  const settings = own.get(request.spider ?? "")?.settings;
  const { nodes: _nodes, ...spec } = crawlRequest.parse(withSettings(request, settings));
  const spiders: SpiderCatalog = { get: (name) => own.get(name) ?? bundledSpiders.get(name) };
  const crawler = new Standalone(
    {
      crawl: { ...spec, id: "standalone", status: "running", generation: 1, startedAt: Date.now() },
      concurrency: 8,
      limits: { retryDelayMs: 20, ...options.limits },
      userAgent,
      filesFolder: path.join(folder, "files"),
    },
    {
      fetcher: new Fetcher(
        { userAgent, allowedNetworks: ["127.0.0.0/8"], ...options.fetcher },
        options.resolve === undefined ? {} : { resolve: options.resolve },
      ),
      spiders,
      ...(options.documents !== undefined && { documents: options.documents }),
      items: new ItemWriter(collector(lines), "memory"),
      clock: systemClock,
      logger,
    },
  );
  try {
    await crawler.start();
    const summary = await crawler.finished;
    const items = lines
      .join("")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as StandaloneItem);
    const log = logged
      .join("")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    return { ...summary, items, log };
  } finally {
    await crawler.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

function collector(chunks: string[]): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk.toString());
      done();
    },
  });
}
