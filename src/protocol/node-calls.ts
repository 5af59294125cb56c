import { z } from "zod";
import type { CallTable } from "../bus/index.js";
import { LOG_LEVELS } from "../lib/logger.js";

const nothing = z.object({});
const crawlId = z.string().min(1, "must not be empty").max(100);
const status = z.enum(["online", "paused", "draining"]);
const config = z.looseObject({
  /** Tasks that run at once. */
  concurrency: z.int(),
  logLevel: z.string(),
});

/** Longest profile that may be asked for, in seconds. */
export const MAX_PROFILE_SECONDS = 300;
/** Log lines in one answer at most. */
export const MAX_LOG_LINES = 2_000;

/** How a version of a spider stands on a node. */
export const SYNC_STATES = ["ready", "missing", "fetching", "installing", "failed"] as const;
export type SyncState = (typeof SYNC_STATES)[number];

/** A line of a node's log; what it says besides depends on who wrote it. */
const logLine = z.looseObject({
  /** Counts the lines of this process; of crawls' logs, those of the node. From 1. */
  seq: z.int(),
  level: z.string(),
  time: z.string(),
  msg: z.string().optional(),
});

/**
 * What may be asked of a node: over the exchange of that node, or of all of them at once. Any of these may come
 * without a queue for the answer, and is then a command.
 */
