import type { Collection, Filter } from "mongodb";
import { z } from "zod";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { Retrier } from "./retrier.js";

/**
 * What became of a tick so far.
 *
 *   due ──▶ starting ──▶ started
 *    │ ▲        │
 *    │ └─queued─┤──▶ failed
 *    └─────┴──▶ skipped
 */
export const TICK_STATES = ["due", "queued", "starting", "started", "skipped", "failed"] as const;
export type TickState = (typeof TICK_STATES)[number];

/** What brought a tick about: its hour, the end of a crawl, or someone. */
export type TickCause = "cron" | "after" | "run";

/**
 * Why a tick was skipped: `overlap`, the last crawl had not ended; `waiting`, another tick waits for that already;
 * `replaced`, a later tick was due as well; `missed`, no master was there in time; `paused`; `chain`, too many crawls
 * had followed one another.
 */
export const SKIP_REASONS = ["overlap", "waiting", "replaced", "missed", "paused", "chain"] as const;
export type TickSkipReason = (typeof SKIP_REASONS)[number];

/** One time at which a schedule is to make a crawl. Instants in milliseconds since the epoch. */
export type NewTick = {
  /** Begins with the schedule's id and a colon; the same again is the same tick. */
  readonly id: string;
  readonly schedule: string;
  /** The instant that it stands for. */
  readonly at: number;
  readonly cause: TickCause;
  /** The crawl whose end brought it about. */
  readonly after?: string;
  /** Crawls that had followed one another before it. */
  readonly chain: number;
  readonly recordedAt: number;
  /** It is over before it began. */
  readonly skipped?: TickSkipReason;
};

export type TickDocument = Omit<NewTick, "id" | "skipped"> & {
  readonly _id: string;
  readonly state: TickState;
  /** There while something is to be done about it. */
  readonly open?: true;
  /** A stable word. */
  readonly reason?: string;
  /** For people. */
  readonly error?: string;
  readonly crawl?: string;
  readonly endedAt?: number;
  /** It failed, and that has not been told yet. */
  readonly untold?: true;
  readonly expiresAt?: Date;
};

export type TickRecord = Omit<TickDocument, "_id" | "expiresAt" | "untold"> & { readonly id: string };

const position = z.tuple([z.number(), z.string()]);

/** The ticks of all schedules, until they are old. */
export class Ticks {
  readonly #ticks: Collection<TickDocument>;
  readonly #retrier: Retrier;
  readonly #keptForMs: number;

  constructor(ticks: Collection<TickDocument>, retrier: Retrier, options: { readonly keptForMs: number }) {
    this.#ticks = ticks;
    this.#retrier = retrier;
    this.#keptForMs = options.keptForMs;
  }

  /** Records those that are not known. @returns how many there were of them */
  async record(ticks: readonly NewTick[]): Promise<number> {
    if (ticks.length === 0) return 0;
    const { upsertedCount } = await this.#retrier.run("record ticks", () =>
      this.#ticks.bulkWrite(
        ticks.map((tick) => {
          const { _id, ...fields } = this.#documentOf(tick);
          return { updateOne: { filter: { _id }, update: { $setOnInsert: fields }, upsert: true } };
        }),
      ),
    );
    return upsertedCount;
  }

  async get(id: string): Promise<TickRecord | undefined> {
    const document = await this.#ticks.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  /** The schedules that have ticks about which something is to be done. */
  async openSchedules(): Promise<readonly string[]> {
    return this.#ticks.distinct("schedule", { open: true });
  }

  /** Those of a schedule about which something is to be done, in the order in which they came about. */
  async open(schedule: string, limit = 200): Promise<readonly TickRecord[]> {
    const documents = await this.#ticks
      .find({ open: true, schedule })
      .sort({ at: 1, _id: 1 })
      .limit(limit)
      .toArray();
    return documents.map(toRecord);
  }

  /** Has a tick wait for the end of the schedule's last crawl. */
  queue(id: string): Promise<boolean> {
    return this.#change(id, ["due"], { $set: { state: "queued" } });
  }

  /** It is being started now. True also when that is known. */
  starting(id: string): Promise<boolean> {
    return this.#change(id, ["due", "queued", "starting"], { $set: { state: "starting" } });
  }

  started(id: string, crawl: string, at: number): Promise<boolean> {
    return this.#end(id, ["starting"], { state: "started", crawl }, at);
  }

  skip(id: string, reason: TickSkipReason, at: number): Promise<boolean> {
    return this.#end(id, ["due", "queued"], { state: "skipped", reason }, at);
  }

  /** @param reason a stable word @param error for people */
  fail(id: string, reason: string, error: string, at: number): Promise<boolean> {
    return this.#end(id, ["starting"], { state: "failed", reason, error, untold: true }, at);
  }

  /** Those that failed of which nobody has been told. */
  async untold(limit = 100): Promise<readonly TickRecord[]> {
    return (await this.#ticks.find({ untold: true }).limit(limit).toArray()).map(toRecord);
  }

  async told(id: string): Promise<void> {
    await this.#retrier.run("note that a tick was told of", () =>
      this.#ticks.updateOne({ _id: id }, { $unset: { untold: true } }),
    );
  }

  /** Newest first. */
  async list(
    schedule: string,
    options: ListOptions & { readonly state?: TickState } = {},
  ): Promise<ListPage<TickRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor, state } = options;
    const last = cursor === undefined ? undefined : decodeCursor(cursor, position);
    const filter: Filter<TickDocument> = {
      schedule,
      ...(state !== undefined && { state }),
      ...(last !== undefined && { $or: [{ at: { $lt: last[0] } }, { at: last[0], _id: { $lt: last[1] } }] }),
    };
    const documents = await this.#ticks
      .find(filter)
      .sort({ at: -1, _id: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ at, _id }) => encodeCursor([at, _id]));
  }

  /** Removes all of a schedule. */
  async drop(schedule: string): Promise<void> {
    await this.#retrier.run("remove a schedule's ticks", () => this.#ticks.deleteMany({ schedule }));
  }

  #documentOf({ id, skipped, ...tick }: NewTick): TickDocument {
    if (skipped === undefined) return { _id: id, ...tick, state: "due", open: true };
    return {
      ...{ _id: id, ...tick, state: "skipped", reason: skipped },
      ...{ endedAt: tick.recordedAt, expiresAt: new Date(tick.recordedAt + this.#keptForMs) },
    };
  }

  #end(
    id: string,
    from: readonly TickState[],
    to: Partial<TickDocument> & { readonly state: TickState },
    at: number,
  ): Promise<boolean> {
    const expiresAt = new Date(at + this.#keptForMs);
    return this.#change(id, from, { $set: { ...to, endedAt: at, expiresAt }, $unset: { open: true } });
  }

  /** @returns whether it was in one of these states; false too when an earlier try of this brought it out of them */
  async #change(
    id: string,
    from: readonly TickState[],
    update: { readonly $set: Partial<TickDocument>; readonly $unset?: { readonly open: true } },
  ): Promise<boolean> {
    return this.#retrier.run("change a tick", async () => {
      const changed = await this.#ticks.updateOne({ _id: id, state: { $in: [...from] } }, update);
      return changed.matchedCount > 0;
    });
  }
}

function toRecord({ _id, expiresAt: _expiresAt, untold: _untold, ...fields }: TickDocument): TickRecord {
  return { id: _id, ...fields };
}
