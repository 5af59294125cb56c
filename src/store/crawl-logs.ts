import type { Collection, Filter, MongoClient } from "mongodb";
import {
  CRAWL_LOG_LEVELS,
  type CrawlLogEntry,
  type CrawlLogLevel,
  LOG_LEVEL_NUMBERS,
} from "../crawl/crawl-log.js";
import type { CrawlDocument } from "./crawls.js";
import { idsOf } from "./page-of-list.js";
import type { Retrier } from "./retrier.js";

/** Some lines of one node, as they were shipped together. `_id` is `<crawl>:<number of the last, 12 digits>`. */
export type CrawlLogDocument = {
  readonly _id: string;
  /** Number of the first line; the others follow without a gap. */
  readonly first: number;
  readonly last: number;
  readonly node: string;
  readonly epoch: number;
  /** The highest among them. */
  readonly level: number;
  readonly bytes: number;
  readonly expiresAt: Date;
  readonly lines: readonly StoredLine[];
};

type StoredLine = {
  readonly seq: number;
  readonly at: number;
  readonly level: number;
  readonly message: string;
  readonly spider?: string;
  readonly version?: string;
  readonly run?: string;
  readonly url?: string;
  /** As JSON text: its members may have names that MongoDB refuses. */
  readonly fields?: string;
};

/** How far the lines of one journal have come. */
type Mark = {
  readonly node: string;
  readonly journal: string;
  readonly epoch: number;
  readonly seq: number;
};

/** The end of a crawl's log; `_id` is the crawl's. */
export type CrawlLogHeadDocument = {
  readonly _id: string;
  /** Number of the newest line. */
  readonly last: number;
  /** About what the lines take that are there. */
  readonly bytes: number;
  /** How often the oldest were removed. */
  readonly trims: number;
  readonly marks: readonly Mark[];
};

/** Where lines come from: `journal` tells apart the disks that a node has had. */
export type CrawlLogSource = { readonly node: string; readonly journal: string };

/** A line on record; `number` counts the lines of its crawl, in the order in which they arrived here. */
export type StoredLogLine = CrawlLogEntry & { readonly number: number; readonly node: string };

export type CrawlLogQuery = {
  /** Lines at most: the newest, or with `after` the next. */
  readonly lines: number;
  /** Only lines with a greater number. */
  readonly after?: number;
  /** Only lines of this level and above. */
  readonly level?: CrawlLogLevel;
  /** Only lines with this text in their message, URL or fields, in upper or lower case. */
  readonly text?: string;
  readonly node?: string;
};

export type CrawlLogsOptions = {
  /** How long lines are kept, in milliseconds. @default 30 days */
  readonly keptForMs: number;
};

const DEFAULTS: CrawlLogsOptions = { keptForMs: 30 * 86_400_000 };

/** Lines of one document at most, and about how many bytes of them: a document may have 16 MiB. */
const BATCH_LINES = 1_000;
const BATCH_BYTES = 1_048_576;
/** What one answer holds at most, in bytes; fewer lines than asked for, then. */
const ANSWER_BYTES = 16 * 1_048_576;
/** What stays when the oldest lines go: not to remove a few of them all the time. */
const KEPT_SHARE = 0.9;
/** Levels from which lines are found without reading the others. */
const SEVERE = LOG_LEVEL_NUMBERS.warn;

export type CrawlLogsParts = {
  readonly client: MongoClient;
  readonly lines: Collection<CrawlLogDocument>;
  readonly heads: Collection<CrawlLogHeadDocument>;
  readonly crawls: Collection<CrawlDocument>;
  readonly retrier: Retrier;
};

/**
 * The logs of all crawls. A crawl's lines are numbered as they arrive, and a number becomes visible only when all
 * lower ones are: each batch is one transaction that begins with the crawl's head, so two of them follow each other.
 * That makes a number a cursor that neither skips nor repeats, whatever order nodes ship in. The same transaction
 * keeps how far each journal has come, so a batch that comes again changes nothing.
 */
export class CrawlLogs {
  readonly #parts: CrawlLogsParts;
  readonly #options: CrawlLogsOptions;

