import { z } from "zod";
import { type RenderRequest, renderRequest } from "../lib/render-request.js";
import { CALL_ERROR_CODES, CallError } from "./errors.js";

/** Why a message was given up, on its header `x-reason`. */
export const DEAD_LETTER_REASONS = [
  "invalid-message",
  "unsupported-content-type",
  "too-large",
  "unknown-crawl",
  "unknown-spider",
  "expired",
  "delivery-limit",
  "poison",
  "rejected",
] as const;
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number];

/** Bounds of a task from outside. */
const MAX_BODY_BYTES = 256 * 1_024;
const MAX_META_BYTES = 16 * 1_024;
const MAX_NESTING = 32;
const MAX_URL_CHARACTERS = 8_192;
const MAX_HEADERS = 100;

/** A URL that someone outside handed in, with what they want done about it. */
export type ExternalTask = {
  readonly url: string;
  readonly crawl?: string;
  readonly spider?: string;
  readonly priority?: number;
  readonly depth?: number;
  readonly method?: "GET" | "HEAD" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly meta?: Readonly<Record<string, unknown>>;
  readonly render?: RenderRequest;
  readonly callback?: string;
};

export type ParsedTask =
  | { readonly ok: true; readonly task: ExternalTask }
  | { readonly ok: false; readonly reason: DeadLetterReason; readonly error: string };

/** Headers that belong to the connection or to us (RFC 9110, 7.6.1), and those that say where a body ends. */
const FORBIDDEN_HEADERS = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** RFC 9110, 5.1 and 5.6.2. */
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Visible characters, spaces and tabs (RFC 9110, 5.5): above all no CR, LF or NUL. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

const headers = z.record(z.string(), z.string()).superRefine((given, context) => {
  const names = Object.entries(given);
  if (names.length > MAX_HEADERS)
    context.addIssue({ code: "custom", message: `must be at most ${MAX_HEADERS}` });
  for (const [name, value] of names) {
    const complain = (message: string) => context.addIssue({ code: "custom", path: [name], message });
    if (!HEADER_NAME.test(name)) complain("is not a header's name");
    else if (FORBIDDEN_HEADERS.has(name.toLowerCase())) complain("may not be set");
    else if (!HEADER_VALUE.test(value)) complain("holds characters that a header must not");
  }
});

const meta = z.record(z.string(), z.unknown()).superRefine((given, context) => {
  const complain = (message: string, path: string[] = []) =>
    context.addIssue({ code: "custom", path, message });
  if (Buffer.byteLength(JSON.stringify(given)) > MAX_META_BYTES) {
    complain(`must be at most ${MAX_META_BYTES} bytes of JSON`);
    return;
  }
  const path = pathToNulInName(given);
  if (path !== undefined) complain("a name in it holds a NUL, which cannot be stored", path);
});

/** Where an object is of which a member's name holds a NUL: MongoDB takes none. */
function pathToNulInName(value: unknown): string[] | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  for (const [name, inner] of Object.entries(value)) {
    if (name.includes("\0")) return [];
    const path = pathToNulInName(inner);
    if (path !== undefined) return [name, ...path];
  }
  return undefined;
}

/** A task from outside, as JSON. */
export const externalTask = z.object({
  url: z.string().max(MAX_URL_CHARACTERS, `must have at most ${MAX_URL_CHARACTERS} characters`),
  crawl: z.string().min(1, "must not be empty").max(200).exactOptional(),
  spider: z.string().min(1, "must not be empty").max(200).exactOptional(),
  priority: z
    .int("must be a whole number")
    .min(0, "must be from 0 to 9")
    .max(9, "must be from 0 to 9")
    .exactOptional(),
  depth: z.int("must be a whole number").min(0, "must not be negative").max(1_000_000).exactOptional(),
  method: z.enum(["GET", "HEAD", "POST"], { error: "must be GET, HEAD or POST" }).exactOptional(),
  headers: headers.exactOptional(),
  body: z.string().exactOptional(),
  meta: meta.exactOptional(),
  render: renderRequest.exactOptional(),
  callback: z.string().min(1, "must not be empty").max(100).exactOptional(),
});

/**
 * Reads a task from outside: plain text (or no content type) is one URL; JSON is an object, of which unknown
 * members are ignored.
 */
export function parseExternalTask(message: {
  readonly body: Buffer;
  readonly contentType: string | undefined;
}): ParsedTask {
  const { body, contentType } = message;
  if (body.length > MAX_BODY_BYTES) {
    return refused("too-large", `the message has ${body.length} bytes; at most ${MAX_BODY_BYTES} are taken`);
  }
  const [essence = ""] = (contentType ?? "text/plain").toLowerCase().split(";", 1);
  const text = decode(body);
  if (text === undefined) return refused("invalid-message", "the message is not UTF-8");
  switch (essence.trim()) {
    case "text/plain":
      return withHttpUrl({ url: text.trim() });
    case "application/json":
      return parseJsonTask(text);
    default:
      return refused(
        "unsupported-content-type",
        `content type "${essence.trim().slice(0, 100)}" is not taken; text/plain and application/json are`,
      );
  }
}

