import type { RenderRequest } from "../lib/render-request.js";
import type { Crawl } from "./crawl.js";
import type { Task } from "./task.js";
import { requestAt } from "./task-request.js";

/**
 * A task as a worker in another language is given it, as JSON: what it needs to fetch one page, and a name for
 * the result. Everything that must be checked when the result comes is looked up by that name.
 */
export type ForeignTask = {
  /** Opaque; goes back with the result. */
  readonly task: string;
  readonly crawl: string;
  readonly spider: string;
  /** What to fetch. */
  readonly url: string;
  /** Links away from a seed. */
  readonly depth: number;
  /** From 1. */
  readonly attempt: number;
  readonly method?: "GET" | "HEAD" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** What came with the URL. */
  readonly meta?: Readonly<Record<string, unknown>>;
  /** Which of the spider's ways to read a page its request asks for. */
  readonly callback?: string;
  /** Whether and how the page is to be rendered, if its request says so. */
  readonly render?: RenderRequest;
  /** The crawl's, for its spider; absent when there are none. */
  readonly params?: Readonly<Record<string, unknown>>;
  /** No fetch may begin after this instant, in milliseconds since the epoch. */
  readonly notAfter: number;
};

/** What a task's name stands for: one dispatch of one URL. */
export type TaskKey = { readonly id: string; readonly token: string };

export function toForeignTask(task: Task, crawl: Pick<Crawl, "spider" | "params">): ForeignTask {
  const { request, target } = task;
  // As for our own workers.
  const { url, method, headers, body } = requestAt(target?.url ?? task.url, task, target?.asGet === true);
  return {
    task: encodeTaskKey(task),
    crawl: task.crawl,
    spider: request?.spider ?? crawl.spider,
    url,
    depth: task.depth,
    attempt: task.attempts + 1,
    ...(method !== undefined && { method }),
    ...(headers !== undefined && { headers }),
    ...(body !== undefined && { body }),
    ...(request?.meta !== undefined && { meta: request.meta }),
    ...(request?.callback !== undefined && { callback: request.callback }),
    ...(request?.render !== undefined && { render: request.render }),
    ...(Object.keys(crawl.params).length > 0 && { params: crawl.params }),
    // Whole, for languages that tell numbers apart.
    notAfter: Math.floor(task.notAfter),
  };
}

export function encodeTaskKey({ id, token }: TaskKey): string {
  return Buffer.from(JSON.stringify([id, token])).toString("base64url");
}

/** Undefined when it is not a task's name. */
export function decodeTaskKey(text: string): TaskKey | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  if (!Array.isArray(value) || value.length !== 2) return undefined;
  const [id, token]: unknown[] = value;
  return typeof id === "string" && typeof token === "string" ? { id, token } : undefined;
}
