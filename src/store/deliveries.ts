import { hash } from "node:crypto";
import type { Collection, Filter } from "mongodb";
import { z } from "zod";
import type { Clock } from "../lib/clock.js";
import type { DeliveryLanes } from "./delivery-lanes.js";
import { ConflictError, NotFoundError } from "./errors.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** Where something is delivered to. */
export type DeliveryTarget = {
  readonly kind: "webhook";
  /** Absolute http(s) URL. */
  readonly url: string;
  /** What posts are signed with: `whsec_` and base64, or any other text as it is. @default they are not signed */
  readonly secret?: string;
  /** Sent along. */
  readonly headers?: Readonly<Record<string, string>>;
};

/** Something to be delivered. */
export type NewDelivery = {
  /** Unique; the same again is the same delivery. Receivers see it as `webhook-id`. */
  readonly id: string;
  readonly target: DeliveryTarget;
  /** What it tells, for example `items.stored`. */
  readonly type: string;
  /** In milliseconds since the epoch. */
  readonly at: number;
  readonly crawl?: string;
  /** What it tells of that: `data` of what is posted. */
  readonly body: Readonly<Record<string, unknown>>;
};

/** What tells of items. */
export const ITEMS_STORED = "items.stored";

/** `waiting` for its first or next attempt, `delivered`, or `failed` for good. */
export const DELIVERY_STATES = ["waiting", "delivered", "failed"] as const;
export type DeliveryState = (typeof DELIVERY_STATES)[number];

/** A delivery as it is stored. Dates are the server's. */
export type DeliveryDocument = {
  readonly _id: string;
  readonly lane: string;
  readonly state: DeliveryState;
  readonly url: string;
  readonly type: string;
  readonly crawl?: string;
  readonly at: number;
  /** Its place among those to the same target. */
  readonly order: number;
  /** What is posted, and what is needed for that, as JSON; gone once it is delivered. */
  readonly text?: string;
  readonly target?: string;
  /** When it was added, or replayed last. */
  readonly since: Date;
  readonly nextAt: Date;
  readonly attempts: number;
  readonly statusCode?: number;
  readonly error?: string;
  readonly endedAt?: Date;
  /** When it is forgotten. */
  readonly expiresAt?: Date;
};

/** What is known of a delivery. Never what it is signed with. */
export type DeliveryRecord = {
  readonly id: string;
  readonly state: DeliveryState;
  readonly url: string;
  readonly type: string;
  readonly crawl?: string;
  /** Instants in milliseconds since the epoch. */
  readonly at: number;
  readonly attempts: number;
  /** Of the last attempt. */
  readonly statusCode?: number;
  readonly error?: string;
  /** Of one that waits for another attempt. */
  readonly nextAt?: number;
  /** Of any other. */
  readonly endedAt?: number;
};

/** A delivery that is due. */
export type DueDelivery = {
  readonly id: string;
  readonly target: DeliveryTarget;
  readonly text: string;
  readonly attempts: number;
  /** For how long it has waited, in milliseconds. */
  readonly ageMs: number;
};

export type DeliveryFilter = { readonly state?: DeliveryState; readonly crawl?: string };

export type DeliveriesOptions = {
  /** How long one that failed is kept, in milliseconds. @default 30 days */
  readonly failedForMs: number;
};

/** How long one that was delivered is kept, without what it told, so that it is not delivered again. */
const DELIVERED_FOR_MS = 86_400_000;
/** Deliveries that are added together at most, within the same millisecond. */
const PLACES = 1_000;

const AT_ONCE = new Date(0);
const LANE_CHARACTERS = 22;

const position = z.tuple([z.number(), z.string()]);

/**
 * What is to be posted to others, until they have taken it.
 *
 *   add ──▶ waiting ──taken──▶ delivered ──a day──▶ forgotten
 *            │  ▲ │
 *   not taken│  │ └──not taken, again and again──▶ failed ──▶ forgotten
 *            └──┘                                    │
 *           waiting ◀──────────── replay ────────────┘
 *
 * Those to the same target stand in one lane: see `DeliveryLanes`.
 */
export class Deliveries {
  readonly #deliveries: Collection<DeliveryDocument>;
  readonly #lanes: DeliveryLanes;
  readonly #retrier: Retrier;
  readonly #clock: Clock;
  readonly #options: DeliveriesOptions;

