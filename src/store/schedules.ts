import { randomBytes } from "node:crypto";
import type { Collection, UpdateFilter } from "mongodb";
import { z } from "zod";
import { NotFoundError } from "./errors.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { Retrier } from "./retrier.js";
import type { NewTick, Ticks } from "./ticks.js";

/** What is done about a tick while the schedule's last crawl has not ended. */
export const OVERLAPS = ["skip", "queue", "replace"] as const;
export type Overlap = (typeof OVERLAPS)[number];

/** What is done about ticks that no master was there for in time. */
export const MISSED_POLICIES = ["skip", "last", "all"] as const;
export type MissedPolicy = (typeof MISSED_POLICIES)[number];

/** States in which a crawl has ended. */
export const END_STATUSES = ["finished", "failed", "closed"] as const;
export type EndStatus = (typeof END_STATUSES)[number];

/** Which crawls' ends a schedule follows: all members must fit. */
export type Follows = {
  readonly schedule?: string;
  readonly spider?: string;
  readonly crawl?: string;
  readonly status: readonly EndStatus[];
};

/** What a user decides about a schedule; it has either `cron` or `after`. */
export type ScheduleSpec = {
  readonly name?: string;
  readonly cron?: string;
  /** IANA name of the time zone in which `cron` is read. */
  readonly timezone: string;
  readonly after?: Follows;
  readonly overlap: Overlap;
  /** Ticks that wait at most, with `overlap: "queue"`. */
  readonly maxQueued: number;
  readonly missed: MissedPolicy;
  /** Missed ticks made up for at most, with `missed: "all"`. */
  readonly maxMissed: number;
  /** The request for each crawl, as it was given. */
  readonly crawl: Readonly<Record<string, unknown>>;
};

/** A schedule as it is stored. Instants in milliseconds since the epoch. */
export type ScheduleDocument = Omit<ScheduleSpec, "crawl"> & {
  readonly _id: string;
  /** As JSON text: its members may have names that MongoDB refuses. */
  readonly crawl: string;
  readonly paused: boolean;
  /** Raised by each change that a user makes. */
  readonly revision: number;
  readonly createdAt: number;
  readonly updatedAt: number;
  /** The next tick; absent when paused, and without `cron`. */
  readonly nextAt?: number;
  /** The latest instant of `cron` that has become a tick. */
  readonly firedAt?: number;
  /** Raised whenever it is decided that a tick starts, or not after all. */
  readonly turn: number;
  /** The tick that is being started: its crawl may be there, and may not. */
  readonly starting?: string;
  readonly lastCrawl?: string;
};

export type ScheduleRecord = Omit<ScheduleDocument, "_id" | "crawl"> & {
  readonly id: string;
  readonly crawl: Readonly<Record<string, unknown>>;
};

const position = z.tuple([z.number(), z.string()]);

/**
 * All schedules, and who may act for them: anyone, by compare and set.
 *
 * A tick comes about together with the schedule's moving on to the next one (`fire`), so that a master which slept
 * in between cannot bring about a tick of a schedule that was changed, paused or removed meanwhile. Which tick
 * starts is decided by moving `turn` on from where the last crawl was looked at (`begin`), so of two masters that
 * decide about two ticks at once, one has to look again. What has begun is completed by whoever finds it.
 */
export class Schedules {
  readonly #schedules: Collection<ScheduleDocument>;
  readonly #ticks: Ticks;
  readonly #retrier: Retrier;

  constructor(deps: {
    readonly schedules: Collection<ScheduleDocument>;
    readonly ticks: Ticks;
    readonly retrier: Retrier;
  }) {
    this.#schedules = deps.schedules;
    this.#ticks = deps.ticks;
    this.#retrier = deps.retrier;
  }

  async create(
    spec: ScheduleSpec,
    options: { readonly at: number; readonly nextAt: number | undefined; readonly paused: boolean },
  ): Promise<ScheduleRecord> {
    const document: ScheduleDocument = {
      _id: randomBytes(8).toString("hex"),
      ...spec,
      crawl: JSON.stringify(spec.crawl),
      paused: options.paused,
      revision: 1,
      turn: 0,
      createdAt: options.at,
      updatedAt: options.at,
      ...(options.nextAt !== undefined && { nextAt: options.nextAt }),
    };
    await this.#retrier.run("create a schedule", async (again) => {
      if (again && (await this.#schedules.countDocuments({ _id: document._id })) > 0) return;
      await this.#schedules.insertOne(document);
    });
    return toRecord(document);
  }

  async get(id: string): Promise<ScheduleRecord | undefined> {
    const document = await this.#schedules.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  /** Oldest first. */
  async list({ limit = DEFAULT_LIST_LIMIT, cursor }: ListOptions = {}): Promise<ListPage<ScheduleRecord>> {
    const last = cursor === undefined ? undefined : decodeCursor(cursor, position);
    const after =
      last === undefined
        ? {}
        : { $or: [{ createdAt: { $gt: last[0] } }, { createdAt: last[0], _id: { $gt: last[1] } }] };
    const documents = await this.#schedules
      .find(after)
      .sort({ createdAt: 1, _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ createdAt, _id }) => encodeCursor([createdAt, _id]));
  }

