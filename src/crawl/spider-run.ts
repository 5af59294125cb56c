import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import { renderRequest } from "../lib/render-request.js";
import { SpiderError } from "./errors.js";
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

  constructor(input: SpiderRunInput) {
    this.#input = input;
  }

  /** @throws SpiderError whatever the spider throws, or if it takes too long */
  async onPage(page: PageView): Promise<void> {
    const { spider, task } = this.#input;
    await this.#gather(() => spider.parse(page), { url: page.url, depth: task.depth }, page);
  }

  /** Does nothing if the spider has no word for files. @throws SpiderError as `onPage` */
  async onFile(file: SpiderFile): Promise<void> {
    const { spider, task } = this.#input;
    if (spider.file === undefined) return;
    await this.#gather(() => spider.file?.(file) ?? [], { url: file.url, depth: task.depth }, undefined);
  }

  async #gather(
    begin: () => AsyncIterable<SpiderOutput> | Iterable<SpiderOutput>,
    on: FoundOn,
    page: PageView | undefined,
  ): Promise<void> {
    try {
      const yielded = begin();
      // A spider that is a plain generator costs no promise an output.
      if (Symbol.iterator in yielded) for (const output of yielded) this.#take(output, on, page);
      else await this.#inTime(yielded, (output) => this.#take(output, on, page));
    } catch (error) {
      const { name } = this.#input.spider;
      throw new SpiderError(`spider "${name}" on ${on.url}: ${messageOf(error)}`, { cause: error });
    }
  }

  async #inTime(yielded: AsyncIterable<SpiderOutput>, take: (output: SpiderOutput) => void): Promise<void> {
    const { clock, limits, signal } = this.#input;
    const iterator = yielded[Symbol.asyncIterator]();
    let giveUp: (error: Error) => void = () => {};
    const tooLong = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    tooLong.catch(() => {});
    const { spiderTimeoutMs } = limits;
    const onAbort = () => giveUp(new Error("the task was stopped"));
    signal.addEventListener("abort", onAbort, { once: true });
    const stopTimer = clock.after(spiderTimeoutMs, () =>
      giveUp(new Error(`did not finish within ${spiderTimeoutMs} ms`)),
    );
    try {
      for (;;) {
        const step = await Promise.race([iterator.next(), tooLong]);
        if (step.done === true) return;
        take(step.value);
      }
    } catch (error) {
      // Not awaited: a generator that hangs cannot be made to return.
      void Promise.resolve(iterator.return?.()).catch(() => {});
      throw error;
    } finally {
      stopTimer();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #take(output: SpiderOutput, on: FoundOn, page: PageView | undefined): void {
    const { spider, task, admission, findings, limits, clock, node, directives } = this.#input;
    this.#outputs += 1;
    if (this.#outputs > limits.maxOutputs) {
      throw new Error(`more than ${limits.maxOutputs} outputs from one page`);
    }
    if ("item" in output) {
      if (directives?.noindex === true) return;
      findings.items.push({
        id: `${task.id}.${task.round}.${findings.items.length}`,
        crawl: task.crawl,
        url: on.url,
        at: clock.now(),
        spider: spider.name,
        version: spider.version ?? "1",
        node,
        data: output.item,
      });
      return;
    }
    const kind = "request" in output ? "page" : "file";
    const wanted = "request" in output ? output.request : output.file;
    const resolved = typeof wanted === "string" ? page?.resolved(wanted) : undefined;
    checkRequest(wanted);
    if (directives?.nofollow === true) return;
    const link = admission.admit(wanted, kind, on, resolved);
    if (link !== undefined) findings.links.set(link.id, link);
  }
}

const METHODS = new Set(["GET", "HEAD", "POST"]);

/** @throws Error saying what a spider got wrong about a request */
function checkRequest(wanted: SpiderRequest): void {
  if (typeof wanted === "string") return;
  if (typeof wanted !== "object" || wanted === null || typeof wanted.url !== "string") {
    throw new Error("a request must be a URL or an object with a `url`");
  }
  if (wanted.method !== undefined && !METHODS.has(wanted.method)) {
    throw new Error(`a request's method must be GET, HEAD or POST, not ${String(wanted.method)}`);
  }
  const { priority, render } = wanted;
  if (render !== undefined && !renderRequest.safeParse(render).success) {
    throw new Error(`a request's render ${renderRequest.safeParse(render).error?.issues[0]?.message}`);
  }
  if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= 9)) {
    throw new Error(`a request's priority must be a whole number from 0 to 9, not ${String(priority)}`);
  }
}
