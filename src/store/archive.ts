import { Binary, type Collection } from "mongodb";
import type { ReadableArchiveRecord } from "../crawl/archive/warc.js";
import type {
  ArchiveRecord,
  StoredContent,
  Truncation,
  WireRequest,
  WireResponse,
} from "../crawl/records.js";
import { idsOf } from "./page-of-list.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** An exchange as it is stored; or what of its body did not fit, with an `_id` of `<its id>#<number>`. */
export type ArchiveDocument =
  | {
      readonly _id: string;
      readonly crawl: string;
      readonly url: string;
      readonly at: number;
      readonly fetchMs: number;
      readonly depth: number;
      readonly via?: string;
      /** JSON text of a `WireRequest` and a `WireResponse`: names of headers may be any. */
      readonly request: string;
      readonly response: string;
      readonly body?: Binary;
      /** The stored file that is the body. */
      readonly content?: StoredContent;
      readonly truncated?: Truncation;
    }
  | { readonly _id: string; readonly crawl: string; readonly rest: Binary };

/** Bytes of a body in one document: 16 MiB is the most that one may have in all. */
const BODY_BYTES = 12 * 1_048_576;

/** What went over the wire, of crawls that are archived. */
export class Archive {
  readonly #archive: Collection<ArchiveDocument>;
  readonly #retrier: Retrier;
  readonly #open: (contentId: string) => Promise<AsyncIterable<Uint8Array>>;

  /** @param open reads a stored file */
  constructor(
    archive: Collection<ArchiveDocument>,
    retrier: Retrier,
    open: (contentId: string) => Promise<AsyncIterable<Uint8Array>>,
  ) {
    this.#archive = archive;
    this.#retrier = retrier;
    this.#open = open;
  }

  /** Stores those that are not there yet. */
  async store(records: readonly ArchiveRecord[]): Promise<void> {
    const documents = records.flatMap(documentsOf);
    await this.#retrier.run("store archived exchanges", () => insertNew(this.#archive, documents));
  }

  /** A crawl's exchanges, those of each URL in their order. */
  async *read(crawl: string): AsyncGenerator<ReadableArchiveRecord> {
    const { $gte, $lt } = idsOf(crawl);
    const documents = this.#archive.find({ _id: { $gte, $lt } }, { batchSize: 20 }).sort({ _id: 1 });
    let current: Extract<ArchiveDocument, { url: string }> | undefined;
    let parts: Buffer[] = [];
    for await (const document of documents) {
      if ("rest" in document) {
        parts.push(bytesOf(document.rest));
        continue;
      }
      if (current !== undefined) yield this.#readable(current, parts);
      current = document;
      parts = document.body === undefined ? [] : [bytesOf(document.body)];
    }
    if (current !== undefined) yield this.#readable(current, parts);
  }

  #readable(
    document: Extract<ArchiveDocument, { url: string }>,
    parts: readonly Buffer[],
  ): ReadableArchiveRecord {
    const { _id, request, response, body: _body, content, ...fields } = document;
    const open = this.#open;
    return {
      id: _id,
      ...fields,
      request: JSON.parse(request) as WireRequest,
      response: JSON.parse(response) as WireResponse,
      isDecoded: content !== undefined,
      async *body() {
        if (content === undefined) yield* parts;
        else yield* await open(content.contentId);
      },
    };
  }
}

function documentsOf(record: ArchiveRecord): ArchiveDocument[] {
  const { id, request, response, body, ...fields } = record;
  const written = {
    ...fields,
    _id: id,
    request: JSON.stringify(request),
    response: JSON.stringify(response),
  };
  if (!Buffer.isBuffer(body)) return [{ ...written, content: body }];
  const documents: ArchiveDocument[] = [
    { ...written, ...(body.length > 0 && { body: new Binary(body.subarray(0, BODY_BYTES)) }) },
  ];
  for (let from = BODY_BYTES; from < body.length; from += BODY_BYTES) {
    const number = String(documents.length).padStart(4, "0");
    const rest = new Binary(body.subarray(from, from + BODY_BYTES));
    documents.push({ _id: `${id}#${number}`, crawl: record.crawl, rest });
  }
  return documents;
}

function bytesOf(binary: Binary): Buffer {
  return Buffer.from(binary.buffer.buffer, binary.buffer.byteOffset, binary.position);
}
