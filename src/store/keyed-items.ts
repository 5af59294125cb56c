import type { AnyBulkWriteOperation, Collection } from "mongodb";
import type { ItemRecord } from "../crawl/records.js";
import {
  expressible,
  type ItemDocument,
  type ItemVersionDocument,
  toDocument,
  toRecord,
} from "./item-documents.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** Keys that are read and written together. */
const KEYS_AT_ONCE = 500;

/** One of several items with the same key. */
type Candidate = { readonly document: ItemDocument; readonly hasHistory: boolean };

/** What is to be made of a key. */
type Step =
  | { readonly kind: "nothing" }
  | { readonly kind: "insert"; readonly document: ItemDocument }
  | {
      readonly kind: "update";
      readonly from: ItemDocument;
      readonly to: ItemDocument;
      readonly isOther: boolean;
    };

type Plan = { readonly step: Step; readonly past: readonly ItemVersionDocument[] };

/**
 * Items that are one because they have the same key: the newest data wins, whatever order it comes in and however
 * often. Whoever brings some reads what is there, and replaces exactly that; if someone else was faster it reads again.
 * Data on its way out is put aside before it is replaced, so that whatever happens in between it is not lost; that it
 * stands in both places then is seen by its revision.
 */
export class KeyedItems {
  readonly #items: Collection<ItemDocument>;
  readonly #versions: Collection<ItemVersionDocument>;
  readonly #retrier: Retrier;

  constructor(deps: {
    readonly items: Collection<ItemDocument>;
    readonly versions: Collection<ItemVersionDocument>;
    readonly retrier: Retrier;
  }) {
    this.#items = deps.items;
    this.#versions = deps.versions;
    this.#retrier = deps.retrier;
  }

  /**
   * Stores records whose `keeping` has a key.
   * @returns how many of them, by crawl, had keys that were known
   */
  async store(records: readonly ItemRecord[]): Promise<ReadonlyMap<string, number>> {
    const byKey = new Map<string, Candidate[]>();
    const known = new Map<string, number>();
    for (const record of records) {
      const document = expressible(toDocument(record));
      const candidate = { document, hasHistory: record.keeping?.hasHistory === true };
      const others = byKey.get(document._id);
      if (others === undefined) byKey.set(document._id, [candidate]);
      else others.push(candidate);
      known.set(record.crawl, (known.get(record.crawl) ?? 0) + 1);
    }
    for (const candidates of byKey.values()) candidates.sort(byAge);
    const keys = [...byKey.keys()];
    for (let from = 0; from < keys.length; from += KEYS_AT_ONCE) {
      const some = new Map(keys.slice(from, from + KEYS_AT_ONCE).map((key) => [key, byKey.get(key) ?? []]));
      const added = await this.#retrier.run("store items with keys", () => this.#settle(some));
      for (const crawl of added) known.set(crawl, (known.get(crawl) ?? 0) - 1);
    }
    return known;
  }

  /** Earlier data of an item, newest first. */
  async history(item: ItemRecord, limit: number, before?: number): Promise<readonly ItemRecord[]> {
    const newest = Math.min(before ?? Number.POSITIVE_INFINITY, item.revision ?? 1);
    const documents = await this.#versions
      .find({ _id: { $gte: `${item.id}.`, $lt: versionId(item.id, newest) } })
      .sort({ _id: -1 })
      .limit(limit)
      .toArray();
    return documents.map((document) => ({ ...toRecord(document), id: item.id }));
  }

