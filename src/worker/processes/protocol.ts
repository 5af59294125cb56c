import { z } from "zod";
import type { ProcessMode } from "../../crawl/process-manifest.js";
import type { Page, SpiderFile } from "../../crawl/spider.js";
import { LOG_LEVELS } from "../../lib/logger.js";

// What process spiders and workers say to each other: UTF-8, one JSON object a line, `type` says what it is. What
// comes from a process is read leniently: members that are not known are passed over, so that clients may be newer.

const page = z.int().nonnegative().optional();
const members = z.record(z.string(), z.unknown());
const request = {
  page,
  url: z.string(),
  method: z.enum(["GET", "HEAD", "POST"]).optional(),
  headers: z.record(z.string(), z.string()).optional(),
  body: z.string().optional(),
  meta: members.optional(),
  render: z.unknown().optional(),
  priority: z.int().min(0).max(9).optional(),
  callback: z.string().optional(),
  spider: z.string().optional(),
};
const name = z.string();
const callId = z.union([z.string().max(200), z.number()]);
const level = z.string().transform((text) => text.toLowerCase());

const item = z.object({ type: z.literal("item"), page, url: z.string().optional(), data: members });
const log = z.looseObject({
  type: z.literal("log"),
  page,
  level: level.optional(),
  message: z.unknown().optional(),
});
const stats = z.object({ type: z.literal("stats"), page, name, by: z.number().default(1) });
const stateCalls = {
  "state.get": z.object({ type: z.literal("state.get"), id: callId, name }),
  "state.set": z.object({ type: z.literal("state.set"), id: callId, name, value: z.unknown() }),
  "state.add": z.object({ type: z.literal("state.add"), id: callId, name, by: z.number().default(1) }),
  "state.delete": z.object({ type: z.literal("state.delete"), id: callId, name }),
};

const MESSAGES = {
  item,
  request: z.object({ type: z.literal("request"), ...request }),
  store: z.object({ type: z.literal("store"), ...request }),
  log,
  stats,
  ...stateCalls,
  done: z.object({ type: z.literal("done"), page }),
  error: z.object({ type: z.literal("error"), page, message: z.string().default("it said no more") }),
} as const;

type MessageType = keyof typeof MESSAGES;
/** What a process says. */
export type ProcessMessage = { [Type in MessageType]: z.output<(typeof MESSAGES)[Type]> }[MessageType];
/** What it asks of the crawl's state. */
export type StateCall = Extract<ProcessMessage, { type: keyof typeof stateCalls }>;
/** A message that says what was found. */
export type FoundMessage = Extract<ProcessMessage, { type: "item" | "request" | "store" }>;

/** What one line turned out to be. */
export type ParsedLine =
  | { readonly kind: "message"; readonly message: ProcessMessage }
  | { readonly kind: "object"; readonly object: Readonly<Record<string, unknown>> }
  | { readonly kind: "unknown"; readonly type: string }
  /** It was meant to be a message and is none. */
  | { readonly kind: "broken"; readonly page: number | undefined; readonly why: string }
  | { readonly kind: "text" };

/** Never throws: a line is whatever somebody wrote. */
export function parsedLine(text: string): ParsedLine {
  if (!text.startsWith("{")) return { kind: "text" };
  let object: unknown;
  try {
    object = JSON.parse(text);
  } catch {
    const isMeant = /^\{\s*"type"\s*:/.test(text);
    return isMeant ? { kind: "broken", page: undefined, why: "is not JSON" } : { kind: "text" };
  }
  if (!isObject(object)) return { kind: "text" };
  const { type } = object;
  if (typeof type !== "string") return { kind: "object", object };
  if (!isMessageType(type)) return { kind: "unknown", type };
  const parsed = MESSAGES[type].safeParse(object);
  if (parsed.success) return { kind: "message", message: parsed.data };
  const [issue] = parsed.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? "" : `${issue.path.join(".")}: `;
  return {
    kind: "broken",
    page: typeof object.page === "number" ? object.page : undefined,
    why: `"${type}": ${where}${issue?.message ?? "is none"}`,
  };
}

/** What is found, as a spider yields it. */
export function outputOf(message: FoundMessage) {
  if (message.type === "item") return { item: message.data };
  const { type, page: _page, ...wanted } = message;
  const given = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined));
  // What it asks for is looked at by whoever takes what spiders yield.
  const asked = given as unknown as { readonly url: string };
  return type === "request" ? { request: asked } : { file: asked };
}

const LEVELS: ReadonlySet<string> = new Set(LOG_LEVELS.filter((known) => known !== "silent"));
/** As other languages call them. */
const OTHER_LEVELS: Readonly<Record<string, LineLevel>> = {
  warning: "warn",
  critical: "fatal",
  notice: "info",
};

export type LineLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal";

/** @returns `info` for what is none */
export function levelOf(text: string | undefined): LineLevel {
  if (text === undefined) return "info";
  return LEVELS.has(text) ? (text as LineLevel) : (OTHER_LEVELS[text] ?? "info");
}

/** The first thing that a process is told. */
export type OpenMessage = {
  readonly type: "open";
  readonly crawl: string;
  readonly spider: string;
  readonly version: string;
  readonly node: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly mode: ProcessMode;
  /** Of a run. */
  readonly run?: string;
  readonly attempt?: number;
  readonly seeds?: readonly string[];
};

export const CLOSE_LINE = lineOf({ type: "close" });

export function lineOf(message: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(message)}\n`;
}

const TEXT_TYPE =
  /^text\/|[/+](?:json|xml|xhtml|javascript|ecmascript|yaml|x-ndjson|csv)$|^application\/x-www-form/;

/** @param withLinks whether the page's title and links are told */
export function pageLine(id: number, page: Page, callback: string | undefined, withLinks: boolean): string {
  const contentType = page.headers["content-type"]?.split(";")[0]?.trim().toLowerCase();
  const isText = contentType === undefined ? !page.body.includes(0) : TEXT_TYPE.test(contentType);
  return lineOf({
    type: "page",
    id,
    url: page.url,
    status: page.status,
    headers: page.headers,
    depth: page.depth,
    meta: page.meta,
    ...(callback !== undefined && { callback }),
    ...(withLinks && { title: page.title, links: page.links() }),
    ...(isText ? { text: page.text() } : { body: Buffer.from(page.body).toString("base64") }),
  });
}

export function fileLine(id: number, file: SpiderFile): string {
  const { url, name: fileName, bytes, sha256, contentType, foundOn, meta } = file;
  return lineOf({
    type: "file",
    id,
    file: { url, id: file.id, name: fileName, bytes, sha256, contentType, foundOn, meta },
  });
}

function isMessageType(type: string): type is MessageType {
  return Object.hasOwn(MESSAGES, type);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
