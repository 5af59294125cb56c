import { once } from "node:events";
import { createWriteStream, type WriteStream } from "node:fs";
import type { Writable } from "node:stream";
import type { ResultSink, StoredResults } from "../crawl/records.js";
import { ConfigError, messageOf } from "../lib/errors.js";

/** Items as NDJSON, one a line, to a stream. */
export class ItemWriter implements ResultSink {
  readonly #stream: Writable;
  readonly #target: string;
  /** The name of the data that was written last of each key. */
  readonly #written = new Map<string, string>();

  /** @param target a path, or `-` for standard output, which is not closed in the end */
  constructor(stream: Writable, target: string) {
    this.#stream = stream;
    this.#target = target;
    // Each write tells what became of it; without a listener the stream would end the process besides.
    stream.on("error", () => {});
  }

  /** @param target a path, or `-` for standard output */
  static async to(target: string): Promise<ItemWriter> {
    if (target === "-") return new ItemWriter(process.stdout, target);
    const stream: WriteStream = createWriteStream(target);
    try {
      await once(stream, "open");
    } catch (error) {
      throw new ConfigError(`--output: cannot write ${target}`, { cause: error });
    }
    return new ItemWriter(stream, target);
  }

  /**
   * Resolves when the items are written. Of those with keys, those whose data is other than what was last written of
   * the same key, so that the last line of a key is its item.
   * @throws Error naming the target when they cannot be
   */
  async store(results: Parameters<ResultSink["store"]>[0]): Promise<StoredResults> {
    if (results.items.length === 0) return {};
    const knownItems = new Map<string, number>();
    const lines = results.items.flatMap((item) => {
      const { at, keeping, id, ...rest } = item;
      const { key, digest = "" } = keeping ?? {};
      const written = key === undefined ? undefined : this.#written.get(key);
      if (written !== undefined) knownItems.set(item.crawl, (knownItems.get(item.crawl) ?? 0) + 1);
      if (written === digest) return [];
      if (key !== undefined) this.#written.set(key, digest);
      const shownId = key === undefined ? id : `${item.crawl}:k-${key}`;
      return [`${JSON.stringify({ id: shownId, ...rest, at: new Date(at).toISOString() })}\n`];
    });
    await new Promise<void>((resolve, reject) => {
      this.#stream.write(lines.join(""), (error) => {
        if (error == null) return resolve();
        const where = this.#target === "-" ? "standard output" : this.#target;
        reject(new Error(`--output: cannot write items to ${where}: ${messageOf(error)}`, { cause: error }));
      });
    });
    return { knownItems };
  }

  async close(): Promise<void> {
    if (this.#target === "-" || this.#stream.destroyed) return;
    this.#stream.end();
    await once(this.#stream, "close");
  }
}
