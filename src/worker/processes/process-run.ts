import { StorageError } from "../../crawl/errors.js";
import type { ProcessLimits } from "../../crawl/process-manifest.js";
import type { RunEnd, RunInput } from "../../crawl/run.js";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { ChildCommand, ChildProcess, ChildResult } from "./child-process.js";
import { CrawlStats } from "./crawl-stats.js";
import { ProcessOutput, type ProcessOutputOptions } from "./process-output.js";
import { outputOf, type ProcessMessage } from "./protocol.js";
import { answerTo } from "./state-calls.js";

export type ProcessRunOptions = ProcessOutputOptions & {
  readonly command: Omit<ChildCommand, "onLine">;
  /** The line with which it begins. */
  readonly openLine: string;
  readonly limits: Pick<ProcessLimits, "maxItems" | "graceMs">;
};

export type ProcessRunDeps = {
  readonly run: (command: ChildCommand) => ChildProcess;
  readonly clock: Clock;
  readonly input: RunInput;
};

const LAST_LINES = 5;
const MAX_ERROR_CHARACTERS = 2_000;
/** Outputs that were refused of which is told one by one. */
const MAX_TOLD_REFUSALS = 20;

/**
 * One process that does all of a run. What it writes is stored while it goes on, and it waits while that takes long. Its exit
 * code says how it went.
 */
export class ProcessRun {
  readonly #options: ProcessRunOptions;
  readonly #deps: ProcessRunDeps;
  readonly #output: ProcessOutput;
  readonly #stats: CrawlStats;
  readonly #child: ChildProcess;
  #items = 0;
  #refusals = 0;
  /** Why it counts as failed whatever its exit code is. */
  #verdict: Extract<RunEnd, { state: "failed" }> | undefined;
  /** What it brought could not be stored: it is not to blame. */
  #trouble: StorageError | undefined;

  constructor(options: ProcessRunOptions, deps: ProcessRunDeps) {
    this.#options = options;
    this.#deps = deps;
    const { input, clock, run } = deps;
    this.#stats = new CrawlStats(input.crawl.state, input.log, clock);
    this.#output = new ProcessOutput(
      options,
      {
        onMessage: (message) => this.#onMessage(message),
        onLog: (level, text, { page: _page, ...fields }) => input.log[level](fields, text),
        onBroken: (_page, why) => this.#fail("spider-error", `wrote a message that ${why}`),
      },
      clock,
    );
    this.#child = run({
      ...options.command,
      onLine: (stream, line) => this.#output.take(stream, line),
    });
  }

  /** Resolves when nothing of it runs any more. @throws StorageError when what it brought could not be stored */
  async ended(): Promise<RunEnd> {
    const { input } = this.#deps;
    const { graceMs } = this.#options.limits;
    const end = () => void this.#child.end(graceMs === undefined ? {} : { graceMs });
    input.signal.addEventListener("abort", end, { once: true });
    if (input.signal.aborted) end();
    if (this.#options.stdout === "messages") void this.#child.write(this.#options.openLine);
    else this.#child.closeInput();
    const result = await this.#child.ended;
    input.signal.removeEventListener("abort", end);
    await this.#stats.flush();
    if (this.#trouble !== undefined) throw this.#trouble;
    return this.#verdict ?? endOf(result);
  }

  #onMessage(message: Exclude<ProcessMessage, { type: "log" }>): Promise<void> | void {
    const { input } = this.#deps;
    switch (message.type) {
      case "item": {
        const { maxItems = Number.POSITIVE_INFINITY } = this.#options.limits;
        this.#items += 1;
        if (this.#items > maxItems) return this.#fail("limit", `yielded more than ${maxItems} items`);
        const { data: item, url } = message;
        return this.#take({ item, ...(url !== undefined && { url }) });
      }
      case "request":
      case "store":
        return this.#take(outputOf(message));
      case "stats":
        return this.#stats.add(message.name, message.by);
      case "done":
        return;
      case "error":
        return this.#fail("spider-error", message.message.slice(0, MAX_ERROR_CHARACTERS));
      default:
        return this.#answer(message, input);
    }
  }

  async #take(output: Parameters<RunInput["take"]>[0]): Promise<void> {
    const { input } = this.#deps;
    try {
      await input.take(output);
    } catch (error) {
      if (error instanceof StorageError) {
        this.#trouble ??= error;
        void this.#child.kill();
        return;
      }
      this.#refusals += 1;
      if (this.#refusals <= MAX_TOLD_REFUSALS) input.log.error({}, `not taken: ${messageOf(error)}`);
    }
  }

  async #answer(call: Parameters<typeof answerTo>[0], { crawl }: RunInput): Promise<void> {
    // Its output is not read before it has its answer; a state that takes long must not keep it from its end.
    await Promise.race([
      answerTo(call, crawl.state).then((line) => this.#child.write(line)),
      this.#child.exited,
    ]);
  }

  /** It has failed, whatever else it does; past a limit it does nothing more. */
  #fail(reason: "limit" | "spider-error", error: string): void {
    this.#verdict ??= { state: "failed", reason, error: `the process ${error}` };
    if (reason === "limit") void this.#child.kill();
  }
}

function endOf({ reason, code, signal, message, stderrTail }: ChildResult): RunEnd {
  const facts = {
    ...(code !== null && { exitCode: code }),
    ...(signal !== null && { signal }),
  };
  if (reason === "exited" && code === 0) return { state: "done", ...facts };
  const lastWords = stderrTail.slice(-LAST_LINES).join("\n");
  const error = `the process ${message}${lastWords === "" ? "" : `: ${lastWords}`}`;
  const failure =
    reason === "timeout" || reason === "memory" ? reason : reason === "not-started" ? "spider-error" : "exit";
  return { state: "failed", reason: failure, error: error.slice(0, MAX_ERROR_CHARACTERS), ...facts };
}
