import type { Collection } from "mongodb";
import type { Clock } from "../lib/clock.js";
import { isDuplicateKey } from "./duplicates.js";

/** Something that one master at a time does for all; `_id` is its name. Dates are the server's. */
export type DutyDocument = {
  readonly _id: string;
  readonly owner: string;
  readonly epoch: number;
  readonly expiresAt: Date;
};

export type Duty = {
  readonly name: string;
  /** Raised whenever it changes hands. */
  readonly epoch: number;
  /** Until when it may be done, on the monotonic clock of this process; counted from before the server was asked. */
  readonly validUntil: number;
};

const NEVER = new Date(0);

/**
 * Who does what only one may do at a time. A master that sleeps, or is cut off, finds its duty expired on its own clock
 * before anyone else can take it.
 */
export class Duties {
  readonly #duties: Collection<DutyDocument>;
  readonly #clock: Clock;
  readonly #ttlMs: number;

  /** @param options.ttlMs how long a duty is held without being taken again, in milliseconds */
  constructor(
    deps: { readonly duties: Collection<DutyDocument>; readonly clock: Clock },
    options: { readonly ttlMs: number },
  ) {
    this.#duties = deps.duties;
    this.#clock = deps.clock;
    this.#ttlMs = options.ttlMs;
  }

  /** Takes a duty that nobody has, or prolongs one's own. @returns undefined when another has it */
  async take(name: string, owner: string): Promise<Duty | undefined> {
    const askedAt = this.#clock.monotonic();
    const isMine = { $eq: ["$owner", { $literal: owner }] };
    const isOver = { $lte: [{ $ifNull: ["$expiresAt", NEVER] }, "$$NOW"] };
    const mayTake = { $or: [isMine, isOver] };
    const isKept = { $and: [isMine, { $not: [isOver] }] };
    const epoch = { $ifNull: ["$epoch", 0] };
    try {
      // Of one that is another's nothing changes.
      const held = await this.#duties.findOneAndUpdate(
        { _id: name },
        [
          {
            $set: {
              owner: { $cond: [mayTake, { $literal: owner }, "$owner"] },
              epoch: { $cond: [mayTake, { $cond: [isKept, epoch, { $add: [epoch, 1] }] }, epoch] },
              expiresAt: { $cond: [mayTake, { $add: ["$$NOW", this.#ttlMs] }, "$expiresAt"] },
            },
          },
        ],
        { upsert: true, returnDocument: "after" },
      );
      if (held?.owner !== owner) return undefined;
      return { name, epoch: held.epoch, validUntil: askedAt + this.#ttlMs };
    } catch (error) {
      // Two that were the first to want it: the other has it.
      if (isDuplicateKey(error)) return undefined;
      throw error;
    }
  }

  /** Gives it up, so that others need not wait for it to expire. */
  async release(name: string, owner: string): Promise<void> {
    await this.#duties.updateOne({ _id: name, owner }, { $set: { expiresAt: NEVER } });
  }
}
