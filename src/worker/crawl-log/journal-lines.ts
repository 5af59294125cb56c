import { type FileHandle, open, readFile } from "node:fs/promises";
import { CRAWL_LOG_LEVELS, type CrawlLogLine } from "../../crawl/crawl-log.js";

/** A line as it stands in a segment: one JSON object that begins with these two members. */
const START = /^\{"seq":(\d+),"crawl":"((?:[^"\\]|\\.)*)"/;
/** Of a segment's end, as much as holds a line for sure. */
const TAIL_BYTES = 262_144;

const LEVELS: ReadonlySet<unknown> = new Set(CRAWL_LOG_LEVELS);

/** The text of a line, but for its number, which it gets when it is written. */
export function lineBody({ crawl, ...line }: CrawlLogLine): string {
  return `,"crawl":${JSON.stringify(crawl)},${JSON.stringify(line).slice(1)}\n`;
}

export function numbered(seq: number, body: string): string {
  return `{"seq":${seq}${body}`;
}

/** The line in a text without its newline; undefined for what is none: the disk may have had an accident. */
export function parseLine(text: string): (CrawlLogLine & { readonly seq: number }) | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isLine(value) ? value : undefined;
}

/** By hand, not by a schema: this is done for every line. What has the members that count was written by this program. */
function isLine(value: unknown): value is CrawlLogLine & { readonly seq: number } {
  if (typeof value !== "object" || value === null) return false;
  const { seq, crawl, at, level, message } = value as Record<string, unknown>;
  return (
    typeof seq === "number" &&
    typeof crawl === "string" &&
    typeof at === "number" &&
    typeof message === "string" &&
    LEVELS.has(level)
  );
}

/** The number of the last whole line of a file; undefined when there is none. */
export async function lastSeqIn(file: string, size: number): Promise<number | undefined> {
  const handle = await open(file, "r");
  try {
    const tail = await lastSeqOf(handle, Math.max(0, size - TAIL_BYTES), size);
    return tail ?? (size > TAIL_BYTES ? await lastSeqOf(handle, 0, size) : undefined);
  } finally {
    await handle.close();
  }
}

async function lastSeqOf(handle: FileHandle, from: number, to: number): Promise<number | undefined> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(to - from), 0, to - from, from);
  const lines = buffer.subarray(0, bytesRead).toString("utf8").split("\n");
  // Behind the last newline is nothing, or what was being written when the process ended.
  lines.pop();
  for (const line of lines.reverse()) {
    const seq = parseLine(line)?.seq;
    if (seq !== undefined) return seq;
  }
  return undefined;
}

/** Lines of each crawl in a file whose number is greater than this. */
export async function countLines(file: string, after: number): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  const lines = (await readFile(file, "utf8")).split("\n");
  lines.pop();
  for (const line of lines) {
    const [, seq, name] = START.exec(line) ?? [];
    if (seq === undefined || name === undefined || Number(seq) <= after) continue;
    const crawl = name.includes("\\") ? String(JSON.parse(`"${name}"`)) : name;
    counts.set(crawl, (counts.get(crawl) ?? 0) + 1);
  }
  return counts;
}

/** Whether a line that was written by this program belongs to a crawl, without parsing it. */
export function isOfCrawl(line: string, crawl: string): boolean {
  const at = line.indexOf(',"crawl":');
  return at > 0 && at < 30 && line.startsWith(`${JSON.stringify(crawl)},`, at + 9);
}
