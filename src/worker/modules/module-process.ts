import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { SpiderUnavailableError } from "../../crawl/errors.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import { FrameReader, writeFrame } from "./frames.js";
import {
  type ErrorFacts,
  errorFacts,
  errorOf,
  FRAMES_FD,
  type FromProcess,
  LEASH_FD,
  type ModuleCall,
  type ModuleDescription,
  type ToProcess,
} from "./messages.js";
import type { ModuleJob } from "./module-job.js";
import type { ModuleSettings } from "./module-settings.js";
import { PrintedLines } from "./printed-lines.js";

export type ModuleCode = {
  /** The spider's name. */
  readonly name: string;
  readonly version: string;
  /** Where its files are; what it reads and writes by relative names is there. */
  readonly folder: string;
  /** The file that exports it, as an absolute path. */
  readonly entry: string;
};

export type ModuleProcessInput = {
  readonly code: ModuleCode;
  readonly settings: ModuleSettings;
  /** What is printed, and errors that belong to no page. */
  readonly log: () => Logger;
  readonly answer: (call: ModuleCall) => Promise<unknown>;
  readonly logLine: (crawl: string, job: ModuleJob | undefined, line: string) => void;
  /** A job is over, well or not: there is room for another. */
  readonly onRoom: () => void;
  readonly onEnd: (process: ModuleProcess, end: ProcessEnd) => void;
};

/** Why a process ended: it was to, or not. */
export type ProcessEnd = { readonly kind: "fault" | "stopped"; readonly message: string };

const MAX_CALLS = 2_000;
/** How long after a page's time the process may take to say so, in milliseconds; not longer than that time. */
const GRACE_MS = 2_000;
const END_MS = 2_000;
/** How long after its end is waited for what it has said. */
const DRAIN_MS = 500;
const WATCH_MS = 250;
const MIB = 1_048_576;

/** What of the worker's environment a spider's process gets to see: nothing that a password could be in. */
const ENVIRONMENT = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "NODE_EXTRA_CA_CERTS", "SystemRoot"];

/**
 * A process in which a module runs, as the worker sees it. Whatever the module does, it ends by itself or is ended, with
 * all that it started: when it takes too much memory, when it does not let go of its thread for longer than a page may
 * take, when it writes nonsense into its channel. Who was to blame is for others to find out.
 */
export class ModuleProcess {
  readonly #input: ModuleProcessInput;
  readonly #jobs = new Map<number, ModuleJob>();
  readonly #crawls = new Set<string>();
  readonly #child: ChildProcess;
  readonly #frames: Duplex;
  readonly #exited: Promise<void>;
  readonly #printed: PrintedLines;
  #onLoaded:
    | { resolve: (description: ModuleDescription) => void; reject: (error: Error) => void }
    | undefined;
  #isReady = false;
  #served = 0;
  #end: ProcessEnd | undefined;
  #lastBegun = 0;
  #progressAtMs = 0;
  #watch: NodeJS.Timeout | undefined;
  #calls = 0;
  /** Set when it is to have no further jobs. */
  isRetiring = false;
  idleSinceMs = 0;

