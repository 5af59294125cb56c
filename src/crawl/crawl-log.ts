import { LOG_LEVELS } from "../lib/logger.js";

/** Levels of lines in a crawl's log, and the numbers by which they compare. */
export const LOG_LEVEL_NUMBERS = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60 } as const;
export type CrawlLogLevel = keyof typeof LOG_LEVEL_NUMBERS;
export const CRAWL_LOG_LEVELS = LOG_LEVELS.filter((level) => level !== "silent");

/** What lines of a crawl's log are about. */
export type CrawlLogContext = {
  readonly crawl: string;
  readonly spider?: string;
  /** Of the spider. */
  readonly version?: string;
  /** Of a spider that runs as a process of its own over the whole crawl. */
  readonly run?: string;
  readonly url?: string;
};

/** A line for a crawl's log. */
export type CrawlLogLine = CrawlLogContext & {
  /** In milliseconds since the epoch. */
  readonly at: number;
  readonly level: CrawlLogLevel;
  readonly message: string;
  /** Whatever else is to be said. */
  readonly fields?: Readonly<Record<string, unknown>>;
};

/**
 * A line with its place in the log of its node. Lines of a node are numbered without gaps, whichever crawl they
 * belong to, for as long as its disk lasts; the epoch grows with each start of the process.
 */
export type CrawlLogEntry = CrawlLogLine & { readonly epoch: number; readonly seq: number };

const MAX_MESSAGE_CHARACTERS = 8_192;
const MAX_FIELDS_CHARACTERS = 16_384;
const MAX_URL_CHARACTERS = 2_048;
const MAX_NAME_CHARACTERS = 200;

/** The line as it is kept: what is too long is cut, and says so; what JSON cannot express is left out. */
export function boundedLine(line: CrawlLogLine): CrawlLogLine {
  const { crawl, spider, version, run, url, at, level, message, fields } = line;
  return {
    crawl: cut(crawl, MAX_NAME_CHARACTERS),
    at,
    level,
    message: cut(message, MAX_MESSAGE_CHARACTERS),
    ...(spider !== undefined && { spider: cut(spider, MAX_NAME_CHARACTERS) }),
    ...(version !== undefined && { version: cut(version, MAX_NAME_CHARACTERS) }),
    ...(run !== undefined && { run: cut(run, MAX_NAME_CHARACTERS) }),
    ...(url !== undefined && { url: cut(url, MAX_URL_CHARACTERS) }),
    ...(fields !== undefined && { fields: bounded(fields) }),
  };
}

function cut(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most)} … (${text.length} characters)`;
}

function bounded(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  try {
    const { length } = JSON.stringify(fields);
    return length <= MAX_FIELDS_CHARACTERS ? fields : { omitted: `${length} characters` };
  } catch {
    return { omitted: "cannot be written as JSON" };
  }
}
