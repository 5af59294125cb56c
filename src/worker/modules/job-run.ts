import { type CheckedItem, checkedItem } from "../../crawl/item-check.js";
import type { Spider, SpiderOutput } from "../../crawl/spider.js";
import type { ProcessLimits } from "./messages.js";

type Outputs = AsyncIterable<SpiderOutput> | Iterable<SpiderOutput>;

/** Outputs that are sent together; those of most pages go with the word that the page is done. */
const BATCH = 1_000;

/** What a spider does about one page, file or hook, within its time and number: in a process of spiders. */
export class JobRun {
  readonly #limits: ProcessLimits;
  readonly #send: (outputs: readonly SpiderOutput[]) => void;
  readonly #aborting = new AbortController();
  #outputs: SpiderOutput[] = [];
  #count = 0;
  #end: Promise<never> | undefined;
  #giveUp: (error: Error) => void = () => {};
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: ProcessLimits, send: (outputs: readonly SpiderOutput[]) => void) {
    this.#limits = limits;
    this.#send = send;
  }

  /** Aborted when the worker gives the page up, or its time is over. */
  get signal(): AbortSignal {
    return this.#aborting.signal;
  }

  /** What was yielded and not sent yet. */
  get rest(): readonly SpiderOutput[] {
    return this.#outputs;
  }

  /** @throws whatever the spider throws, or that it took too long or yielded too much */
  async gather(begin: () => Outputs, schema: Spider["item"]): Promise<void> {
    const yielded: unknown = begin();
    if (!isOutputs(yielded)) {
      throw new Error("what reads a page must be a generator, or return a list of outputs");
    }
    // A plain generator runs to its end in one go.
    if (Symbol.iterator in yielded) {
      for (const output of yielded) {
        const taking = this.#take(output, schema);
        if (taking !== undefined) await this.inTime(taking);
      }
      return;
    }
    const iterator = yielded[Symbol.asyncIterator]();
    try {
      for (;;) {
        const step = await this.inTime(iterator.next());
        if (step.done === true) return;
        const taking = this.#take(step.value, schema);
        if (taking !== undefined) await this.inTime(taking);
      }
    } catch (error) {
      // Not awaited: a generator that hangs cannot be made to return.
      void Promise.resolve(iterator.return?.()).catch(() => {});
      throw error;
    }
  }

  /** All waits of a run share one time limit. */
  inTime<Value>(waited: Promise<Value> | Value): Promise<Value> {
    this.#end ??= this.#beginTime();
    return Promise.race([waited, this.#end]);
  }

  /** The worker does not want it any more. */
  abort(): void {
    this.#stopWith(new Error("the task was stopped"));
  }

  /** Nothing will be waited for any more. */
  finish(): void {
    clearTimeout(this.#timer);
  }

  #beginTime(): Promise<never> {
    const { pageTimeoutMs } = this.#limits;
    const end = new Promise<never>((_, reject) => {
      this.#giveUp = reject;
    });
    end.catch(() => {});
    this.#timer = setTimeout(
      () => this.#stopWith(new Error(`did not finish within ${pageTimeoutMs} ms`)),
      pageTimeoutMs,
    );
    if (this.signal.aborted) this.#giveUp(this.signal.reason as Error);
    return end;
  }

  #stopWith(error: Error): void {
    if (!this.signal.aborted) this.#aborting.abort(error);
    this.#giveUp(error);
  }

  /** @returns a promise to wait for before the next output is asked for, if the item's schema takes one */
  #take(output: SpiderOutput, schema: Spider["item"]): Promise<void> | undefined {
    this.#count += 1;
    if (this.#count > this.#limits.maxOutputs) {
      throw new Error(`more than ${this.#limits.maxOutputs} outputs from one page`);
    }
    if (typeof output !== "object" || output === null) {
      throw new Error(`a spider yields {item}, {request} or {file}, not ${String(output)}`);
    }
    if (!("item" in output)) {
      this.#push(output);
      return undefined;
    }
    const item = checkedItem(output.item, schema);
    if (item instanceof Promise) return item.then((late) => this.#push(outputOf(late)));
    this.#push(outputOf(item));
    return undefined;
  }

  #push(output: SpiderOutput): void {
    this.#outputs.push(output);
    if (this.#outputs.length < BATCH) return;
    this.#send(this.#outputs);
    this.#outputs = [];
  }
}

function outputOf(item: CheckedItem): SpiderOutput {
  return "data" in item
    ? { item: item.data as Record<string, unknown> }
    : { invalidItem: { data: item.invalid, reasons: item.reasons } };
}

function isOutputs(value: unknown): value is Outputs {
  return (
    typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value)
  );
}
