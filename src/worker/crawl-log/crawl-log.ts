import { type Logger as PinoLogger, pino } from "pino";
import {
  boundedLine,
  CRAWL_LOG_LEVELS,
  type CrawlLogContext,
  type CrawlLogLine,
  LOG_LEVEL_NUMBERS,
} from "../../crawl/crawl-log.js";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger, LogLevel } from "../../lib/logger.js";
import type { Service } from "../../lib/service.js";
import { Journal } from "./journal.js";
import { lineBody, numbered } from "./journal-lines.js";
import { type CrawlLogPage, type CrawlLogPageQuery, pageOfJournal } from "./journal-page.js";

export type CrawlLogOptions = {
  /** Where this node's journal is, and nobody else's. */
  readonly folder: string;
  readonly node: string;
  /** Lowest level that is kept; with `silent`, nothing is. @default "info" */
  readonly level: LogLevel;
  /** Size of a file, in bytes. @default 4 MiB */
  readonly segmentBytes: number;
  /** All files together, in bytes. @default 256 MiB */
  readonly maxBytes: number;
};

const DEFAULTS = {
  level: "info",
  segmentBytes: 4 * 1_048_576,
  maxBytes: 256 * 1_048_576,
} satisfies Partial<CrawlLogOptions>;

export type CrawlLogDeps = {
  /** Tells this process from earlier ones of the node; asked for when it starts. */
  readonly epoch: () => number;
  readonly clock: Clock;
  /** For what befalls the log itself. */
  readonly logger: Logger;
};

/** Characters that may wait to be written: above the first number writers are asked to wait, above the second lines are dropped. */
const WAIT_CHARACTERS = 1_048_576;
const DROP_CHARACTERS = 4 * 1_048_576;
/** Share of the disk's room from which on writers are asked to wait, because it is full of what has yet to be shipped. */
const BACKLOG_SHARE = 0.5;
/** How long a writer is asked to wait at most, in milliseconds. */
const PATIENCE_MS = 10_000;
/** Characters written at once. */
const WRITE_CHARACTERS = 262_144;
/** After this time a disk that could not be written to is tried again, in milliseconds. */
const RETRY_MS = 1_000;

/** Under this name a logger carries what it was made for; nobody calls a member of their own so. */
const ABOUT = "warren:about";

/** What a spider's logger writes: its own members, what it was made for, and whatever its writer adds. */
type Written = {
  readonly level?: unknown;
  readonly msg?: unknown;
  readonly fields?: unknown;
  readonly [ABOUT]: CrawlLogContext;
};

/**
 * What is logged about crawls on this node. Lines wait in memory until the disk has taken them, a few milliseconds as
 * a rule; they are numbered when they are written, so that nothing that was dropped leaves a hole in the numbers.
 * Memory is bounded: lines that there is no room for are dropped, and a line says how many. Those who can wait
 * (`whenWritable`) are spared that, and that lines have to go unshipped when shipping does not keep up.
 */
export class CrawlLog implements Service {
  readonly name = "crawl log";
  readonly #options: CrawlLogOptions;
  readonly #deps: CrawlLogDeps;
  readonly #loggers: PinoLogger;
  readonly #least: number;
  #journal: Journal | undefined;
  #waiting: string[] = [];
  #waitingCharacters = 0;
  #dropped = new Map<string, number>();
  #writing: Promise<void> | undefined;
  readonly #writable = new Set<() => void>();
  #writtenCount = 0;
  /** Who waits until so many lines have been written, in that order. */
  #unwritten: { readonly count: number; readonly resolve: () => void }[] = [];
  /** Half of what the files may take has yet to be shipped. */
  #hasBacklog = false;
  #onWritten: () => void = () => {};
  #stopTimer: StopTimer = () => {};
  #state: "new" | "started" | "stopped" = "new";
  #isInTrouble = false;

