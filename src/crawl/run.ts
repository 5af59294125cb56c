import type { CrawlSpec } from "./crawl.js";
import type { Spider, SpiderContext, SpiderOutput } from "./spider.js";

/**
 * A run: one execution of a spider that runs as a whole, on one node, for a crawl. `queued` until a node takes it, `active` there,
 * then `done`, `failed`, or `skipped` (a limit, or someone, ended it).
 */
export const RUN_STATES = ["queued", "active", "done", "failed", "skipped"] as const;
export type RunState = (typeof RUN_STATES)[number];

/** Why a run did not come to a good end. */
export type RunFailReason = "exit" | "timeout" | "memory" | "limit" | "spider-error" | "poison";

/** How a run ended by itself. */
export type RunEnd = {
  /** Of its process. */
  readonly exitCode?: number;
  /** The signal that ended its process. */
  readonly signal?: string;
} & (
  | { readonly state: "done" }
  | { readonly state: "failed"; readonly reason: RunFailReason; readonly error: string }
);

/** What a run yields: an item may say where it is from. */
export type RunOutput =
  | Exclude<SpiderOutput, { readonly item: unknown }>
  | { readonly item: Readonly<Record<string, unknown>>; readonly url?: string };

/** What a run is given. */
export type RunInput = SpiderContext & {
  /** Its id. */
  readonly run: string;
  /** From 1; more than 1 if a node was lost that had it. */
  readonly attempt: number;
  readonly seeds: readonly string[];
  /** Aborted when the run is to end: nothing that it brings is kept any more. */
  readonly signal: AbortSignal;
  /** Takes what it yields; resolves when more may come. @throws Error for what is no output */
  take(output: RunOutput): Promise<void>;
};

/** A spider that runs as a whole instead of reading pages: it fetches by itself, or says what is to be fetched. */
export interface RunnableSpider extends Spider {
  /** Rejects for what is not its own fault: it is run again then. */
  run(input: RunInput): Promise<RunEnd>;
}

/** A crawl of a spider that runs as a whole. Where it has no seeds of which to be on the same host, its scope is any. */
export function asRun<Spec extends Pick<CrawlSpec, "seeds" | "scope">>(
  spec: Spec,
): Spec & { readonly runs: true } {
  const isOfSeeds = spec.scope === "host" || spec.scope === "domain";
  return { ...spec, runs: true, ...(isOfSeeds && spec.seeds.length === 0 && { scope: "any" as const }) };
}

export function isRunnable(spider: Spider): spider is RunnableSpider {
  return "run" in spider && typeof spider.run === "function";
}
