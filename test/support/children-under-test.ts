import { readdirSync, readFileSync } from "node:fs";
import { systemClock } from "../../src/lib/clock.js";
import { type Logger, silentLogger } from "../../src/lib/logger.js";
import type { ChildCommand, OutputStream } from "../../src/worker/processes/child-process.js";
import { ChildProcesses, type ChildProcessesOptions } from "../../src/worker/processes/child-processes.js";

/** As it was built: a process cannot be started from TypeScript. */
export const GUARD_PROGRAM = new URL("../../dist/worker/processes/guard-program.js", import.meta.url);

export function childProcesses(
  options: ChildProcessesOptions = {},
  logger: Logger = silentLogger,
): ChildProcesses {
  return new ChildProcesses(
    { clock: systemClock, logger },
    { measureMs: 20, guardProgram: GUARD_PROGRAM, ...options },
  );
}

export type Heard = { readonly stream: OutputStream; readonly text: string; readonly isCut: boolean };

/** A command of a shell or of Node, and what it says. */
export function heard(about: Partial<ChildCommand> & Pick<ChildCommand, "command">): {
  readonly command: ChildCommand;
  readonly lines: Heard[];
  /** Resolves with the first line that a test wants. */
  line(wanted: (text: string) => boolean): Promise<string>;
} {
  const lines: Heard[] = [];
  const waiting = new Set<() => void>();
  return {
    command: {
      cwd: import.meta.dirname,
      onLine: (stream, line) => {
        lines.push({ stream, ...line });
        for (const look of waiting) look();
      },
      ...about,
    },
    lines,
    line: (wanted) =>
      new Promise((resolve) => {
        const look = () => {
          const found = lines.find(({ text }) => wanted(text));
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found.text);
        };
        waiting.add(look);
        look();
      }),
  };
}

/** Polls until it holds. @throws Error after 10 s */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited 10 s in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The guards that a process has started; Linux only. */
export function guardsOf(parent: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid) || !isAlive(pid)) return false;
      try {
        const isGuard = readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("guard-program.js");
        return isGuard && readFileSync(`/proc/${pid}/status`, "utf8").includes(`\nPPid:\t${parent}\n`);
      } catch {
        return false;
      }
    });
}

/** Whether a process lives; one that is dead and not yet buried does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return (
      process.platform !== "linux" || !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))
    );
  } catch {
    return false;
  }
}
