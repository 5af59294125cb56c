import { LRUCache } from "lru-cache";
import type { Collection } from "mongodb";
import { z } from "zod";
import type { InvalidItemRecord } from "../crawl/records.js";
import { startingWith } from "./items.js";
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

/** An item that its spider's schema refused; `_id` is `<url id>.<round>.<number>`. */
export type InvalidItemDocument = Omit<InvalidItemRecord, "id" | "data"> & {
  readonly _id: string;
  /** As JSON text: it may be anything, and have members with names that MongoDB refuses. */
  readonly data: string;
};

const position = z.string();

/** Stored by this process after which it looks how many there are by now. */
const RECOUNT_AFTER = 500;

/** The items of all crawls that are kept aside, since they are not as they should be. */
export class InvalidItems {
  readonly #items: Collection<InvalidItemDocument>;
  readonly #retrier: Retrier;
  readonly #maxKept: number;
  /** How many a crawl had when that was looked up, and how many were stored here since. */
  readonly #known = new LRUCache<string, { count: number; since: number }>({ max: 1_000 });

  /** @param maxKept of a crawl, about; of the others it is only known that there were so many */
  constructor(items: Collection<InvalidItemDocument>, retrier: Retrier, maxKept: number) {
    this.#items = items;
    this.#retrier = retrier;
    this.#maxKept = maxKept;
  }

  /** Stores those that are not there yet. */
  async store(records: readonly InvalidItemRecord[]): Promise<void> {
    await this.#retrier.run("store invalid items", async () => {
      const full = new Set<string>();
      for (const crawl of new Set(records.map((record) => record.crawl))) {
        const coming = records.filter((record) => record.crawl === crawl).length;
        if (await this.#isFull(crawl, coming)) full.add(crawl);
      }
      const documents = records.map(({ id, data, ...fields }) =>
        full.has(fields.crawl)
          ? ({ _id: id } as InvalidItemDocument)
          : { _id: id, ...fields, data: JSON.stringify(data) ?? "null" },
      );
      await insertNew(this.#items, documents);
    });
  }

  /** By id. */
  async list(crawl: string, options: ListOptions = {}): Promise<ListPage<InvalidItemRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const after = cursor === undefined ? undefined : `${crawl}:${decodeCursor(cursor, position)}`;
    const documents = await this.#find(crawl, after)
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ _id }) => encodeCursor(_id.slice(crawl.length + 1)));
  }

  /** All of a crawl that are kept, read as they are asked for. */
  async *stream(crawl: string): AsyncGenerator<InvalidItemRecord, void, undefined> {
    const documents = this.#find(crawl).batchSize(500);
    try {
      for await (const document of documents) yield toRecord(document);
    } finally {
      await documents.close();
    }
  }

  /** Removes those whose ids begin so. */
  async removeOf(prefix: string): Promise<void> {
    await this.#items.deleteMany({ _id: startingWith(prefix) });
  }

  #find(crawl: string, after?: string) {
    const { $gte, $lt } = idsOf(crawl);
    return this.#items
      .find({ _id: after === undefined ? { $gte, $lt } : { $gt: after, $lt }, data: { $exists: true } })
      .sort({ _id: 1 });
  }

  async #isFull(crawl: string, coming: number): Promise<boolean> {
    let known = this.#known.get(crawl);
    if (known === undefined || known.since >= RECOUNT_AFTER) {
      const count = await this.#items.countDocuments({ _id: idsOf(crawl) }, { limit: this.#maxKept });
      known = { count, since: 0 };
      this.#known.set(crawl, known);
    }
    const isFull = known.count + known.since >= this.#maxKept;
    // What is full stays so, and need not be counted.
    if (!isFull) known.since += coming;
    return isFull;
  }
}

function toRecord({ _id, data, ...fields }: InvalidItemDocument): InvalidItemRecord {
  return { id: _id, ...fields, data: JSON.parse(data) as unknown };
}
