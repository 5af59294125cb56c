import type { Crawl } from "../crawl/crawl.js";
import type { CrawlStates } from "../crawl/crawl-state.js";
import { SpiderError } from "../crawl/errors.js";
import type { Frontier } from "../crawl/frontier.js";
import type { ResultSink } from "../crawl/records.js";
import type { RunnableSpider } from "../crawl/run.js";
import { type RunCounts, RunOutputs } from "../crawl/run-outputs.js";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";

export type StandaloneRunDeps = {
  readonly frontier: Pick<Frontier, "add">;
  readonly items: Pick<ResultSink, "store">;
  readonly states: CrawlStates;
  /** Told of the hosts of URLs that were queued. */
  readonly onAdded: (hosts: ReadonlySet<string>) => void;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** The one run of a standalone crawl whose spider runs as a whole. */
export class StandaloneRun {
  readonly #crawl: Crawl;
  readonly #spider: RunnableSpider;
  readonly #deps: StandaloneRunDeps;
  #counts: RunCounts = { items: 0, invalidItems: 0, requests: 0 };

  constructor(crawl: Crawl, spider: RunnableSpider, deps: StandaloneRunDeps) {
    this.#crawl = crawl;
    this.#spider = spider;
    this.#deps = deps;
  }

  /** What it has brought so far. */
  get counts(): RunCounts {
    return this.#counts;
  }

  /** Resolves when all that it has brought is stored. @throws SpiderError if it failed */
  async execute(signal: AbortSignal): Promise<void> {
    const { frontier, items, states, onAdded, clock, logger } = this.#deps;
    const crawl = this.#crawl;
    const spider = this.#spider;
    const run = `${crawl.id}:run.1`;
    const outputs = new RunOutputs({
      ...{ crawl, run, attempt: 1, spider, version: spider.version ?? "1", node: "standalone", clock },
      store: async (batch) => {
        await items.store({ pages: [], files: [], items: batch.items, invalidItems: batch.invalidItems });
        const { queued } = await frontier.add(batch.links);
        if (queued.length > 0) onAdded(new Set(queued.map(({ host }) => host)));
        this.#counts = outputs.counts;
      },
    });
    try {
      const end = await spider.run({
        crawl: { id: crawl.id, params: crawl.params, state: states.of(crawl.id) },
        ...{ node: "standalone", run, attempt: 1, seeds: crawl.seeds, signal },
        log: logger.child({ crawl: crawl.id, run }),
        take: (output) => outputs.take(output),
      });
      await outputs.flush();
      if (end.state === "failed" && !signal.aborted) {
        throw new SpiderError(`spider "${spider.name}": ${end.error}`);
      }
    } finally {
      outputs.stop();
    }
  }
}
