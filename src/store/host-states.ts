import type { AnyBulkWriteOperation, Collection } from "mongodb";
import {
  type HostNote,
  type HostState,
  type HostStates,
  mergeHostNotes,
} from "../crawl/dispatch/host-state.js";
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

  async note(notes: readonly HostNote[]): Promise<void> {
    const updates = mergeHostNotes(notes).map(toUpdate);
    if (updates.length === 0) return;
    await this.#retrier.run("note the states of hosts", () =>
      this.#hosts.bulkWrite(updates, { ordered: false }),
    );
  }
}

function toUpdate(note: HostNote): AnyBulkWriteOperation<HostDocument> {
  const { host, lastEndedAt, backoffUntil, crawlDelayMs, lastFetchMs, trouble, debt } = note;
  const filter = { _id: host };
  const set = {
    ...(crawlDelayMs !== undefined && { crawlDelayMs }),
    ...(lastFetchMs !== undefined && { lastFetchMs }),
    ...(trouble !== undefined && { trouble }),
  };
  const latest = {
    ...(lastEndedAt !== undefined && { lastEndedAt }),
    ...(backoffUntil !== undefined && Number.isFinite(backoffUntil) && { backoffUntil }),
  };
  if (debt !== undefined) {
    // Made twice, after a lost connection, it is paid for twice: slower than need be, never faster.
    const later = Object.entries(latest).map(([name, at]) => [name, { $max: [`$${name}`, at] }]);
    const paidUntil = { $add: [{ $max: ["$paidUntil", debt.from] }, debt.ms] };
    const update = [{ $set: { ...literally(set), ...Object.fromEntries(later), paidUntil } }];
    return { updateOne: { filter, update, upsert: true } };
  }
  const update = {
    ...(Object.keys(latest).length > 0 && { $max: latest }),
    ...(Object.keys(set).length > 0 && { $set: set }),
  };
  // A state that says nothing still makes the host known.
  const said = Object.keys(update).length > 0 ? update : { $setOnInsert: { _id: host } };
  return { updateOne: { filter, update: said, upsert: true } };
}

/** In a pipeline text that begins with a dollar sign would name a member. */
function literally(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, { $literal: value }]));
}