  constructor(
    deps: {
      readonly deliveries: Collection<DeliveryDocument>;
      readonly lanes: DeliveryLanes;
      readonly retrier: Retrier;
      readonly clock: Clock;
    },
    options: Partial<DeliveriesOptions> = {},
  ) {
    this.#deliveries = deps.deliveries;
    this.#lanes = deps.lanes;
    this.#retrier = deps.retrier;
    this.#clock = deps.clock;
    this.#options = { failedForMs: 30 * 86_400_000, ...options };
  }

  /** Sees to it that these are delivered, those to the same target in this order. Safe to call again. */
  async add(deliveries: readonly NewDelivery[]): Promise<void> {
    if (deliveries.length === 0) return;
    const now = this.#clock.now();
    const documents = deliveries.map((delivery, index) => toDocument(delivery, now, index));
    await this.#retrier.run("add deliveries", () => insertNew(this.#deliveries, documents));
    const lanes = new Map(documents.map(({ lane, url }) => [lane, { id: lane, url }]));
    await this.#retrier.run("tell of deliveries", () => this.#lanes.wake([...lanes.values()]));
  }

  /** Those of a lane that are due, in order. */
  async due(lane: string, limit: number): Promise<readonly DueDelivery[]> {
    const documents = await this.#deliveries
      .aggregate<DeliveryDocument & { readonly ageMs: number }>([
        { $match: { lane, state: "waiting", $expr: { $lte: ["$nextAt", "$$NOW"] } } },
        { $sort: { order: 1, _id: 1 } },
        { $limit: limit },
        { $set: { ageMs: { $subtract: ["$$NOW", "$since"] } } },
      ])
      .toArray();
    return documents.map(({ _id, target = "", text = "", attempts, ageMs }) => ({
      id: _id,
      target: JSON.parse(target) as DeliveryTarget,
      text,
      attempts,
      ageMs,
    }));
  }

  async delivered(id: string, statusCode: number): Promise<void> {
    await this.#end(id, "delivered", DELIVERED_FOR_MS, { statusCode });
  }

