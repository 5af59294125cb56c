import type { FileStore, ResultSink } from "../crawl/records.js";
import type { Archive } from "./archive.js";
import type { Files } from "./files.js";
import type { Items } from "./items.js";
import type { Pages } from "./pages.js";

export type MongoResultSinkParts = {
  readonly pages: Pages;
  readonly items: Items;
  readonly files: Files;
  readonly contents: Pick<FileStore, "discard">;
  readonly archive: Archive;
};

/** Puts what tasks brought into its collections, all at once. */
export class MongoResultSink implements ResultSink {
  readonly #parts: MongoResultSinkParts;

  constructor(parts: MongoResultSinkParts) {
    this.#parts = parts;
  }

  async store(results: Parameters<ResultSink["store"]>[0]): Promise<void> {
    const { pages, items, files, contents, archive } = this.#parts;
    const storing: Promise<unknown>[] = [];
    if (results.pages.length > 0) storing.push(pages.store(results.pages));
    if (results.items.length > 0) storing.push(items.store(results.items));
    if (results.files.length > 0) {
      const unused = files.store(results.files);
      storing.push(unused.then((ids) => Promise.all(ids.map((id) => contents.discard(id)))));
    }
    if (results.archive !== undefined) storing.push(archive.store(results.archive));
    await Promise.all(storing);
  }
}
