import type { Readable } from "node:stream";
import type { Logger } from "../../lib/logger.js";

/** Longest line that is kept, and how much of what went before the end of a process. */
const MAX_CHARACTERS = 4_096;

/** What a process prints, as lines of the log; not more of them than a page may log, for each page. */
export class PrintedLines {
  readonly #maxLines: number;
  readonly #log: () => Logger;
  #lines = 0;
  #lastComplaint = "";

  constructor(maxLines: number, log: () => Logger) {
    this.#maxLines = maxLines;
    this.#log = log;
  }

  /** The end of what it has printed as an error. */
  get lastComplaint(): string {
    return this.#lastComplaint;
  }

  /** A page is over. @returns the lines that were too many for it */
  takeDropped(): number {
    const dropped = Math.max(0, this.#lines - this.#maxLines);
    this.#lines = 0;
    return dropped;
  }

  read(stream: Readable | null, name: "stdout" | "stderr"): void {
    if (stream === null) return;
    let line = "";
    stream.setEncoding("utf8");
    stream.on("error", () => {});
    stream.on("data", (text: string) => {
      if (name === "stderr") this.#lastComplaint = (this.#lastComplaint + text).slice(-MAX_CHARACTERS);
      const lines = (line + text).split("\n");
      line = (lines.pop() ?? "").slice(0, MAX_CHARACTERS);
      for (const whole of lines) this.#write(whole, name);
    });
    stream.on("end", () => this.#write(line, name));
  }

  #write(line: string, stream: "stdout" | "stderr"): void {
    if (line.trim() === "") return;
    this.#lines += 1;
    if (this.#lines > this.#maxLines) return;
    const text = line.slice(0, MAX_CHARACTERS);
    if (stream === "stdout") this.#log().info({ stream }, text);
    else this.#log().warn({ stream }, text);
  }
}
