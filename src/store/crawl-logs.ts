import { LRUCache } from "lru-cache";
import type { Collection, Filter } from "mongodb";
import {
  CRAWL_LOG_LEVELS,
  type CrawlLogEntry,
  type CrawlLogLevel,
  LOG_LEVEL_NUMBERS,
} from "../crawl/crawl-log.js";
import type { CrawlDocument } from "./crawls.js";
import { isDuplicateKey } from "./duplicates.js";
import { idsOf } from "./page-of-list.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** Some lines that follow each other. `_id` is `<crawl>:<number of the last, 12 digits>`. */
export type CrawlLogDocument = {
  readonly _id: string;
  readonly first: number;
  readonly last: number;
  /** Whose lines are among them. */
  readonly nodes: readonly string[];
  /** The highest among them. */
  readonly level: number;
  readonly bytes: number;
  readonly expiresAt: Date;
  readonly lines: readonly StoredLine[];
};

type StoredLine = {
  readonly node: string;
  readonly epoch: number;
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
  /** Lines up to this number are in documents of their own. */
  readonly rolled: number;
  /** The lines after that. */
  readonly open: readonly StoredLine[];
  readonly openBytes: number;
  /** About what all lines take that are there. */
  readonly bytes: number;
  /** How often the oldest were removed. */
  readonly trims: number;
  readonly expiresAt: Date;
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
const ROLL_LINES = 1_000;
const ROLL_BYTES = 524_288;
/** About what is added to a head at once, and what it may have before something is added, in bytes. */
const PUSH_BYTES = 2 * 1_048_576;
const OPEN_BYTES = 4 * 1_048_576;
/** Journals whose marks are remembered. */
const MARKS = 1_000;
/** What one answer holds at most, in bytes; fewer lines than asked for, then. */
const ANSWER_BYTES = 16 * 1_048_576;
/** What stays when the oldest lines go: not to remove a few of them all the time. */
const KEPT_SHARE = 0.9;
/** Levels from which lines are found without reading the others. */
const SEVERE = LOG_LEVEL_NUMBERS.warn;

export type CrawlLogsParts = {
  readonly lines: Collection<CrawlLogDocument>;
  readonly heads: Collection<CrawlLogHeadDocument>;
  readonly crawls: Collection<CrawlDocument>;
  readonly retrier: Retrier;
};

/**
 * The logs of all crawls. A crawl's lines are numbered as they arrive, and nobody sees a number before all lower ones
 * are there: so a number is a cursor that neither skips nor repeats, whatever order nodes ship in.
 *
 * Lines arrive at the crawl's head, one document, in one update that also numbers them and moves the mark of the journal
 * that they come from; it is made only if the mark is where it was, so lines that come again change nothing. When
 * a head has many lines the oldest of them are copied to a document of their own, and then taken out. Where one
 * such document ends follows from the lines alone, so whoever does that, twice or at once, writes the same. No step
 * holds anything that a process that dies would have to let go, as a transaction would.
 */
export class CrawlLogs {
  readonly #parts: CrawlLogsParts;
  readonly #options: CrawlLogsOptions;
  /** Where the marks were of late, by crawl and journal. */
  readonly #marks = new LRUCache<string, Mark>({ max: MARKS });

  constructor(parts: CrawlLogsParts, options: Partial<CrawlLogsOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...DEFAULTS, ...options };
  }

  /**
   * Stores those lines of a crawl that are not there yet, in the order given, which is that of their epochs and numbers.
   * None of them is stored when the crawl is gone.
   */
  async add(crawl: string, source: CrawlLogSource, entries: readonly CrawlLogEntry[]): Promise<void> {
    const arriving = entries.map((entry) => toStored(source.node, entry));
    for (const piece of piecesOf(arriving, Number.POSITIVE_INFINITY, PUSH_BYTES)) {
      await this.#parts.retrier.run("store lines of a crawl's log", () => this.#push(crawl, source, piece));
    }
  }

  async #push(crawl: string, source: CrawlLogSource, lines: readonly StoredLine[]): Promise<void> {
    const { heads } = this.#parts;
    const key = `${crawl} ${source.node} ${source.journal}`;
    let mark = this.#marks.get(key);
    for (let isKnown = mark !== undefined; ; isKnown = false) {
      if (!isKnown) {
        const head = await heads.findOne(
          { _id: crawl },
          { projection: { marks: 1, openBytes: 1 }, readConcern: { level: "majority" } },
        );
        if (head === null) {
          if (!(await this.#begin(crawl))) return;
          continue;
        }
        if (head.openBytes >= OPEN_BYTES) await this.#roll(crawl);
        mark = head.marks.find(({ node, journal }) => node === source.node && journal === source.journal);
      }
      const before = mark;
      const fresh = lines.filter((line) => isAfter(line, before));
      const newest = fresh.at(-1);
      if (newest === undefined) return;
      const { epoch, seq } = newest;
      const after: Mark = { node: source.node, journal: source.journal, epoch, seq };
      const head = await this.#append(crawl, fresh, before, after);
      if (head === null) continue;
      this.#marks.set(key, after);
      if (head.last - head.rolled >= ROLL_LINES || head.openBytes >= ROLL_BYTES) await this.#roll(crawl);
      return;
    }
  }

  /** @returns null when the mark is no longer, or not yet, where it was thought to be, or when there is no room */
  async #append(crawl: string, lines: readonly StoredLine[], before: Mark | undefined, after: Mark) {
    const { node, journal, epoch, seq } = after;
    const bytes = lines.reduce((sum, line) => sum + sizeOf(line), 0);
    const open = { $each: [...lines] };
    const $inc = { last: lines.length, bytes, openBytes: bytes };
    const expiresAt = new Date(Date.now() + this.#options.keptForMs);
    const hasRoom = { _id: crawl, openBytes: { $lt: OPEN_BYTES } };
    const options = { projection: { last: 1, rolled: 1, openBytes: 1 }, returnDocument: "after" } as const;
    if (before === undefined) {
      return this.#parts.heads.findOneAndUpdate(
        { ...hasRoom, marks: { $not: { $elemMatch: { node, journal } } } },
        { $push: { open, marks: after }, $inc, $set: { expiresAt } },
        options,
      );
    }
    return this.#parts.heads.findOneAndUpdate(
      { ...hasRoom, marks: { $elemMatch: before } },
      { $push: { open }, $inc, $set: { expiresAt, "marks.$.epoch": epoch, "marks.$.seq": seq } },
      options,
    );
  }

  /** @returns false when there is no such crawl */
  async #begin(crawl: string): Promise<boolean> {
    const { heads, crawls } = this.#parts;
    const isThere = async () => (await crawls.findOne({ _id: crawl }, { projection: { _id: 1 } })) !== null;
    if (!(await isThere())) return false;
    const nothing = { last: 0, rolled: 0, open: [], openBytes: 0, bytes: 0, trims: 0, marks: [] };
    try {
      await heads.updateOne(
        { _id: crawl },
        { $setOnInsert: { ...nothing, expiresAt: new Date() } },
        { upsert: true },
      );
    } catch (error) {
      if (!isDuplicateKey(error)) throw error;
    }
    // Removed meanwhile, and its log with it.
    if (await isThere()) return true;
    await heads.deleteOne({ _id: crawl });
    return false;
  }

  /** Moves lines from the head of a log to documents of their own, as far as they fill any. */
  async #roll(crawl: string): Promise<void> {
    const { heads, lines } = this.#parts;
    const head = await heads.findOne({ _id: crawl });
    if (head === null) return;
    const pieces = [...piecesOf(head.open, ROLL_LINES, ROLL_BYTES)];
    const last = pieces.at(-1);
    // The last one may not be full.
    if (last !== undefined && last.length < ROLL_LINES && totalOf(last) < ROLL_BYTES) pieces.pop();
    if (pieces.length === 0) return;
    let rolled = head.rolled;
    const documents = pieces.map((piece): CrawlLogDocument => {
      rolled += piece.length;
      return {
        _id: idOf(crawl, rolled),
        first: rolled - piece.length + 1,
        last: rolled,
        nodes: [...new Set(piece.map(({ node }) => node))],
        level: Math.max(...piece.map(({ level }) => level)),
        bytes: totalOf(piece),
        expiresAt: head.expiresAt,
        lines: piece,
      };
    });
    await insertNew(lines, documents);
    const bytes = documents.reduce((sum, document) => sum + document.bytes, 0);
    const count = rolled - head.rolled;
    const others = { $slice: ["$open", count, { $max: [1, { $size: "$open" }] }] };
    await heads.updateOne({ _id: crawl, rolled: head.rolled }, [
      { $set: { rolled, openBytes: { $subtract: ["$openBytes", bytes] }, open: others } },
    ]);
  }

  /** Lines of a crawl, in the order of their numbers, and the number to go on after. */
  async read(
    crawl: string,
    query: CrawlLogQuery,
  ): Promise<{ readonly lines: readonly StoredLogLine[]; readonly next: number }> {
    const { after, lines: most } = query;
    const head = await this.#parts.heads.findOne({ _id: crawl }, { readConcern: { level: "majority" } });
    const last = head?.last ?? 0;
    if (head === null) return { lines: [], next: after ?? 0 };
    const found: StoredLogLine[] = [];
    let bytes = 0;
    let isFull = false;
    const isForward = after !== undefined;
    for await (const lines of this.#pieces(crawl, query, head)) {
      const matching = lines.filter((line) => line.number > (after ?? 0) && matches(line, query));
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
   * Removes the oldest lines of crawls that have more than so many bytes of them, and what has expired.
   * @returns how many crawls had
   */
  async trim(maxBytes: number): Promise<number> {
    const { heads, lines } = this.#parts;
    // Lines in documents of their own expire by themselves.
    await heads.updateMany({ expiresAt: { $lt: new Date() }, openBytes: { $gt: 0 } }, [
      { $set: { rolled: "$last", openBytes: 0, open: [] } },
    ]);
    let trimmed = 0;
    const long = heads
      .find({ bytes: { $gt: maxBytes } })
      .project<Pick<CrawlLogHeadDocument, "_id" | "bytes" | "openBytes" | "trims">>({
        ...{ bytes: 1, openBytes: 1, trims: 1 },
      });
    for await (const { _id: crawl, bytes, openBytes, trims } of long) {
      let kept = openBytes;
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

  /** Lines that may be wanted, in pieces: from where someone goes on, or else the newest first. */
  async *#pieces(
    crawl: string,
    query: CrawlLogQuery,
    head: CrawlLogHeadDocument,
  ): AsyncGenerator<StoredLogLine[], void, undefined> {
    const open = linesOf(crawl, head.rolled + 1, head.open);
    const documents = this.#parts.lines
      .find(filterOf(crawl, query, head.rolled), { readConcern: { level: "majority" } })
      .sort({ _id: query.after === undefined ? -1 : 1 })
      .hint(indexFor(query))
      .batchSize(8);
    try {
      if (query.after === undefined) yield open;
      if (head.rolled > (query.after ?? 0)) {
        for await (const { first, lines } of documents) yield linesOf(crawl, first, lines);
      }
      if (query.after !== undefined) yield open;
    } finally {
      await documents.close();
    }
  }
}

function filterOf(
  crawl: string,
  { after, level, text, node }: CrawlLogQuery,
  rolled: number,
): Filter<CrawlLogDocument> {
  const ids = idsOf(crawl);
  return {
    _id: after === undefined ? ids : { $gt: idOf(crawl, after), $lt: ids.$lt },
    last: { $lte: rolled },
    ...(level !== undefined && { level: { $gte: LOG_LEVEL_NUMBERS[level] } }),
    ...(node !== undefined && { nodes: node }),
    ...(text !== undefined && { $or: searched(text) }),
  };
}

function indexFor({ level, node }: CrawlLogQuery): string {
  if (node !== undefined) return "by-node";
  return level !== undefined && LOG_LEVEL_NUMBERS[level] >= SEVERE ? "severe" : "_id_";
}

/** As many lines each as there may be, and in the order that they have. */
function* piecesOf(
  lines: readonly StoredLine[],
  mostLines: number,
  mostBytes: number,
): Generator<readonly StoredLine[]> {
  let piece: StoredLine[] = [];
  let bytes = 0;
  for (const line of lines) {
    piece.push(line);
    bytes += sizeOf(line);
    if (piece.length < mostLines && bytes < mostBytes) continue;
    yield piece;
    piece = [];
    bytes = 0;
  }
  if (piece.length > 0) yield piece;
}

function totalOf(lines: readonly StoredLine[]): number {
  return lines.reduce((sum, line) => sum + sizeOf(line), 0);
}

function idOf(crawl: string, number: number): string {
  return `${crawl}:${String(number).padStart(12, "0")}`;
}

function isAfter({ epoch, seq }: StoredLine, mark: Mark | undefined): boolean {
  return mark === undefined || epoch > mark.epoch || (epoch === mark.epoch && seq > mark.seq);
}

/** Only ever a piece of text, whatever characters it has: nobody's expression runs in the database. */
function searched(text: string): Filter<CrawlLogDocument>[] {
  const $regex = text.replace(/[\\^$.*+?()[\]{}|/#\s-]/g, "\\$&");
  return ["lines.message", "lines.url", "lines.fields"].map((path) => ({
    [path]: { $regex, $options: "i" },
  }));
}

function matches({ level, node, message, url, fields }: StoredLogLine, query: CrawlLogQuery): boolean {
  if (query.node !== undefined && node !== query.node) return false;
  if (query.level !== undefined && LOG_LEVEL_NUMBERS[level] < LOG_LEVEL_NUMBERS[query.level]) return false;
  if (query.text === undefined) return true;
  const text = query.text.toLowerCase();
  return [message, url ?? "", fields === undefined ? "" : JSON.stringify(fields)].some((place) =>
    place.toLowerCase().includes(text),
  );
}

function toStored(node: string, { crawl: _crawl, level, fields, ...line }: CrawlLogEntry): StoredLine {
  return {
    node,
    ...line,
    level: LOG_LEVEL_NUMBERS[level],
    ...(fields !== undefined && { fields: JSON.stringify(fields) }),
  };
}

/** About what a line takes: its texts, and what names and numbers come to. */
function sizeOf({
  node,
  spider = "",
  version = "",
  run = "",
  url = "",
  message,
  fields = "",
}: StoredLine): number {
  return 120 + node.length + Buffer.byteLength(`${spider}${version}${run}${url}${message}${fields}`);
}

function linesOf(crawl: string, first: number, lines: readonly StoredLine[]): StoredLogLine[] {
  return lines.map(({ level, fields, ...line }, index) => ({
    number: first + index,
    crawl,
    ...line,
    level: CRAWL_LOG_LEVELS.find((name) => LOG_LEVEL_NUMBERS[name] === level) ?? "info",
    ...(fields !== undefined && { fields: JSON.parse(fields) as Record<string, unknown> }),
  }));
}
