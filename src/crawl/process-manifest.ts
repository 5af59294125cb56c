import { z } from "zod";
import { spiderName, urlList, whole } from "./crawl-request.js";
import type { SpiderSettings } from "./spider.js";
import { spiderDescription } from "./spider-manifest.js";

/** What the lines are that a process spider writes to its standard output. */
export const STDOUT_MODES = ["messages", "items", "log"] as const;
export type StdoutMode = (typeof STDOUT_MODES)[number];

/** Whether a process is given pages, or fetches by itself. */
export const PROCESS_MODES = ["pages", "run"] as const;
export type ProcessMode = (typeof PROCESS_MODES)[number];

const GiB = 2 ** 30;
/** What a timer takes. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

const limits = z.strictObject({
  memoryBytes: whole(2 ** 20, 1_024 * GiB).exactOptional(),
  pageTimeoutMs: whole(10, MAX_TIMEOUT_MS).exactOptional(),
  runTimeoutMs: whole(10, MAX_TIMEOUT_MS).exactOptional(),
  processes: whole(1, 256).exactOptional(),
  pagesAtOnce: whole(1, 1_000).exactOptional(),
  maxItems: whole(1, Number.MAX_SAFE_INTEGER).exactOptional(),
  idleMs: whole(0, MAX_TIMEOUT_MS).exactOptional(),
  graceMs: whole(0, 600_000).exactOptional(),
});

/** Limits of the processes of one crawl on one node. */
export type ProcessLimits = {
  /** Resident memory of one process and all that it starts. @default 536_870_912 (512 MiB) */
  readonly memoryBytes?: number;
  /** Time for one page, from when the process has done with those before it. @default 30_000 */
  readonly pageTimeoutMs?: number;
  /** Time of a run, in mode `run`. @default none */
  readonly runTimeoutMs?: number;
  /** Processes at once. @default 2 */
  readonly processes?: number;
  /** Pages that one process is given before it has answered the first of them. @default 4 */
  readonly pagesAtOnce?: number;
  /** Items of a run, in mode `run`. @default none */
  readonly maxItems?: number;
  /** How long a process is kept without a page, in milliseconds. @default 60_000 */
  readonly idleMs?: number;
  /** How long it may go on after it was asked to end, in milliseconds. @default 5_000 */
  readonly graceMs?: number;
};

export const PROCESS_LIMITS = {
  memoryBytes: 536_870_912,
  pageTimeoutMs: 30_000,
  processes: 2,
  pagesAtOnce: 4,
  idleMs: 60_000,
  graceMs: 5_000,
} as const satisfies ProcessLimits;

const MAX_ARGUMENTS = 1_000;
const MAX_ARGUMENT_CHARACTERS = 32_768;

const argument = z
  .string()
  .max(MAX_ARGUMENT_CHARACTERS, `must have at most ${MAX_ARGUMENT_CHARACTERS} characters`)
  .refine((text) => !text.includes("\0"), "must not hold NUL");

/** A program and its arguments. */
const commandLine = z
  .array(argument)
  .min(1, "must name a program")
  .max(MAX_ARGUMENTS, `must have at most ${MAX_ARGUMENTS} parts`)
  .refine(([program]) => program !== "", "must name a program");

const environment = z.record(
  z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]{0,199}$/, "must be a variable's name")
    .refine((name) => !name.startsWith("WARREN_"), "must not begin with WARREN_"),
  argument,
);

const contentType = z.string().regex(/^[a-z0-9.+*-]+\/[a-z0-9.+*-]+$/i, "must be a content type");

/** `spider.json` of a process spider, as it comes from outside. */
export const processManifest = z.strictObject({
  name: spiderName,
  description: z.string().max(1_000, "must have at most 1000 characters").exactOptional(),
  command: commandLine,
  mode: z.enum(PROCESS_MODES).default("pages"),
  env: environment.exactOptional(),
  stdout: z.enum(STDOUT_MODES).default("messages"),
  links: z.boolean().default(false),
  install: z.array(commandLine).max(100, "must be at most 100 commands").exactOptional(),
  limits: limits.default({}),
  seeds: urlList.exactOptional(),
  settings: spiderDescription.shape.settings,
  fileTypes: z.array(contentType).max(100, "must be at most 100 content types").exactOptional(),
  itemSchema: z.record(z.string(), z.unknown()).exactOptional(),
});

/** What a process spider is. */
export type ProcessManifest = {
  readonly name: string;
  /** In a sentence, for people. */
  readonly description?: string;
  /** The program, sought on PATH unless it holds a slash, and its arguments; run in the spider's folder, by no shell. */
  readonly command: readonly string[];
  /** @default "pages" */
  readonly mode: ProcessMode;
  /** Variables of its environment. */
  readonly env?: Readonly<Record<string, string>>;
  /**
   * `messages`: JSON lines that are messages of the protocol. `items`: each JSON object is an item. `log`: none is read.
   * Other lines are its log. @default "messages"
   */
  readonly stdout: StdoutMode;
  /** Whether pages come with their title and their links, absolute. @default false */
  readonly links: boolean;
  /** Commands that make a version ready to run, once on each node. */
  readonly install?: readonly (readonly string[])[];
  readonly limits: ProcessLimits;
  readonly seeds?: readonly string[];
  readonly settings?: SpiderSettings;
  /** Content types that it wants stored as files, and be told of. */
  readonly fileTypes?: readonly string[];
  /** JSON Schema of its items. */
  readonly itemSchema?: Readonly<Record<string, unknown>>;
};