  constructor(parts: CrawlLogsParts, options: Partial<CrawlLogsOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...DEFAULTS, ...options };
  }

  /**
   * Stores those lines of a crawl that are not there yet, in the order given, which is that of their epochs and numbers.
   * @returns how many were new; none of them is stored when the crawl is gone
   */
  async add(crawl: string, source: CrawlLogSource, entries: readonly CrawlLogEntry[]): Promise<number> {
    if (entries.length === 0) return 0;
    return this.#parts.retrier.run("store lines of a crawl's log", () =>
      this.#parts.client.withSession((session) =>
        session.withTransaction(async () => {
          const { crawls, heads, lines } = this.#parts;
          const known = await crawls.findOne({ _id: crawl }, { session, projection: { _id: 1 } });
          if (known === null) return 0;
          const head = await heads.findOne({ _id: crawl }, { session });
          const mark = head?.marks.find((one) => isOf(one, source));
          const fresh = entries.filter((entry) => isAfter(entry, mark));
          const newest = fresh.at(-1);
          if (newest === undefined) return 0;
          const documents = this.#documentsOf(crawl, source.node, head?.last ?? 0, fresh);
          const { epoch, seq } = newest;
          const others = head?.marks.filter((one) => !isOf(one, source)) ?? [];
          const bytes = documents.reduce((sum, document) => sum + document.bytes, 0);
          await heads.updateOne(
            { _id: crawl },
            {
              $set: {
                last: (head?.last ?? 0) + fresh.length,
                marks: [...others, { node: source.node, journal: source.journal, epoch, seq }],
              },
              $inc: { bytes, trims: 0 },
            },
            { session, upsert: true },
          );
          await lines.insertMany(documents, { session });
          return fresh.length;
        }),
      ),
    );
  }

  /** Lines of a crawl, in the order of their numbers, and the number to go on after. */
  async read(
    crawl: string,
    query: CrawlLogQuery,
  ): Promise<{ readonly lines: readonly StoredLogLine[]; readonly next: number }> {
    const { after, lines: most } = query;
    // Read first: what arrives meanwhile is for the next answer.
    const last = (await this.lasts([crawl])).get(crawl) ?? 0;
    const isForward = after !== undefined;
    if (most < 1) return { lines: [], next: after ?? last };
    const found: StoredLogLine[] = [];
    let bytes = 0;
    let isFull = false;
    for await (const document of this.#documents(crawl, query, last)) {
      const matching = linesOf(crawl, document).filter(
        (line) => line.number > (after ?? 0) && line.number <= last && matches(line, query),
      );
      if (!isForward) matching.reverse();
      for (const line of matching) {
        found.push(line);
        bytes += 100 + line.message.length + JSON.stringify(line.fields ?? "").length;
        isFull = found.length >= most || bytes > ANSWER_BYTES;
        if (isFull) break;
      }
      if (isFull) break;
    }
    if (!isForward) return { lines: found.reverse(), next: last };
    return { lines: found, next: isFull ? (found.at(-1)?.number ?? last) : Math.max(last, after) };
  }

  /** Number of the newest line of each of these crawls that has any. */
  async lasts(crawls: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const heads = await this.#parts.heads
      .find({ _id: { $in: [...crawls] } }, { readConcern: { level: "majority" } })
      .project<{ _id: string; last: number }>({ last: 1 })
      .toArray();
    return new Map(heads.map(({ _id, last }) => [_id, last]));
  }

  /**
   * Removes the oldest lines of crawls that have more than so many bytes of them.
   * @returns how many crawls had
   */
  async trim(maxBytes: number): Promise<number> {
    const { heads, lines } = this.#parts;
    let trimmed = 0;
    for await (const { _id: crawl, bytes, trims } of heads.find({ bytes: { $gt: maxBytes } })) {
      let kept = 0;
      let cut: string | undefined;
      const sizes = lines
        .find({ _id: idsOf(crawl) })
        .project<{ _id: string; bytes: number }>({ bytes: 1 })
        .sort({ _id: -1 });
      for await (const { _id, bytes: size } of sizes) {
        if (kept + size > maxBytes * KEPT_SHARE) {
          cut = _id;
          break;
        }
        kept += size;
      }
      // What expired by itself had not been counted off yet. Of two masters that do this, one counts.
      await heads.updateOne({ _id: crawl, trims }, { $inc: { bytes: kept - bytes, trims: 1 } });
      if (cut !== undefined) await lines.deleteMany({ _id: { $gte: idsOf(crawl).$gte, $lte: cut } });
      trimmed += 1;
    }
    return trimmed;
  }

  /** Removes the log of a crawl that is gone. */
  async purge(crawl: string): Promise<void> {
    await this.#parts.heads.deleteOne({ _id: crawl });
    await this.#parts.lines.deleteMany({ _id: idsOf(crawl) });
  }

  async *#documents(
    crawl: string,
    { after, level, text, node }: CrawlLogQuery,
    last: number,
  ): AsyncGenerator<CrawlLogDocument, void, undefined> {
    const least = level === undefined ? 0 : LOG_LEVEL_NUMBERS[level];
    const ids = idsOf(crawl);
    const filter: Filter<CrawlLogDocument> = {
      _id: after === undefined ? ids : { $gt: idOf(crawl, after), $lt: ids.$lt },
      first: { $lte: last },
      ...(least > 0 && { level: { $gte: least } }),
      ...(node !== undefined && { node }),
      ...(text !== undefined && { $or: searched(text) }),
    };
    const documents = this.#parts.lines
      .find(filter, { readConcern: { level: "majority" } })
      .sort({ _id: after === undefined ? -1 : 1 })
      .hint(node !== undefined ? "by-node" : least >= SEVERE ? "severe" : "_id_")
      .batchSize(8);
    try {
      yield* documents;
    } finally {
      await documents.close();
    }
  }

  #documentsOf(
    crawl: string,
    node: string,
    last: number,
    entries: readonly CrawlLogEntry[],
  ): CrawlLogDocument[] {
    const expiresAt = new Date(Date.now() + this.#options.keptForMs);
    const documents: CrawlLogDocument[] = [];
    let number = last;
    let lines: StoredLine[] = [];
    let bytes = 0;
    const close = (epoch: number) => {
      documents.push({
        _id: idOf(crawl, number),
        first: number - lines.length + 1,
        last: number,
        node,
        epoch,
        level: Math.max(...lines.map(({ level }) => level)),
        bytes,
        expiresAt,
        lines,
      });
      lines = [];
      bytes = 0;
    };
    for (const [index, entry] of entries.entries()) {
      const line = toStored(entry);
      number += 1;
      lines.push(line);
      bytes += sizeOf(line);
      const next = entries[index + 1];
      const isLast = next === undefined || next.epoch !== entry.epoch;
      if (isLast || lines.length >= BATCH_LINES || bytes >= BATCH_BYTES) close(entry.epoch);
    }
    return documents;
  }
}

