import type { Clock } from "../lib/clock.js";
import type { TroubleReport } from "./dispatch/host-health.js";
import { ConnectionsBusyError, FetchError, RenderError, type SpiderUnavailableError } from "./errors.js";
import type { Fetched } from "./fetch/fetcher.js";
import { statusInWords } from "./fetch/status-words.js";
import type { FailReason, RedirectTarget, SkipReason } from "./frontier.js";
import {
  maxAttemptsFor,
  type RetryClass,
  retryAfterMs,
  retryClassOf,
  retryDelayMs,
  type TaskLimits,
} from "./limits.js";
import type { Task } from "./task.js";

/** What a task came to, before it is put into records. */
export type Outcome = {
  /** When the last fetch of it ended. */
  endedAt: number;
  /** Nothing was asked of the host. */
  untouched?: boolean;
  statusCode?: number;
  /** The attempt counts. */
  counts: boolean;
  backoffUntil?: number;
  /** What is wrong with the host. */
  trouble?: TroubleReport;
} & (
  | { state: "done"; isUnchanged?: true }
  | { state: "failed"; reason: FailReason; error: string }
  | { state: "skipped"; reason: SkipReason; error?: string }
  | { state: "queued"; reason: string; readyAt: number; host?: string; target?: RedirectTarget }
);

/** Attempts of a URL after which it fails if the code of its spider cannot be had. */
const SPIDER_ATTEMPTS = 3;
/** Wait for the code of a spider, in milliseconds. */
const SPIDER_WAIT_MS = 5_000;

/** How a URL ends if it is not tried again. */
type Otherwise =
  | { state: "failed"; reason: FailReason; error: string }
  | { state: "skipped"; reason: SkipReason; error: string };

type AttemptedTask = Pick<Task, "attempts">;
/** What a server said, as far as it matters here. */
type Answer = Pick<Fetched, "statusCode"> & { readonly headers: { readonly "retry-after"?: string } };

/** Judges attempts that went wrong: whether there is another one and when, or how the URL ends. */
export class AttemptJudge {
  readonly #clock: Pick<Clock, "now">;
  readonly #limits: TaskLimits;
  readonly #random: () => number;

  /** @param random from 0 to 1, for the part of a wait that is left to chance */
  constructor(clock: Pick<Clock, "now">, limits: TaskLimits, random: () => number = Math.random) {
    this.#clock = clock;
    this.#limits = limits;
    this.#random = random;
  }

  /** The server answered, but with neither a page nor a redirect. */
  badStatus(fetched: Answer, task: AttemptedTask): Outcome {
    const now = this.#clock.now();
    const { statusCode } = fetched;
    const error = statusInWords(statusCode);
    const failure = { state: "failed", reason: "http-status", error } as const;
    const retryClass = retryClassOf(statusCode);
    if (retryClass === undefined) return { ...failure, endedAt: now, statusCode, counts: true };
    const outcome = this.tryAgain(retryClass, task, now, failure, statusCode);
    if (statusCode !== 429 && statusCode !== 503) return outcome;
    const askedMs = retryAfterMs(fetched.headers["retry-after"], now) ?? 0;
    const waitMs = askedMs > 0 ? askedMs : this.#waitMs(retryClass, task.attempts + 1);
    const backoffUntil = now + Math.min(waitMs, this.#limits.maxRetryDelayMs);
    const trouble = { kind: askedMs > 0 ? "asked" : "overloaded", why: error } as const;
    if (outcome.state !== "queued") return { ...outcome, backoffUntil, trouble };
    return { ...outcome, backoffUntil, trouble, readyAt: Math.max(outcome.readyAt, backoffUntil) };
  }

  /** Fetched or rendered. @throws what is the fault of neither, as it came */
  fetchFailed(error: unknown, task: AttemptedTask, statusCode?: number): Outcome {
    const endedAt = this.#clock.now();
    if (!(error instanceof FetchError || error instanceof RenderError)) throw error;
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    if (error.reason === "address") {
      return { ...facts, state: "skipped", reason: "address", error: error.message, untouched: true };
    }
    const failure = { state: "failed", reason: error.reason, error: error.message } as const;
    if (!error.retryable) return { ...facts, ...failure };
    const outcome = this.tryAgain(classOf(error), task, endedAt, failure, statusCode);
    const why = statusCode === undefined && error instanceof FetchError ? silenceOf(error) : undefined;
    return why === undefined ? outcome : { ...outcome, trouble: { kind: "silent", why } };
  }

  /**
   * robots.txt could not be had: another attempt after a wait, or this end if there were enough.
   * @param failReason why not, if the URL then fails by that
   */
  withoutRobots(task: AttemptedTask, endedAt: number, error: string, failReason?: FailReason): Outcome {
    const end: Otherwise =
      failReason === undefined
        ? { state: "skipped", reason: "robots", error }
        : { state: "failed", reason: failReason, error };
    return this.tryAgain(failReason === "timeout" ? "timeout" : "network", task, endedAt, end);
  }

  /** The spider's code cannot be had here now: perhaps it can a little later, or on another node. */
  withoutSpider(error: SpiderUnavailableError, task: AttemptedTask): Outcome {
    const endedAt = this.#clock.now();
    const facts = { endedAt, counts: true, untouched: true };
    if (!error.retryable || task.attempts + 1 >= SPIDER_ATTEMPTS) {
      return { ...facts, state: "failed", reason: "spider-error", error: error.message };
    }
    return { ...facts, state: "queued", reason: error.message, readyAt: endedAt + SPIDER_WAIT_MS };
  }

  /** Another attempt after a wait, or this end if there were enough. */
  tryAgain(
    retryClass: RetryClass,
    task: AttemptedTask,
    endedAt: number,
    otherwise: Otherwise,
    statusCode?: number,
  ): Outcome {
    const attempts = task.attempts + 1;
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    if (attempts >= maxAttemptsFor(retryClass, this.#limits)) return { ...facts, ...otherwise };
    const readyAt = endedAt + this.#waitMs(retryClass, attempts);
    return { ...facts, state: "queued", reason: otherwise.error, readyAt };
  }

  #waitMs(retryClass: RetryClass, attempts: number): number {
    return retryDelayMs(retryClass, attempts, this.#limits, this.#random);
  }
}

function classOf(error: FetchError | RenderError): RetryClass {
  if (error instanceof FetchError && error.phase === "dns") return "dns";
  return error.reason === "timeout" ? "timeout" : "network";
}

/** Failures that mean that nobody was there, and what they are called. Not a connection that broke off. */
const SILENCES: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  EHOSTUNREACH: "host unreachable",
  EHOSTDOWN: "host down",
  ENETUNREACH: "network unreachable",
  ENOTFOUND: "name not found",
  EAI_AGAIN: "name not found",
};

/** How a host was silent in a fetch that brought no status; undefined if it was not. */
function silenceOf({ reason, cause }: FetchError): string | undefined {
  // That all connections were in use is no fault of the host.
  if (reason === "timeout") return cause instanceof ConnectionsBusyError ? undefined : "no answer in time";
  return reason === "network" ? SILENCES[codeOf(cause)] : undefined;
}

function codeOf(cause: unknown): string {
  if (cause instanceof AggregateError) return codeOf(cause.errors[0]);
  return cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
}
