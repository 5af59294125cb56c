import type { FileRecord, FileStore, ItemRecord, PageRecord, ResultSink } from "../crawl/records.js";
import type { Files } from "./files.js";
import type { Items } from "./items.js";
import type { Pages } from "./pages.js";

/** Puts what tasks brought into its collections, all at once. */
export class MongoResultSink implements ResultSink {
  readonly #parts: {
    readonly pages: Pages;
    readonly items: Items;
    readonly files: Files;
    readonly contents: Pick<FileStore, "discard">;
  };

  constructor(parts: { pages: Pages; items: Items; files: Files; contents: Pick<FileStore, "discard"> }) {
    this.#parts = parts;
  }

  async store(results: {
    readonly pages: readonly PageRecord[];
    readonly items: readonly ItemRecord[];
    readonly files: readonly FileRecord[];
  }): Promise<void> {
    const { pages, items, files, contents } = this.#parts;
    const storing: Promise<unknown>[] = [];
    if (results.pages.length > 0) storing.push(pages.store(results.pages));
    if (results.items.length > 0) storing.push(items.store(results.items));
    if (results.files.length > 0) {
      const unused = files.store(results.files);
      storing.push(unused.then((ids) => Promise.all(ids.map((id) => contents.discard(id)))));
    }
    await Promise.all(storing);
  }
}