  /**
   * Changes what a user decides, if nobody else did so since it was read.
   * @param nextAt its next tick from now on; undefined: none
   * @returns undefined when someone did, or it was removed
   */
  async change(
    { id, revision }: Pick<ScheduleRecord, "id" | "revision">,
    changes: {
      readonly spec?: { readonly [Member in keyof ScheduleSpec]?: ScheduleSpec[Member] | undefined };
      readonly paused?: boolean;
      readonly nextAt: number | undefined;
      readonly at: number;
    },
  ): Promise<ScheduleRecord | undefined> {
    const { crawl, ...spec } = changes.spec ?? {};
    const members = [
      ...Object.entries(spec),
      ["nextAt", changes.nextAt] as const,
      ...("spec" in changes && crawl !== undefined ? [["crawl", JSON.stringify(crawl)] as const] : []),
      ...(changes.paused === undefined ? [] : [["paused", changes.paused] as const]),
    ];
    const $set = Object.fromEntries(members.filter(([, value]) => value !== undefined));
    const gone = members.flatMap(([name, value]) => (value === undefined ? [[name, true]] : []));
    const update = {
      $set: { ...$set, updatedAt: changes.at },
      $inc: { revision: 1 },
      ...(gone.length > 0 && { $unset: Object.fromEntries(gone) }),
    } as UpdateFilter<ScheduleDocument>;
    const changed = await this.#retrier.run("change a schedule", () =>
      this.#schedules.findOneAndUpdate({ _id: id, revision }, update, { returnDocument: "after" }),
    );
    return changed === null ? undefined : toRecord(changed);
  }

  /** Removes it with its history. What it has started goes on. @throws NotFoundError */
  async remove(id: string): Promise<void> {
    const removed = await this.#retrier.run("remove a schedule", () =>
      this.#schedules.deleteOne({ _id: id }),
    );
    // Also when it was not there: who removed it may not have lived to do this.
    await this.#ticks.drop(id);
    if (removed.deletedCount === 0) throw new NotFoundError("schedule", id);
  }

  /** Those with a tick due at this instant, those due for longest first. */
  async due(now: number, limit = 100): Promise<readonly ScheduleRecord[]> {
    const documents = await this.#schedules
      .find({ nextAt: { $lte: now } })
      .sort({ nextAt: 1 })
      .limit(limit)
      .toArray();
    return documents.map(toRecord);
  }

  /** Those of which a tick is being started: by someone who may have died over it. */
  async beginning(): Promise<readonly string[]> {
    const documents = await this.#schedules
      .find({ starting: { $gt: "" } })
      .project<{ _id: string }>({ _id: 1 })
      .toArray();
    return documents.map(({ _id }) => _id);
  }

  /** When the next tick of any is due. */
  async nextDueAt(): Promise<number | undefined> {
    const next = await this.#schedules.findOne(
      { nextAt: { $gt: 0 } },
      { sort: { nextAt: 1 }, projection: { nextAt: 1 } },
    );
    return next?.nextAt;
  }

  /** Those that follow crawls' ends, were there at that instant, and are not paused. */
  async following(endedAt: number): Promise<readonly ScheduleRecord[]> {
    const documents = await this.#schedules
      .find({ "after.status": { $exists: true }, paused: false, createdAt: { $lte: endedAt } })
      .toArray();
    return documents.map(toRecord);
  }

  /**
   * Records ticks that are due, then moves the schedule on. Who dies in between is followed by someone who finds it due
   * still: that one makes the same ticks, under the same keys, so that there is one of each. Not in a transaction: one that
   * is left open by a process that was killed keeps everybody from the schedule for a minute.
   * @returns false when someone else moved it, or it was changed since it was read
   */
  async fire(
    schedule: Pick<ScheduleRecord, "id" | "revision" | "nextAt">,
    ticks: readonly NewTick[],
    to: { readonly firedAt: number; readonly nextAt: number | undefined },
  ): Promise<boolean> {
    const { id, revision, nextAt } = schedule;
    if (nextAt === undefined) return false;
    const asItWas = { _id: id, revision, nextAt, paused: false };
    if ((await this.#schedules.findOne(asItWas, { projection: { _id: 1 } })) === null) return false;
    await this.#ticks.record(ticks);
    const moved = await this.#retrier.run("move a schedule on", () =>
      this.#schedules.updateOne(
        asItWas,
        to.nextAt === undefined
          ? { $set: { firedAt: to.firedAt }, $unset: { nextAt: true } }
          : { $set: { firedAt: to.firedAt, nextAt: to.nextAt } },
      ),
    );
    return moved.matchedCount > 0;
  }

  /**
   * Decides that a tick starts, if nothing was decided since the schedule was read.
   * @returns false when the schedule has to be looked at again
   */
  async begin({ id, turn }: Pick<ScheduleRecord, "id" | "turn">, tick: string): Promise<boolean> {
    const begun = await this.#retrier.run("begin a tick", (again) =>
      this.#schedules.updateOne(
        again
          ? {
              _id: id,
              $or: [
                { turn, starting: { $exists: false } },
                { turn: turn + 1, starting: tick },
              ],
            }
          : { _id: id, turn, starting: { $exists: false } },
        [{ $set: { starting: { $literal: tick }, turn: { $literal: turn + 1 } } }],
      ),
    );
    return begun.matchedCount > 0;
  }

  /** Notes what the tick that was being started came to: a crawl, or nothing. Harmless when someone did. */
  async begun(id: string, tick: string, crawl?: string): Promise<void> {
    await this.#retrier.run("note a tick's crawl", () =>
      this.#schedules.updateOne(
        { _id: id, starting: tick },
        {
          $unset: { starting: true },
          $inc: { turn: 1 },
          ...(crawl !== undefined && { $set: { lastCrawl: crawl } }),
        },
      ),
    );
  }
}

function toRecord({ _id, crawl, ...fields }: ScheduleDocument): ScheduleRecord {
  return { id: _id, ...fields, crawl: JSON.parse(crawl) as Record<string, unknown> };
}
