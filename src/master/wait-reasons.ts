import type { CrawlStatus } from "../crawl/crawl.js";
import type { Clock } from "../lib/clock.js";
import type { MongoHostStates, UrlRow } from "../store/index.js";

export type WaitReasonsParts = {
  readonly hosts: Pick<MongoHostStates, "load">;
  readonly capacity: () => number;
  /** What this master's dispatcher says of a crawl's next URL on a host, if it has the host. */
  readonly dispatcherSays?: (crawl: string, host: string) => string | undefined;
  readonly clock: Clock;
};

/** Says of URLs that wait what they wait for. */
export class WaitReasons {
  readonly #parts: WaitReasonsParts;

  constructor(parts: WaitReasonsParts) {
    this.#parts = parts;
  }

  /** By id, for each of the rows that is queued, or has ended and is to be fetched again. */
  async of(
    crawl: { readonly id: string; readonly status: CrawlStatus },
    rows: readonly UrlRow[],
  ): Promise<ReadonlyMap<string, string>> {
    const reasons = new Map<string, string>();
    const elsewhere: UrlRow[] = [];
    for (const row of rows) {
      if (row.nextVisitAt !== undefined && crawl.status === "running") {
        reasons.set(row.id, `recrawl at ${new Date(row.nextVisitAt).toISOString()}`);
      }
      if (row.state !== "queued") continue;
      const reason = this.#known(crawl, row);
      if (reason === undefined) elsewhere.push(row);
      else reasons.set(row.id, reason);
    }
    if (elsewhere.length === 0) return reasons;
    // Another master may have the host: what the database remembers of it is nearly as good.
    const backoffs = await this.#backoffs(elsewhere);
    for (const { id, host } of elsewhere) reasons.set(id, backoffs.get(host) ?? "its turn");
    return reasons;
  }

  #known(
    { id, status }: { readonly id: string; readonly status: CrawlStatus },
    row: UrlRow,
  ): string | undefined {
    const { capacity, clock, dispatcherSays } = this.#parts;
    if (status !== "running") return status;
    if (capacity() === 0) return "no worker";
    if (row.readyAt !== undefined && row.readyAt > clock.now()) {
      return `retry at ${new Date(row.readyAt).toISOString()}`;
    }
    return dispatcherSays?.(id, row.host);
  }

  async #backoffs(rows: readonly UrlRow[]): Promise<ReadonlyMap<string, string>> {
    const { hosts, clock } = this.#parts;
    const backoffs = new Map<string, string>();
    for (const { host, backoffUntil, trouble } of await hosts.load([
      ...new Set(rows.map((row) => row.host)),
    ])) {
      if (backoffUntil === undefined || backoffUntil <= clock.now()) continue;
      const why = trouble?.why ?? "it asked for that";
      backoffs.set(host, `host backed off until ${new Date(backoffUntil).toISOString()} (${why})`);
    }
    return backoffs;
  }
}
