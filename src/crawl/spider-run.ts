import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import { renderRequest } from "../lib/render-request.js";
import { SpiderError, SpiderUnavailableError } from "./errors.js";
import type { UrlKind } from "./frontier.js";
import { type CheckedItem, checkedItem, RefusedItems } from "./item-check.js";
import { LateOutputs } from "./late-outputs.js";
import type { TaskLimits } from "./limits.js";
import type { FoundOn, LinkAdmission } from "./link-admission.js";
import type { PageView } from "./pages/page-view.js";
import type { RobotsDirectives } from "./robots/robots-directives.js";
import type { Spider, SpiderFile, SpiderOutput, SpiderRequest } from "./spider.js";
import type { Task } from "./task.js";
import type { Findings } from "./task-result.js";

export type SpiderRunInput = {
  readonly spider: Spider;
  readonly task: Task;
  readonly admission: LinkAdmission;
  /** Takes what the spider yields. */
  readonly findings: Findings;
  readonly limits: TaskLimits;
  readonly clock: Clock;
  /** The node's id, on every item. */
  readonly node: string;
  readonly signal: AbortSignal;
  /** What the page says about what may be done with it. */
  readonly directives?: RobotsDirectives;
};

/** A spider at work on what one task fetched, within its limits of time and number. */
export class SpiderRun {
  readonly #input: SpiderRunInput;
  #outputs = 0;
  /** Items yielded, be they as they should be or not. */
  #items = 0;
  /** Rejects when the spider has taken too long or the task is stopped; there from the first wait on. */
  #end: Promise<never> | undefined;
  #endWaiting = () => {};
  readonly #refused = new RefusedItems();

  constructor(input: SpiderRunInput) {
    this.#input = input;
  }

  /**
   * @throws SpiderError whatever the spider throws, or if it takes too long, or lacks what the request asks for
   * @throws SpiderUnavailableError as it came, of a spider whose code runs elsewhere
   */
  async onPage(page: PageView): Promise<void> {
    const { spider, task } = this.#input;
    const on = { url: page.url, depth: task.depth };
    const callback = task.request?.callback;
    if (callback === undefined) await this.#gather(() => spider.parse(page), on, page);
    else await this.#gather(() => this.#callbackOf(callback)(page), on, page);
  }

  /** Does nothing if the spider has no word for files. @throws SpiderError as `onPage` */
  async onFile(file: SpiderFile): Promise<void> {
    const { spider, task } = this.#input;
    if (spider.file === undefined) return;
    await this.#gather(() => spider.file?.(file) ?? [], { url: file.url, depth: task.depth }, undefined);
  }

