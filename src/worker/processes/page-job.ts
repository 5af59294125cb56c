import type { SpiderOutput } from "../../crawl/spider.js";
import type { Logger } from "../../lib/logger.js";

export type PageJobInput = {
  /** The line that a process gets of it. */
  readonly line: (id: number) => string;
  /** What it is about, for messages: a URL. */
  readonly about: string;
  readonly log: () => Logger;
  readonly signal?: AbortSignal;
  /** Told when nobody wants it any more. */
  readonly onAbandoned: (job: PageJob) => void;
  readonly maxOutputs: number;
};

/** Characters of messages that one page may lead to, all together. */
const MAX_OUTPUT_CHARACTERS = 33_554_432;

/**
 * A page, or a file, on its way through the processes of its spider. What is found on it is handed on when all of it was
 * found: a page that is begun anew by another process has nothing twice.
 */
export class PageJob implements AsyncIterableIterator<SpiderOutput> {
  readonly about: string;
  /** Its processes that came to their end over it, or beside it. */
  deaths = 0;
  readonly #input: PageJobInput;
  readonly #finished: Promise<void>;
  #outputs: SpiderOutput[] = [];
  #stats: { readonly name: string; readonly by: number }[] = [];
  #characters = 0;
  #next = 0;
  #log: Logger | undefined;
  #isOver = false;
  #resolve: () => void = () => {};
  #reject: (error: Error) => void = () => {};

  constructor(input: PageJobInput) {
    this.#input = input;
    this.about = input.about;
    this.#finished = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#finished.catch(() => {});
    const { signal } = input;
    if (signal?.aborted === true) this.#abandon();
    else signal?.addEventListener("abort", this.#abandon, { once: true });
  }

  /** It was done, has failed, or is not wanted any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  get log(): Logger {
    this.#log ??= this.#input.log();
    return this.#log;
  }

  line(id: number): string {
    return this.#input.line(id);
  }

  /** @returns why it cannot be taken, if so: there are too many, or too large ones */
  found(output: SpiderOutput, characters: number): string | undefined {
    if (this.#isOver) return undefined;
    this.#characters += characters;
    if (this.#outputs.length >= this.#input.maxOutputs) {
      return `more than ${this.#input.maxOutputs} outputs from one page`;
    }
    if (this.#characters > MAX_OUTPUT_CHARACTERS) {
      return `more than ${MAX_OUTPUT_CHARACTERS} characters of output from one page`;
    }
    this.#outputs.push(output);
    return undefined;
  }

  counted(name: string, by: number): void {
    if (!this.#isOver && this.#stats.length < this.#input.maxOutputs) this.#stats.push({ name, by });
  }

  /** What was found so far is forgotten: it is begun anew. */
  beginAnew(): void {
    this.deaths += 1;
    this.#outputs = [];
    this.#stats = [];
    this.#characters = 0;
  }

  /** @returns what was counted on it */
  finish(): readonly { readonly name: string; readonly by: number }[] {
    if (this.#isOver) return [];
    this.#end();
    this.#resolve();
    return this.#stats;
  }

  fail(why: string): void {
    if (this.#isOver) return;
    this.#end();
    this.#outputs = [];
    this.#reject(new Error(why));
  }

  async next(): Promise<IteratorResult<SpiderOutput>> {
    await this.#finished;
    const value = this.#outputs[this.#next];
    if (value === undefined) return { done: true, value: undefined };
    this.#next += 1;
    return { done: false, value };
  }

  async return(): Promise<IteratorResult<SpiderOutput>> {
    this.#abandon();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  readonly #abandon = () => {
    if (this.#isOver) return;
    this.fail("the page is not wanted any more");
    this.#input.onAbandoned(this);
  };

  #end(): void {
    this.#isOver = true;
    this.#input.signal?.removeEventListener("abort", this.#abandon);
  }
}
