import { randomBytes } from "node:crypto";
import type { Collection } from "mongodb";
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

/** What a rule may be about. */
export const RULE_EVENTS = [
  "crawl.finished",
  "crawl.failed",
  "crawl.closed",
  "node.offline",
  "schedule.failed",
  "threshold",
] as const;
export type RuleEvent = (typeof RULE_EVENTS)[number];

/** What is to be watched of crawls, or of all there is. */
export type RuleThresholds = {
  /** Of the URLs of a crawl that have ended, more than this percentage failed. */
  readonly failedPercent?: number;
  /** URLs that must have ended before that is judged while the crawl runs. @default 20 */
  readonly minUrls?: number;
  /** A crawl has finished without an item. */
  readonly noItems?: boolean;
  /** A crawl takes longer than this, in milliseconds. */
  readonly durationMs?: number;
  /** There are more dead letters than this: of the crawl that the rule is for, or all. */
  readonly deadLetters?: number;
};

/** Whom to tell. */
export type RuleChannel =
  | { readonly kind: "webhook"; readonly url: string; readonly secret?: string }
  | { readonly kind: "email"; readonly to: readonly string[] };

/** What a user decides about a rule. */
export type RuleSpec = {
  readonly name?: string;
  readonly on: readonly RuleEvent[];
  /** All members must fit. */
  readonly filter?: {
    readonly crawl?: string;
    readonly spider?: string;
    readonly schedule?: string;
    readonly node?: string;
  };
  readonly thresholds?: RuleThresholds;
  readonly channels: readonly RuleChannel[];
};

export type RuleDocument = RuleSpec & {
  readonly _id: string;
  /** In milliseconds since the epoch. */
  readonly createdAt: number;
  /** How often the number of dead letters has crossed the threshold, and whether it is above it now. */
  readonly deadLetters?: { readonly crossings: number; readonly isAbove: boolean };
};

export type RuleRecord = Omit<RuleDocument, "_id"> & { readonly id: string };

const position = z.tuple([z.number(), z.string()]);

/** The rules by which people are told of what happens. */
export class NotificationRules {
  readonly #rules: Collection<RuleDocument>;
  readonly #retrier: Retrier;

  constructor(rules: Collection<RuleDocument>, retrier: Retrier) {
    this.#rules = rules;
    this.#retrier = retrier;
  }

  async create(spec: RuleSpec, createdAt: number): Promise<RuleRecord> {
    const document: RuleDocument = { _id: randomBytes(8).toString("hex"), ...spec, createdAt };
    await this.#retrier.run("create a notification rule", async (again) => {
      if (again && (await this.#rules.countDocuments({ _id: document._id })) > 0) return;
      await this.#rules.insertOne(document);
    });
    return toRecord(document);
  }

  async get(id: string): Promise<RuleRecord | undefined> {
    const document = await this.#rules.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  /** Oldest first. */
  async list({ limit = DEFAULT_LIST_LIMIT, cursor }: ListOptions = {}): Promise<ListPage<RuleRecord>> {
    const last = cursor === undefined ? undefined : decodeCursor(cursor, position);
    const after =
      last === undefined
        ? {}
        : { $or: [{ createdAt: { $gt: last[0] } }, { createdAt: last[0], _id: { $gt: last[1] } }] };
    const documents = await this.#rules
      .find(after)
      .sort({ createdAt: 1, _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ createdAt, _id }) => encodeCursor([createdAt, _id]));
  }

  /** How many there are. */
  count(): Promise<number> {
    return this.#rules.countDocuments();
  }

  /** Those that are about one of these. */
  async about(events: readonly RuleEvent[]): Promise<readonly RuleRecord[]> {
    return (await this.#rules.find({ on: { $in: [...events] } }).toArray()).map(toRecord);
  }

  /** @throws NotFoundError */
  async remove(id: string): Promise<void> {
    const { deletedCount } = await this.#retrier.run("remove a notification rule", () =>
      this.#rules.deleteOne({ _id: id }),
    );
    if (deletedCount === 0) throw new NotFoundError("notification rule", id);
  }

  /** Notes that the number of dead letters has crossed a rule's threshold, if that is still to be noted. */
  async crossed(rule: RuleRecord, isAbove: boolean): Promise<void> {
    const crossings = rule.deadLetters?.crossings ?? 0;
    await this.#retrier.run("note a crossing of a threshold", () =>
      this.#rules.updateOne(
        rule.deadLetters === undefined
          ? { _id: rule.id, deadLetters: { $exists: false } }
          : {
              _id: rule.id,
              "deadLetters.crossings": crossings,
              "deadLetters.isAbove": rule.deadLetters.isAbove,
            },
        { $set: { deadLetters: { crossings: isAbove ? crossings + 1 : crossings, isAbove } } },
      ),
    );
  }
}

function toRecord({ _id, ...fields }: RuleDocument): RuleRecord {
  return { id: _id, ...fields };
}
