import type { FileRecord, ResultSink, StoredResults } from "../crawl/records.js";
import type { Archive } from "./archive.js";
import type { MongoFileStore } from "./file-store.js";
import type { Files } from "./files.js";
import type { InvalidItems } from "./invalid-items.js";
import type { Items } from "./items.js";
import type { Pages } from "./pages.js";

export type MongoResultSinkParts = {
  readonly pages: Pages;
  readonly items: Items;
  readonly invalidItems: InvalidItems;
  readonly files: Files;
  readonly contents: Pick<MongoFileStore, "discard" | "release">;
  readonly archive: Archive;
};

/** Puts what tasks brought into its collections, all at once. */
export class MongoResultSink implements ResultSink {
  readonly #parts: MongoResultSinkParts;

  constructor(parts: MongoResultSinkParts) {
    this.#parts = parts;
  }

  async store(results: Parameters<ResultSink["store"]>[0]): Promise<StoredResults> {
    const { pages, items, invalidItems, files, archive } = this.#parts;
    const storing: Promise<unknown>[] = [];
    if (results.pages.length > 0) storing.push(pages.store(results.pages));
    const itemsStored = results.items.length > 0 ? items.store(results.items) : undefined;
    if (itemsStored !== undefined) storing.push(itemsStored);
    if (results.invalidItems !== undefined) storing.push(invalidItems.store(results.invalidItems));
    if (results.files.length > 0) {
      const unused = files.store(results.files);
      storing.push(unused.then((records) => this.#letGo(results.files, records)));
    }
    if (results.archive !== undefined) storing.push(archive.store(results.archive));
    await Promise.all(storing);
    const knownItems = await itemsStored;
    return knownItems === undefined ? {} : { knownItems };
  }

  /** Removes the items whose ids begin so, valid or not. */
  async removeItems(prefix: string): Promise<void> {
    const { items, invalidItems } = this.#parts;
    await Promise.all([items.removeOf(prefix), invalidItems.removeOf(prefix)]);
  }

  /** The records keep their contents from now on; what the others have is not needed. */
  async #letGo(records: readonly FileRecord[], unused: readonly FileRecord[]): Promise<void> {
    const { contents } = this.#parts;
    const others = new Set(unused);
    await Promise.all([
      contents.release(records.filter((record) => !others.has(record))),
      ...unused.map(({ contentId, hold }) => contents.discard(contentId, hold)),
    ]);
  }
}
