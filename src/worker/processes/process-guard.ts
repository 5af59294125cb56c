import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Clock, StopTimer } from "../../lib/clock.js";
import type { Logger } from "../../lib/logger.js";

/** How long a guard has to live for the next one to be started as soon as it is lost; else it is waited as long. */
const AGAIN_MS = 1_000;

export type ProcessGuardOptions = {
  /** What the marks of the processes begin with. */
  readonly owner: string;
  readonly program: URL;
};

/**
 * The one process that outlives this one for a moment, to end what it had started. It comes with the first group to
 * be guarded.
 */
export class ProcessGuard {
  readonly #options: ProcessGuardOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #groups = new Set<number>();
  #process: ChildProcess | undefined;
  #stopTimer: StopTimer | undefined;
  #isStopped = false;

  constructor(options: ProcessGuardOptions, deps: { readonly clock: Clock; readonly logger: Logger }) {
    this.#options = options;
    this.#clock = deps.clock;
    this.#logger = deps.logger;
  }

  /** To be called before anything is started, so that there is no moment in which it would be left behind. */
  ready(): void {
    if (this.#process === undefined && !this.#isStopped) this.#start();
  }

  add(group: number): void {
    this.#groups.add(group);
    this.#tell(`+${group}\n`);
  }

  /** When nothing of it is left: its number may become another's. */
  remove(group: number): void {
    if (this.#groups.delete(group)) this.#tell(`-${group}\n`);
  }

  /** Resolves when the guard is gone, and with it all that it still guarded. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stopTimer?.();
    const guard = this.#process;
    if (guard === undefined || guard.exitCode !== null || guard.signalCode !== null) return;
    const gone = new Promise((resolve) => guard.once("exit", resolve));
    guard.ref();
    guard.stdin?.end();
    await gone;
  }

  #start(): void {
    this.#stopTimer?.();
    const guard = spawn(process.execPath, [fileURLToPath(this.#options.program), this.#options.owner], {
      // In a session of its own: what ends a terminal's or a service's processes need not end it.
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      env: {},
    });
    this.#process = guard;
    const startedAt = this.#clock.monotonic();
    guard.unref();
    if (guard.stdin !== null && "unref" in guard.stdin) (guard.stdin as { unref(): void }).unref();
    guard.stdin?.on("error", () => {});
    for (const group of this.#groups) this.#tell(`+${group}\n`);
    const lost = (why: string) => {
      if (this.#process !== guard) return;
      this.#process = undefined;
      if (this.#isStopped) return;
      this.#logger.error({ why }, "lost the guard of the child processes; another one is started");
      const waitMs = this.#clock.monotonic() - startedAt > AGAIN_MS ? 0 : AGAIN_MS;
      this.#stopTimer = this.#clock.after(waitMs, () => this.ready());
    };
    guard.once("error", (error) => lost(error.message));
    guard.once("exit", (code, signal) => lost(`it ended with ${signal ?? `exit code ${code}`}`));
  }

  #tell(line: string): void {
    if (this.#process?.stdin?.writable === true) this.#process.stdin.write(line);
  }
}
