import type { StandardSchemaV1 } from "@standard-schema/spec";
import { jsonSchemaItem } from "../../crawl/json-schema-item.js";
import { PROCESS_LIMITS } from "../../crawl/process-manifest.js";
import type { RunEnd, RunInput, RunnableSpider } from "../../crawl/run.js";
import type { SpiderSettings } from "../../crawl/spider.js";
import { ProcessRun } from "./process-run.js";
import {
  openMessage,
  type ProcessSpiderSource,
  type ProcessSpidersDeps,
  type ProcessSpidersOptions,
  processEnvironment,
} from "./process-source.js";
import { lineOf } from "./protocol.js";

/** A command that is run as a whole: it fetches by itself, or asks for what is to be fetched. */
export class ProcessRunSpider implements RunnableSpider {
  readonly name: string;
  readonly version: string;
  readonly seeds?: readonly string[];
  readonly settings?: SpiderSettings;
  readonly item?: StandardSchemaV1<unknown, Record<string, unknown>>;
  readonly #source: ProcessSpiderSource;
  readonly #deps: ProcessSpidersDeps;
  readonly #options: ProcessSpidersOptions;

  constructor(source: ProcessSpiderSource, deps: ProcessSpidersDeps, options: ProcessSpidersOptions) {
    const { seeds, settings, itemSchema } = source.manifest;
    this.name = source.manifest.name;
    this.version = source.version;
    if (seeds !== undefined) this.seeds = seeds;
    // Checked where it came from.
    if (settings !== undefined) this.settings = settings as SpiderSettings;
    if (itemSchema !== undefined) this.item = jsonSchemaItem(itemSchema);
    this.#source = source;
    this.#deps = deps;
    this.#options = options;
  }

  parse(): never {
    throw new Error("it runs as a whole, and reads no pages");
  }

  /** @throws StorageError when what it brought could not be stored */
  run(input: RunInput): Promise<RunEnd> {
    const { folder, manifest, version, env } = this.#source;
    const { children, clock } = this.#deps;
    const { maxLogLinesPerSecond } = this.#options;
    const limits = { ...PROCESS_LIMITS, ...manifest.limits };
    const { run, attempt, seeds } = input;
    const process = new ProcessRun(
      {
        stdout: manifest.stdout,
        ...(maxLogLinesPerSecond !== undefined && { maxLogLinesPerSecond }),
        limits,
        command: {
          command: manifest.command,
          cwd: folder,
          env: {
            ...{ ...env, ...manifest.env, ...processEnvironment(input, manifest, version) },
            WARREN_RUN_ID: run,
            WARREN_ATTEMPT: String(attempt),
            WARREN_SEEDS: JSON.stringify(seeds),
          },
          limits: {
            ...{ memoryBytes: limits.memoryBytes, graceMs: limits.graceMs },
            ...(limits.runTimeoutMs !== undefined && { runTimeoutMs: limits.runTimeoutMs }),
          },
        },
        openLine: lineOf({ ...openMessage(input, manifest, version), run, attempt, seeds }),
      },
      { run: (command) => children.run(command), clock, input },
    );
    return process.ended();
  }
}
