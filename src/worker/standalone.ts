import { setMaxListeners } from "node:events";
import { MemoryContentIndex } from "../crawl/content-index.js";
import { type Crawl, type CrawlCounts, type FinishReason, NO_COUNTS } from "../crawl/crawl.js";
import { Dispatcher } from "../crawl/dispatch/dispatcher.js";
import { Engine } from "../crawl/engine.js";
import type { Fetcher } from "../crawl/fetch/fetcher.js";
import type { Ending, NewUrl } from "../crawl/frontier.js";
import type { TaskLimits } from "../crawl/limits.js";
import { MemoryCrawlStates } from "../crawl/memory-crawl-state.js";
import { MemoryFrontier, MemoryHostStates } from "../crawl/memory-frontier.js";
import type { Documents } from "../crawl/pages/documents.js";
import type { ResultSink, StoredResults } from "../crawl/records.js";
import { Recrawler } from "../crawl/recrawler.js";
import { Browser } from "../crawl/render/browser.js";
import { Renderer, type RenderingOptions } from "../crawl/render/renderer.js";
import { Robots, robotsOptionsOf } from "../crawl/robots/robots.js";
import { isRunnable } from "../crawl/run.js";
import type { SpiderCatalog } from "../crawl/spider-catalog.js";
import { handBack, type Task } from "../crawl/task.js";
import { canonicalUrl } from "../crawl/urls/url.js";
import { UrlIdentity } from "../crawl/urls/url-identity.js";
import type { Clock } from "../lib/clock.js";
import { ConfigError } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import { Committer } from "../results/index.js";
import { FolderFileStore } from "./folder-file-store.js";
import type { ItemWriter } from "./item-writer.js";
import { MemoryRobotsStore } from "./memory-robots-store.js";
import { StandaloneRun } from "./standalone-run.js";
import type { WarcFile } from "./warc-file.js";

const SHARDS = 64;

export type StandaloneOptions = {
  readonly crawl: Crawl;
  readonly concurrency: number;
  readonly limits: Partial<TaskLimits>;
  /** How long a host may give no answer at all before its URLs are given up, in milliseconds. @default 120_000 */
  readonly hostPatienceMs?: number;
  /** Without it no page can be rendered. */
  readonly rendering?: RenderingOptions;
  readonly userAgent: string;
  /** Where files go. Made when the first one comes. */
  readonly filesFolder: string;
};

export type StandaloneDeps = {
  readonly fetcher: Fetcher;
  /** @default one of its own */
  readonly documents?: Documents;
  readonly spiders: SpiderCatalog;
  readonly items: ItemWriter;
  /** Where what went over the wire goes, if the crawl is archived. */
  readonly archive?: WarcFile;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told what each fetch of a URL came to, once that is in the frontier. `queued`: it will be tried again. */
  readonly onEnded?: (task: Task, ending: Ending) => void;
};

/** How a standalone crawl ended. */
export type StandaloneSummary = { readonly counts: CrawlCounts; readonly finishReason: FinishReason };

/**
 * The whole crawler in one process: the engine and the dispatcher of the cluster on a frontier in memory.
 * `finished` resolves when nothing is queued or dispatched any more, and rejects when items cannot be written.
 */
export class Standalone implements Service {
  readonly name = "standalone crawl";
  readonly finished: Promise<StandaloneSummary>;
  readonly #options: StandaloneOptions;
  readonly #deps: StandaloneDeps;
  readonly #frontier = new MemoryFrontier(SHARDS);
  readonly #dispatcher: Dispatcher;
  readonly #recrawler: Recrawler;
  readonly #engine: Engine;
  readonly #browser: Browser | undefined;
  readonly #committer: Committer<Task>;
  readonly #stopping = new AbortController();
  readonly #waiting: Task[] = [];
  readonly #states: MemoryCrawlStates;
  #whole: StandaloneRun | undefined;
  #isRunOver = false;
  readonly #totals = { items: 0, invalidItems: 0, files: 0, bytes: 0 };
  #active = 0;
  #pagesLeft: number;
  #finishReason: FinishReason = "completed";
  #finish: (summary: StandaloneSummary) => void = () => {};
  #fail: (error: unknown) => void = () => {};

