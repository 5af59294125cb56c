import type { Clock } from "../lib/clock.js";
import { FetchError, RenderError } from "./errors.js";
import type { Fetched } from "./fetcher.js";
import type { FailReason, RedirectTarget, SkipReason } from "./frontier.js";
import type { TroubleReport } from "./host-health.js";
import { isRetriedStatus, retryAfterMs, retryDelayMs, type TaskLimits } from "./limits.js";
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

/** How a URL ends if it is not tried again. */
type Otherwise =
  | { state: "failed"; reason: FailReason; error: string }
  | { state: "skipped"; reason: SkipReason; error: string };

/** Judges attempts that went wrong: whether there is another one and when, or how the URL ends. */
export class AttemptJudge {
  readonly #clock: Clock;
  readonly #limits: TaskLimits;

  constructor(clock: Clock, limits: TaskLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** The server answered, but with neither a page nor a redirect. */
  badStatus(fetched: Fetched, task: Task): Outcome {
    const now = this.#clock.now();
    const { statusCode } = fetched;
    const failure = { state: "failed", reason: "http-status", error: `status ${statusCode}` } as const;
    if (!isRetriedStatus(statusCode)) {
      return { ...failure, endedAt: now, statusCode, counts: true };
    }
    const outcome = this.tryAgain(task, now, failure, undefined, statusCode);
    if (statusCode !== 429 && statusCode !== 503) return outcome;
    const askedMs = retryAfterMs(fetched.headers["retry-after"], now) ?? 0;
    const waitMs = askedMs > 0 ? askedMs : retryDelayMs(task.attempts + 1, this.#limits);
    const backoffUntil = now + Math.min(waitMs, this.#limits.maxRetryDelayMs);
    const trouble = { kind: askedMs > 0 ? "asked" : "overloaded", why: `status ${statusCode}` } as const;
    if (outcome.state !== "queued") return { ...outcome, backoffUntil, trouble };
    return { ...outcome, backoffUntil, trouble, readyAt: Math.max(outcome.readyAt, backoffUntil) };
  }

  /** Fetched or rendered. @throws what is the fault of neither, as it came */
  fetchFailed(error: unknown, task: Task, statusCode?: number): Outcome {
    const endedAt = this.#clock.now();
    if (!(error instanceof FetchError || error instanceof RenderError)) throw error;
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    if (error.reason === "address") {
      return { ...facts, state: "skipped", reason: "address", error: error.message, untouched: true };
    }
    const failure = { state: "failed", reason: error.reason, error: error.message } as const;
    if (!error.retryable) return { ...facts, ...failure };
    const outcome = this.tryAgain(task, endedAt, failure, undefined, statusCode);
    const why = statusCode === undefined && error instanceof FetchError ? silenceOf(error) : undefined;
    return why === undefined ? outcome : { ...outcome, trouble: { kind: "silent", why } };
  }

  /** Another attempt after a wait, or this end if there were enough. */
  tryAgain(
    task: Task,
    endedAt: number,
    otherwise: Otherwise,
    failReason?: FailReason,
    statusCode?: number,
  ): Outcome {
    const attempts = task.attempts + 1;
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    if (attempts >= this.#limits.maxAttempts) {
      if (failReason === undefined) return { ...facts, ...otherwise };
      return { ...facts, state: "failed", reason: failReason, error: otherwise.error };
    }
    const readyAt = endedAt + retryDelayMs(attempts, this.#limits);
    return { ...facts, state: "queued", reason: otherwise.error, readyAt };
  }
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
  if (reason === "timeout") return "no answer in time";
  return reason === "network" ? SILENCES[codeOf(cause)] : undefined;
}

function codeOf(cause: unknown): string {
  if (cause instanceof AggregateError) return codeOf(cause.errors[0]);
  return cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
}
