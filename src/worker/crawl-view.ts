import type { Crawl } from "../crawl/crawl.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";

/** Who holds a shard, and since when, in milliseconds since the epoch. */
export type ShardView = { readonly shard: number; readonly epoch: number; readonly since?: number };

export type CrawlViewDeps = {
  readonly crawls: { getMany(ids: readonly string[]): Promise<readonly Crawl[]> };
  readonly leases: { view(): Promise<readonly ShardView[]> };
  readonly serverClock: { readonly isStale: boolean; refresh(): Promise<void> };
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called when a crawl that tasks were run for is no longer the one they were dispatched under. */
  readonly onStopped: (crawl: string) => void;
};

export type CrawlViewOptions = {
  /** How often what is in use is read again, in milliseconds. @default 400 */
  readonly refreshMs: number;
  /** Age from which a crawl is read again before it is relied on, in milliseconds. @default 900 */
  readonly maxAgeMs: number;
  /** Time after which a crawl that no task asked for is forgotten, in milliseconds. @default 30_000 */
  readonly forgetMs: number;
};

const DEFAULTS: CrawlViewOptions = { refreshMs: 400, maxAgeMs: 900, forgetMs: 30_000 };

type Entry = { crawl: Crawl | undefined; readAtMs: number; usedAtMs: number };

/**
 * A worker's view of the crawls it works for and of who dispatches them, never older than `maxAgeMs`: what is
 * closed is seen in that time even if every message about it got lost. One read for all crawls, not one a task.
 */
export class CrawlView implements Service {
  readonly name = "crawl view";
  readonly #deps: CrawlViewDeps;
  readonly #options: CrawlViewOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #loading = new Map<string, Promise<void>>();
  #shards = new Map<number, ShardView>();
  #stopTimer: StopTimer | undefined;
  #isStopped = false;
  #refreshing: Promise<void> = Promise.resolve();

  constructor(deps: CrawlViewDeps, options: Partial<CrawlViewOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    await this.#refresh();
    this.#arm();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stopTimer?.();
    await this.#refreshing;
  }

  /** The crawl, if what is known of it is fresh enough; `load` it otherwise. */
  peek(id: string): Crawl | undefined {
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    const nowMs = this.#deps.clock.monotonic();
    entry.usedAtMs = nowMs;
    return nowMs - entry.readAtMs <= this.#options.maxAgeMs ? entry.crawl : undefined;
  }

  /**
   * The crawl as it is now; undefined if there is none.
   * @throws StoreError when the database cannot be asked
   */
  async load(id: string): Promise<Crawl | undefined> {
    const fresh = this.peek(id);
    if (fresh !== undefined) return fresh;
    let loading = this.#loading.get(id);
    if (loading === undefined) {
      loading = this.#read([id]).finally(() => this.#loading.delete(id));
      this.#loading.set(id, loading);
    }
    await loading;
    return this.#entries.get(id)?.crawl;
  }

  /** Something about the crawl has changed: what is known of it must be read again. */
  invalidate(id: string): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined) entry.readAtMs = Number.NEGATIVE_INFINITY;
  }

  /** Whether a dispatch was made by a master that had lost the shard by then. */
  isStale(shard: number, epoch: number, dispatchedAt: number): boolean {
    const holder = this.#shards.get(shard);
    if (holder?.since === undefined) return false;
    return epoch < holder.epoch && dispatchedAt >= holder.since;
  }

  #arm(): void {
    if (this.#isStopped) return;
    this.#stopTimer = this.#deps.clock.after(this.#options.refreshMs, () => {
      this.#refreshing = this.#refresh()
        .catch((error: unknown) => {
          this.#deps.logger.debug({ error: messageOf(error) }, "could not refresh the view of crawls");
        })
        .finally(() => this.#arm());
    });
  }

  async #refresh(): Promise<void> {
    const nowMs = this.#deps.clock.monotonic();
    for (const [id, entry] of this.#entries) {
      if (nowMs - entry.usedAtMs > this.#options.forgetMs) this.#entries.delete(id);
    }
    if (this.#deps.serverClock.isStale) await this.#deps.serverClock.refresh();
    const shards = await this.#deps.leases.view();
    this.#shards = new Map(shards.map((view) => [view.shard, view]));
    if (this.#entries.size > 0) await this.#read([...this.#entries.keys()]);
  }

  async #read(ids: readonly string[]): Promise<void> {
    // The answer is as old as the question.
    const readAtMs = this.#deps.clock.monotonic();
    const found = new Map((await this.#deps.crawls.getMany(ids)).map((crawl) => [crawl.id, crawl]));
    for (const id of ids) {
      const crawl = found.get(id);
      const before = this.#entries.get(id);
      this.#entries.set(id, { crawl, readAtMs, usedAtMs: before?.usedAtMs ?? readAtMs });
      const wasRunning = before?.crawl?.status === "running";
      // What runs of a paused crawl may end.
      const isOpen = crawl?.status === "running" || crawl?.status === "paused";
      const isSame = isOpen && crawl.generation === before?.crawl?.generation;
      if (wasRunning && !isSame) this.#deps.onStopped(id);
    }
  }
}
