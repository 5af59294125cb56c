import { CRAWL_LOG_LEVELS, type CrawlLogEntry, LOG_LEVEL_NUMBERS } from "../crawl/crawl-log.js";

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

export type StoredLine = {
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

/** A line on record; `number` counts the lines of its crawl, in the order in which they arrived here. */
export type StoredLogLine = CrawlLogEntry & { readonly number: number; readonly node: string };

export function toStored(node: string, { crawl: _crawl, level, fields, ...line }: CrawlLogEntry): StoredLine {
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

export function linesOf(crawl: string, first: number, lines: readonly StoredLine[]): StoredLogLine[] {
  return lines.map(({ level, fields, ...line }, index) => ({
    number: first + index,
    crawl,
    ...line,
    level: CRAWL_LOG_LEVELS.find((name) => LOG_LEVEL_NUMBERS[name] === level) ?? "info",
    ...(fields !== undefined && { fields: JSON.parse(fields) as Record<string, unknown> }),
  }));
}

/** As many lines each as there may be, and in the order that they have. */
export function* piecesOf(
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

export function totalOf(lines: readonly StoredLine[]): number {
  return lines.reduce((sum, line) => sum + sizeOf(line), 0);
}

export function idOf(crawl: string, number: number): string {
  return `${crawl}:${String(number).padStart(12, "0")}`;
}
