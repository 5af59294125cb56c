import type { LinkOptions } from "../../crawl/pages/link-options.js";
import type { PageParts } from "../../crawl/pages/page-view.js";
import type { TreeKind } from "../../crawl/pages/parser.js";
import type { SpiderFile, SpiderOutput, SpiderSettings } from "../../crawl/spider.js";
import type { LogLevel } from "../../lib/logger.js";

/** What a module says of itself when it is loaded. */
export type ModuleDescription = {
  /** As the module calls itself. */
  readonly name: string;
  readonly seeds?: readonly string[];
  readonly settings?: SpiderSettings;
  readonly fileTypes?: readonly string[];
  readonly tree?: TreeKind;
  /** The names of its `callbacks`. */
  readonly callbacks: readonly string[];
  /** Which of these it has. */
  readonly hooks: readonly ModuleHook[];
  /** Its items' schema as JSON Schema, if the library that it is made with can say so. */
  readonly itemSchema?: Readonly<Record<string, unknown>>;
};

export const MODULE_HOOKS = ["file", "open", "close", "error"] as const;
export type ModuleHook = (typeof MODULE_HOOKS)[number];

/** What a process is to know before anything else. */
export type LoadMessage = {
  readonly type: "load";
  /** The file that exports the spider. */
  readonly entry: string;
  readonly limits: ProcessLimits;
};

export type ProcessLimits = {
  readonly pageTimeoutMs: number;
  readonly maxOutputs: number;
  readonly maxLogLines: number;
};

/** A crawl that the jobs after it are for. */
export type CrawlMessage = {
  readonly type: "crawl";
  readonly id: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly node: string;
  readonly logLevel: LogLevel;
};

type JobFacts = { readonly type: "job"; readonly id: number; readonly crawl: string };
export type PageJob = JobFacts & {
  readonly kind: "page";
  readonly page: Omit<PageParts, "links"> & { readonly links?: LinkOptions };
  readonly callback?: string;
};
export type FileFacts = Omit<SpiderFile, "pdf" | "text">;
export type FileJob = JobFacts & { readonly kind: "file"; readonly file: FileFacts };
export type ErrorFacts = {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly code?: string;
};
export type ErrorJob = JobFacts & {
  readonly kind: "error";
  readonly url: string;
  readonly error: ErrorFacts;
};
/** The last of a crawl, for which it is then forgotten. */
export type CloseJob = JobFacts & { readonly kind: "close" };
export type JobMessage = PageJob | FileJob | ErrorJob | CloseJob;

export type ToProcess =
  | LoadMessage
  | CrawlMessage
  | JobMessage
  | { readonly type: "abort"; readonly id: number }
  | { readonly type: "answer"; readonly id: number; readonly value: unknown }
  | { readonly type: "refusal"; readonly id: number; readonly error: ErrorFacts }
  | { readonly type: "end" };

/** What a spider can ask of the worker: the state of a crawl, and what is read of documents in the worker's own thread. */
export type ModuleCall =
  | { readonly about: "state"; readonly crawl: string; readonly method: "get"; readonly name: string }
  | {
      readonly about: "state";
      readonly crawl: string;
      readonly method: "set" | "add";
      readonly name: string;
      readonly value: unknown;
    }
  | { readonly about: "state"; readonly crawl: string; readonly method: "delete"; readonly name: string }
  | { readonly about: "page"; readonly job: number; readonly method: "article" | "markdown" }
  | { readonly about: "file"; readonly job: number; readonly method: "pdf" | "text" };

/** Outputs in their order; plain requests that follow each other are one text, a line for each. */
export type PackedOutputs = readonly (SpiderOutput | string)[];

export function packed(outputs: readonly SpiderOutput[]): PackedOutputs {
  const all: (SpiderOutput | string)[] = [];
  let urls: string[] = [];
  const endRun = () => {
    if (urls.length > 0) all.push(urls.join("\n"));
    urls = [];
  };
  for (const output of outputs) {
    const request = "request" in output && Object.keys(output).length === 1 ? output.request : undefined;
    if (typeof request === "string" && !request.includes("\n")) urls.push(request);
    else {
      endRun();
      all.push(output);
    }
  }
  endRun();
  return all;
}

export function unpacked(outputs: PackedOutputs): SpiderOutput[] {
  return outputs.flatMap((output) =>
    typeof output === "string" ? output.split("\n").map((request) => ({ request })) : [output],
  );
}

export type FromProcess =
  | { readonly type: "loaded"; readonly description: ModuleDescription }
  | { readonly type: "unloadable"; readonly error: ErrorFacts }
  | { readonly type: "outputs"; readonly id: number; readonly outputs: PackedOutputs }
  | {
      readonly type: "done";
      readonly id: number;
      /** The last of what it yielded. */
      readonly outputs: PackedOutputs;
      /** Lines of its log that were too many. */
      readonly droppedLines: number;
    }
  | {
      readonly type: "failed";
      readonly id: number;
      readonly error: ErrorFacts;
      readonly droppedLines: number;
    }
  /** One line of the log, as JSON: of a job, or of what a crawl's hooks left running. */
  | { readonly type: "log"; readonly crawl: string; readonly job?: number; readonly line: string }
  | { readonly type: "call"; readonly id: number; readonly call: ModuleCall }
  /** Something was thrown that nobody caught. */
  | { readonly type: "uncaught"; readonly error: ErrorFacts; readonly isRejection: boolean };

/** Numbers of the descriptors that a process has beside the three of every process. */
export const FRAMES_FD = 3;
/** The worker's end of it closes when the worker dies; what is written to it is short words, also with a thread busy. */
export const LEASH_FD = 4;

const MAX_TEXT = 8_192;

/** Errors as they are told over the channel, and made again behind it. */
export function errorFacts(thrown: unknown): ErrorFacts {
  try {
    if (!(thrown instanceof Error)) return { name: "Error", message: String(thrown).slice(0, MAX_TEXT) };
    const { name, message, stack } = thrown;
    const code = (thrown as { code?: unknown }).code;
    return {
      name: String(name).slice(0, 200),
      message: String(message).slice(0, MAX_TEXT),
      ...(typeof stack === "string" && { stack: stack.slice(0, MAX_TEXT) }),
      ...(typeof code === "string" && { code }),
    };
  } catch {
    return { name: "Error", message: "something was thrown that cannot be told in words" };
  }
}

export function errorOf({ name, message, stack, code }: ErrorFacts): Error {
  const error = new Error(message);
  error.name = name;
  if (stack !== undefined) error.stack = stack;
  return code === undefined ? error : Object.assign(error, { code });
}
