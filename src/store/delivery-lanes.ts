import type { Collection } from "mongodb";
import type { Clock } from "../lib/clock.js";
import { isDuplicateKey } from "./duplicates.js";

/** What waits for one target; `_id` is the lane's name. Dates are the server's. */
export type DeliveryLaneDocument = {
  readonly _id: string;
  readonly url?: string;
  /** When someone has to look into it. */
  readonly dueAt: Date;
  /** Its receiver is left alone until then. */
  readonly backoffUntil?: Date;
  /** Attempts in a row that its receiver did not answer, or not properly. */
  readonly failures: number;
  /** How often something was added. */
  readonly additions: number;
  readonly epoch: number;
  /** Whoever looks into it has it until then. */
  readonly leasedUntil: Date;
};

/** As much of a delivery as says when it is due. */
export type WaitingDocument = {
  readonly _id: string;
  readonly lane: string;
  readonly state: string;
  readonly nextAt: Date;
};

/** A lane that this process looks into. */
export type HeldLane = {
  readonly id: string;
  readonly epoch: number;
  readonly failures: number;
  readonly additions: number;
  /** Until when, on the monotonic clock of this process; counted from before the server was asked. */
  readonly validUntil: number;
};

const NEVER = new Date(0);
const MOST_TRIES = 5;

/**
 * Lanes of deliveries, one a target and crawl, so that what goes to one receiver goes in order and one after the other, and
 * a slow one holds up nobody else. A lane is there while something waits in it.
 *
 *   wake ──▶ due ──claim──▶ held ──release──▶ due again, later ──▶ …
 *             ▲              │  └──nothing waits──▶ gone
 *             └─not released─┘
 *               in time
 */
export class DeliveryLanes {
  readonly #lanes: Collection<DeliveryLaneDocument>;
  readonly #waiting: Collection<WaitingDocument>;
  readonly #clock: Clock;

  constructor(deps: {
    readonly lanes: Collection<DeliveryLaneDocument>;
    readonly waiting: Collection<WaitingDocument>;
    readonly clock: Clock;
  }) {
    this.#lanes = deps.lanes;
    this.#waiting = deps.waiting;
    this.#clock = deps.clock;
  }

  /** Something was added to them. */
  async wake(lanes: readonly { readonly id: string; readonly url?: string }[]): Promise<void> {
    if (lanes.length === 0) return;
    await this.#upsert(
      lanes.map(({ id, url }) => ({
        updateOne: {
          filter: { _id: id },
          update: [
            {
              $set: {
                ...(url !== undefined && { url: { $literal: url } }),
                additions: { $add: [{ $ifNull: ["$additions", 0] }, 1] },
                failures: { $ifNull: ["$failures", 0] },
                epoch: { $ifNull: ["$epoch", 0] },
                leasedUntil: { $ifNull: ["$leasedUntil", NEVER] },
                dueAt: SOON,
              },
            },
          ],
          upsert: true,
        },
      })),
    );
  }

  /** Wakes those of these lanes that are not there. */
  async ensure(lanes: readonly string[]): Promise<void> {
    const there = await this.#lanes.distinct("_id", { _id: { $in: [...lanes] } });
    const known = new Set(there);
    await this.wake(lanes.filter((id) => !known.has(id)).map((id) => ({ id })));
  }

  /** Takes the lane that has been due for longest, if any is, for so long. */
  async claim(leaseMs: number): Promise<HeldLane | undefined> {
    const askedAt = this.#clock.monotonic();
    const lane = await this.#lanes.findOneAndUpdate(
      { $expr: { $and: [{ $lte: ["$dueAt", "$$NOW"] }, { $lte: ["$leasedUntil", "$$NOW"] }] } },
      [{ $set: { epoch: { $add: ["$epoch", 1] }, leasedUntil: { $add: ["$$NOW", leaseMs] } } }],
      { sort: { dueAt: 1 }, returnDocument: "after" },
    );
    if (lane === null) return undefined;
    const { _id, epoch, failures, additions } = lane;
    return { id: _id, epoch, failures, additions, validUntil: askedAt + leaseMs };
  }

  /** Keeps a lane for longer. @returns undefined when another has it by now */
  async renew(lane: HeldLane, leaseMs: number): Promise<HeldLane | undefined> {
    const askedAt = this.#clock.monotonic();
    const { matchedCount } = await this.#lanes.updateOne({ _id: lane.id, epoch: lane.epoch }, [
      { $set: { leasedUntil: { $add: ["$$NOW", leaseMs] } } },
    ]);
    return matchedCount === 0 ? undefined : { ...lane, validUntil: askedAt + leaseMs };
  }

  /**
   * Gives a lane back; it is due again when the next of what waits in it is, and not before its receiver may be asked.
   * @param failures attempts in a row that its receiver did not answer
   * @param backoffMs for how long its receiver is left alone
   */
  async release(lane: HeldLane, failures: number, backoffMs: number): Promise<void> {
    const mine = { _id: lane.id, epoch: lane.epoch };
    const next = await this.#waiting
      .find({ lane: lane.id, state: "waiting" })
      .sort({ nextAt: 1 })
      .limit(1)
      .toArray();
    const [first] = next;
    if (first === undefined) {
      const { deletedCount } = await this.#lanes.deleteOne({ ...mine, additions: lane.additions });
      if (deletedCount > 0) return;
    }
    const backoffUntil = { $add: ["$$NOW", backoffMs] };
    // What was added since may not have been seen.
    const isSeen = { $eq: ["$additions", lane.additions] };
    await this.#lanes.updateOne(mine, [
      {
        $set: {
          failures,
          leasedUntil: NEVER,
          backoffUntil,
          dueAt: { $max: [backoffUntil, { $cond: [isSeen, first?.nextAt ?? "$$NOW", "$$NOW"] }] },
        },
      },
    ]);
  }

  /** Two that insert the same lane at once: one of them finds it there. */
  async #upsert(operations: Parameters<Collection<DeliveryLaneDocument>["bulkWrite"]>[0]): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        await this.#lanes.bulkWrite(operations, { ordered: false });
        return;
      } catch (error) {
        if (!isDuplicateKey(error) || tries === MOST_TRIES) throw error;
      }
    }
  }
}

/** At once, unless the receiver is to be left alone. */
const SOON = {
  $max: [{ $ifNull: ["$backoffUntil", NEVER] }, { $min: [{ $ifNull: ["$dueAt", "$$NOW"] }, "$$NOW"] }],
};
