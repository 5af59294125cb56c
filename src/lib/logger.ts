import { type DestinationStream, type Logger, pino } from "pino";

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
  if (options.destination !== undefined) return pino(settings, options.destination);
  if (process.stderr.isTTY) {
    const { formatters: _json, ...readable } = settings;
    return pino({
      ...readable,
      transport: { target: "pino-pretty", options: { destination: 2, ignore: "pid,hostname" } },
    });
  }
  return pino(settings, pino.destination({ dest: 2, sync: true }));
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