function idOf(crawl: string, number: number): string {
  return `${crawl}:${String(number).padStart(12, "0")}`;
}

function isOf(mark: Mark, { node, journal }: CrawlLogSource): boolean {
  return mark.node === node && mark.journal === journal;
}

function isAfter({ epoch, seq }: CrawlLogEntry, mark: Mark | undefined): boolean {
  return mark === undefined || epoch > mark.epoch || (epoch === mark.epoch && seq > mark.seq);
}

/** Only ever a piece of text, whatever characters it has: nobody's expression runs in the database. */
function searched(text: string): Filter<CrawlLogDocument>[] {
  const $regex = text.replace(/[\\^$.*+?()[\]{}|/#\s-]/g, "\\$&");
  return ["lines.message", "lines.url", "lines.fields"].map((path) => ({
    [path]: { $regex, $options: "i" },
  }));
}

function matches({ level, message, url, fields }: StoredLogLine, query: CrawlLogQuery): boolean {
  if (query.level !== undefined && LOG_LEVEL_NUMBERS[level] < LOG_LEVEL_NUMBERS[query.level]) return false;
  if (query.text === undefined) return true;
  const text = query.text.toLowerCase();
  return [message, url ?? "", fields === undefined ? "" : JSON.stringify(fields)].some((place) =>
    place.toLowerCase().includes(text),
  );
}

function toStored({ crawl: _crawl, epoch: _epoch, level, fields, ...line }: CrawlLogEntry): StoredLine {
  return {
    ...line,
    level: LOG_LEVEL_NUMBERS[level],
    ...(fields !== undefined && { fields: JSON.stringify(fields) }),
  };
}

/** About what a line takes: its texts, and what names and numbers come to. */
function sizeOf({ message, url, fields }: StoredLine): number {
  return 100 + Buffer.byteLength(message) + (url?.length ?? 0) + (fields?.length ?? 0);
}

function linesOf(crawl: string, document: CrawlLogDocument): StoredLogLine[] {
  const { first, node, epoch, lines } = document;
  return lines.map(({ level, fields, ...line }, index) => ({
    number: first + index,
    crawl,
    node,
    epoch,
    ...line,
    level: CRAWL_LOG_LEVELS.find((name) => LOG_LEVEL_NUMBERS[name] === level) ?? "info",
    ...(fields !== undefined && { fields: JSON.parse(fields) as Record<string, unknown> }),
  }));
}
