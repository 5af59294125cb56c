import { type DestinationStream, type Logger, multistream, pino } from "pino";
import type { LogRing } from "./log-ring.js";

export type { Logger } from "pino";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export type LoggerOptions = {
  /** Lowest level that is written. */
  readonly level: LogLevel;
  /** Fields on every line, for example `{ role: "worker", node: "worker-1" }`. */
  readonly base?: Readonly<Record<string, string>>;
  /** Where lines go. @default standard error, as JSON; made readable when that is a terminal */
  readonly destination?: DestinationStream;
  /** Gets every line as well. */
  readonly ring?: LogRing;
};

/**
 * A structured logger. Levels by who must act: `error` means that someone must fix something; a page that
 * cannot be fetched is data, not an error.
 */
export function createLogger(options: LoggerOptions): Logger {
  const settings = {
    level: options.level,
    base: options.base ?? {},
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const destination = options.destination ?? standardError();
  if (options.ring === undefined) return pino(settings, destination);
  // What is written at all is for the logger to decide, and may change.
  const streams = [destination, options.ring].map((stream) => ({ stream, level: "trace" as const }));
  return pino(settings, multistream(streams));
}

function standardError(): DestinationStream {
  if (!process.stderr.isTTY) return pino.destination({ dest: 2, sync: true });
  return pino.transport({ target: "pino-pretty", options: { destination: 2, ignore: "pid,hostname" } });
}

/** A logger that writes nothing. */
export const silentLogger: Logger = pino({ level: "silent" });

/**
 * A connection URL without its password, fit for a log line or an error message. A password that was not
 * encoded as it should be may hold "/", "?", "#" or "@", so it counts as going on to the last "@".
 */
export function withoutPassword(url: string): string {
  return url.replace(/(\/\/[^:/?#@]*):.*@/gs, "$1:***@");
}
