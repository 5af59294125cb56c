import { open } from "node:fs/promises";
import type { CrawlLogEntry } from "../../crawl/crawl-log.js";
import type { Gap, Journal, Part } from "./journal.js";
import { isOfCrawl, parseLine } from "./journal-lines.js";

export type JournalReaderOptions = {
  /** Number of the line after which it begins. */
  readonly after: number;
  /** Only lines of this crawl. */
  readonly crawl?: string;
  /** Keeps what it reads from being removed until it reads on. One reader at a time may. */
  readonly holds?: boolean;
};

/** What was read of a journal. */
export type Batch = {
  readonly entries: readonly CrawlLogEntry[];
  /** Number of the last line that was looked at. */
  readonly last: number;
};

/** Bytes read at once; a line is shorter. */
const CHUNK_BYTES = 1_048_576;
const NEWLINE = 0x0a;

/**
 * Reads a journal from a line on, while it is written to and its oldest files go. Lines that are missing appear as
 * one line of each crawl that says how many.
 */
export class JournalReader {
  readonly #journal: Journal;
  readonly #options: JournalReaderOptions;
  #last: number;
  /** Where the last line that was read ends. */
  #place: { readonly path: string; readonly offset: number } | undefined;

  constructor(journal: Journal, options: JournalReaderOptions) {
    this.#journal = journal;
    this.#options = options;
    this.#last = options.after;
  }

  /** Number of the last line that was looked at. */
  get last(): number {
    return this.#last;
  }

  /** Goes back, or on, to the line after this one. */
  seek(after: number): void {
    if (after === this.#last) return;
    this.#last = after;
    this.#place = undefined;
  }

  /** The next lines, from one piece of a file; undefined when there are none yet. */
  async next(maxLines: number): Promise<Batch | undefined> {
    for (;;) {
      const part = await this.#part();
      if (part === undefined) return undefined;
      try {
        const batch = part.kind === "gap" ? await this.#gap(part) : await this.#lines(part, maxLines);
        if (batch !== undefined) return batch;
      } catch (error) {
        // Removed at this moment: the list of parts says what is there instead.
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        if (this.#journal.parts.includes(part)) this.#last = Math.max(this.#last, part.last);
      }
    }
  }

  async #part(): Promise<Part | undefined> {
    if (this.#options.holds === true) return this.#journal.hold(this.#last);
    return this.#journal.parts.find(({ last }) => last > this.#last);
  }

  async #gap(part: Part): Promise<Batch | undefined> {
    const { crawl } = this.#options;
    const gap = await this.#journal.gap(part);
    this.#last = part.last;
    if (gap === undefined) return undefined;
    const entries = missingLines(gap).filter((line) => crawl === undefined || line.crawl === crawl);
    return { entries, last: gap.last };
  }

  async #lines(part: Part, maxLines: number): Promise<Batch | undefined> {
    const { crawl } = this.#options;
    // It may grow meanwhile.
    const { bytes: size, last, path, epoch } = part;
    const offset = this.#place?.path === path ? this.#place.offset : 0;
    const wanted = Math.min(CHUNK_BYTES, size - offset);
    const chunk = await readAt(path, offset, wanted);
    const isEnd = offset + wanted >= size || chunk.length < wanted;
    const entries: CrawlLogEntry[] = [];
    let at = 0;
    let end = chunk.indexOf(NEWLINE);
    for (; end >= 0 && entries.length < maxLines; end = chunk.indexOf(NEWLINE, at)) {
      const text = chunk.toString("utf8", at, end);
      at = end + 1;
      if (crawl !== undefined && !isOfCrawl(text, crawl)) continue;
      const line = parseLine(text);
      if (line === undefined || line.seq <= this.#last) continue;
      this.#last = line.seq;
      entries.push({ ...line, epoch });
    }
    // A piece without a newline is the torn end of what a process wrote last, or nothing of ours.
    this.#place = { path, offset: offset + (at > 0 ? at : chunk.length) };
    const isRead = isEnd && end < 0;
    // Numbers that its lines should have had but that cannot be read are behind us as well.
    if (isRead) this.#last = Math.max(this.#last, last);
    return entries.length === 0 && !isRead ? undefined : { entries, last: this.#last };
  }
}

/** What is said in place of lines that are gone: one line in each crawl's log. */
function missingLines({ epoch, first, last, at, crawls }: Gap): CrawlLogEntry[] {
  return Object.entries(crawls).map(([crawl, missing]) => ({
    crawl,
    ...{ epoch, seq: last, at, level: "warn" },
    message:
      `${missing} lines are missing here: they could not be shipped for so long ` +
      "that the node had no room for them",
    fields: { missing, first, last },
  }));
}

/** A piece of a file; shorter when the file ends before. */
export async function readAt(file: string, offset: number, bytes: number): Promise<Buffer> {
  const handle = await open(file, "r");
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(bytes), 0, bytes, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
