import type { Collection } from "mongodb";
import type { InvalidItemRecord } from "../crawl/records.js";
import { startingWith } from "./items.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** An item that its spider's schema refused; `_id` is `<url id>.<round>.<number>`. */
export type InvalidItemDocument = Omit<InvalidItemRecord, "id" | "data"> & {
  readonly _id: string;
  /** As JSON text: it may be anything, and have members with names that MongoDB refuses. */
  readonly data: string;
};

/** The items of all crawls that are kept aside, since they are not as they should be. */
export class InvalidItems {
  readonly #items: Collection<InvalidItemDocument>;
  readonly #retrier: Retrier;

  constructor(items: Collection<InvalidItemDocument>, retrier: Retrier) {
    this.#items = items;
    this.#retrier = retrier;
  }

  /** Stores those that are not there yet. */
  async store(records: readonly InvalidItemRecord[]): Promise<void> {
    const documents = records.map(({ id, data, ...fields }) => ({
      _id: id,
      ...fields,
      data: JSON.stringify(data) ?? "null",
    }));
    await this.#retrier.run("store invalid items", () => insertNew(this.#items, documents));
  }

  /** Removes those whose ids begin so. */
  async removeOf(prefix: string): Promise<void> {
    await this.#items.deleteMany({ _id: startingWith(prefix) });
  }
}
