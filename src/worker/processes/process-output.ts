import type { StdoutMode } from "../../crawl/process-manifest.js";
import type { Clock } from "../../lib/clock.js";
import type { OutputStream } from "./child-process.js";
import type { Line } from "./line-reader.js";
import { type LineLevel, levelOf, type ProcessMessage, parsedLine } from "./protocol.js";

/** What becomes of what a process writes. */
export type OutputReceiver = {
  /**
   * Every message but `log`. What comes next is not read before a promise is settled, which must not fail.
   * @param characters of its line
   */
  onMessage(message: Exclude<ProcessMessage, { type: "log" }>, characters: number): Promise<void> | void;
  /** A line of its log. */
  onLog(level: LineLevel, text: string, fields: LogFields): void;
  /** It wrote a message that is none: something is lost. @param page the one that it is about, if it says so */
  onBroken(page: number | undefined, why: string): void;
};

export type LogFields = {
  /** Where it was written; absent for a message. */
  readonly stream?: OutputStream;
  /** The page that a message says it is about. */
  readonly page?: number | undefined;
  readonly [name: string]: unknown;
};

export type ProcessOutputOptions = {
  readonly stdout: StdoutMode;
  /** What a process logs in a second; what is more has to wait, and the process with it. @default 5_000 */
  readonly maxLogLinesPerSecond?: number;
};

/** Characters of one line in the log. */
const MAX_LOG_CHARACTERS = 16_384;
/** Kinds of messages nobody knows that are told of, each once. */
const MAX_UNKNOWN_TYPES = 20;
const SECOND_MS = 1_000;

/** Makes of the lines that a process writes what they are: messages, items, or its log. */
export class ProcessOutput {
  readonly #receiver: OutputReceiver;
  readonly #clock: Clock;
  readonly #stdout: StdoutMode;
  readonly #maxLines: number;
  readonly #unknownTypes = new Set<string>();
  #secondBegan = Number.NEGATIVE_INFINITY;
  #linesInSecond = 0;

  constructor(options: ProcessOutputOptions, receiver: OutputReceiver, clock: Clock) {
    this.#receiver = receiver;
    this.#clock = clock;
    this.#stdout = options.stdout;
    this.#maxLines = options.maxLogLinesPerSecond ?? 5_000;
  }

  /** @returns a promise to wait for before the next line is read, if there is something to wait for */
  take(stream: OutputStream, line: Line): Promise<void> | void {
    if (stream === "stderr" || this.#stdout === "log") return this.#log(stream, line);
    if (line.isCut && line.text.startsWith("{")) {
      return this.#receiver.onBroken(undefined, `is longer than ${Buffer.byteLength(line.text)} bytes`);
    }
    if (this.#stdout === "items") {
      const data = objectOf(line.text);
      if (data === undefined) return this.#log(stream, line);
      return this.#receiver.onMessage({ type: "item", data }, line.text.length);
    }
    const parsed = parsedLine(line.text);
    switch (parsed.kind) {
      case "message":
        return this.#message(parsed.message, line.text.length);
      case "broken":
        return this.#receiver.onBroken(parsed.page, parsed.why);
      case "unknown":
        return this.#unknown(parsed.type);
      case "object":
      case "text":
        return this.#log(stream, line);
      default:
        return parsed satisfies never;
    }
  }

  #message(message: ProcessMessage, characters: number): Promise<void> | void {
    if (message.type !== "log") return this.#receiver.onMessage(message, characters);
    const { type: _type, level, message: text, ...fields } = message;
    this.#receiver.onLog(
      levelOf(level),
      cut(typeof text === "string" ? text : (JSON.stringify(text) ?? "")),
      fields,
    );
    return this.#pace();
  }

  #log(stream: OutputStream, { text, isCut }: Line): Promise<void> | void {
    if (text === "" && !isCut) return;
    this.#receiver.onLog("info", cut(text), { stream, ...(isCut && { isCut }) });
    return this.#pace();
  }

  #unknown(type: string): void {
    if (this.#unknownTypes.has(type) || this.#unknownTypes.size >= MAX_UNKNOWN_TYPES) return;
    this.#unknownTypes.add(type);
    this.#receiver.onLog(
      "warn",
      `messages of type "${type.slice(0, 100)}" are not known, and passed over`,
      {},
    );
  }

  #pace(): Promise<void> | void {
    const now = this.#clock.monotonic();
    if (now - this.#secondBegan >= SECOND_MS) {
      this.#secondBegan = now;
      this.#linesInSecond = 0;
    }
    this.#linesInSecond += 1;
    if (this.#linesInSecond < this.#maxLines) return;
    return new Promise((resolve) => this.#clock.after(this.#secondBegan + SECOND_MS - now, resolve));
  }
}

function objectOf(text: string): Record<string, unknown> | undefined {
  if (!text.startsWith("{")) return undefined;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function cut(text: string): string {
  return text.length > MAX_LOG_CHARACTERS ? `${text.slice(0, MAX_LOG_CHARACTERS)}…` : text;
}
