/** A line of the log, as it was written: members are what its writer gave it. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly seq: number };

export type LogQuery = {
  /** Lines at most: the newest, or with `after` the next. */
  readonly lines: number;
  /** Only lines with a greater `seq`. */
  readonly after?: number;
};

/** As much of a line as is kept, in characters. */
const MAX_LINE_CHARACTERS = 16_384;

/** The newest lines of this process's log, for those who ask from afar. A destination of a logger. */
export class LogRing {
  readonly #size: number;
  readonly #lines: string[] = [];
  #seq = 0;
  readonly #listeners = new Set<(line: string) => void>();

  /** @param size lines kept */
  constructor(size: number) {
    this.#size = size;
  }

  /** Takes one line, as JSON. */
  write(line: string): void {
    this.#lines[this.#seq % this.#size] = line.length > MAX_LINE_CHARACTERS ? shortened(line) : line;
    this.#seq += 1;
    for (const listener of this.#listeners) listener(line);
  }

  /** Hands on each line as it is written, until the returned function is called. */
  follow(onLine: (line: string) => void): () => void {
    this.#listeners.add(onLine);
    return () => this.#listeners.delete(onLine);
  }

  /** Lines, oldest first, and the `seq` to go on after. Those that have been overwritten are missing in `seq`. */
  read({ lines, after }: LogQuery): { readonly lines: readonly LogLine[]; readonly next: number } {
    const oldest = Math.max(0, this.#seq - this.#size);
    const from = Math.max(oldest, after ?? 0);
    const found: LogLine[] = [];
    // Forward from where someone has read to, else backward from the newest.
    const isForward = after !== undefined;
    let at = isForward ? from : this.#seq - 1;
    for (; isForward ? at < this.#seq : at >= oldest; at += isForward ? 1 : -1) {
      if (found.length >= lines) break;
      const line: Record<string, unknown> = JSON.parse(this.#lines[at % this.#size] ?? "{}");
      found.push({ ...line, seq: at + 1 });
    }
    if (!isForward) found.reverse();
    return { lines: found, next: isForward ? at : this.#seq };
  }
}

/** A line that is still JSON, and says that it was too long. */
function shortened(line: string): string {
  const { level, time, msg, crawl }: Record<string, unknown> = JSON.parse(line);
  const text = String(msg ?? "").slice(0, MAX_LINE_CHARACTERS / 2);
  return JSON.stringify({ level, time, crawl, msg: `${text} … (${line.length} characters)` });
}