  #callbackOf(name: string): Spider["parse"] {
    const callbacks = this.#input.spider.callbacks ?? {};
    const callback: unknown = callbacks[name];
    // What every object has is none of the spider's.
    if (typeof callback !== "function" || callback === Object.prototype[name as keyof object]) {
      throw new Error(`it has no callback "${name}"`);
    }
    return (page) => callbacks[name]?.(page) ?? [];
  }

  async #gather(begin: () => ReturnType<Spider["parse"]>, on: FoundOn, page: PageView | undefined) {
    try {
      const yielded = begin();
      // A spider that is a plain generator costs no promise an output.
      const atOnce = yielded instanceof LateOutputs ? await this.#late(yielded) : yielded;
      if (Symbol.iterator in atOnce) {
        for (const output of atOnce) {
          const taking = this.#take(output, on, page);
          if (taking !== undefined) await this.#inTime(taking);
        }
      } else await this.#drain(atOnce, on, page);
    } catch (error) {
      if (error instanceof SpiderUnavailableError) throw error;
      const { name } = this.#input.spider;
      throw new SpiderError(`spider "${name}" on ${on.url}: ${messageOf(error)}`, { cause: error });
    } finally {
      this.#endWaiting();
    }
  }

  async #late(outputs: LateOutputs): Promise<readonly SpiderOutput[]> {
    try {
      return await this.#inTime(outputs.all);
    } catch (error) {
      outputs.giveUp();
      throw error;
    }
  }

  async #drain(yielded: AsyncIterable<SpiderOutput>, on: FoundOn, page: PageView | undefined) {
    const iterator = yielded[Symbol.asyncIterator]();
    try {
      for (;;) {
        const step = await this.#inTime(iterator.next());
        if (step.done === true) return;
        const taking = this.#take(step.value, on, page);
        if (taking !== undefined) await this.#inTime(taking);
      }
    } catch (error) {
      // Not awaited: a generator that hangs cannot be made to return.
      void Promise.resolve(iterator.return?.()).catch(() => {});
      throw error;
    }
  }

  /** All waits of a run share one time limit. */
  #inTime<Value>(waited: Promise<Value>): Promise<Value> {
    this.#end ??= this.#beginTime();
    return Promise.race([waited, this.#end]);
  }

  #beginTime(): Promise<never> {
    const { clock, limits, signal, spider } = this.#input;
    const { spiderTimeoutMs } = limits;
    let giveUp: (error: Error) => void = () => {};
    const tooLong = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    tooLong.catch(() => {});
    const onAbort = () => giveUp(new Error("the task was stopped"));
    signal.addEventListener("abort", onAbort, { once: true });
    const onTimeout = () => giveUp(new Error(`did not finish within ${spiderTimeoutMs} ms`));
    const stopTimer = spider.keepsTime === true ? () => {} : clock.after(spiderTimeoutMs, onTimeout);
    this.#endWaiting = () => {
      stopTimer();
      signal.removeEventListener("abort", onAbort);
    };
    return tooLong;
  }

  /** @returns a promise to wait for before the next output is asked for, if there is something to wait for */
  #take(output: SpiderOutput, on: FoundOn, page: PageView | undefined): Promise<void> | undefined {
    const { limits, directives } = this.#input;
    this.#outputs += 1;
    if (this.#outputs > limits.maxOutputs) {
      throw new Error(`more than ${limits.maxOutputs} outputs from one page`);
    }
    if ("item" in output) {
      if (directives?.noindex === true) return undefined;
      const checked = checkedItem(output.item, this.#input.spider.item);
      const number = this.#items++;
      if (checked instanceof Promise) return checked.then((late) => this.#keep(late, number, on));
      this.#keep(checked, number, on);
    } else if ("invalidItem" in output) {
      const { data, reasons } = output.invalidItem;
      if (directives?.noindex !== true) this.#keep({ invalid: data, reasons }, this.#items++, on);
    } else if ("request" in output) this.#admit(output.request, "page", on, page);
    else this.#admit(output.file, "file", on, page);
    return undefined;
  }

  /** @param number the item's on its page: the same each time that the spider runs on it */
  #keep(checked: CheckedItem, number: number, { url }: FoundOn): void {
    const { spider, task, findings, clock, node } = this.#input;
    const about = {
      id: `${task.id}.${task.round}.${number}`,
      crawl: task.crawl,
      url,
      at: clock.now(),
      spider: spider.name,
      version: spider.version ?? "1",
      node,
    };
    if ("data" in checked) findings.items.push({ ...about, data: checked.data });
    else findings.invalidItems.push({ ...about, ...this.#refused.kept(checked.invalid, checked.reasons) });
  }

  #admit(wanted: SpiderRequest, kind: UrlKind, on: FoundOn, page: PageView | undefined): void {
    const { admission, findings, directives } = this.#input;
    const resolved = typeof wanted === "string" ? page?.resolved(wanted) : undefined;
    checkRequest(wanted);
    if (directives?.nofollow === true) return;
    const link = admission.admit(wanted, kind, on, resolved);
    if (link !== undefined) findings.links.set(link.id, link);
  }
}

const METHODS = new Set(["GET", "HEAD", "POST"]);
const MAX_CALLBACK_CHARACTERS = 100;

/** @throws Error saying what a spider got wrong about a request */
export function checkRequest(wanted: SpiderRequest): void {
  if (typeof wanted === "string") return;
  if (typeof wanted !== "object" || wanted === null || typeof wanted.url !== "string") {
    throw new Error("a request must be a URL or an object with a `url`");
  }
  if (wanted.method !== undefined && !METHODS.has(wanted.method)) {
    throw new Error(`a request's method must be GET, HEAD or POST, not ${String(wanted.method)}`);
  }
  const { priority, render, callback, spider } = wanted;
  if (spider !== undefined && typeof spider !== "string")
    throw new Error("a request's spider must be a name");
  if (render !== undefined && !renderRequest.safeParse(render).success) {
    throw new Error(`a request's render ${renderRequest.safeParse(render).error?.issues[0]?.message}`);
  }
  if (callback !== undefined && !isCallbackName(callback)) {
    throw new Error(`a request's callback must be a name of 1 to ${MAX_CALLBACK_CHARACTERS} characters`);
  }
  if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= 9)) {
    throw new Error(`a request's priority must be a whole number from 0 to 9, not ${String(priority)}`);
  }
}

function isCallbackName(name: unknown): boolean {
  return typeof name === "string" && name.length > 0 && name.length <= MAX_CALLBACK_CHARACTERS;
}
