import { BSON, type Collection } from "mongodb";
import { z } from "zod";
import type { ItemRecord } from "../crawl/records.js";
import {
  expressible,
  type ItemDocument,
  type ItemVersionDocument,
  toDocument,
  toRecord,
} from "./item-documents.js";
import { KeyedItems } from "./keyed-items.js";
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

export type { ItemDocument, ItemVersionDocument } from "./item-documents.js";

const position = z.string();
const revision = z.int();

const NONE: ReadonlyMap<string, number> = new Map();

export type ItemsDeps = {
  readonly items: Collection<ItemDocument>;
  readonly versions: Collection<ItemVersionDocument>;
  readonly retrier: Retrier;
};

/** Which items of a crawl are read. */
export type ItemRange = {
  /** The id of the one before. */
  readonly after?: string;
  /** Extracted then or later, in milliseconds since the epoch. */
  readonly since?: number;
};

/** The items of all crawls, in an order that never changes: that of their ids. */
export class Items {
  readonly #items: Collection<ItemDocument>;
  readonly #keyed: KeyedItems;
  readonly #retrier: Retrier;

  constructor(deps: ItemsDeps) {
    this.#items = deps.items;
    this.#keyed = new KeyedItems(deps);
    this.#retrier = deps.retrier;
  }

  /**
   * Stores those that are not there yet; of those with keys, those whose data is newer than what is there.
   * @returns how many of those with keys, by crawl, had keys that were known
   */
  async store(records: readonly ItemRecord[]): Promise<ReadonlyMap<string, number>> {
    const keyed = records.filter(({ keeping }) => keeping?.key !== undefined);
    const others = keyed.length === 0 ? records : records.filter(({ keeping }) => keeping?.key === undefined);
    const [known] = await Promise.all([
      keyed.length > 0 ? this.#keyed.store(keyed) : NONE,
      others.length > 0 ? this.#storeNew(others) : undefined,
    ]);
    return known;
  }

  async #storeNew(records: readonly ItemRecord[]): Promise<void> {
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

  /** Removes those whose ids begin so. Those with keys stay: they may be others' by now, and come again as they are. */
  async removeOf(prefix: string): Promise<void> {
    await this.#items.deleteMany({ _id: startingWith(prefix) });
  }

  async get(id: string): Promise<ItemRecord | undefined> {
    const document = await this.#items.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  async list(crawl: string, options: ListOptions & ItemRange = {}): Promise<ListPage<ItemRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor, ...range } = options;
    const after = cursor === undefined ? range.after : `${crawl}:${decodeCursor(cursor, position)}`;
    const documents = await this.#items
      .find(filterOf(crawl, { ...range, ...(after !== undefined && { after }) }))
      .sort({ _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ _id }) => encodeCursor(_id.slice(crawl.length + 1)));
  }

  /** Earlier data of an item with a key, newest first; nothing of any other. */
  async history(item: ItemRecord, options: ListOptions = {}): Promise<ListPage<ItemRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const before = cursor === undefined ? undefined : decodeCursor(cursor, revision);
    const versions = await this.#keyed.history(item, limit + 1, before);
    return pageOf(
      versions,
      limit,
      (version) => version,
      (last) => encodeCursor(last.revision),
    );
  }

  /** All items of a crawl, or those of a range, read as they are asked for. */
  async *stream(crawl: string, range: ItemRange = {}): AsyncGenerator<ItemRecord, void, undefined> {
    const documents = this.#items.find(filterOf(crawl, range)).sort({ _id: 1 }).batchSize(500);
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

function filterOf(crawl: string, { after, since }: ItemRange) {
  const { $gte, $lt } = idsOf(crawl);
  // What comes after the id of another crawl is for that crawl to say.
  const _id = after === undefined || after < $gte ? { $gte, $lt } : { $gt: after, $lt };
  return { _id, ...(since !== undefined && { at: { $gte: since } }) };
}
