import type { Collection } from "mongodb";
import type { ItemChange } from "../crawl/item-options.js";
import type { ItemRecord } from "../crawl/records.js";
import { type ItemDocument, toRecord } from "./item-documents.js";
import type { Retrier } from "./retrier.js";

/** An item that others are to be told of. */
export type Telling = { readonly item: ItemRecord; readonly change: ItemChange };

/**
 * What others are still to be told of items. An item is marked in the write that stores it, and the mark is taken off when
 * it was told, if the item is what it was then: so nothing is left out whoever dies, and however long nobody looks.
 */
export class ItemTellings {
  readonly #items: Collection<ItemDocument>;
  readonly #retrier: Retrier;

  constructor(items: Collection<ItemDocument>, retrier: Retrier) {
    this.#items = items;
    this.#retrier = retrier;
  }

  /** The crawls of which something is to be told. One seek for each, however much that is, and one more. */
  async crawls(): Promise<readonly string[]> {
    const crawls: string[] = [];
    for (let last = ""; ; ) {
      const next = await this.#items.findOne(
        { crawl: { $gt: last }, tellFrom: { $gt: 0 } },
        { sort: { crawl: 1, tellFrom: 1 }, hint: "to-tell", projection: { _id: 0, crawl: 1 } },
      );
      if (next === null) return crawls;
      last = next.crawl;
      crawls.push(last);
    }
  }

  /** What is to be told of a crawl, what was extracted first in front. */
  async next(crawl: string, limit: number): Promise<readonly Telling[]> {
    const documents = await this.#items
      .find({ crawl, tellFrom: { $gt: 0 } })
      .sort({ tellFrom: 1 })
      .limit(limit)
      .toArray();
    return documents.map((document) => ({
      item: toRecord(document),
      change: document.toldRevision === undefined ? "added" : "changed",
    }));
  }

  /** They were told. Those that have changed since are to be told again. */
  async told(items: readonly ItemRecord[]): Promise<void> {
    const once = items.filter(({ revision }) => revision === undefined).map(({ id }) => id);
    await this.#retrier.run("note which items were told", async () => {
      if (once.length > 0)
        await this.#items.updateMany({ _id: { $in: once } }, { $unset: { tellFrom: true } });
      const keyed = items.flatMap(({ id, revision }) => (revision === undefined ? [] : [{ id, revision }]));
      if (keyed.length === 0) return;
      await this.#items.bulkWrite(
        keyed.flatMap(({ id, revision }) => [
          { updateOne: { filter: { _id: id, revision }, update: { $unset: { tellFrom: true } } } },
          { updateOne: { filter: { _id: id }, update: { $max: { toldRevision: revision } } } },
        ]),
        { ordered: false },
      );
    });
  }

  /** Nobody wants to hear of the items of this crawl. */
  async forget(crawl: string): Promise<void> {
    await this.#items.updateMany({ crawl, tellFrom: { $gt: 0 } }, { $unset: { tellFrom: true } });
  }
}
