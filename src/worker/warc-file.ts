import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import path from "node:path";
import type { Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { WarcWriter } from "../crawl/archive/warc.js";
import type { ArchiveRecord } from "../crawl/records.js";
import { ConfigError } from "../lib/errors.js";
import { VERSION } from "../lib/version.js";

/** A standalone crawl's archive: one WARC file, written as the crawl goes on. */
export class WarcFile {
  readonly #stream: Writable;
  readonly #writer: WarcWriter;
  readonly #filesFolder: string;

  private constructor(stream: Writable, writer: WarcWriter, filesFolder: string) {
    this.#stream = stream;
    this.#writer = writer;
    this.#filesFolder = filesFolder;
    // Each write tells what became of it; without a listener the stream would end the process besides.
    stream.on("error", () => {});
  }

  /**
   * @param filesFolder where the crawl's files go: their bodies are read from there
   * @throws ConfigError when it cannot be written
   */
  static async open(target: string, filesFolder: string): Promise<WarcFile> {
    const stream = createWriteStream(target);
    try {
      await once(stream, "open");
    } catch (error) {
      throw new ConfigError(`--archive: cannot write ${target}`, { cause: error });
    }
    const about = { software: `Warren/${VERSION}`, crawl: path.basename(target, ".warc.gz"), at: Date.now() };
    const file = new WarcFile(stream, new WarcWriter(about), filesFolder);
    await file.#write(file.#writer.header());
    return file;
  }

  /** Resolves when they are written. */
  async store(records: readonly ArchiveRecord[]): Promise<void> {
    for (const record of records) {
      const { body } = record;
      const isDecoded = !Buffer.isBuffer(body);
      await this.#write(
        this.#writer.exchange({
          ...record,
          isDecoded,
          body: () =>
            isDecoded ? createReadStream(path.join(this.#filesFolder, body.contentId)) : one(body),
        }),
      );
    }
  }

  async close(): Promise<void> {
    if (this.#stream.destroyed) return;
    this.#stream.end();
    await finished(this.#stream);
  }

  async #write(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of chunks) {
      await new Promise<void>((resolve, reject) => {
        this.#stream.write(chunk, (error) => (error == null ? resolve() : reject(error)));
      });
    }
  }
}

async function* one(body: Buffer): AsyncGenerator<Uint8Array> {
  yield body;
}
