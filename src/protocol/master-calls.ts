import { z } from "zod";
import type { CallTable } from "../bus/index.js";
import { externalTask } from "../bus/index.js";
import { CRAWL_STATUSES } from "../crawl/crawl.js";
import { addUrlsRequest, crawlRequest, spiderName } from "../crawl/crawl-request.js";
import { FOREIGN_ERROR_CODES } from "../crawl/foreign-result.js";
import { DEFAULT_TASK_LIMITS } from "../crawl/limits.js";
import { renderRequest } from "../lib/render-request.js";

const id = z.string().min(1, "must not be empty").max(100);
const nodeId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, "must be a node's id");
const whole = z.int("must be a whole number").min(0, "must not be negative");
const instant = z.string();

const ofCrawl = z.object({ crawl: id });

const counts = z.looseObject({
  queued: z.int(),
  active: z.int(),
  done: z.int(),
  failed: z.int(),
  skipped: z.int(),
  items: z.int(),
  invalidItems: z.int(),
  files: z.int(),
  bytes: z.number(),
});

const crawl = z.looseObject({
  id: z.string(),
  name: z.string().nullable(),
  spider: z.string(),
  status: z.enum(CRAWL_STATUSES),
  counts,
  createdAt: instant,
  startedAt: instant,
  finishedAt: instant.nullable(),
  finishReason: z.string().nullable(),
});

/** How users want a node to be; what is left out is as it was started. */
const wanted = z.looseObject({
  /** Grows with each change; a heartbeat tells the last one that the node has adopted. */
  revision: z.int(),
  /** Tasks at once. */
  concurrency: z.int().exactOptional(),
  logLevel: z.string().exactOptional(),
  paused: z.boolean().exactOptional(),
});

const load = z.array(z.number()).max(3).readonly().exactOptional();
const memory = z
  .object({ totalBytes: z.number(), freeBytes: z.number(), rssBytes: z.number() })
  .exactOptional();

/** What the nodes made of it when a crawl was closed. */
const cancelled = z.looseObject({
  nodes: z
    .array(
      z.looseObject({
        node: z.string(),
        /** Fetches that ran. */
        aborted: z.int(),
        /** Tasks that had not begun. */
        dropped: z.int(),
      }),
    )
    .readonly(),
  /** Nodes that did not answer in time. */
  silent: z.array(z.string()).readonly(),
});

export const NOTIFICATION_LEVELS = ["info", "warn", "error"] as const;
export type NotificationLevel = (typeof NOTIFICATION_LEVELS)[number];

/** A task of an external spider. */
export const foreignTask = z.looseObject({
  /** Opaque; goes back with the result. */
  task: z.string(),
  crawl: z.string(),
  spider: z.string(),
  url: z.string(),
  /** Links away from a seed. */
  depth: z.int(),
  /** From 1. */
  attempt: z.int(),
  method: z.enum(["GET", "HEAD", "POST"]).optional(),
  headers: z.record(z.string(), z.string()).optional(),
  body: z.string().optional(),
  meta: z.record(z.string(), z.unknown()).optional(),
  /** Which of the spider's ways to read a page its request asks for. */
  callback: z.string().optional(),
  /** Whether and how the page is to be rendered. */
  render: renderRequest.optional(),
  params: z.record(z.string(), z.unknown()).optional(),
  /** No fetch may begin after this instant, in milliseconds since the epoch. */
  notAfter: z.int(),
});

/** A page to fetch later: a URL, or one with more than a plain GET has. */
const link = z.union([z.string().max(8_192), externalTask.omit({ crawl: true, spider: true, depth: true })], {
  error: "must be a URL or an object with a `url`",
});
const MAX_ITEM_BYTES = 1_048_576;
const MAX_OUTPUTS = DEFAULT_TASK_LIMITS.maxOutputs;