/** What can be told of a message that may well be wrong: the URL it is about, its host, and its crawl. */
export function subjectOf(message: { readonly body: Buffer }): {
  readonly url?: string;
  readonly host?: string;
  readonly crawl?: string;
} {
  const text = message.body.length > MAX_BODY_BYTES ? undefined : decode(message.body)?.trim();
  if (text === undefined || nestsDeeperThan(text, MAX_NESTING)) return {};
  const { url, crawl } = text.startsWith("{") ? membersOf(text) : { url: text, crawl: undefined };
  const isUrl = url !== undefined && url.length <= MAX_URL_CHARACTERS && !/\s/.test(url) && URL.canParse(url);
  const host = isUrl ? new URL(url).host : "";
  return {
    ...(isUrl && { url }),
    ...(host !== "" && { host }),
    ...(crawl !== undefined && crawl.length <= 200 && { crawl }),
  };
}

function membersOf(text: string): { readonly url: string | undefined; readonly crawl: string | undefined } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const members = z.record(z.string(), z.unknown()).safeParse(value).data ?? {};
  const textOf = (member: unknown) => (typeof member === "string" ? member : undefined);
  return { url: textOf(members.url), crawl: textOf(members.crawl) };
}

function parseJsonTask(text: string): ParsedTask {
  if (nestsDeeperThan(text, MAX_NESTING)) {
    return refused("invalid-message", `the message is nested deeper than ${MAX_NESTING}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return refused("invalid-message", "the message is not JSON");
  }
  const parsed = externalTask.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const field = issue?.path.join(".") ?? "";
    return refused(
      "invalid-message",
      `${field === "" ? "the message" : field}: ${issue?.message ?? "is wrong"}`,
    );
  }
  return withHttpUrl(parsed.data);
}

function withHttpUrl(task: ExternalTask): ParsedTask {
  const { url } = task;
  if (url === "") return refused("invalid-message", "url: is empty");
  if (url.length > MAX_URL_CHARACTERS) {
    return refused("invalid-message", `url: must have at most ${MAX_URL_CHARACTERS} characters`);
  }
  // Inside a URL white space would silently be dropped or encoded: two URLs on two lines would become one.
  const protocol = /\s/.test(url) || !URL.canParse(url) ? undefined : new URL(url).protocol;
  if (protocol !== "http:" && protocol !== "https:") {
    return refused("invalid-message", `url: must be one absolute http(s) URL, not "${url.slice(0, 200)}"`);
  }
  return { ok: true, task };
}

function refused(reason: DeadLetterReason, error: string): ParsedTask {
  return { ok: false, reason, error };
}

function decode(body: Buffer): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch {
    return undefined;
  }
}

/** Looked at before it is parsed: what is nested very deeply takes the parser's stack with it. */
function nestsDeeperThan(json: string, limit: number): boolean {
  let depth = 0;
  let isInText = false;
  for (let index = 0; index < json.length; index += 1) {
    const character = json[index];
    if (isInText) {
      if (character === "\\") index += 1;
      else if (character === '"') isInText = false;
    } else if (character === '"') isInText = true;
    else if (character === "{" || character === "[") {
      depth += 1;
      if (depth > limit) return true;
    } else if (character === "}" || character === "]") depth -= 1;
  }
  return false;
}

/** A time to live as AMQP has it: whole milliseconds as text. Anything else would cost the channel. */
export function expirationOf(ms: number): string {
  return String(Math.min(MAX_EXPIRATION_MS, Math.max(0, Math.ceil(ms))));
}

/** The broker takes no more than fits into its timers. */
const MAX_EXPIRATION_MS = 2 ** 31 - 1;

/** Type of the command that ends a call before it is answered: `{call, replyTo}`, as the call had them. */
export const CANCEL_CALL = "cancel-call";

/** Header of each part of a long answer: its number, from 0. */
export const PART_HEADER = "x-part";
/** Header of the last of them. */
export const LAST_HEADER = "x-last";

const requestSchema = z.object({
  type: z.string().min(1).max(100),
  args: z.record(z.string(), z.unknown()).default({}),
});

/** A command or call. @throws CallError `invalid` */
export function parseRequest(body: Buffer): z.infer<typeof requestSchema> {
  const text = decode(body);
  let value: unknown;
  try {
    value = text === undefined || nestsDeeperThan(text, MAX_NESTING) ? undefined : JSON.parse(text);
  } catch {
    value = undefined;
  }
  const parsed = requestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = value === undefined ? "" : (issue?.path.join(".") ?? "");
  throw new CallError("invalid", `${field === "" ? "a call" : field}: must be JSON {"type", "args"?}`);
}

const replySchema = z.discriminatedUnion("ok", [
  z.object({ ok: z.literal(true), result: z.unknown().optional() }),
  z.object({
    ok: z.literal(false),
    error: z.object({ code: z.enum(CALL_ERROR_CODES).catch("internal"), message: z.string() }),
  }),
]);

export type ParsedReply =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: CallError };

export function parseReply(body: Buffer): ParsedReply {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    value = undefined;
  }
  const parsed = replySchema.safeParse(value);
  if (!parsed.success) return { ok: false, error: new CallError("internal", "the answer could not be read") };
  if (parsed.data.ok) return { ok: true, result: parsed.data.result ?? null };
  const { code, message } = parsed.data.error;
  return { ok: false, error: new CallError(code, message) };
}
