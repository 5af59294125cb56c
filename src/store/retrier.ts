import { MongoBulkWriteError, MongoError, MongoNetworkError, MongoServerSelectionError } from "mongodb";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { StoreUnavailableError } from "./errors.js";

/** An attempt that has not ended by then is not waited for any longer, in milliseconds. */
const NO_ANSWER_MS = 8_000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2_000;

/** Codes by which a server says that it is going, is not the primary (any more), or cannot answer just now. */
const TRANSIENT_CODES = new Set([
  6, // HostUnreachable
  7, // HostNotFound
  64, // WriteConcernFailed
  89, // NetworkTimeout
  91, // ShutdownInProgress
  112, // WriteConflict
  134, // ReadConcernMajorityNotAvailableYet
  189, // PrimarySteppedDown
  239, // SnapshotTooOld
  246, // SnapshotUnavailable: a collection was created since the snapshot
  262, // ExceededTimeLimit
  9001, // SocketException
  10107, // NotWritablePrimary
  11600, // InterruptedAtShutdown
  11602, // InterruptedDueToReplStateChange
  13435, // NotPrimaryNoSecondaryOk
  13436, // NotPrimaryOrSecondary
]);

/** Whether the same command may well succeed a little later. */
export function isTransient(error: unknown): boolean {
  if (error instanceof MongoNetworkError || error instanceof MongoServerSelectionError) return true;
  if (!(error instanceof MongoError)) return false;
  if (error.hasErrorLabel("RetryableWriteError") || error.hasErrorLabel("TransientTransactionError"))
    return true;
  if (error instanceof MongoBulkWriteError) {
    if (error.result.getWriteConcernError() !== undefined) return true;
    // The driver wraps what befell a bulk write as a whole.
    const wrapped: unknown = error.errorResponse;
    if (wrapped instanceof Error) return isTransient(wrapped);
  }
  return typeof error.code === "number" && TRANSIENT_CODES.has(error.code);
}

/** Nothing was heard of an attempt; it may have been carried out. */
class NoAnswerError extends Error {
  constructor() {
    super(`no answer within ${NO_ANSWER_MS} ms`);
  }
}

/**
 * Makes a write again while the database is away or changes its primary. The driver itself repeats each
 * write once, and updates of many documents not at all, since it cannot know whether that is safe; here
 * every write is made so that it is.
 */
export class Retrier {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #forMs: number;
  #stopped = false;

  constructor(deps: { clock: Clock; logger: Logger }, options: { forMs: number }) {
    this.#clock = deps.clock;
    this.#logger = deps.logger;
    this.#forMs = options.forMs;
  }

  /**
   * @param what what is done, for people: "could not <what>"
   * @param attempt told whether an earlier attempt may have been carried out, in part or as a whole
   * @throws StoreUnavailableError when time is up; any other error at once
   */
  async run<T>(what: string, attempt: (again: boolean) => Promise<T>): Promise<T> {
    const startedAt = this.#clock.monotonic();
    for (let pauseMs = FIRST_PAUSE_MS, again = false; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      try {
        return await this.#answered(attempt(again));
      } catch (error) {
        if (!(error instanceof NoAnswerError) && !isTransient(error)) throw error;
        const spentMs = this.#clock.monotonic() - startedAt;
        if (this.#stopped || spentMs + pauseMs > this.#forMs) {
          throw new StoreUnavailableError(what, spentMs, { cause: error });
        }
        this.#logger.warn({ error: messageOf(error), pauseMs }, `could not ${what} yet: trying again`);
        again = true;
        await new Promise<void>((resolve) => this.#clock.after(pauseMs, resolve));
      }
    }
  }

  /**
   * What an attempt came to, as long as it comes to anything: a driver that waits for room in the buffer of a
   * connection that dies at that moment never hears of it again.
   */
  async #answered<T>(attempt: Promise<T>): Promise<T> {
    let stopTimer: StopTimer = () => {};
    const late = new Promise<never>((_, reject) => {
      stopTimer = this.#clock.after(NO_ANSWER_MS, () => reject(new NoAnswerError()));
    });
    try {
      return await Promise.race([attempt, late]);
    } finally {
      stopTimer();
    }
  }

  /** Lets what is being tried end with its next failure. */
  stop(): void {
    this.#stopped = true;
  }
}
