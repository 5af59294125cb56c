import type { Collection, OptionalUnlessRequiredId } from "mongodb";
import type { PageRecord } from "../crawl/records.js";
import { refusedAsDuplicates } from "./duplicates.js";
import type { Retrier } from "./retrier.js";

/** One fetched response on record; `_id` is `<url id>.<round>`. */
export type PageDocument = Omit<PageRecord, "id"> & { readonly _id: string };

/** The fetched pages of all crawls. */
export class Pages {
  readonly #pages: Collection<PageDocument>;
  readonly #retrier: Retrier;

  constructor(pages: Collection<PageDocument>, retrier: Retrier) {
    this.#pages = pages;
    this.#retrier = retrier;
  }

  /** Stores those that are not there yet. */
  async store(records: readonly PageRecord[]): Promise<void> {
    const documents = records.map(({ id, ...fields }) => ({ _id: id, ...fields }));
    await this.#retrier.run("store pages", () => insertNew(this.#pages, documents));
  }

  async get(id: string): Promise<PageRecord | undefined> {
    const document = await this.#pages.findOne({ _id: id });
    if (document === null) return undefined;
    const { _id, ...fields } = document;
    return { id: _id, ...fields };
  }
}

/** Inserts documents whose `_id` is not taken; returns the indexes of the others. */
export async function insertNew<Document extends { readonly _id: string }>(
  collection: Collection<Document>,
  documents: readonly OptionalUnlessRequiredId<Document>[],
): Promise<readonly number[]> {
  if (documents.length === 0) return [];
  try {
    await collection.insertMany(documents, { ordered: false });
    return [];
  } catch (error) {
    return refusedAsDuplicates(error);
  }
}
