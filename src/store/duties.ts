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
    const isOver = { $lte: ["$expiresAt", "$$NOW"] };
    const isKept = { $and: [{ $eq: ["$owner", { $literal: owner }] }, { $gt: ["$expiresAt", "$$NOW"] }] };
    try {
      const held = await this.#duties.findOneAndUpdate(
        { _id: name, $or: [{ owner }, { $expr: isOver }] },
        [
          {
            $set: {
              epoch: { $cond: [isKept, "$epoch", { $add: [{ $ifNull: ["$epoch", 0] }, 1] }] },
              owner: { $literal: owner },
              expiresAt: { $add: ["$$NOW", this.#ttlMs] },
            },
          },
        ],
        { upsert: true, returnDocument: "after" },
      );
      return held === null ? undefined : { name, epoch: held.epoch, validUntil: askedAt + this.#ttlMs };
    } catch (error) {
      // It is there, and another's: nothing matched, and nothing could be inserted.
      if (isDuplicateKey(error)) return undefined;
      throw error;
    }
  }

  /** Gives it up, so that others need not wait for it to expire. */
  async release(name: string, owner: string): Promise<void> {
    await this.#duties.updateOne({ _id: name, owner }, { $set: { expiresAt: new Date(0) } });
  }
}
