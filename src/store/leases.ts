import type { Collection } from "mongodb";
import type { Clock } from "../lib/clock.js";
import { isDuplicateKey } from "./duplicates.js";

/** The lease of one shard; `_id` is its number. Dates are the server's. */
export type LeaseDocument = {
  readonly _id: number;
  /** Absent: nobody has it. */
  readonly owner?: string;
  readonly epoch: number;
  readonly since?: Date;
  readonly expiresAt: Date;
};

/** A master that takes part; `_id` is its id. */
export type MasterDocument = { readonly _id: string; readonly heartbeatAt: Date };

export type HeldShards = {
  /** The epoch of each shard's lease. */
  readonly shards: ReadonlyMap<number, number>;
  /**
   * Until when they may be acted for, on the monotonic clock of this process. Counted from before the
   * server was asked, so it is over here before it is over there.
   */
  readonly validUntil: number;
};

export type LeaseView = {
  readonly shard: number;
  readonly epoch: number;
  /** Undefined when nobody holds it now. */
  readonly owner?: string;
  /** Since when, in milliseconds since the epoch by the server's clock. */
  readonly since?: number;
};

export type LeasesOptions = {
  /** @default 64 */
  readonly shardCount: number;
  /** How long a lease holds without being renewed, in milliseconds. @default 10_000 */
  readonly ttlMs: number;
};

const NEVER = new Date(0);

/**
 * Which master may dispatch for which shard.
 *
 *   free ──claim──▶ held (epoch + 1) ──heartbeat──▶ held on
 *    ▲                │        │
 *    └──── release ◀──┘        └── not renewed in time ──▶ free to claim, with the next epoch
 *
 * All instants are compared by the server, with its own clock. A master that slept finds its leases either
 * still its own, so that nobody dispatched meanwhile, or gone; and tasks sent under an older epoch are told by it.
 */
export class Leases {
  readonly #leases: Collection<LeaseDocument>;
  readonly #masters: Collection<MasterDocument>;
  readonly #clock: Clock;
  readonly #options: LeasesOptions;

  constructor(
    deps: {
      readonly leases: Collection<LeaseDocument>;
      readonly masters: Collection<MasterDocument>;
      readonly clock: Clock;
    },
    options: LeasesOptions,
  ) {
    this.#leases = deps.leases;
    this.#masters = deps.masters;
    this.#clock = deps.clock;
    this.#options = options;
  }

  /** Number of shards that hosts hash into. */
  get shardCount(): number {
    return this.#options.shardCount;
  }

  /** Sees to it that there is a lease for each shard; harmless when several processes do so at once. */
  async ensureShards(): Promise<void> {
    const known = await this.#leases.countDocuments({ _id: { $lt: this.#options.shardCount } });
    if (known === this.#options.shardCount) return;
    const all = Array.from({ length: this.#options.shardCount }, (_, shard) => ({
      updateOne: {
        filter: { _id: shard },
        update: { $setOnInsert: { epoch: 0, expiresAt: NEVER } },
        upsert: true,
      },
    }));
    try {
      await this.#leases.bulkWrite(all, { ordered: false });
    } catch (error) {
      if (!isDuplicateKey(error)) throw error;
    }
  }

  /** Tells that this master lives, and prolongs its leases. Resolves with those it has. */
  async heartbeat(master: string): Promise<HeldShards> {
    const askedAt = this.#clock.monotonic();
    await Promise.all([
      this.#masters.updateOne({ _id: master }, [{ $set: { heartbeatAt: "$$NOW" } }], { upsert: true }),
      this.#renew(master),
    ]);
    return this.#heldBy(master, askedAt);
  }

  /** Takes up to `max` shards that nobody holds, prolonging the others. Resolves with all that it has then. */
  async claim(master: string, max: number): Promise<HeldShards> {
    const askedAt = this.#clock.monotonic();
    await this.#renew(master);
    const free = await this.#leases.find(IS_FREE).project<{ _id: number }>({ _id: 1 }).toArray();
    // Masters that start together would all reach for the same ones.
    const wanted = shuffled(free.map(({ _id }) => _id)).slice(0, max);
    if (wanted.length > 0) {
      await this.#leases.updateMany({ _id: { $in: wanted }, ...IS_FREE }, [
        {
          $set: {
            owner: { $literal: master },
            epoch: { $add: ["$epoch", 1] },
            since: "$$NOW",
            expiresAt: this.#expiry,
          },
        },
      ]);
    }
    return this.#heldBy(master, askedAt);
  }

  /** Gives shards up at once, so that others need not wait for the leases to expire. */
  async release(master: string, shards: readonly number[]): Promise<void> {
    await this.#leases.updateMany(
      { _id: { $in: [...shards] }, owner: master },
      { $set: { expiresAt: NEVER }, $unset: { owner: "", since: "" } },
    );
  }

  /** A master leaves for good: its shards are free and it is counted no more. */
  async leave(master: string): Promise<void> {
    await this.#leases.updateMany(
      { owner: master },
      { $set: { expiresAt: NEVER }, $unset: { owner: "", since: "" } },
    );
    await this.#masters.deleteOne({ _id: master });
  }

  /** Masters whose last heartbeat is younger than a lease. Those silent for long are forgotten on the way. */
  async liveMasters(): Promise<readonly string[]> {
    const { ttlMs } = this.#options;
    const [live] = await Promise.all([
      this.#masters
        .find({ $expr: { $gt: ["$heartbeatAt", { $subtract: ["$$NOW", ttlMs] }] } })
        .sort({ _id: 1 })
        .toArray(),
      this.#masters.deleteMany({ $expr: { $lt: ["$heartbeatAt", { $subtract: ["$$NOW", 100 * ttlMs] }] } }),
    ]);
    return live.map(({ _id }) => _id);
  }

  /** Who holds which shard, for whoever has to tell the tasks of a stale master. */
  async view(): Promise<readonly LeaseView[]> {
    const leases = await this.#leases
      .aggregate<LeaseDocument & { isHeld: boolean }>([
        { $set: { isHeld: { $gt: ["$expiresAt", "$$NOW"] } } },
        { $sort: { _id: 1 } },
      ])
      .toArray();
    return leases.map(({ _id, epoch, owner, since, isHeld }) => ({
      shard: _id,
      epoch,
      ...(isHeld && owner !== undefined && { owner }),
      ...(isHeld && since !== undefined && { since: since.getTime() }),
    }));
  }

  get #expiry() {
    return { $add: ["$$NOW", this.#options.ttlMs] };
  }

  async #renew(master: string): Promise<void> {
    await this.#leases.updateMany({ owner: master }, [{ $set: { expiresAt: this.#expiry } }]);
  }

  async #heldBy(master: string, askedAt: number): Promise<HeldShards> {
    const mine = await this.#leases.find({ owner: master }).toArray();
    return {
      shards: new Map(mine.map(({ _id, epoch }) => [_id, epoch])),
      validUntil: askedAt + this.#options.ttlMs,
    };
  }
}

const IS_FREE = { $expr: { $lte: ["$expiresAt", "$$NOW"] } };

function shuffled(shards: readonly number[]): readonly number[] {
  return shards
    .map((shard) => ({ shard, at: Math.random() }))
    .sort((one, other) => one.at - other.at)
    .map(({ shard }) => shard);
}
