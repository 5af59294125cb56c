import type { CrawlState } from "../../crawl/crawl-state.js";
import type { SpiderOutput } from "../../crawl/spider.js";
import type { Logger } from "../../lib/logger.js";
import {
  type CloseJob,
  type ErrorJob,
  type FileJob,
  type ModuleCall,
  type PackedOutputs,
  type PageJob,
  unpacked,
} from "./messages.js";

/** A crawl that a module's processes work for, as the worker has it. */
export type ModuleCrawl = {
  readonly id: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly state: CrawlState;
  /** Of the crawl as such; a page has its own. */
  readonly log: Logger;
  /** The node's id. */
  readonly node: string;
};

type Work<Job> = Job extends unknown ? Omit<Job, "type" | "id" | "crawl"> : never;
export type ModuleWork = Work<PageJob | FileJob | ErrorJob | CloseJob>;

export type ModuleJobInput = {
  readonly crawl: ModuleCrawl;
  readonly work: ModuleWork;
  readonly body?: Uint8Array;
  readonly log: () => Logger;
  /** Answers what the spider asks of the page or file. */
  readonly answer?: (method: string) => Promise<unknown>;
};

/** What one page may bring over in all, in bytes. */
const MAX_OUTPUT_BYTES = 64 * 1_048_576;

/**
 * One page, file or hook for a process, until it is done. Outputs are kept until then, since a page that lost its process
 * is begun anew.
 */
export class ModuleJob {
  readonly id: number;
  readonly input: ModuleJobInput;
  readonly ended: Promise<readonly SpiderOutput[]>;
  /** Processes that ended while they had it, and perhaps others. */
  deaths = 0;
  /** It is to run alone, in a process that has had nothing else. */
  isSuspect = false;
  #outputs: SpiderOutput[] = [];
  #bytes = 0;
  #isSettled = false;
  #resolve: (outputs: readonly SpiderOutput[]) => void = () => {};
  #reject: (error: Error) => void = () => {};

  constructor(id: number, input: ModuleJobInput) {
    this.id = id;
    this.input = input;
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever waits for it may have gone.
    this.ended.catch(() => {});
  }

  /** Nobody waits for it any more. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  /** @throws Error when it is too much in all */
  add(packed: PackedOutputs, bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MAX_OUTPUT_BYTES) {
      throw new Error(`more than ${MAX_OUTPUT_BYTES} bytes of outputs from one page`);
    }
    const outputs = unpacked(packed);
    if (this.#outputs.length === 0) this.#outputs = outputs;
    else for (const output of outputs) this.#outputs.push(output);
  }

  /** Its process is gone, and what came of it so far as well. */
  beginAnew(): void {
    this.#outputs = [];
    this.#bytes = 0;
    this.deaths += 1;
  }

  done(): void {
    this.#isSettled = true;
    this.#resolve(this.#outputs);
  }

  fail(error: Error): void {
    this.#isSettled = true;
    this.#reject(error);
  }

  async answer(call: Exclude<ModuleCall, { about: "state" }>): Promise<unknown> {
    if (this.input.answer === undefined) throw new Error(`there is no ${call.about} to ask about`);
    return await this.input.answer(call.method);
  }
}
