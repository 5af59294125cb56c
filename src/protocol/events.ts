import { z } from "zod";
import { NOTIFICATION_LEVELS } from "./master-calls.js";

/** Levels of log lines that are told as events. */
export const LOG_EVENT_LEVELS = ["info", "warn", "error", "fatal"] as const;

const none = z.looseObject({});
const ended = z.looseObject({
  url: z.string(),
  statusCode: z.int().optional(),
  reason: z.string().optional(),
  items: z.int().optional(),
  invalidItems: z.int().optional(),
  files: z.int().optional(),
});
const nodeChange = z.looseObject({ epoch: z.number().optional(), heartbeatAt: z.string().optional() });

const tick = z.looseObject({ schedule: z.string(), tick: z.string(), scheduledAt: z.string() });

const notifications = Object.fromEntries(
  NOTIFICATION_LEVELS.map((level) => [
    `notification.${level}`,
    {
      summary: `Someone sent a notification of the level ${level}.`,
      data: z.looseObject({
        id: z.string(),
        level: z.literal(level),
        title: z.string(),
        text: z.string().optional(),
      }),
    },
  ]),
);

const logs = Object.fromEntries(
  LOG_EVENT_LEVELS.map((level) => [
    `log.${level}`,
    {
      summary: `A node logged a line of the level ${level}; of very many, some are left out and counted in \`dropped\`.`,
      data: z.looseObject({ msg: z.string().optional(), dropped: z.int().optional() }),
    },
  ]),
);

/** What is told to whoever listens, by its key: the type of the event and the routing key of its message. */
export const EVENTS: Readonly<Record<string, { readonly summary: string; readonly data: z.ZodType }>> = {
  "task.started": {
    summary: "A worker began a task.",
    data: z.looseObject({ id: z.string(), url: z.string(), attempt: z.int() }),
  },
  "task.progress": {
    summary:
      "So many bytes of a file have come, and more will; told about once a second while that takes long.",
    data: z.looseObject({ id: z.string(), url: z.string(), bytes: z.int() }),
  },
  "task.completed": { summary: "A URL was done.", data: ended },
  "task.failed": { summary: "A URL failed for good.", data: ended },
  "task.skipped": { summary: "A URL was skipped for good.", data: ended },
  "task.requeued": { summary: "A URL went back to the frontier, to be tried again.", data: ended },
  "frontier.added": {
    summary: "URLs of a crawl were queued.",
    data: z.looseObject({ hosts: z.array(z.string()) }),
  },
  "host.learnt": {
    summary:
      "A worker knows what pace a host's robots.txt asks for, or until when a host wants to be left alone (milliseconds since the epoch), before the task ends that found it out.",
    data: z.looseObject({
      host: z.string(),
      crawlDelayMs: z.number().min(0).optional(),
      backoffUntil: z.number().optional(),
    }),
  },
  "spider.wanted": {
    summary: "A worker that cannot consume asks for tasks of an external spider, and there were none.",
    data: none,
  },
  "crawl.created": {
    summary: "A crawl was made.",
    data: z.looseObject({ spider: z.string(), name: z.string().nullable() }),
  },
  "crawl.paused": { summary: "A crawl was paused.", data: none },
  "crawl.changed": {
    summary: "A crawl was changed while it was there: its name, priority, politeness or limits.",
    data: z.looseObject({ members: z.array(z.string()) }),
  },
  "crawl.resumed": { summary: "A crawl goes on.", data: none },
  "crawl.closed": { summary: "A crawl was closed.", data: none },
  "crawl.finished": {
    summary: "Nothing of a crawl is queued or dispatched any more: its counts are final.",
    data: none,
  },
  "crawl.failed": {
    summary: "All runs of a crawl have failed, and nothing of it is queued any more.",
    data: z.looseObject({ error: z.string() }),
  },
  "run.started": {
    summary: "A node began a run.",
    data: z.looseObject({ run: z.string(), attempt: z.int() }),
  },
  "run.ended": {
    summary: "A run came to its end, or goes back to be begun anew.",
    data: z.looseObject({ run: z.string(), state: z.string(), error: z.string().optional() }),
  },
  "crawl.removed": { summary: "A crawl was removed with all that it left.", data: none },
  "schedule.fired": {
    summary: "A tick of a schedule has made a crawl.",
    data: tick.extend({ cause: z.enum(["cron", "after", "run"]) }),
  },
  "schedule.skipped": {
    summary: "A tick of a schedule makes no crawl, for the reason given.",
    data: tick.extend({ reason: z.string() }),
  },
  "schedule.failed": {
    summary: "The crawl of a tick could not be made.",
    data: tick.extend({ reason: z.string(), error: z.string() }),
  },
  "node.online": { summary: "A node has started, or is back.", data: nodeChange },
  "node.suspect": { summary: "A node was not heard of for a while.", data: nodeChange },
  "node.offline": { summary: "A node left, or was not heard of for long.", data: nodeChange },
  "node.heartbeat": {
    summary: "A node said that it lives, as it does every two seconds.",
    data: z.looseObject({
      epoch: z.number(),
      active: z.int(),
      status: z.string(),
      concurrency: z.int().optional(),
      version: z.string().optional(),
      load: z.array(z.number()).optional(),
      memory: z
        .looseObject({ totalBytes: z.number(), freeBytes: z.number(), rssBytes: z.number() })
        .optional(),
    }),
  },
  ...notifications,
  ...logs,
};
