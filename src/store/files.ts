import type { Collection } from "mongodb";
import { z } from "zod";
import type { FileRecord } from "../crawl/records.js";
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

/** A stored body on record; `_id` is `<url id>.<round>`. */
export type FileDocument = Omit<FileRecord, "id" | "hold"> & { readonly _id: string };

const position = z.string();

/** The files of all crawls; their bytes are in the `FileStore`. */
export class Files {
  readonly #files: Collection<FileDocument>;
  readonly #retrier: Retrier;

  constructor(files: Collection<FileDocument>, retrier: Retrier) {
    this.#files = files;
    this.#retrier = retrier;
  }

  /**
   * Stores those that are not there yet.
   * @returns those that were on record already, with other bytes
   */
  async store(records: readonly FileRecord[]): Promise<readonly FileRecord[]> {
    const documents = records.map(({ id, hold: _hold, ...fields }) => ({ _id: id, ...fields }));
    return this.#retrier.run("store files", async () => {
      const refused = await insertNew(this.#files, documents);
      if (refused.length === 0) return [];
      const rivals = refused.flatMap((index) => records[index] ?? []);
      const kept = await this.#files
        .find({ _id: { $in: rivals.map(({ id }) => id) } })
        .project<{ _id: string; contentId: string }>({ contentId: 1 })
        .toArray();
      // The same record once more refers to the bytes that are kept.
      const contentOf = new Map(kept.map(({ _id, contentId }) => [_id, contentId]));
      return rivals.filter(({ id, contentId }) => contentOf.get(id) !== contentId);
    });
  }

  async get(id: string): Promise<FileRecord | undefined> {
    const document = await this.#files.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  async list(crawl: string, options: ListOptions = {}): Promise<ListPage<FileRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const { $gte, $lt } = idsOf(crawl);
    const filter =
      cursor === undefined ? { $gte, $lt } : { $gt: `${crawl}:${decodeCursor(cursor, position)}`, $lt };
    const documents = await this.#files
      .find({ _id: filter })
      .sort({ _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ _id }) => encodeCursor(_id.slice(crawl.length + 1)));
  }

  /** Those of these contents that a file refers to. */
  async referredTo(contentIds: readonly string[]): Promise<ReadonlySet<string>> {
    const found = await this.#files
      .find({ contentId: { $in: [...contentIds] } })
      .project<{ contentId: string }>({ _id: 0, contentId: 1 })
      .toArray();
    return new Set(found.map(({ contentId }) => contentId));
  }
}

function toRecord({ _id, ...fields }: FileDocument): FileRecord {
  return { id: _id, ...fields };
}
