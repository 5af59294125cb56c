import { pino } from "pino";
import type { Logger, LogLevel } from "../../lib/logger.js";

/** Longest line that is sent, in characters. */
const MAX_LINE_CHARACTERS = 16_384;

/** The log of one page, or of a crawl's hooks, in a process of spiders: lines go to the worker, and no more than so many. */
export class JobLog {
  readonly #level: LogLevel;
  readonly #maxLines: number;
  readonly #send: (line: string) => void;
  #logger: Logger | undefined;
  #lines = 0;

  constructor(level: LogLevel, maxLines: number, send: (line: string) => void) {
    this.#level = level;
    this.#maxLines = maxLines;
    this.#send = send;
  }

  /** Made when it is asked for: most pages log nothing. */
  get logger(): Logger {
    this.#logger ??= pino(
      {
        level: this.#level,
        base: {},
        timestamp: false,
        formatters: { level: (label) => ({ level: label }) },
      },
      { write: (line) => this.#write(line) },
    );
    return this.#logger;
  }

  /** Lines that were too many. */
  get dropped(): number {
    return Math.max(0, this.#lines - this.#maxLines);
  }

  #write(line: string): void {
    this.#lines += 1;
    if (this.#lines > this.#maxLines) return;
    this.#send(line.length > MAX_LINE_CHARACTERS ? shortened(line) : line);
  }
}

function shortened(line: string): string {
  const { level, msg } = JSON.parse(line) as { level: string; msg?: string };
  return JSON.stringify({
    level,
    msg: `${(msg ?? "").slice(0, MAX_LINE_CHARACTERS)}… (a line of ${line.length} characters)`,
  });
}
