import { Worker } from "node:worker_threads";
import { messageOf } from "../../lib/errors.js";
import type { Service } from "../../lib/service.js";
import { DocumentError, type DocumentFailure } from "../errors.js";
import type { DocumentAnswer, DocumentJob, DocumentResults } from "./document-job.js";

export type DocumentOptions = {
  /** Time for one document, in milliseconds, from when the thread begins with it. @default 10_000 */
  readonly timeoutMs?: number;
  /** Memory of the thread, in MiB: of its heap, and by how much all of the process may grow meanwhile. @default 256 */
  readonly maxMemoryMb?: number;
  /** Bytes of a file that is read whole, at most. @default 33_554_432 (32 MiB) */
  readonly maxFileBytes?: number;
  /** How long the thread is kept when it has nothing to do, in milliseconds. @default 30_000 */
  readonly idleMs?: number;
  /** Documents that may wait for the thread. @default 256 */
  readonly maxWaiting?: number;
  /** The thread's program. @default the one that is built beside this file */
  readonly program?: URL;
};

type Waiting = {
  readonly job: DocumentJob;
  readonly signal: AbortSignal | undefined;
  readonly settle: (answer: DocumentAnswer) => void;
};

const DEFAULTS = {
  timeoutMs: 10_000,
  maxMemoryMb: 256,
  maxFileBytes: 33_554_432,
  idleMs: 30_000,
  maxWaiting: 256,
  program: new URL("./document-thread.js", import.meta.url),
} satisfies Required<DocumentOptions>;

const MIB = 1_048_576;
/** How often is looked at what the process takes: what holds a file's bytes is not of a thread's heap. */
const MEMORY_LOOK_MS = 50;

/**
 * Reads articles and PDFs in a thread of its own, one at a time, because the libraries that do take seconds and
 * gigabytes over what is made to hurt them. A thread that takes too long, or too much, is ended, and the next
 * document gets a new one; nothing runs while there is nothing to read.
 */
export class Documents implements Service {
  readonly name = "documents";
  readonly #options: Required<DocumentOptions>;
  readonly #waiting: Waiting[] = [];
  #worker: Worker | undefined;
  #isBusy = false;
  #isStopped = false;
  #giveUp: ((reason: DocumentFailure, message: string) => void) | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: DocumentOptions = {}) {
    this.#options = { ...DEFAULTS, ...options };
  }

  /** Nothing yet: the thread comes with the first document. */
  async start(): Promise<void> {}

  get maxFileBytes(): number {
    return this.#options.maxFileBytes;
  }

  /** Whether a thread is there. */
  get isRunning(): boolean {
    return this.#worker !== undefined;
  }

  /** @throws DocumentError naming what it is about, and why it could not be read */
  async read<Job extends DocumentJob>(
    job: Job,
    about: string,
    signal?: AbortSignal,
  ): Promise<DocumentResults[Job["kind"]]> {
    const answer = await this.#answerTo(job, signal);
    if (!answer.ok) throw new DocumentError(answer.reason, `${about} could not be read: ${answer.message}`);
    return answer.result as DocumentResults[Job["kind"]];
  }

  /** Ends the thread; what it does or was to do fails. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const { settle } of this.#waiting.splice(0)) settle(failure("stopped", "the program is ending"));
    this.#giveUp?.("stopped", "the program is ending");
    await this.#end();
  }

  #answerTo(job: DocumentJob, signal: AbortSignal | undefined): Promise<DocumentAnswer> {
    if (this.#isStopped) return Promise.resolve(failure("stopped", "the program is ending"));
    if (signal?.aborted === true) return Promise.resolve(failure("stopped", "it is no longer wanted"));
    const { maxWaiting } = this.#options;
    if (this.#waiting.length >= maxWaiting) {
      return Promise.resolve(failure("timeout", `${maxWaiting} documents wait already`));
    }
    return new Promise((resolve) => {
      const waiting: Waiting = {
        job,
        signal,
        settle: (answer) => {
          signal?.removeEventListener("abort", onAbort);
          resolve(answer);
        },
      };
      const onAbort = () => {
        const index = this.#waiting.indexOf(waiting);
        // One that has begun goes on to its end: to end it would cost the next one a new thread.
        if (index >= 0) this.#waiting.splice(index, 1);
        waiting.settle(failure("stopped", "it is no longer wanted"));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(waiting);
      void this.#work();
    });
  }

  async #work(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    clearTimeout(this.#idle);
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      next.settle(await this.#run(next.job).catch((error: unknown) => failure("broken", messageOf(error))));
    }
    this.#isBusy = false;
    this.#worker?.unref();
    this.#idle = setTimeout(() => void this.#end(), this.#options.idleMs).unref();
  }

  async #run(job: DocumentJob): Promise<DocumentAnswer> {
    const { timeoutMs, maxMemoryMb } = this.#options;
    const worker = this.#started();
    worker.ref();
    const atFirst = process.memoryUsage.rss();
    const timers: NodeJS.Timeout[] = [];
    let onMessage: ((answer: DocumentAnswer) => void) | undefined;
    let onError: ((error: NodeJS.ErrnoException) => void) | undefined;
    let onExit: (() => void) | undefined;
    const answer = await new Promise<DocumentAnswer>((resolve) => {
      this.#giveUp = (reason, message) => resolve(failure(reason, message));
      onMessage = resolve;
      onError = (error) =>
        resolve(
          error.code === "ERR_WORKER_OUT_OF_MEMORY"
            ? failure("memory", `it took more than ${maxMemoryMb} MiB`)
            : failure("broken", messageOf(error)),
        );
      onExit = () => resolve(failure("broken", "its thread ended"));
      worker.once("message", onMessage).once("error", onError).once("exit", onExit);
      timers.push(
        setTimeout(() => resolve(failure("timeout", `it took more than ${timeoutMs} ms`)), timeoutMs),
        setInterval(() => {
          if (process.memoryUsage.rss() - atFirst > maxMemoryMb * MIB) {
            resolve(failure("memory", `it took more than ${maxMemoryMb} MiB`));
          }
        }, MEMORY_LOOK_MS),
      );
      worker.postMessage(job, job.kind === "pdf" ? [job.bytes.buffer as ArrayBuffer] : []);
    });
    this.#giveUp = undefined;
    for (const timer of timers) clearTimeout(timer);
    if (onMessage !== undefined) worker.off("message", onMessage);
    if (onError !== undefined) worker.off("error", onError);
    if (onExit !== undefined) worker.off("exit", onExit);
    // What failed may have left anything behind; what takes too long is still at it.
    if (!answer.ok) await this.#end();
    return answer;
  }

  #started(): Worker {
    const { maxMemoryMb, program } = this.#options;
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(program, {
      name: "documents",
      resourceLimits: { maxOldGenerationSizeMb: maxMemoryMb, maxYoungGenerationSizeMb: 32, stackSizeMb: 4 },
      // Nothing that it reads is to find out about this machine; and what its libraries print goes nowhere.
      env: {},
      execArgv: [],
      stdout: true,
      stderr: true,
    });
    worker.stdout.resume();
    worker.stderr.resume();
    worker.on("error", () => {});
    worker.once("exit", () => {
      if (this.#worker === worker) this.#worker = undefined;
    });
    this.#worker = worker;
    return worker;
  }

  async #end(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }
}

function failure(reason: DocumentFailure, message: string): DocumentAnswer {
  return { ok: false, reason, message };
}
