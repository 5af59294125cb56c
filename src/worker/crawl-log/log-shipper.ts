import type { CrawlLogEntry } from "../../crawl/crawl-log.js";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { Service } from "../../lib/service.js";
import type { CrawlLogs } from "../../store/index.js";
import type { CrawlLog } from "./crawl-log.js";
import type { Journal } from "./journal.js";
import { type Batch, JournalReader } from "./journal-reader.js";

export type LogShipperOptions = {
  readonly node: string;
  /** How long lines are gathered before they are shipped, in milliseconds; many are shipped at once. @default 250 */
  readonly gatherMs: number;
  /** Wait after a failure, in milliseconds, doubled up to `maxPauseMs`. @default 500 */
  readonly pauseMs: number;
  /** @default 10_000 */
  readonly maxPauseMs: number;
};

const DEFAULTS = { gatherMs: 250, pauseMs: 500, maxPauseMs: 10_000 };

export type LogShipperDeps = {
  readonly log: CrawlLog;
  readonly store: Pick<CrawlLogs, "add">;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** Lines shipped together at most. */
const BATCH_LINES = 10_000;
/** Crawls whose lines are stored at once. */
const CRAWLS_AT_ONCE = 4;
/** How long a worker that stops goes on shipping, in milliseconds; the next one ships the rest. */
const FAREWELL_MS = 3_000;

/**
 * Ships what is in the journal to the database, in its order. How far it has come is kept beside the journal, so a
 * process that was killed goes on there, or a batch before: those lines the store knows. While the database is away
 * lines wait in the journal.
 *
 *   idle ──lines were written──▶ gathering ──▶ shipping ──all shipped──▶ idle
 *                                                 │ ▲
 *                                              failed └── paused
 */
export class LogShipper implements Service {
  readonly name = "log shipper";
  readonly #options: LogShipperOptions;
  readonly #deps: LogShipperDeps;
  #reader: JournalReader | undefined;
  #shipping: Promise<void> | undefined;
  #stopTimer: StopTimer | undefined;
  #failures = 0;
  #state: "new" | "started" | "stopping" | "stopped" = "new";

  constructor(given: Partial<LogShipperOptions> & Pick<LogShipperOptions, "node">, deps: LogShipperDeps) {
    this.#options = { ...DEFAULTS, ...given };
    this.#deps = deps;
  }

  /** Also ships what an earlier process left. */
  async start(): Promise<void> {
    this.#state = "started";
    this.#deps.log.onWritten(() => this.#arm(this.#options.gatherMs));
    this.#arm(0);
  }

  /** Ships what is there, if that is soon done. */
  async stop(): Promise<void> {
    if (this.#state !== "started") return;
    this.#state = "stopping";
    this.#stopTimer?.();
    await this.#deps.log.flush();
    let stopTimer: StopTimer = () => {};
    const late = new Promise<void>((resolve) => {
      stopTimer = this.#deps.clock.after(FAREWELL_MS, resolve);
    });
    const farewell = this.#failures > 0 ? this.#shipping : this.shipNow();
    await Promise.race([farewell, late]);
    stopTimer();
    this.#state = "stopped";
  }

  /** Resolves when what was in the journal is shipped, or could not be. */
  async shipNow(): Promise<void> {
    await this.#shipping;
    await this.#ship();
  }

  #arm(delayMs: number): void {
    if (this.#state !== "started" || this.#stopTimer !== undefined || this.#shipping !== undefined) return;
    this.#stopTimer = this.#deps.clock.after(delayMs, () => {
      this.#stopTimer = undefined;
      void this.#ship();
    });
  }

  #ship(): Promise<void> {
    this.#shipping ??= this.#shipAll().finally(() => {
      this.#shipping = undefined;
      if (this.#failures > 0) this.#arm(this.#pauseMs);
      else if (this.#isBehind) this.#arm(this.#options.gatherMs);
    });
    return this.#shipping;
  }

  get #isBehind(): boolean {
    const { journal } = this.#deps.log;
    return journal !== undefined && journal.shipped < journal.nextSeq - 1;
  }

  get #pauseMs(): number {
    const { pauseMs, maxPauseMs } = this.#options;
    return Math.min(maxPauseMs, pauseMs * 2 ** (this.#failures - 1));
  }

  async #shipAll(): Promise<void> {
    const { journal } = this.#deps.log;
    if (journal === undefined) return;
    this.#reader ??= new JournalReader(journal, { after: journal.shipped, holds: true });
    try {
      for (;;) {
        if (this.#state === "stopped") return;
        const batch = await this.#reader.next(BATCH_LINES);
        if (batch === undefined) break;
        await this.#store(journal, batch);
        await this.#deps.log.setShipped(batch.last);
        if (this.#failures >= 3) this.#deps.logger.info("lines of crawls' logs are shipped again");
        this.#failures = 0;
      }
    } catch (error) {
      this.#failures += 1;
      this.#reader.seek(journal.shipped);
      const level = this.#failures === 3 ? "warn" : "debug";
      const waiting = journal.nextSeq - 1 - journal.shipped;
      this.#deps.logger[level](
        { waiting, error: messageOf(error) },
        "cannot ship lines of crawls' logs: they wait on the disk",
      );
    } finally {
      journal.release();
    }
  }

  async #store(journal: Journal, { entries }: Batch): Promise<void> {
    const { node } = this.#options;
    const { store } = this.#deps;
    const byCrawl = [...grouped(entries)];
    const source = { node, journal: journal.id };
    for (let start = 0; start < byCrawl.length; start += CRAWLS_AT_ONCE) {
      const some = byCrawl.slice(start, start + CRAWLS_AT_ONCE);
      await Promise.all(some.map(([crawl, lines]) => store.add(crawl, source, lines)));
    }
  }
}

function grouped(entries: readonly CrawlLogEntry[]): ReadonlyMap<string, readonly CrawlLogEntry[]> {
  const byCrawl = new Map<string, CrawlLogEntry[]>();
  for (const entry of entries) {
    const lines = byCrawl.get(entry.crawl);
    if (lines === undefined) byCrawl.set(entry.crawl, [entry]);
    else lines.push(entry);
  }
  return byCrawl;
}
