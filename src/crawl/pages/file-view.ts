import { DocumentError } from "../errors.js";
import type { FileRecord, FileStore } from "../records.js";
import type { PdfText, SpiderFile } from "../spider.js";
import { decodeText } from "./charset.js";
import type { Documents } from "./documents.js";

export type FileViewInput = {
  readonly record: FileRecord;
  /** Where its bytes came from, after redirects. */
  readonly url: string;
  readonly foundOn: string;
  readonly meta: Readonly<Record<string, unknown>>;
  readonly files: Pick<FileStore, "open">;
  readonly documents: Documents;
  readonly signal: AbortSignal;
};

const TEXT_TYPE = /^(?:text\/|application\/(?:json|xml|[\w.+-]+\+(?:json|xml))$)/;

/** A stored file as its spider sees it. Its bytes are read back only when its text is asked for. */
export class FileView implements SpiderFile {
  readonly url: string;
  readonly id: string;
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly contentType: string;
  readonly foundOn: string;
  readonly meta: Readonly<Record<string, unknown>>;
  /** The crawl's id. */
  readonly crawl: string;
  readonly #input: FileViewInput;
  #pdf: Promise<PdfText> | undefined;

  constructor(input: FileViewInput) {
    const { record, url, foundOn, meta } = input;
    this.#input = input;
    this.url = url;
    this.id = record.id;
    this.name = record.name;
    this.bytes = record.bytes;
    this.sha256 = record.sha256;
    this.contentType = record.contentType;
    this.foundOn = foundOn;
    this.meta = meta;
    this.crawl = record.crawl;
  }

  pdf(): Promise<PdfText> {
    this.#pdf ??= this.#readPdf();
    return this.#pdf;
  }

  async text(): Promise<string> {
    if (this.contentType === "application/pdf") return (await this.pdf()).text;
    if (!TEXT_TYPE.test(this.contentType)) {
      throw new DocumentError(
        "broken",
        `${this.url} has no text that can be read: it is ${this.contentType}`,
      );
    }
    return decodeText(await this.#read(), undefined);
  }

  async #readPdf(): Promise<PdfText> {
    const { documents, signal } = this.#input;
    const bytes = await this.#read();
    const reading = await documents.read({ kind: "pdf", bytes }, this.url, signal);
    return { ...reading, text: reading.pages.filter((page) => page !== "").join("\n\n") };
  }

  /** All of it, in memory of its own, so that it can be handed to another thread. */
  async #read(): Promise<Buffer> {
    const { record, files, documents } = this.#input;
    const { maxFileBytes } = documents;
    if (record.bytes > maxFileBytes) {
      throw new DocumentError(
        "too-large",
        `${this.url} could not be read: it has ${record.bytes} bytes, more than ${maxFileBytes}`,
      );
    }
    const whole = Buffer.from(new ArrayBuffer(record.bytes));
    let at = 0;
    for await (const chunk of await files.open(record.contentId)) {
      whole.set(chunk.subarray(0, whole.length - at), at);
      at += chunk.length;
    }
    return whole.subarray(0, at);
  }
}