  /** It was not taken, and is tried again so much later. */
  async postpone(id: string, why: { error: string; statusCode?: number }, byMs: number): Promise<void> {
    await this.#retrier.run("postpone a delivery", () =>
      this.#deliveries.updateOne({ _id: id, state: "waiting" }, [
        {
          $set: {
            ...literals(why),
            attempts: { $add: ["$attempts", 1] },
            nextAt: { $add: ["$$NOW", byMs] },
          },
        },
      ]),
    );
  }

  /** It is given up. */
  async fail(id: string, why: { error: string; statusCode?: number }): Promise<void> {
    await this.#end(id, "failed", this.#options.failedForMs, why);
  }

  /** All that waits in a lane is given up: its receiver wants no more. @returns how many those were */
  async failLane(lane: string, why: { error: string; statusCode?: number }): Promise<number> {
    const { modifiedCount } = await this.#retrier.run("give up a lane of deliveries", () =>
      this.#deliveries.updateMany({ lane, state: "waiting" }, [
        {
          $set: {
            ...literals(why),
            state: "failed",
            endedAt: "$$NOW",
            expiresAt: { $add: ["$$NOW", this.#options.failedForMs] },
          },
        },
      ]),
    );
    return modifiedCount;
  }

  async get(id: string): Promise<DeliveryRecord | undefined> {
    const document = await this.#deliveries.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  /** What is, or would be, posted; undefined once it is delivered. */
  async textOf(id: string): Promise<string | undefined> {
    const document = await this.#deliveries.findOne({ _id: id }, { projection: { text: 1 } });
    return document?.text;
  }

  /** Newest first. */
  async list(filter: DeliveryFilter, options: ListOptions = {}): Promise<ListPage<DeliveryRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const wanted: Filter<DeliveryDocument> = { ...filter };
    if (cursor !== undefined) {
      const [order, _id] = decodeCursor(cursor, position);
      wanted.$or = [{ order: { $lt: order } }, { order, _id: { $lt: _id } }];
    }
    const documents = await this.#deliveries
      .find(wanted)
      .project<DeliveryDocument>({ text: 0, target: 0 })
      .sort({ order: -1, _id: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ order, _id }) => encodeCursor([order, _id]));
  }

  /** Has one that failed tried again, as if it were new. @throws NotFoundError, ConflictError */
  async replay(id: string): Promise<DeliveryRecord> {
    const replayed = await this.#replayed({ _id: id });
    const delivery = await this.get(id);
    if (delivery === undefined) throw new NotFoundError("delivery", id);
    if (replayed === 0) throw new ConflictError(`delivery "${id}" has not failed: it is ${delivery.state}`);
    return delivery;
  }

  /** Has all that failed tried again, or those of a crawl. @returns how many those were */
  replayAll(filter: Pick<DeliveryFilter, "crawl">): Promise<number> {
    return this.#replayed(filter);
  }

  /** @throws NotFoundError */
  async remove(id: string): Promise<void> {
    const { deletedCount } = await this.#deliveries.deleteOne({ _id: id });
    if (deletedCount === 0) throw new NotFoundError("delivery", id);
  }

  /** What a crawl has left of these; what is told about it, and not of its data, stays. */
  async drop(crawl: string, type: string): Promise<void> {
    await this.#deliveries.deleteMany({ crawl, type });
  }

  /** Wakes lanes that nobody looks into although something waits there: who added it did not live to tell. */
  async wakeForgotten(): Promise<void> {
    const waiting = await this.#deliveries.distinct("lane", { state: "waiting" });
    await this.#lanes.ensure(waiting);
  }

  async #replayed(filter: Filter<DeliveryDocument>): Promise<number> {
    const failed: Filter<DeliveryDocument> = { ...filter, state: "failed" };
    const lanes = await this.#deliveries
      .aggregate<{ _id: string; url: string }>([
        { $match: failed },
        { $group: { _id: "$lane", url: { $first: "$url" } } },
      ])
      .toArray();
    const { modifiedCount } = await this.#deliveries.updateMany(failed, [
      { $set: { state: "waiting", attempts: 0, since: "$$NOW", nextAt: "$$NOW" } },
      { $unset: ["endedAt", "expiresAt"] },
    ]);
    await this.#lanes.wake(lanes.map(({ _id, url }) => ({ id: _id, url })));
    return modifiedCount;
  }

  async #end(
    id: string,
    state: Exclude<DeliveryState, "waiting">,
    keptForMs: number,
    why: { readonly error?: string; readonly statusCode?: number },
  ): Promise<void> {
    await this.#retrier.run("note the end of a delivery", () =>
      this.#deliveries.updateOne({ _id: id, state: "waiting" }, [
        {
          $set: {
            ...literals(why),
            state,
            attempts: { $add: ["$attempts", 1] },
            endedAt: "$$NOW",
            expiresAt: { $add: ["$$NOW", keptForMs] },
          },
        },
        ...(state === "delivered" ? [{ $unset: ["text", "target", "error"] }] : []),
      ]),
    );
  }
}

/** As they are, whatever they look like to MongoDB; what is not said is taken off. */
function literals({ error, statusCode }: { readonly error?: string; readonly statusCode?: number }) {
  return {
    error: error === undefined ? "$$REMOVE" : { $literal: error.slice(0, 1_000) },
    statusCode: statusCode ?? "$$REMOVE",
  };
}

function toDocument(delivery: NewDelivery, now: number, index: number): DeliveryDocument {
  const { id, target, type, at, crawl, body } = delivery;
  return {
    _id: id,
    lane: hash("sha256", JSON.stringify([target.url, crawl ?? null]), "base64url").slice(0, LANE_CHARACTERS),
    state: "waiting",
    url: target.url,
    type,
    ...(crawl !== undefined && { crawl }),
    at,
    order: now * PLACES + Math.min(index, PLACES - 1),
    // The form that Standard Webhooks recommends.
    text: JSON.stringify({ type, timestamp: new Date(at).toISOString(), data: body }),
    target: JSON.stringify(target),
    since: new Date(now),
    nextAt: AT_ONCE,
    attempts: 0,
  };
}

function toRecord(document: DeliveryDocument): DeliveryRecord {
  const { _id, state, url, type, crawl, at, attempts, statusCode, error, nextAt, endedAt } = document;
  return {
    id: _id,
    state,
    url,
    type,
    ...(crawl !== undefined && { crawl }),
    at,
    attempts,
    ...(statusCode !== undefined && { statusCode }),
    ...(error !== undefined && { error }),
    ...(state === "waiting" && attempts > 0 && { nextAt: nextAt.getTime() }),
    ...(endedAt !== undefined && { endedAt: endedAt.getTime() }),
  };
}