/** What any master may be asked, over the queue that all of them share. */
export const MASTER_CALLS = {
  ping: {
    summary: "Says that a master is there.",
    args: z.object({}),
    result: z.looseObject({ master: z.string(), at: instant }),
    isRepeatable: true,
  },
  "create-crawl": {
    summary:
      "Makes a crawl; the members are those of `POST /crawls`. The same message id makes the same crawl.",
    args: crawlRequest,
    result: crawl,
    isRepeatable: true,
  },
  "get-crawl": { summary: "Tells of a crawl.", args: ofCrawl, result: crawl, isRepeatable: true },
  "list-crawls": {
    summary: "Lists crawls, newest first.",
    args: z.object({
      limit: z
        .int("must be a whole number")
        .min(1, "must be from 1 to 1000")
        .max(1_000, "must be from 1 to 1000")
        .default(100),
      cursor: z.string().max(600).exactOptional(),
    }),
    result: z.looseObject({ items: z.array(crawl).readonly(), next: z.string().nullable() }),
    isRepeatable: true,
  },
  "pause-crawl": {
    summary: "Dispatches nothing more of a crawl until it is resumed.",
    args: ofCrawl,
    result: crawl,
    isRepeatable: true,
  },
  "resume-crawl": {
    summary: "Goes on with a crawl where it was paused or closed.",
    args: ofCrawl,
    result: crawl,
    isRepeatable: true,
  },
  "close-crawl": {
    summary:
      "Stops a crawl until it is resumed, aborts what runs of it, and tells what each node has stopped.",
    args: ofCrawl,
    result: crawl.extend({ cancelled }),
    isRepeatable: true,
  },
  "add-urls": {
    summary: "Adds URLs to a crawl; a finished one runs again.",
    args: addUrlsRequest.extend({ crawl: id }),
    result: z.looseObject({
      /** URLs that were not known before. */
      accepted: z.int(),
      known: z.int(),
    }),
    isRepeatable: true,
  },
  "register-node": {
    summary: "Makes a node known that has started, and tells it what it must know.",
    args: z.object({
      id: nodeId,
      epoch: whole,
      version: z.string().max(100).default("unknown"),
      /** Tasks at once. */
      capacity: whole.max(100_000).exactOptional(),
      concurrency: whole.max(100_000).exactOptional(),
      host: z.string().max(255).default("unknown"),
      pid: whole.default(0),
      labels: z.record(z.string().max(63), z.string().max(200)).exactOptional(),
    }),
    result: z.looseObject({
      /** Crawls that are closed, with their generations: tasks of those are not to be begun. */
      closed: z.array(z.looseObject({ id: z.string(), generation: z.int() })).readonly(),
      config: z.looseObject({ heartbeatMs: z.number() }),
      wanted: wanted.exactOptional(),
    }),
    isRepeatable: true,
  },
  heartbeat: {
    summary: "Says that a node lives; or, with the status `offline`, that it leaves.",
    args: z.object({
      id: nodeId,
      epoch: whole,
      active: whole,
      status: z.enum(["online", "paused", "draining", "offline"]).default("online"),
      capacity: whole.max(100_000).exactOptional(),
      concurrency: whole.max(100_000).exactOptional(),
      version: z.string().max(100).exactOptional(),
      /** Of the machine, over 1, 5 and 15 minutes. */
      load,
      memory,
      /** The revision of what is wanted of it that the node has adopted. */
      revision: whole.exactOptional(),
    }),
    result: z.looseObject({
      /** `unknown`: the node has to register; `stale`: a later start of it is known. */
      outcome: z.enum(["noted", "returned", "stale", "unknown", "left"]),
      /** What the node has to catch up with, unless its revision is this one. */
      wanted: wanted.exactOptional(),
    }),
    isRepeatable: true,
  },
  "send-notification": {
    summary: "Keeps a notification and sends it on as the event `notification.<level>`.",
    args: z.object({
      level: z.enum(NOTIFICATION_LEVELS, { error: `must be one of ${NOTIFICATION_LEVELS.join(", ")}` }),
      title: z.string().min(1, "must not be empty").max(200, "must have at most 200 characters"),
      text: z.string().max(10_000, "must have at most 10000 characters").exactOptional(),
      crawl: id.exactOptional(),
    }),
    result: z.looseObject({ id: z.string() }),
    isRepeatable: true,
  },
  "fetch-task": {
    summary:
      "Gives a worker in another language one task of an external spider, or null when there is none within two seconds: for those that cannot consume from its queue.",
    args: z.object({ node: nodeId, spider: spiderName.exactOptional() }),
    result: foreignTask.nullable(),
    // Asked again it gives another task, and the first is nobody's until its deadline.
    isRepeatable: false,
  },
  "submit-result": {
    summary:
      "Hands in what a worker in another language found behind the URL of a task. The same again changes nothing and gets the same answer.",
    args: z.object({
      task: z.string().min(1, "must not be empty").max(4_000, "must have at most 4000 characters"),
      /** Who fetched it. */
      node: nodeId.default("external"),
      statusCode: z
        .int("must be a whole number")
        .min(100, "must be from 100 to 599")
        .max(599, "must be from 100 to 599")
        .exactOptional(),
      /** The response's `Retry-After`. */
      retryAfter: z.string().max(100).exactOptional(),
      /** The response's `Location`, when it is a redirect and was not followed. */
      redirect: z.string().max(8_192).exactOptional(),
      /** Where redirects that were followed have led. */
      url: z.string().max(8_192).exactOptional(),
      contentType: z.string().max(200).exactOptional(),
      /** Bytes of the body. */
      bytes: whole.exactOptional(),
      /** URLs as they stand on the page, absolute or relative; what is no http(s) URL is left out. */
      links: z.array(link).max(MAX_OUTPUTS, `must be at most ${MAX_OUTPUTS}`).exactOptional(),
      items: z
        .array(
          z
            .record(z.string(), z.unknown())
            .refine((item) => Buffer.byteLength(JSON.stringify(item)) <= MAX_ITEM_BYTES, {
              error: `must be at most ${MAX_ITEM_BYTES} bytes of JSON`,
            }),
        )
        .max(MAX_OUTPUTS, `must be at most ${MAX_OUTPUTS}`)
        .exactOptional(),
      /** A text is a fault of the worker's own: the code `spider-error`. */
      error: z
        .union(
          [
            z.string().min(1, "must not be empty"),
            z.object({
              code: z.enum(FOREIGN_ERROR_CODES, {
                error: `must be one of ${FOREIGN_ERROR_CODES.join(", ")}`,
              }),
              message: z.string().default(""),
            }),
          ],
          { error: "must be a text or an object of `code` and `message`" },
        )
        .exactOptional(),
    }),
    result: z.looseObject({ task: z.string(), accepted: z.literal(true) }),
    isRepeatable: true,
  },
} as const satisfies CallTable;

export type MasterCalls = typeof MASTER_CALLS;