  /** Until nothing is left to do. @returns the crawl of each item that was not there before */
  async #settle(candidates: ReadonlyMap<string, readonly Candidate[]>): Promise<readonly string[]> {
    const added: string[] = [];
    let left = [...candidates.keys()];
    while (left.length > 0) {
      const there = await this.#items.find({ _id: { $in: left } }).toArray();
      const current = new Map(there.map((document) => [document._id, document]));
      const plans = left.map((key) => planOf(candidates.get(key) ?? [], current.get(key)));
      await insertNew(
        this.#versions,
        plans.flatMap(({ past }) => past),
      );
      const fresh = plans.flatMap(({ step }) => (step.kind === "insert" ? [step.document] : []));
      const refused = new Set(await insertNew(this.#items, fresh));
      for (const [index, { crawl }] of fresh.entries()) if (!refused.has(index)) added.push(crawl);
      const updates = plans.flatMap(({ step }) => (step.kind === "update" ? [step] : []));
      const isAllReplaced = updates.length === 0 || (await this.#replace(updates)) === updates.length;
      left = [
        ...fresh.flatMap(({ _id }, index) => (refused.has(index) ? [_id] : [])),
        // Which of them were too late is seen when they are read again.
        ...(isAllReplaced ? [] : updates.map(({ from }) => from._id)),
      ];
    }
    return added;
  }

  /** @returns how many were still what they were taken to be */
  async #replace(updates: readonly Extract<Step, { kind: "update" }>[]): Promise<number> {
    const operations = updates.map(({ from, to, isOther }): AnyBulkWriteOperation<ItemDocument> => {
      const { _id, data, json, digest, revision, tellFrom, toldRevision: _told, ...seen } = to;
      return {
        updateOne: {
          filter: { _id, at: from.at, source: from.source ?? "" },
          update: isOther
            ? {
                $set: {
                  ...seen,
                  ...(data !== undefined && { data }),
                  ...(json !== undefined && { json }),
                  ...(digest !== undefined && { digest }),
                  ...(revision !== undefined && { revision }),
                  ...(tellFrom !== undefined && { tellFrom }),
                },
                $unset: data === undefined ? { data: true } : { json: true },
              }
            : { $set: seen },
        },
      };
    });
    return (await this.#items.bulkWrite(operations, { ordered: false })).matchedCount;
  }
}

/** What becomes of a key, given what is there. */
function planOf(candidates: readonly Candidate[], current: ItemDocument | undefined): Plan {
  const past: ItemVersionDocument[] = [];
  let now = current;
  let isOther = false;
  for (const { document, hasHistory } of candidates) {
    if (now !== undefined && !isNewer(document, now)) continue;
    if (now !== undefined && now.digest === document.digest) {
      now = { ...document, ...revisionOf(now) };
      continue;
    }
    if (now !== undefined && hasHistory) past.push(versionOf(now));
    now = { ...document, revision: (now?.revision ?? 0) + 1 };
    isOther = true;
  }
  if (now === undefined || now === current) return { step: { kind: "nothing" }, past };
  if (current === undefined) return { step: { kind: "insert", document: now }, past };
  return { step: { kind: "update", from: current, to: now, isOther }, past };
}

function revisionOf({ revision = 1 }: ItemDocument): { readonly revision: number } {
  return { revision };
}

function versionOf(document: ItemDocument): ItemVersionDocument {
  const { _id, tellFrom: _tell, toldRevision: _told, digest: _digest, revision = 1, ...fields } = document;
  return { ...fields, _id: versionId(_id, revision), revision };
}

function versionId(item: string, revision: number): string {
  return `${item}.${String(Math.min(revision, 9_999_999_999)).padStart(10, "0")}`;
}

/** Of data that was extracted in the same instant, that of the later page, or further down on the page, is newer. */
function isNewer(one: ItemDocument, other: ItemDocument): boolean {
  if (one.at !== other.at) return one.at > other.at;
  const [page, number] = placeOf(one);
  const [otherPage, otherNumber] = placeOf(other);
  return page === otherPage ? number > otherNumber : page > otherPage;
}

function byAge(one: Candidate, other: Candidate): number {
  if (isNewer(one.document, other.document)) return 1;
  return isNewer(other.document, one.document) ? -1 : 0;
}

function placeOf({ source = "" }: ItemDocument): readonly [page: string, number: number] {
  const dot = source.lastIndexOf(".");
  return [source.slice(0, dot), Number(source.slice(dot + 1))];
}
