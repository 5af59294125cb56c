import type { CrawlLogEntry } from "../../crawl/crawl-log.js";
import type { Journal, Part } from "./journal.js";
import { isOfCrawl, parseLine } from "./journal-lines.js";
import { JournalReader, readAt } from "./journal-reader.js";

export type CrawlLogPageQuery = {
  readonly crawl: string;
  /** Lines at most: the newest, or with `after` the next. */
  readonly lines: number;
  /** Only lines with a greater `seq`. */
  readonly after?: number;
};

export type CrawlLogPage = {
  readonly lines: readonly CrawlLogEntry[];
  /** The `seq` to go on after. */
  readonly next: number;
};

/** Characters of one answer: a message on the bus must hold it. */
const PAGE_CHARACTERS = 2 * 1_048_576;
const LINES_AT_ONCE = 1_000;

/** Some lines of a crawl out of a node's journal; fewer than asked for when they are long. */
export async function pageOfJournal(journal: Journal, query: CrawlLogPageQuery): Promise<CrawlLogPage> {
  return query.after === undefined ? newest(journal, query) : following(journal, query, query.after);
}

async function following(
  journal: Journal,
  { crawl, lines }: CrawlLogPageQuery,
  after: number,
): Promise<CrawlLogPage> {
  const reader = new JournalReader(journal, { after, crawl });
  const page = new Page(lines);
  for (;;) {
    const batch = await reader.next(Math.min(lines, LINES_AT_ONCE));
    if (batch === undefined) return { lines: page.lines, next: Math.max(after, reader.last) };
    for (const entry of batch.entries) {
      if (!page.add(entry)) return { lines: page.lines, next: page.lines.at(-1)?.seq ?? after };
    }
  }
}

async function newest(journal: Journal, { crawl, lines }: CrawlLogPageQuery): Promise<CrawlLogPage> {
  const next = journal.nextSeq - 1;
  const page = new Page(lines);
  for (const part of [...journal.parts].reverse()) {
    const entries = await linesOf(journal, part, crawl);
    // What was written since the number was read is for the next page.
    const known = entries.filter(({ seq }) => seq <= next);
    if (!known.reverse().every((entry) => page.add(entry))) break;
  }
  return { lines: page.lines.reverse(), next };
}

async function linesOf(journal: Journal, part: Part, crawl: string): Promise<CrawlLogEntry[]> {
  if (part.kind === "gap") {
    const reader = new JournalReader(journal, { after: part.last - 1, crawl });
    return [...((await reader.next(LINES_AT_ONCE))?.entries ?? [])];
  }
  const { path, epoch, bytes } = part;
  let text: string;
  try {
    text = (await readAt(path, 0, bytes)).toString("utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  return text.split("\n").flatMap((line) => {
    const parsed = isOfCrawl(line, crawl) ? parseLine(line) : undefined;
    return parsed === undefined ? [] : [{ ...parsed, epoch }];
  });
}

/** Takes lines until there are enough, or enough of them. */
class Page {
  readonly lines: CrawlLogEntry[] = [];
  readonly #most: number;
  #characters = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** @returns false when there is no room any more */
  add(entry: CrawlLogEntry): boolean {
    const characters = JSON.stringify(entry).length;
    const isFull =
      this.lines.length >= this.#most ||
      (this.lines.length > 0 && this.#characters + characters > PAGE_CHARACTERS);
    if (isFull) return false;
    this.lines.push(entry);
    this.#characters += characters;
    return true;
  }
}
