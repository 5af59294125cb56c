import { BSON, type Collection } from "mongodb";
import { z } from "zod";
import type { ItemRecord } from "../crawl/records.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  idsOf,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** An extracted item; `_id` is `<url id>.<round>.<number>`. */
export type ItemDocument = Omit<ItemRecord, "id" | "data"> & {
  readonly _id: string;
  readonly data?: Readonly<Record<string, unknown>>;
  /** Instead of `data` when that has members that MongoDB refuses. */
  readonly json?: string;
};

const position = z.string();

/** The items of all crawls, in an order that never changes: that of their ids. */
export class Items {
  readonly #items: Collection<ItemDocument>;
  readonly #retrier: Retrier;

  constructor(items: Collection<ItemDocument>, retrier: Retrier) {
    this.#items = items;
    this.#retrier = retrier;
  }

  /** Stores those that are not there yet. */
  async store(records: readonly ItemRecord[]): Promise<void> {
    const documents = records.map(toDocument);
    await this.#retrier.run("store items", async () => {
      try {
        await insertNew(this.#items, documents);
      } catch (error) {
        // One item that BSON cannot express must not hold up the others that came with it.
        if (!(error instanceof BSON.BSONError)) throw error;
        await insertNew(this.#items, documents.map(expressible));
      }
    });
  }

  /** Removes those whose ids begin so. */
  async removeOf(prefix: string): Promise<void> {
    await this.#items.deleteMany({ _id: startingWith(prefix) });
  }

  async list(crawl: string, options: ListOptions = {}): Promise<ListPage<ItemRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const after = cursor === undefined ? undefined : `${crawl}:${decodeCursor(cursor, position)}`;
    const documents = await this.#items
      .find({ _id: rangeOf(crawl, after) })
      .sort({ _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ _id }) => encodeCursor(_id.slice(crawl.length + 1)));
  }

  /** All items of a crawl, or those after an id, read as they are asked for. */
  async *stream(crawl: string, after?: string): AsyncGenerator<ItemRecord, void, undefined> {
    const documents = this.#items
      .find({ _id: rangeOf(crawl, after) })
      .sort({ _id: 1 })
      .batchSize(500);
    try {
      for await (const document of documents) yield toRecord(document);
    } finally {
      await documents.close();
    }
  }
}

/** Ids that begin with a text: up to the text whose last character is the next one. */
export function startingWith(prefix: string): { $gte: string; $lt: string } {
  const last = prefix.charCodeAt(prefix.length - 1);
  return { $gte: prefix, $lt: prefix.slice(0, -1) + String.fromCharCode(last + 1) };
}

function rangeOf(crawl: string, after: string | undefined) {
  const { $gte, $lt } = idsOf(crawl);
  return after === undefined ? { $gte, $lt } : { $gt: after, $lt };
}

function toDocument({ id, ...fields }: ItemRecord): ItemDocument {
  return { _id: id, ...fields };
}

function expressible(document: ItemDocument): ItemDocument {
  try {
    BSON.calculateObjectSize(document, { ignoreUndefined: true });
    BSON.serialize(document, { ignoreUndefined: true });
    return document;
  } catch {
    const { data, ...others } = document;
    return { ...others, json: JSON.stringify(data) };
  }
}

function toRecord({ _id, data, json, ...fields }: ItemDocument): ItemRecord {
  return { id: _id, ...fields, data: data ?? (JSON.parse(json ?? "{}") as Record<string, unknown>) };
}