  constructor(options: StandaloneOptions, deps: StandaloneDeps) {
    this.#options = options;
    this.#deps = deps;
    const { crawl } = options;
    const { clock, logger, fetcher, spiders } = deps;
    const { userAgent } = options;
    this.#pagesLeft = crawl.limits.maxPages ?? Number.POSITIVE_INFINITY;
    // Everything that runs listens to it.
    setMaxListeners(0, this.#stopping.signal);
    this.finished = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#fail = reject;
    });
    const hosts = new MemoryHostStates();
    const states = new MemoryCrawlStates();
    this.#states = states;
    const rendering = renderingOf(options, { fetcher, clock, logger });
    this.#browser = rendering?.browser;
    this.#engine = new Engine(
      {
        fetcher,
        robots: new Robots(
          { fetcher, store: new MemoryRobotsStore(), clock, userAgent, logger },
          robotsOptionsOf(options.limits),
        ),
        files: new FolderFileStore(options.filesFolder),
        contents: new MemoryContentIndex(),
        spiders,
        states,
        ...(deps.documents !== undefined && { documents: deps.documents }),
        claims: this.#frontier,
        ...(rendering !== undefined && { renderer: rendering.renderer }),
        clock,
        logger,
        onHostLearnt: (state) => this.#dispatcher.learnt(state),
        node: "standalone",
      },
      options.limits,
    );
    const { hostPatienceMs } = options;
    this.#dispatcher = new Dispatcher(
      {
        id: "standalone",
        frontier: this.#frontier,
        hosts,
        tasks: { send: async (tasks) => this.#take(tasks) },
        budget: { reserve: async (_, pages) => this.#reserve(pages) },
        clock,
        logger,
        onIdle: () => this.#checkOver(),
        onBudgetSpent: () => this.#cut("maxPages"),
      },
      hostPatienceMs === undefined ? {} : { backoff: { patienceMs: hostPatienceMs } },
    );
    this.#recrawler = new Recrawler({
      rounds: this.#frontier,
      clock,
      logger,
      heldShards: () => this.#dispatcher.heldShards,
      onOpened: (opened) => this.#dispatcher.added(crawl.id, new Set(opened.map(({ host }) => host))),
    });
    this.#committer = new Committer<Task>(
      {
        frontier: this.#frontier,
        results: { store: (results) => this.#store(results) },
        hosts,
        clock,
        logger,
        expected: () => 0,
        onCommitted: async ({ members, links, knownItems }) => {
          const hostsAdded = new Set(links.queued.map((url) => url.host));
          if (hostsAdded.size > 0) this.#dispatcher.added(crawl.id, hostsAdded);
          for (const { result, context } of members) {
            deps.onEnded?.(context, result.ending);
            this.#totals.items += result.items.length;
            this.#totals.invalidItems += result.invalidItems?.length ?? 0;
            this.#totals.files += result.files.length;
            for (const page of result.pages) this.#totals.bytes += page.bytes;
            this.#dispatcher.ended(result.end);
            this.#recrawler.ended(result.end);
          }
          this.#totals.items -= knownItems?.get(crawl.id) ?? 0;
          if (this.#totals.bytes >= (crawl.limits.maxBytes ?? Number.POSITIVE_INFINITY))
            this.#cut("maxBytes");
        },
      },
      { groupsAtOnce: 1 },
    );
  }

  /** @throws ConfigError when a seed is no http(s) URL */
  async start(): Promise<void> {
    const { crawl, concurrency } = this.#options;
    if (crawl.runs === true) await this.#beginRun(crawl);
    const identity = new UrlIdentity(crawl);
    const seeds = (crawl.runs === true ? [] : crawl.seeds).map((seed): NewUrl => {
      const url = canonicalUrl(seed);
      if (url === undefined) throw new ConfigError(`--seed must be an absolute http(s) URL, not "${seed}"`);
      return {
        id: identity.idOf(url),
        crawl: crawl.id,
        url: url.url,
        host: url.host,
        kind: "page",
        depth: 0,
        priority: 5,
      };
    });
    await this.#frontier.add(seeds);
    this.#dispatcher.setWindow(concurrency * 2);
    this.#dispatcher.setCrawls([crawl]);
    this.#recrawler.setCrawls([crawl]);
    await this.#dispatcher.hold(new Map(Array.from({ length: SHARDS }, (_, shard) => [shard, 1])));
    const { maxDurationMs } = crawl.limits;
    if (maxDurationMs !== undefined) this.#deps.clock.after(maxDurationMs, () => this.#cut("maxDurationMs"));
  }

  async stop(): Promise<void> {
    await this.#recrawler.stop();
    await this.#dispatcher.stop();
    this.#waiting.length = 0;
    this.#stopping.abort();
    await this.#committer.flush();
    await this.#engine.stop();
    await this.#deps.items.close();
    await this.#browser?.stop();
    await this.#deps.archive?.close();
    await this.#deps.fetcher.close();
  }

  get counts(): CrawlCounts {
    const { items, invalidItems } = this.#whole?.counts ?? NO_COUNTS;
    const totals = this.#totals;
    return {
      ...this.#frontier.counts,
      ...totals,
      items: totals.items + items,
      invalidItems: totals.invalidItems + invalidItems,
    };
  }

  /** The crawl is not over before its run is. */
  async #beginRun(crawl: Crawl): Promise<void> {
    const { spiders, items, clock, logger } = this.#deps;
    const spider = await spiders.get(crawl.spider);
    if (spider === undefined || !isRunnable(spider)) {
      throw new ConfigError(`--spider: "${crawl.spider}" does not run as a whole`);
    }
    const run = new StandaloneRun(crawl, spider, {
      frontier: this.#frontier,
      items,
      states: this.#states,
      onAdded: (hosts) => this.#dispatcher.added(crawl.id, hosts),
      clock,
      logger,
    });
    this.#whole = run;
    void run
      .execute(this.#stopping.signal)
      .then(() => {
        this.#isRunOver = true;
        this.#checkOver();
      })
      .catch((error: unknown) => this.#fail(error));
  }

  /** Where items go does not come back as a database does: a full disk or a closed pipe ends the crawl. */
  async #store(results: Parameters<ResultSink["store"]>[0]): Promise<StoredResults> {
    try {
      const stored = await this.#deps.items.store(results);
      for (const { url, reasons, data } of results.invalidItems ?? []) {
        this.#deps.logger.warn({ url, reasons, data }, "an item is not as its spider says, and left out");
      }
      if (results.archive !== undefined) await this.#deps.archive?.store(results.archive);
      return stored;
    } catch (error) {
      this.#committer.stop();
      this.#fail(error);
      throw error;
    }
  }

  #reserve(pages: number): number {
    const granted = Math.min(pages, this.#pagesLeft);
    this.#pagesLeft -= granted;
    return granted;
  }

  #take(tasks: readonly Task[]): readonly string[] {
    this.#waiting.push(...tasks);
    this.#fill();
    return [];
  }

  #fill(): void {
    while (this.#active < this.#options.concurrency) {
      const task = this.#waiting.shift();
      if (task === undefined) return;
      this.#active += 1;
      void this.#run(task).finally(() => {
        this.#active -= 1;
        this.#fill();
      });
    }
  }

  async #run(task: Task): Promise<void> {
    const { clock, logger } = this.#deps;
    try {
      const result = await this.#engine.run(task, this.#options.crawl, this.#stopping.signal);
      if (result !== undefined) this.#committer.add({ result, context: task });
    } catch (error) {
      logger.error({ err: error, url: task.url }, "a task failed in a way that was not foreseen");
      const now = clock.now();
      const back = handBack(task, "internal error", now, now + 1_000);
      const ending = { ...back.ending, attempts: task.attempts + 1 };
      const nothing = { pages: [], items: [], files: [], links: [] };
      this.#committer.add({ result: { ...back, ending, ...nothing }, context: task });
    }
  }

  /** A limit was reached: what waits and was never tried is given up; what runs ends as it would. */
  #cut(reason: FinishReason): void {
    if (this.#finishReason === "completed") this.#finishReason = reason;
    this.#pagesLeft = 0;
    this.#frontier.skipQueued(this.#options.crawl.id, "limit");
    this.#dispatcher.budgetReturned(this.#options.crawl.id);
    setImmediate(() => this.#checkOver());
  }

  #checkOver(): void {
    if (this.#whole !== undefined && !this.#isRunOver) return;
    const { queued, active } = this.counts;
    if (queued === 0 && active === 0 && this.#committer.size === 0) {
      if (this.#finishReason === "completed" && this.#frontier.nextVisits > 0) return;
      this.#finish({ counts: this.counts, finishReason: this.#finishReason });
    } else if (this.#finishReason !== "completed" && queued > 0) {
      this.#frontier.skipQueued(this.#options.crawl.id, "limit");
      if (this.counts.queued < queued) setImmediate(() => this.#checkOver());
    }
  }
}

function renderingOf({ rendering }: StandaloneOptions, deps: Omit<StandaloneDeps, "spiders" | "items">) {
  if (rendering === undefined) return undefined;
  const browser = new Browser(rendering.browser, deps);
  return { browser, renderer: new Renderer(rendering.renderer, { ...deps, browser }) };
}