  constructor(input: ModuleProcessInput) {
    this.#input = input;
    const { code, settings } = input;
    const { memoryMb, program } = settings;
    this.#child = spawn(
      process.execPath,
      [
        ...typeStripping(),
        `--max-old-space-size=${memoryMb}`,
        "--disable-warning=ExperimentalWarning",
        program,
        String(memoryMb * MIB),
        `${code.name} ${code.version}`,
      ],
      {
        cwd: code.folder,
        env: environmentOf(process.env),
        // A group of its own: what it starts goes with it, and a Ctrl-C in the worker's terminal is for the worker.
        detached: true,
        stdio: ["ignore", "pipe", "pipe", "pipe", "pipe"],
      },
    );
    this.#exited = new Promise((resolve) => {
      this.#child.once("close", () => resolve());
      // Something that it started, and that got away, may hold on to its output for ever.
      this.#child.once("exit", () => setTimeout(resolve, DRAIN_MS).unref());
      this.#child.once("error", (error) => {
        this.#end ??= { kind: "fault", message: `could not be started: ${messageOf(error)}` };
        if (this.#child.pid === undefined) resolve();
      });
    });
    this.#printed = new PrintedLines(settings.maxLogLines, input.log);
    this.#frames = this.#child.stdio[FRAMES_FD] as Duplex;
    this.#listen();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The module is loaded, and it takes jobs. */
  get isReady(): boolean {
    return this.#isReady && this.#end === undefined;
  }

  get inFlight(): number {
    return this.#jobs.size;
  }

  /** Jobs that came to their end in it. */
  get served(): number {
    return this.#served;
  }

  /** It has had nothing yet. */
  get isFresh(): boolean {
    return this.#served === 0 && this.#jobs.size === 0;
  }

  /** Jobs that may be there at once: one at first, so that it is plain who ends it, and more with each that went well. */
  get hasRoom(): boolean {
    const { pagesPerProcess } = this.#input.settings;
    return this.isReady && !this.isRetiring && this.#jobs.size < Math.min(pagesPerProcess, this.#served + 1);
  }

  get crawls(): ReadonlySet<string> {
    return this.#crawls;
  }

  /** Loads the module. @throws SpiderUnavailableError saying what of it fails, with the first lines of the stack */
  async load(): Promise<ModuleDescription> {
    const { code, settings } = this.#input;
    const { loadTimeoutMs, pageTimeoutMs, maxOutputs, maxLogLines } = settings;
    const loaded = new Promise<ModuleDescription>((resolve, reject) => {
      this.#onLoaded = { resolve, reject };
    });
    const timer = setTimeout(
      () => this.kill({ kind: "fault", message: `was not loaded within ${loadTimeoutMs} ms` }),
      loadTimeoutMs,
    );
    this.#send({ type: "load", entry: code.entry, limits: { pageTimeoutMs, maxOutputs, maxLogLines } });
    try {
      const description = await loaded;
      this.#isReady = true;
      this.idleSinceMs = performance.now();
      return description;
    } finally {
      clearTimeout(timer);
      this.#onLoaded = undefined;
    }
  }

  /** Hands it a job. */
  give(job: ModuleJob): void {
    const { crawl, work, body } = job.input;
    if (this.#jobs.size === 0) this.#startWatch();
    this.#jobs.set(job.id, job);
    if (work.kind === "close") this.#crawls.delete(crawl.id);
    else if (!this.#crawls.has(crawl.id)) {
      const { id, params, node, log } = crawl;
      this.#crawls.add(id);
      const logLevel = log.level as Extract<ToProcess, { type: "crawl" }>["logLevel"];
      this.#send({ type: "crawl", id, params, node, logLevel });
    }
    this.#send({ type: "job", id: job.id, crawl: crawl.id, ...work }, body);
  }

  /** Tells it that nobody waits for a job any more. */
  abort(job: ModuleJob): void {
    if (this.#jobs.has(job.id)) this.#send({ type: "abort", id: job.id });
  }

  /** Lets it go, or ends it if it does not; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#end ??= { kind: "stopped", message: "the program is ending" };
    this.#send({ type: "end" });
    const timer = setTimeout(() => this.#signal(), END_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  /** Ends it at once, and what it has started. */
  kill(end: ProcessEnd): void {
    this.#end ??= end;
    this.#signal();
  }

  get gone(): Promise<void> {
    return this.#exited;
  }

  /** The jobs that it had when it ended; the one that it began with last comes first. */
  takeJobs(): ModuleJob[] {
    const jobs = [...this.#jobs.values()];
    this.#jobs.clear();
    const last = jobs.find(({ id }) => id === this.#lastBegun);
    return last === undefined ? jobs : [last, ...jobs.filter((job) => job !== last)];
  }

  /** Whether it said that it began with a job. */
  hasBegun(job: ModuleJob): boolean {
    return job.id === this.#lastBegun;
  }

  #listen(): void {
    const reader = new FrameReader(({ head, bytes }) => this.#take(head, bytes));
    this.#frames.on("data", (piece: Buffer) => {
      if (this.#end?.kind === "fault") return;
      try {
        reader.push(piece);
      } catch (error) {
        this.kill({ kind: "fault", message: `wrote what cannot be understood: ${messageOf(error)}` });
      }
    });
    this.#frames.on("error", () => {});
    const leash = this.#child.stdio[LEASH_FD] as Duplex;
    leash.on("error", () => {});
    createInterface({ input: leash }).on("line", (line) => this.#onWord(line));
    this.#printed.read(this.#child.stdout, "stdout");
    this.#printed.read(this.#child.stderr, "stderr");
    this.#child.once("exit", () => this.#signal());
    void this.#exited.then(() => this.#onExit());
  }

  #onWord(line: string): void {
    const [word, value = ""] = line.split(" ");
    if (word === "begun") {
      this.#lastBegun = Number(value);
      this.#progressAtMs = performance.now();
    } else if (word === "memory") {
      const { memoryMb } = this.#input.settings;
      const took = Math.ceil(Number(value) / MIB);
      this.#end ??= { kind: "fault", message: `took ${took} MiB of memory; ${memoryMb} MiB are allowed` };
    }
  }

  #take(head: unknown, bytes: number): void {
    if (typeof head !== "object" || head === null || !("type" in head))
      throw new Error("a message of no type");
    const message = head as FromProcess;
    switch (message.type) {
      case "loaded":
        this.#onLoaded?.resolve(message.description);
        return;
      case "unloadable":
        this.#onLoaded?.reject(this.#unavailable(message.error));
        return;
      case "outputs":
        this.#keep(this.#jobs.get(message.id), message.outputs, bytes);
        return;
      case "done": {
        const job = this.#jobs.get(message.id);
        if (job === undefined) return;
        this.#keep(job, message.outputs, bytes);
        this.#settle(job, message.droppedLines);
        job.done();
        return;
      }
      case "failed": {
        const job = this.#jobs.get(message.id);
        if (job === undefined) return;
        this.#settle(job, message.droppedLines);
        job.fail(errorOf(message.error));
        return;
      }
      case "log":
        this.#input.logLine(
          String(message.crawl),
          message.job === undefined ? undefined : this.#jobs.get(message.job),
          String(message.line),
        );
        return;
      case "call":
        void this.#answer(message.id, message.call);
        return;
      case "uncaught":
        this.#onUncaught(errorOf(message.error), message.isRejection);
        return;
      default:
        message satisfies never;
        throw new Error("a message of a type that there is not");
    }
  }

  #keep(job: ModuleJob | undefined, outputs: unknown, bytes: number): void {
    if (job === undefined || job.isSettled) return;
    if (!Array.isArray(outputs)) throw new Error("outputs that are no list");
    try {
      job.add(outputs, bytes);
    } catch (error) {
      job.fail(error as Error);
      this.abort(job);
    }
  }

  #settle(job: ModuleJob, droppedLines: number): void {
    this.#jobs.delete(job.id);
    this.#served += 1;
    const dropped = droppedLines + this.#printed.takeDropped();
    this.#progressAtMs = performance.now();
    if (dropped > 0) job.input.log().warn({ dropped }, `${dropped} more lines dropped`);
    if (this.#jobs.size === 0) {
      clearInterval(this.#watch);
      this.idleSinceMs = performance.now();
    }
    // After whoever called has dealt with the job.
    queueMicrotask(this.#input.onRoom);
  }

  async #answer(id: number, call: ModuleCall): Promise<void> {
    this.#calls += 1;
    if (this.#calls > MAX_CALLS) {
      this.kill({ kind: "fault", message: `asked more than ${MAX_CALLS} questions at once` });
      return;
    }
    try {
      const value =
        call.about === "state"
          ? await this.#input.answer(call)
          : await (this.#jobs.get(call.job) ?? gone(call.about)).answer(call);
      this.#send({ type: "answer", id, value });
    } catch (error) {
      this.#send({ type: "refusal", id, error: errorFacts(error) });
    } finally {
      this.#calls -= 1;
    }
  }

  /**
   * What is thrown outside of a page leaves that page waiting, perhaps for ever. With one page there, it is plain whose it
   * was; of several, each is begun anew. A promise that nobody waits for ends nobody's page: it is told.
   */
  #onUncaught(error: Error, isRejection: boolean): void {
    const [only, ...others] = this.#jobs.values();
    if (isRejection || only === undefined) {
      const log = only !== undefined && others.length === 0 ? only.input.log() : this.#input.log();
      const what = isRejection ? "a promise was rejected that nobody waits for" : "thrown outside of a page";
      log.error({ err: error }, `${what}: ${error.message}`);
      return;
    }
    const message = `it threw outside of its page: ${error.message}`;
    if (others.length > 0) this.kill({ kind: "fault", message });
    else {
      only.fail(Object.assign(new Error(message), { stack: error.stack }));
      this.abort(only);
    }
  }

  #unavailable({ message, stack = "" }: ErrorFacts): SpiderUnavailableError {
    const { name, version } = this.#input.code;
    const where = stack.split("\n");
    const about = where.some((line) => line.includes(message.split("\n")[0] ?? ""))
      ? where
      : [message, ...where];
    return new SpiderUnavailableError(
      `spider "${name}", version ${version}, could not be loaded: ${about.slice(0, 6).join("\n").slice(0, 2_000)}`,
      { retryable: false },
    );
  }

  #send(message: ToProcess, body?: Uint8Array): void {
    if (!this.#frames.writable) return;
    writeFrame(this.#frames, message, body);
  }

  /** Sees that its event loop goes round: a page whose time is over is told by the process itself as long as it does. */
  #startWatch(): void {
    const { pageTimeoutMs } = this.#input.settings;
    const mostMs = pageTimeoutMs + Math.min(pageTimeoutMs, GRACE_MS);
    let lookedAtMs = performance.now();
    this.#progressAtMs = lookedAtMs;
    clearInterval(this.#watch);
    this.#watch = setInterval(() => {
      const nowMs = performance.now();
      // The worker itself was stopped, or busy: what the process has said meanwhile was not read yet.
      if (nowMs - lookedAtMs > 4 * WATCH_MS) this.#progressAtMs = nowMs;
      lookedAtMs = nowMs;
      if (nowMs - this.#progressAtMs < mostMs) return;
      this.kill({
        kind: "fault",
        message: `did not finish within ${pageTimeoutMs} ms, nor let go of its thread`,
      });
    }, WATCH_MS);
  }

  #signal(): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      this.#child.kill("SIGKILL");
    }
  }

  #onExit(): void {
    clearInterval(this.#watch);
    const end = this.#end ?? this.#endOf();
    this.#end = end;
    const { name, version } = this.#input.code;
    this.#onLoaded?.reject(
      new SpiderUnavailableError(
        `spider "${name}", version ${version}, could not be loaded: ${end.message}`,
        {
          retryable: end.kind !== "stopped",
        },
      ),
    );
    this.#input.onEnd(this, end);
  }

  #endOf(): ProcessEnd {
    const { exitCode, signalCode } = this.#child;
    if (/heap limit|heap out of memory/i.test(this.#printed.lastComplaint)) {
      return { kind: "fault", message: `took more than ${this.#input.settings.memoryMb} MiB of heap` };
    }
    const how = signalCode === null ? `with exit code ${exitCode}` : `by ${signalCode}`;
    return { kind: "fault", message: `ended its process ${how}` };
  }
}

function gone(about: string): never {
  throw new Error(`the ${about} is done with`);
}

function environmentOf(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    ENVIRONMENT.flatMap((name) => (environment[name] === undefined ? [] : [[name, environment[name]]])),
  );
}

/** From 22.6 on Node can leave out types, and from 22.18 it does so unasked. */
function typeStripping(): string[] {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  return major === 22 && minor >= 6 && minor < 18 ? ["--experimental-strip-types"] : [];
}
