import type { FetchRequest } from "./fetch/fetcher.js";
import type { Task } from "./task.js";

/** Headers that are about a body, and go where it goes. */
const BODY_HEADERS = new Set(["content-type", "content-encoding", "content-language", "content-location"]);

/**
 * What of a task's request goes to this URL, which is the task's own or one that redirects led to (RFC 9110, 15.4).
 *
 * Its headers may hold credentials, so they are for the origin they were meant for: not for another host, port
 * or, from https to http, scheme. The body goes along for as long as the method does (307, 308), with the headers
 * that say what it is; but nothing that was meant for https is sent without it.
 */
export function requestAt(url: string, task: Task, asGet: boolean): Omit<FetchRequest, "signal"> {
  const { request } = task;
  if (request === undefined) return { url };
  const { method, headers, body } = request;
  const isOwn = url === task.url || isSafeFor(new URL(task.url), new URL(url));
  const sendsBody = body !== undefined && !asGet && (isOwn || !isDowngrade(task.url, url));
  const sent = headers === undefined ? undefined : headersFor(headers, isOwn, sendsBody, asGet);
  return {
    url,
    ...(method !== undefined && !asGet && { method }),
    ...(sent !== undefined && { headers: sent }),
    ...(sendsBody && { body }),
  };
}

function headersFor(
  headers: Readonly<Record<string, string>>,
  isOwn: boolean,
  sendsBody: boolean,
  asGet: boolean,
): Record<string, string> | undefined {
  const kept = Object.entries(headers).filter(([name]) =>
    BODY_HEADERS.has(name.toLowerCase()) ? sendsBody || (isOwn && !asGet) : isOwn,
  );
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

/** The same origin, or the same host at its default ports with TLS where there was none. */
function isSafeFor(from: URL, to: URL): boolean {
  if (from.origin === to.origin) return true;
  const isUpgrade = from.protocol === "http:" && to.protocol === "https:";
  return isUpgrade && from.hostname === to.hostname && from.port === "" && to.port === "";
}

function isDowngrade(from: string, to: string): boolean {
  return from.startsWith("https:") && !to.startsWith("https:");
}