export const NODE_CALLS = {
  ping: {
    summary: "Says that the node is there.",
    args: nothing,
    result: z.looseObject({ node: z.string(), at: z.string() }),
    isRepeatable: true,
  },
  "system-info": {
    summary: "Tells of the machine, the process and what it does.",
    args: nothing,
    // A node in another language tells what it can.
    result: z
      .looseObject({
        node: z.string(),
        version: z.string(),
        epoch: z.number(),
        host: z.string(),
        pid: z.int(),
        platform: z.string(),
        nodeVersion: z.string(),
        uptimeSeconds: z.number(),
        cpus: z.int(),
        load: z.array(z.number()),
        memory: z.looseObject({ totalBytes: z.number(), freeBytes: z.number(), rssBytes: z.number() }),
        concurrency: z.int(),
        logLevel: z.string(),
        active: z.int(),
        rendering: z.looseObject({
          /** Where its browser is; null where there is none. */
          browser: z.string().nullable(),
          /** At once. */
          maxPages: z.int(),
          /** Now. */
          pages: z.int(),
        }),
        status,
      })
      .partial(),
    isRepeatable: true,
  },
  "active-tasks": {
    summary: "Lists the tasks in the node's hands: those that wait there, run, or are being stored.",
    args: nothing,
    result: z.looseObject({
      tasks: z.array(
        z.looseObject({
          id: z.string(),
          crawl: z.string(),
          url: z.string(),
          attempt: z.int(),
          running: z.boolean(),
        }),
      ),
    }),
    isRepeatable: true,
  },
  "get-log": {
    summary:
      "Gives the newest lines of the node's log, or of what it has of a crawl's log, or those after a line, oldest first; fewer than asked for when they are long.",
    args: z.object({
      /** Its log, not the node's. */
      crawl: crawlId.exactOptional(),
      lines: z
        .int("must be a whole number")
        .min(1, `must be from 1 to ${MAX_LOG_LINES}`)
        .max(MAX_LOG_LINES, `must be from 1 to ${MAX_LOG_LINES}`)
        .default(100),
      /** Only lines with a greater `seq`. */
      after: z.int("must be a whole number").min(0, "must not be negative").exactOptional(),
    }),
    result: z.looseObject({
      lines: z.array(logLine),
      /** The `seq` to go on after. */
      next: z.int(),
    }),
    isRepeatable: true,
  },
  "get-config": {
    summary: "Tells how the node is configured.",
    args: nothing,
    result: config,
    isRepeatable: true,
  },
  "set-config": {
    summary: "Changes how the node is configured, and tells how it is then.",
    args: z.strictObject({
      concurrency: z
        .int("must be a whole number from 1 to 1000")
        .min(1, "must be a whole number from 1 to 1000")
        .max(1_000, "must be a whole number from 1 to 1000")
        .exactOptional(),
      logLevel: z.enum(LOG_LEVELS, { error: `must be one of ${LOG_LEVELS.join(", ")}` }).exactOptional(),
    }),
    result: config,
    isRepeatable: true,
  },
  "get-profile": {
    summary:
      "Samples the process for some seconds and gives the profile in parts: texts that, one after the other, are the JSON of a `.cpuprofile` or a `.heapprofile`.",
    args: z.object({
      kind: z.enum(["cpu", "heap"], { error: 'must be "cpu" or "heap"' }),
      seconds: z
        .number("must be a number")
        .min(0.1, `must be from 0.1 to ${MAX_PROFILE_SECONDS}`)
        .max(MAX_PROFILE_SECONDS, `must be from 0.1 to ${MAX_PROFILE_SECONDS}`)
        .default(5),
    }),
    result: z.string(),
    inParts: true,
    isRepeatable: false,
  },
  "cancel-crawl": {
    summary:
      "Aborts what runs of a crawl on the node, and gives it and what waits there back to the frontier.",
    args: z.object({ crawl: crawlId, generation: z.int().exactOptional() }),
    result: z.looseObject({
      /** Fetches that ran. */
      aborted: z.int(),
      /** Tasks that had not begun. */
      dropped: z.int(),
    }),
    isRepeatable: true,
  },
  "cancel-task": {
    summary: "Aborts one task, and gives it back to the frontier.",
    args: z.object({ task: z.string().min(1, "must not be empty").max(200) }),
    result: z.looseObject({ cancelled: z.boolean() }),
    isRepeatable: true,
  },
  "leave-host": {
    summary:
      "Begins no fetch of a host before an instant, because the host asked for that: what waits for it on the node goes back to the frontier.",
    args: z.object({
      host: z.string().min(1, "must not be empty").max(300),
      /** Milliseconds since the epoch. */
      until: z.number("must be a number"),
    }),
    result: z.looseObject({ host: z.string() }),
    isRepeatable: true,
  },
  "sync-spider": {
    summary:
      "Sees to it that the node has a version of a spider, its dependencies installed, and tells which it has. Without a version: the current one.",
    args: z.object({
      spider: z.string().min(1, "must not be empty").max(100),
      version: z.string().max(100).exactOptional(),
      /** Has it loaded as well, and tells what it says of itself. */
      describe: z.boolean().exactOptional(),
      /** Only tells how it stands, and fetches nothing. */
      look: z.boolean().exactOptional(),
    }),
    result: z.looseObject({
      spider: z.string(),
      version: z.string(),
      state: z.enum(SYNC_STATES).exactOptional(),
      /** Its seeds, settings and so on; only when it was asked for. */
      description: z.record(z.string(), z.unknown()).exactOptional(),
      /** How the installation of its dependencies went, if it has any. */
      install: z
        .looseObject({
          /** The end of what its commands wrote. */
          log: z.string(),
          tookMs: z.number().exactOptional(),
        })
        .exactOptional(),
      /** Why it is not there. */
      error: z.string().exactOptional(),
    }),
    isRepeatable: true,
  },
  pause: {
    summary: "Takes no more tasks until `resume`; what runs goes on, what waits goes back.",
    args: nothing,
    result: z.looseObject({ status }),
    isRepeatable: true,
  },
  resume: {
    summary: "Takes tasks again.",
    args: nothing,
    result: z.looseObject({ status }),
    isRepeatable: true,
  },
  drain: {
    summary: "Takes no more tasks until `resume`, because the node is to be emptied.",
    args: nothing,
    result: z.looseObject({ status, active: z.int() }),
    isRepeatable: true,
  },
  shutdown: {
    summary: "Ends the process in the orderly way.",
    args: nothing,
    result: z.looseObject({ status }),
    isRepeatable: true,
  },
} as const satisfies CallTable;

export type NodeCalls = typeof NODE_CALLS;
