import type { AnyBulkWriteOperation, Collection } from "mongodb";
import type { HostState, HostStates } from "../crawl/task.js";
import type { Retrier } from "./retrier.js";

/** What is remembered of a host's lane; `_id` is the host. */
export type HostDocument = Omit<HostState, "host"> & { readonly _id: string };

/** The lanes' memory in MongoDB, so that politeness survives the master that held a lane. */
export class MongoHostStates implements HostStates {
  readonly #hosts: Collection<HostDocument>;
  readonly #retrier: Retrier;

  constructor(hosts: Collection<HostDocument>, retrier: Retrier) {
    this.#hosts = hosts;
    this.#retrier = retrier;
  }

  async load(hosts: readonly string[]): Promise<readonly HostState[]> {
    if (hosts.length === 0) return [];
    const documents = await this.#hosts.find({ _id: { $in: [...hosts] } }).toArray();
    return documents.map(({ _id, ...state }) => ({ host: _id, ...state }));
  }

  async note(states: readonly HostState[]): Promise<void> {
    const byHost = new Map<string, HostState>();
    for (const state of states) byHost.set(state.host, merged(byHost.get(state.host), state));
    if (byHost.size === 0) return;
    const updates = [...byHost.values()].map(toUpdate);
    await this.#retrier.run("note the states of hosts", () =>
      this.#hosts.bulkWrite(updates, { ordered: false }),
    );
  }
}

function merged(known: HostState | undefined, state: HostState): HostState {
  const lastEndedAt = later(known?.lastEndedAt, state.lastEndedAt);
  const backoffUntil = later(known?.backoffUntil, state.backoffUntil);
  return {
    ...known,
    ...state,
    ...(lastEndedAt !== undefined && { lastEndedAt }),
    ...(backoffUntil !== undefined && { backoffUntil }),
  };
}

function later(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.max(one, other);
}

function toUpdate({
  host,
  lastEndedAt,
  backoffUntil,
  crawlDelayMs,
}: HostState): AnyBulkWriteOperation<HostDocument> {
  const $max = {
    ...(lastEndedAt !== undefined && { lastEndedAt }),
    ...(backoffUntil !== undefined && { backoffUntil }),
  };
  const update = {
    ...(Object.keys($max).length > 0 && { $max }),
    ...(crawlDelayMs !== undefined && { $set: { crawlDelayMs } }),
  };
  // A state that says nothing still makes the host known.
  const said = Object.keys(update).length > 0 ? update : { $setOnInsert: { _id: host } };
  return { updateOne: { filter: { _id: host }, update: said, upsert: true } };
}
