import type { TroubleReport } from "./dispatch/host-health.js";
import type { Ending, RedirectTarget, UrlKind, UrlRequest } from "./frontier.js";
import type { Revisit } from "./revisit.js";
import type { Suspect } from "./suspicion.js";

/** One fetch handed to a worker: a dispatch that can be checked at every step. Instants in ms since the epoch. */
export type Task = {
  readonly id: string;
  readonly crawl: string;
  readonly generation: number;
  readonly url: string;
  readonly host: string;
  readonly kind: UrlKind;
  readonly depth: number;
  readonly parent?: string;
  readonly request?: UrlRequest;
  readonly target?: RedirectTarget;
  /** Fetches tried and counted before this one. */
  readonly attempts: number;
  readonly round: number;
  /** What is known of it from earlier rounds. */
  readonly revisit?: Revisit;
  readonly token: string;
  readonly shard: number;
  /** The epoch of the shard's lease under which it was dispatched. */
  readonly epoch: number;
  readonly dispatchedAt: number;
  readonly notAfter: number;
  /** The delay in force on the host's lane, in milliseconds; the end of the fetch is recorded when it is not 0. */
  readonly delayMs: number;
  /** The bandwidth that may be taken of its host, in bytes a second, if there is a limit. */
  readonly maxBytesPerSecond?: number;
  /** Others wait for what the host's robots.txt says. */
  readonly awaitsRobots?: boolean;
  /** Set: it is to be ended as failed, for this reason, without a fetch: its host does not answer. */
  readonly givenUp?: string;
  /** Set: it is to be begun with a note, and not beside other suspects. */
  readonly suspect?: Suspect;
};

/** What a dispatcher learns from the end of a task. */
export type TaskEnd = {
  readonly id: string;
  readonly crawl: string;
  readonly host: string;
  readonly token: string;
  /** When its last fetch ended, or when it was handed back. */
  readonly endedAt: number;
  /** The URL waits again, from this instant, on this host. */
  readonly queuedAgain?: { readonly readyAt: number; readonly host: string };
  /** The URL has ended, and is to be fetched again at this instant. */
  readonly nextVisitAt?: number;
  /** Nothing was asked of the host: the lane's delay need not run. */
  readonly untouched?: boolean;
  /** How long its last fetch took, in milliseconds. */
  readonly fetchMs?: number;
  /** For how long the bytes that it brought keep the host's bandwidth busy, in milliseconds, if that is limited. */
  readonly owedMs?: number;
  /** What was fetched, if anything was, nobody knows: its worker was lost, or told to leave off. */
  readonly isUnknown?: boolean;
  /** The host answered, whatever it said. */
  readonly answered?: boolean;
  /** What is wrong with the host, as far as this fetch tells. */
  readonly trouble?: TroubleReport;
  /** The host asked to be left alone until this instant. */
  readonly backoffUntil?: number;
  /** What its robots.txt asks between two fetches, in milliseconds; 0 when it asks nothing. */
  readonly crawlDelayMs?: number;
};

/** Marks a message as a dispatched task; a task from outside never has it. */
export const TASK_CONTENT_TYPE = "application/vnd.warren.task+json";

export function encodeTask(task: Task): string {
  return JSON.stringify(task);
}

/** The task in a message body; undefined when it is none, whoever sent it. */
export function decodeTask(body: Buffer): Task | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
  return isTask(value) ? value : undefined;
}

function isTask(value: unknown): value is Task {
  if (typeof value !== "object" || value === null) return false;
  const task = value as Record<string, unknown>;
  return (
    TASK_STRINGS.every((name) => typeof task[name] === "string") &&
    TASK_NUMBERS.every((name) => Number.isFinite(task[name])) &&
    (task.kind === "page" || task.kind === "file") &&
    (task.suspect === undefined || isSuspect(task.suspect)) &&
    URL.canParse(String(task.url))
  );
}

function isSuspect(value: unknown): value is Suspect {
  return typeof value === "object" && value !== null && "crashes" in value && Number.isFinite(value.crashes);
}

const TASK_STRINGS = ["id", "crawl", "url", "host", "token"] as const satisfies readonly (keyof Task)[];
const TASK_NUMBERS = [
  "generation",
  "depth",
  "attempts",
  "round",
  "shard",
  "epoch",
  "dispatchedAt",
  "notAfter",
  "delayMs",
] as const satisfies readonly (keyof Task)[];

/**
 * A task that goes back to the frontier untried.
 * @param readyAt from when it may be dispatched again
 */
export function handBack(task: Task, reason: string, now: number, readyAt = now): TaskHandedBack {
  return {
    ending: {
      id: task.id,
      crawl: task.crawl,
      token: task.token,
      attempts: task.attempts,
      state: "queued",
      reason,
      readyAt,
    },
    end: {
      id: task.id,
      crawl: task.crawl,
      host: task.host,
      token: task.token,
      endedAt: now,
      queuedAgain: { readyAt, host: task.host },
    },
  };
}

export type TaskHandedBack = {
  readonly ending: Ending & { readonly state: "queued" };
  readonly end: TaskEnd;
};
