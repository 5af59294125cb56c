import { type ChildProcessByStdio, spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import { type Line, LineReader } from "./line-reader.js";
import { MARK, type Members } from "./process-table.js";

/** Limits of one child process, what it starts itself included. */
export type ChildLimits = {
  /** From its start to its end, in milliseconds. @default none */
  readonly runTimeoutMs?: number;
  /** Resident memory of all of its processes; looked at now and then. @default none */
  readonly memoryBytes?: number;
  /** Longer lines of its output are cut. @default 4_194_304 (4 MiB) */
  readonly maxLineBytes?: number;
  /** Time between SIGTERM and SIGKILL, in milliseconds. @default 5_000 */
  readonly graceMs?: number;
};

/** What is to be run. No shell is asked about it. */
export type ChildCommand = {
  /** The program, sought on PATH unless it holds a slash, and its arguments. */
  readonly command: readonly string[];
  readonly cwd: string;
  /** Besides `INHERITED_VARIABLES`, which it may replace. */
  readonly env?: Readonly<Record<string, string>>;
  readonly limits?: ChildLimits;
  /**
   * Told of each line of its output, in order; of that stream nothing more is read before a promise is settled.
   * Neither may fail, and each promise must come to its end, also when the child is no more.
   */
  readonly onLine: (stream: OutputStream, line: Line) => Promise<void> | void;
};

export type OutputStream = "stdout" | "stderr";

/**
 * Why a child came to its end: by itself (`exited`), by a signal that was not ours (`killed`), because it was asked to
 * (`ended`), over a limit (`timeout`, `memory`), or it never ran (`not-started`).
 */
export type ChildEndReason = "exited" | "killed" | "ended" | "timeout" | "memory" | "not-started";

export type ChildResult = {
  readonly reason: ChildEndReason;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** In words, fit to follow the name of what ended: "exited with code 3". */
  readonly message: string;
  /** Its last lines on standard error. */
  readonly stderrTail: readonly string[];
};

/** What of a worker's own environment its children get to see. */
export const INHERITED_VARIABLES = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"] as const;

const DEFAULTS = { maxLineBytes: 4_194_304, graceMs: 5_000 };
const STDERR_TAIL_LINES = 20;
const STDERR_TAIL_CHARACTERS = 1_000;
/** When a child is gone and all that it started, its output is read for no longer than this without a word. */
const LAST_WORDS_MS = 1_000;
/** Times that it is looked for what a child left behind, before that is given up: the guard will have it. */
const MAX_SWEEPS = 50;
const BETWEEN_SWEEPS_MS = 10;
/** Where memory runs out, the kernel takes them before it takes the worker. From -1000 to 1000. */
const OOM_SCORE = "500";

export type ChildProcessDeps = {
  readonly clock: Clock;
  /** What is alive of the child. */
  readonly look: () => Promise<Members>;
  /** Told of the process group as soon as it is there. */
  readonly onStarted: (group: number) => void;
  /** Told when nothing of it is left. */
  readonly onGone: (group: number) => void;
  /** Told what could not be ended. */
  readonly onLeftover: (pids: readonly number[]) => void;
};

/**
 * One command, run in a process group of its own. However it ends, everything that it has started ends with it: the
 * group by signal, and (on Linux) what has left the group by the mark in its environment.
 */
export class ChildProcess {
  /** Its mark. */
  readonly id: string;
  /** When nothing of it runs any more and its output was read. Never rejects. */
  readonly ended: Promise<ChildResult>;
  /** When it runs no more itself. Never rejects. */
  readonly exited: Promise<void>;
  readonly #deps: ChildProcessDeps;
  readonly #limits: ChildLimits & typeof DEFAULTS;
  readonly #onLine: ChildCommand["onLine"];
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable> | undefined;
  readonly #stderrTail: string[] = [];
  readonly #timers = new Set<StopTimer>();
  #cause: { readonly reason: ChildEndReason; readonly message: string } | undefined;
  #hasExited = false;
  #tellExited: () => void = () => {};
  #drained: Promise<void> | undefined;
  #heardAt = 0;
  #isHeld = 0;

  constructor(id: string, { command, cwd, env, limits, onLine }: ChildCommand, deps: ChildProcessDeps) {
    this.id = id;
    this.#deps = deps;
    this.#limits = { ...DEFAULTS, ...limits };
    this.#onLine = onLine;
    this.exited = new Promise((resolve) => {
      this.#tellExited = resolve;
    });
    const [program = "", ...args] = command;
    try {
      this.#process = spawn(program, args, {
        cwd,
        env: { ...inheritedEnvironment(), ...env, [MARK]: id },
        detached: true,
        shell: false,
        stdio: ["pipe", "pipe", "pipe"],
      });
      this.ended = this.#run(this.#process, program);
    } catch (error) {
      // An argument that holds NUL, or more of them than the system takes.
      this.#tellExited();
      this.ended = Promise.resolve(this.#notStarted(program, error));
    }
  }

  /** That of its group as well; undefined if it never ran. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  get isRunning(): boolean {
    return this.#process !== undefined && !this.#hasExited;
  }

  get stderrTail(): readonly string[] {
    return this.#stderrTail;
  }

  get memoryLimitBytes(): number | undefined {
    return this.#limits.memoryBytes;
  }

  /** Told now and then what memory it takes, all of its processes together. */
  measured(residentBytes: number): void {
    const { memoryBytes } = this.#limits;
    if (memoryBytes === undefined || residentBytes <= memoryBytes) return;
    const [took, allowed] = [residentBytes, memoryBytes].map((bytes) => Math.ceil(bytes / 1_048_576));
    void this.kill("memory", `took ${took} MiB of memory, more than ${allowed} MiB`);
  }

  /**
   * Writes to its standard input, unless that is closed.
   * @returns a promise to wait for before more is written, if there is enough for now
   */
  write(text: string): Promise<void> | undefined {
    const stdin = this.#process?.stdin;
    if (stdin === undefined || !stdin.writable || stdin.write(text)) return undefined;
    this.#drained ??= new Promise<void>((resolve) => {
      const done = () => {
        stdin.off("drain", done).off("close", done);
        this.#drained = undefined;
        resolve();
      };
      stdin.on("drain", done).on("close", done);
    });
    return this.#drained;
  }

  closeInput(): void {
    this.#process?.stdin.end();
  }

  /**
   * Closes its input, asks it to end by SIGTERM when it has not done so in `politeMs`, and ends it by SIGKILL when the
   * grace is over as well.
   * @param how @default politeMs 0, graceMs its limit's
   */
  end(how: { readonly politeMs?: number; readonly graceMs?: number } = {}): Promise<ChildResult> {
    this.#endBy("ended", "was ended", how);
    return this.ended;
  }

  /** Ends it at once, by SIGKILL. */
  kill(reason: ChildEndReason = "ended", message = "was ended"): Promise<ChildResult> {
    if (!this.#hasExited) {
      this.#cause ??= { reason, message };
      this.#signal("SIGKILL");
    }
    return this.ended;
  }

  #endBy(
    reason: ChildEndReason,
    message: string,
    { politeMs = 0, graceMs = this.#limits.graceMs }: { politeMs?: number; graceMs?: number } = {},
  ): void {
    if (this.#hasExited) return;
    this.#cause ??= { reason, message };
    this.closeInput();
    const terminate = () => {
      this.#signal("SIGTERM");
      this.#after(graceMs, () => this.#signal("SIGKILL"));
    };
    if (politeMs > 0) this.#after(politeMs, terminate);
    else terminate();
  }

  async #run(
    child: ChildProcessByStdio<Writable, Readable, Readable>,
    program: string,
  ): Promise<ChildResult> {
    const { onStarted, onGone } = this.#deps;
    if (child.pid !== undefined) {
      onStarted(child.pid);
      void writeFile(`/proc/${child.pid}/oom_score_adj`, OOM_SCORE).catch(() => {});
    }
    child.stdin.on("error", () => {});
    const reading = Promise.all([this.#read("stdout", child.stdout), this.#read("stderr", child.stderr)]);
    const { runTimeoutMs } = this.#limits;
    if (runTimeoutMs !== undefined) {
      this.#after(runTimeoutMs, () => this.#endBy("timeout", `did not end within ${runTimeoutMs} ms`));
    }
    const exit = await new Promise<{ code: number | null; signal: NodeJS.Signals | null } | Error>(
      (resolve) => {
        child.once("exit", (code, signal) => resolve({ code, signal }));
        child.on("error", (error) => {
          if (child.pid === undefined) resolve(error);
        });
      },
    );
    this.#hasExited = true;
    this.#tellExited();
    for (const stop of this.#timers) stop();
    if (exit instanceof Error) return this.#notStarted(program, exit);
    await this.#sweep();
    if (child.pid !== undefined) onGone(child.pid);
    await this.#lastWords(child, reading);
    return this.#result(exit);
  }

  async #read(name: OutputStream, stream: Readable): Promise<void> {
    const lines = new LineReader(this.#limits.maxLineBytes);
    try {
      for await (const chunk of stream) {
        this.#heardAt = this.#deps.clock.monotonic();
        for (const line of lines.take(chunk as Uint8Array)) {
          const wait = this.#tell(name, line);
          if (wait !== undefined) await this.#hold(wait);
        }
      }
    } catch {
      // It was cut off.
    }
    const rest = lines.rest();
    if (rest !== undefined) await this.#tell(name, rest);
  }

  #tell(name: OutputStream, line: Line): Promise<void> | void {
    if (name === "stderr") this.#remember(line.text);
    return this.#onLine(name, line);
  }

  async #hold(wait: Promise<void>): Promise<void> {
    this.#isHeld += 1;
    await wait;
    this.#isHeld -= 1;
  }

  #remember(text: string): void {
    this.#stderrTail.push(text.slice(0, STDERR_TAIL_CHARACTERS));
    if (this.#stderrTail.length > STDERR_TAIL_LINES) this.#stderrTail.shift();
  }

  /** Ends what it left behind. */
  async #sweep(): Promise<void> {
    let left: readonly number[] = [];
    for (let sweep = 0; sweep < MAX_SWEEPS; sweep += 1) {
      this.#signal("SIGKILL");
      left = ((await this.#deps.look()).get(this.id) ?? []).map(({ pid }) => pid);
      if (left.length === 0) return;
      for (const pid of left) sendSignal(pid, "SIGKILL");
      await this.#pause(BETWEEN_SWEEPS_MS);
    }
    this.#deps.onLeftover(left);
  }

  /** What it wrote before it ended is read; but a pipe that somebody else holds open is not waited for. */
  async #lastWords(
    child: ChildProcessByStdio<Writable, Readable, Readable>,
    reading: Promise<unknown>,
  ): Promise<void> {
    let isOver = false;
    const over = reading.then(() => {
      isOver = true;
    });
    while (!isOver) {
      const before = this.#heardAt;
      await Promise.race([over, this.#pause(LAST_WORDS_MS)]);
      if (!isOver && this.#heardAt === before && this.#isHeld === 0) {
        child.stdout.destroy();
        child.stderr.destroy();
      }
    }
  }

  #result({ code, signal }: { code: number | null; signal: NodeJS.Signals | null }): ChildResult {
    const byItself =
      signal === null
        ? ({ reason: "exited", message: `exited with code ${code}` } as const)
        : ({ reason: "killed", message: `was ended by ${signal}` } as const);
    return { ...(this.#cause ?? byItself), code, signal, stderrTail: this.#stderrTail };
  }

  #notStarted(program: string, error: unknown): ChildResult {
    const message = `could not be started: ${program}: ${messageOf(error)}`;
    return { reason: "not-started", code: null, signal: null, message, stderrTail: [] };
  }

  #signal(signal: NodeJS.Signals): void {
    const pid = this.#process?.pid;
    if (pid !== undefined) sendSignal(-pid, signal);
  }

  #after(delayMs: number, fire: () => void): void {
    const stop = this.#deps.clock.after(delayMs, () => {
      this.#timers.delete(stop);
      fire();
    });
    this.#timers.add(stop);
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#deps.clock.after(delayMs, resolve));
  }
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already.
  }
}

function inheritedEnvironment(): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const name of INHERITED_VARIABLES) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}