  constructor(
    given: Partial<CrawlLogOptions> & Pick<CrawlLogOptions, "folder" | "node">,
    deps: CrawlLogDeps,
  ) {
    this.#options = { ...DEFAULTS, ...given };
    this.#deps = deps;
    const { level } = this.#options;
    this.#least = level === "silent" ? Number.POSITIVE_INFINITY : LOG_LEVEL_NUMBERS[level];
    this.#loggers = pino(
      {
        level,
        base: null,
        timestamp: false,
        // What spiders add may have any names.
        nestedKey: "fields",
        formatters: { level: (name) => ({ level: name }) },
      },
      { write: (line) => this.#take(line) },
    );
  }

  /** Opens the journal. Where that is not possible, lines wait for it in memory as they do for a slow disk. */
  async start(): Promise<void> {
    this.#state = "started";
    await this.flush();
  }

  async stop(): Promise<void> {
    if (this.#state !== "started") return;
    await this.flush();
    this.#state = "stopped";
    this.#stopTimer();
    this.#release();
    await this.#journal?.close();
  }

  /** The files, once they could be opened. */
  get journal(): Journal | undefined {
    return this.#journal;
  }

  /** Called whenever lines have been written. */
  onWritten(tell: () => void): void {
    this.#onWritten = tell;
  }

  /** A logger whose lines go into a crawl's log. Costs next to nothing until it is used. */
  loggerFor(about: CrawlLogContext): Logger {
    return this.#loggers.child({ [ABOUT]: about });
  }

  /** @returns false when the line was dropped, because the disk does not keep up */
  write(line: Omit<CrawlLogLine, "at"> & { readonly at?: number }): boolean {
    const { level, crawl } = line;
    if (LOG_LEVEL_NUMBERS[level] < this.#least) return true;
    if (this.#waitingCharacters >= DROP_CHARACTERS || this.#state === "stopped") {
      this.#dropped.set(crawl, (this.#dropped.get(crawl) ?? 0) + 1);
      return false;
    }
    this.#add(lineBody(boundedLine({ ...line, at: line.at ?? this.#deps.clock.now() })));
    return true;
  }

  /**
   * Something to wait for, for those who can: it resolves when there is room, or after ten seconds. Undefined when there
   * is room now, or no sense in waiting since the disk cannot be written to.
   */
  whenWritable(): Promise<void> | undefined {
    if (!this.#isCrowded || this.#state !== "started" || this.#isInTrouble) return undefined;
    return new Promise<void>((resolve) => {
      const stopTimer = this.#deps.clock.after(PATIENCE_MS, () => {
        this.#writable.delete(proceed);
        resolve();
      });
      const proceed = () => {
        stopTimer();
        resolve();
      };
      this.#writable.add(proceed);
    });
  }

  /**
   * Something to wait for before what was done counts as done: it resolves when the lines logged so far are in the
   * journal, or cannot be written. Undefined when they are there.
   */
  whenWritten(): Promise<void> | undefined {
    const count = this.#writtenCount + this.#waiting.length;
    if (this.#waiting.length === 0 || this.#state !== "started" || this.#isInTrouble) return undefined;
    return new Promise<void>((resolve) => this.#unwritten.push({ count, resolve }));
  }

  /** Lines up to this one have been shipped. */
  async setShipped(seq: number): Promise<void> {
    await this.#journal?.setShipped(seq);
    this.#lookAtBacklog();
  }

  /** Resolves when what has been logged so far is in the journal, or could not be written. */
  async flush(): Promise<void> {
    while (this.#waiting.length > 0 || this.#dropped.size > 0 || this.#journal === undefined) {
      await this.#write();
      if (this.#isInTrouble) return;
    }
  }

  /** What this node has of a crawl's log. */
  async read(query: CrawlLogPageQuery): Promise<CrawlLogPage> {
    await this.flush();
    if (this.#journal === undefined) return { lines: [], next: query.after ?? 0 };
    return pageOfJournal(this.#journal, query);
  }

  #take(text: string): void {
    const { level, msg, fields, [ABOUT]: about, ...bindings }: Written = JSON.parse(text);
    const known = CRAWL_LOG_LEVELS.find((one) => one === level) ?? "info";
    const more = { ...bindings, ...(typeof fields === "object" ? fields : {}) };
    this.write({
      ...about,
      level: known,
      message: typeof msg === "string" ? msg : "",
      ...(Object.keys(more).length > 0 && { fields: more }),
    });
  }

  #add(body: string): void {
    this.#waiting.push(body);
    this.#waitingCharacters += body.length;
    if (this.#state === "started" && !this.#isInTrouble) void this.#write();
  }

  #write(): Promise<void> {
    // Not at once: what is logged in one go is written in one go.
    this.#writing ??= new Promise<void>((resolve) => setImmediate(resolve))
      .then(() => this.#writeWaiting())
      .finally(() => {
        this.#writing = undefined;
        // Logged since it looked last.
        if (this.#waiting.length > 0 && this.#state === "started" && !this.#isInTrouble) void this.#write();
      });
    return this.#writing;
  }

  async #writeWaiting(): Promise<void> {
    try {
      this.#journal ??= await this.#opened();
      this.#tellDropped();
      while (this.#waiting.length > 0) await this.#writeSome(this.#journal);
      if (this.#isInTrouble) this.#deps.logger.info("crawls' logs can be written again");
      this.#isInTrouble = false;
    } catch (error) {
      if (!this.#isInTrouble) {
        this.#deps.logger.error(
          { folder: this.#options.folder, error: messageOf(error) },
          "cannot write crawls' logs",
        );
      }
      this.#isInTrouble = true;
      this.#release();
      this.#tellWritten();
      if (this.#state !== "started") return;
      this.#stopTimer();
      this.#stopTimer = this.#deps.clock.after(RETRY_MS, () => void this.#write());
    }
  }

  async #writeSome(journal: Journal): Promise<void> {
    const texts: string[] = [];
    let characters = 0;
    for (const body of this.#waiting) {
      if (texts.length > 0 && characters + body.length > WRITE_CHARACTERS) break;
      texts.push(numbered(journal.nextSeq + texts.length, body));
      characters += body.length;
    }
    await journal.append(texts.join(""), texts.length);
    this.#waiting = this.#waiting.slice(texts.length);
    this.#writtenCount += texts.length;
    this.#tellWritten();
    this.#waitingCharacters -= characters;
    this.#tellDropped();
    this.#lookAtBacklog();
    this.#onWritten();
  }

  #opened(): Promise<Journal> {
    const { folder, segmentBytes, maxBytes } = this.#options;
    const { epoch, logger, clock } = this.#deps;
    return Journal.open(
      {
        folder,
        // The file that is written to cannot go.
        segmentBytes: Math.min(segmentBytes, maxBytes / 4),
        maxBytes,
        epoch: epoch(),
      },
      { logger, clock },
    );
  }

  #tellDropped(): void {
    if (this.#dropped.size === 0 || this.#waitingCharacters >= WAIT_CHARACTERS) return;
    const dropped = this.#dropped;
    this.#dropped = new Map();
    const at = this.#deps.clock.now();
    for (const [crawl, count] of dropped) {
      const message = `${count} lines were dropped here: they came faster than they could be written`;
      const body = lineBody({ crawl, at, level: "warn", message, fields: { dropped: count } });
      this.#waiting.push(body);
      this.#waitingCharacters += body.length;
    }
  }

  #tellWritten(): void {
    const isDone = ({ count }: { readonly count: number }) =>
      this.#isInTrouble || count <= this.#writtenCount;
    for (const { resolve } of this.#unwritten.filter(isDone)) resolve();
    this.#unwritten = this.#unwritten.filter((waiter) => !isDone(waiter));
  }

  get #isCrowded(): boolean {
    return this.#hasBacklog || this.#waitingCharacters >= WAIT_CHARACTERS;
  }

  #lookAtBacklog(): void {
    this.#hasBacklog = (this.#journal?.backlogBytes ?? 0) > this.#options.maxBytes * BACKLOG_SHARE;
    if (!this.#isCrowded) this.#release();
  }

  #release(): void {
    const waiting = [...this.#writable];
    this.#writable.clear();
    for (const proceed of waiting) proceed();
  }
}
