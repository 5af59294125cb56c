import type { ItemRecord } from "../crawl/records.js";
import type { ItemRange, Items } from "../store/index.js";
import { csvOf, fieldsOf } from "./csv-export.js";
import { parquetOf, parquetSchemaOf } from "./parquet-export.js";

export const EXPORT_FORMATS = ["ndjson", "json", "csv", "parquet"] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** Text is sent in pieces of about so many characters: a write for each item would cost more than the item. */
const PIECE_CHARACTERS = 65_536;

export type ExportOptions = ItemRange & {
  /** Items at most. @default all of them */
  readonly limit?: number;
};

/** An item, valid or not, as it is shown outside. */
export function shown<Record extends { readonly at: number }>(item: Record) {
  return { ...item, at: new Date(item.at).toISOString() };
}

/**
 * The items of a crawl as one document, in the order of their ids, read as fast as they are taken and never more than a
 * few pieces of them in memory. Tables are looked through once beforehand, for their columns.
 */
export class ItemExport {
  readonly #items: Pick<Items, "stream">;
  readonly #crawl: string;
  readonly #options: ExportOptions;
  #lastId: string | undefined;

  constructor(items: Pick<Items, "stream">, crawl: string, options: ExportOptions = {}) {
    this.#items = items;
    this.#crawl = crawl;
    this.#options = options;
  }

  /** The id of the last item that was given out: to go on with those after it. */
  get lastId(): string | undefined {
    return this.#lastId;
  }

  /** The pieces of the document. What of it is already known to be impossible rejects here. */
  async as(format: ExportFormat): Promise<AsyncIterable<string | Uint8Array>> {
    switch (format) {
      case "ndjson":
        return linesOf(this.#read());
      case "json":
        return inPieces(arrayOf(this.#read()));
      case "csv": {
        // Those of all items, so that the parts of an export that was broken off fit together.
        const fields = await fieldsOf(this.#items.stream(this.#crawl));
        return inPieces(csvOf(this.#read(), fields, { hasHeader: this.#options.after === undefined }));
      }
      case "parquet":
        return parquetOf(this.#read(), await parquetSchemaOf(this.#items.stream(this.#crawl)));
      default:
        return format satisfies never;
    }
  }

  async *#read(): AsyncIterable<ItemRecord> {
    const { limit = Number.POSITIVE_INFINITY, ...range } = this.#options;
    let given = 0;
    for await (const item of this.#items.stream(this.#crawl, range)) {
      this.#lastId = item.id;
      yield item;
      given += 1;
      if (given >= limit) return;
    }
  }
}

/** NDJSON of items, valid or not, in pieces. */
export function linesOf(items: AsyncIterable<{ readonly at: number }>): AsyncIterable<string> {
  return inPieces(eachInALine(items));
}

async function* eachInALine(items: AsyncIterable<{ readonly at: number }>): AsyncIterable<string> {
  for await (const item of items) yield `${JSON.stringify(shown(item))}\n`;
}

async function* arrayOf(items: AsyncIterable<ItemRecord>): AsyncIterable<string> {
  let separator = "[\n";
  for await (const item of items) {
    yield separator + JSON.stringify(shown(item));
    separator = ",\n";
  }
  yield separator === "[\n" ? "[]\n" : "\n]\n";
}

async function* inPieces(texts: AsyncIterable<string>): AsyncIterable<string> {
  let piece = "";
  for await (const text of texts) {
    piece += text;
    if (piece.length < PIECE_CHARACTERS) continue;
    yield piece;
    piece = "";
  }
  if (piece !== "") yield piece;
}
