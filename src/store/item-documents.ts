import { BSON } from "mongodb";
import type { ItemRecord } from "../crawl/records.js";

/**
 * An extracted item; `_id` is `<url id>.<round>.<number>`, or `<crawl>:k-<name of the key>` of one with a key. Instants in
 * milliseconds since the epoch.
 */
export type ItemDocument = Omit<ItemRecord, "id" | "data" | "keeping"> & {
  readonly _id: string;
  readonly data?: Readonly<Record<string, unknown>>;
  /** Instead of `data` when that has members that MongoDB refuses. */
  readonly json?: string;
  /** Others are still to be told of it. */
  readonly tellFrom?: number;
  /** The revision that others were told of last. */
  readonly toldRevision?: number;
  readonly expiresAt?: number;
  /** Of one with a key: the page, round and number that its data came from, and the name of that data. */
  readonly source?: string;
  readonly digest?: string;
};

/** Data that newer data of the same key took the place of; `_id` is `<item id>.<revision, ten digits>`. */
export type ItemVersionDocument = Omit<ItemDocument, "tellFrom" | "toldRevision" | "digest"> & {
  readonly revision: number;
};

export function toDocument({ id, keeping, revision: _revision, ...fields }: ItemRecord): ItemDocument {
  if (keeping === undefined) return { _id: id, ...fields };
  const { key, digest, isFed, expiresAt } = keeping;
  return {
    _id: key === undefined ? id : `${fields.crawl}:k-${key}`,
    ...fields,
    ...(isFed === true && { tellFrom: fields.at }),
    ...(expiresAt !== undefined && { expiresAt }),
    ...(key !== undefined && digest !== undefined && { source: id, digest, revision: 1 }),
  };
}

/** The same, in a form that MongoDB takes. */
export function expressible(document: ItemDocument): ItemDocument {
  try {
    BSON.calculateObjectSize(document, { ignoreUndefined: true });
    BSON.serialize(document, { ignoreUndefined: true });
    return document;
  } catch {
    const { data, ...others } = document;
    return { ...others, json: JSON.stringify(data) };
  }
}

export function toRecord(document: ItemDocument | ItemVersionDocument): ItemRecord {
  const { _id, crawl, url, at, spider, version, node, data, json, revision } = document;
  return {
    id: _id,
    crawl,
    url,
    at,
    spider,
    version,
    node,
    data: data ?? (JSON.parse(json ?? "{}") as Record<string, unknown>),
    ...(revision !== undefined && { revision }),
  };
}
