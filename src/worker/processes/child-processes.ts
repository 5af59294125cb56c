import { randomUUID } from "node:crypto";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import { Loop } from "../../lib/loop.js";
import type { Service } from "../../lib/service.js";
import { type ChildCommand, ChildProcess } from "./child-process.js";
import { ProcessGuard } from "./process-guard.js";
import { type ProcessTable, processTable } from "./process-table.js";

export type ChildProcessesOptions = {
  /** How often it is looked what memory they take, in milliseconds. @default 500 */
  readonly measureMs?: number;
  /** The guard's program. @default the one that is built beside this file */
  readonly guardProgram?: URL;
};

export type ChildProcessesDeps = { readonly clock: Clock; readonly logger: Logger };

const DEFAULTS = {
  measureMs: 500,
  guardProgram: new URL("./guard-program.js", import.meta.url),
} satisfies Required<ChildProcessesOptions>;

/**
 * Starts commands, keeps them to their limits, and leaves nothing running: not after their end, not after its own,
 * and not after this process was killed.
 */
export class ChildProcesses implements Service {
  readonly name = "child processes";
  readonly #deps: ChildProcessesDeps;
  readonly #options: Required<ChildProcessesOptions>;
  /** What the marks of its children begin with: no other process, nor an earlier one, has the same. */
  readonly #owner = randomUUID();
  readonly #table: ProcessTable;
  readonly #guard: ProcessGuard;
  readonly #children = new Map<string, ChildProcess>();
  /** The marks of those whose groups are there. */
  readonly #groups = new Map<number, string>();
  #measuring: Loop | undefined;
  #count = 0;
  #isStopped = false;

  constructor(deps: ChildProcessesDeps, options: ChildProcessesOptions = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...options };
    this.#table = processTable(this.#owner);
    this.#guard = new ProcessGuard({ owner: this.#owner, program: this.#options.guardProgram }, deps);
  }

  /** Nothing yet: guard and measuring come with the first child. */
  async start(): Promise<void> {}

  get running(): number {
    return this.#children.size;
  }

  /** Starts a command; one that cannot be started is a child that has ended. */
  run(command: ChildCommand): ChildProcess {
    if (this.#isStopped) throw new Error("the program is ending: nothing is started any more");
    this.#guard.ready();
    this.#count += 1;
    const id = `${this.#owner}.${this.#count}`;
    const child = new ChildProcess(id, command, {
      clock: this.#deps.clock,
      look: () => this.#table.look(this.#groups, true),
      onStarted: (group) => {
        this.#groups.set(group, id);
        this.#guard.add(group);
      },
      onGone: (group) => {
        this.#groups.delete(group);
        this.#guard.remove(group);
      },
      onLeftover: (pids) =>
        this.#deps.logger.error({ command: command.command[0], pids }, "processes could not be ended"),
    });
    this.#children.set(id, child);
    if (child.memoryLimitBytes !== undefined) {
      this.#measuring ??= new Loop(this.#options.measureMs, this.#deps.clock, () => this.#measure());
    }
    void child.ended.then(() => this.#children.delete(id));
    return child;
  }

  /** Ends all of them at once, and the guard. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#measuring?.stop();
    await Promise.all([...this.#children.values()].map((child) => child.kill()));
    await this.#guard.stop();
  }

  async #measure(): Promise<void> {
    const limited = [...this.#children.values()].filter((child) => child.memoryLimitBytes !== undefined);
    if (limited.length === 0) return;
    try {
      const members = await this.#table.look(this.#groups);
      for (const child of limited) {
        const taken = (members.get(child.id) ?? []).reduce(
          (sum, { residentBytes }) => sum + residentBytes,
          0,
        );
        child.measured(taken);
      }
    } catch (error) {
      this.#deps.logger.warn({ why: messageOf(error) }, "cannot see what memory the child processes take");
    }
  }
}
