import type { Crawl } from "../crawl/crawl.js";
import type { NodeSelection } from "../crawl/node-selection.js";
import type { Clock } from "../lib/clock.js";
import type { MongoHostStates, UrlRow } from "../store/index.js";

export type WaitReasonsParts = {
  readonly hosts: Pick<MongoHostStates, "load">;
  /** Tasks that the nodes that take part in a crawl can have at once. */
  readonly capacity: (nodes: NodeSelection | undefined) => number;
  /** What this master's dispatcher says of a crawl's next URL on a host, if it has the host. */
  readonly dispatcherSays?: (crawl: string, host: string) => string | undefined;
  readonly clock: Clock;
};

type WaitingCrawl = Pick<Crawl, "id" | "status" | "nodes">;

/** Says of URLs that wait what they wait for. */
export class WaitReasons {
  readonly #parts: WaitReasonsParts;

  constructor(parts: WaitReasonsParts) {
    this.#parts = parts;
  }

  /** By id, for each of the rows that is queued, or has ended and is to be fetched again. */
  async of(crawl: WaitingCrawl, rows: readonly UrlRow[]): Promise<ReadonlyMap<string, string>> {
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

  #known({ id, status, nodes }: WaitingCrawl, row: UrlRow): string | undefined {
    const { capacity, clock, dispatcherSays } = this.#parts;
    if (status !== "running") return status;
    if (capacity(nodes) === 0) return nodes?.mode === "selected" ? "no selected worker" : "no worker";
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
