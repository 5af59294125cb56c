import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";

/** What marks a process, and what it starts, as ours: it is in the environment of each. */
export const MARK = "WARREN_PROCESS_ID";

/** A living process that belongs to a child of ours. */
export type Member = {
  readonly pid: number;
  /** What of its memory is in RAM, what it shares with others included. */
  readonly residentBytes: number;
};

/** The living processes, by the mark of the child that they belong to. */
export type Members = ReadonlyMap<string, readonly Member[]>;

export interface ProcessTable {
  /**
   * @param groups the mark of each child, by its process group
   * @param isThorough nothing that is known from before is relied on
   */
  look(groups: ReadonlyMap<number, string>, isThorough?: boolean): Promise<Members>;
}

/** @param owner what our marks begin with, up to a dot */
export function processTable(owner: string): ProcessTable {
  return process.platform === "linux" ? new ProcTable(owner) : new PsTable();
}

/** How often it is looked whether strangers are still the same: ids are given anew after some ten thousand others. */
const LOOKS_BETWEEN_THOROUGH = 30;

/**
 * By Linux's /proc. A process belongs to the child whose mark is in its environment, also when it has left the
 * group with `setsid`; and to the one in whose group it is, also when it was started with another environment.
 */
class ProcTable implements ProcessTable {
  readonly #prefix: string;
  /** Processes that belong to nobody. A stranger does not become a member: only who is born of one does. */
  #strangers = new Set<number>();
  #looks = 0;

  constructor(owner: string) {
    this.#prefix = `${MARK}=${owner}.`;
  }

  async look(groups: ReadonlyMap<number, string>, isThorough = false): Promise<Members> {
    this.#looks += 1;
    const known = isThorough || this.#looks % LOOKS_BETWEEN_THOROUGH === 0 ? new Set() : this.#strangers;
    const strangers = new Set<number>();
    const members = new Map<string, Member[]>();
    for (const name of readdirSync("/proc")) {
      const pid = Number(name);
      if (!Number.isInteger(pid)) continue;
      if (known.has(pid)) {
        strangers.add(pid);
        continue;
      }
      const mark = this.#markOf(pid, groups);
      if (mark === undefined) {
        strangers.add(pid);
        continue;
      }
      const residentBytes = residentBytesOf(pid);
      if (residentBytes === undefined) continue;
      const others = members.get(mark);
      if (others === undefined) members.set(mark, [{ pid, residentBytes }]);
      else others.push({ pid, residentBytes });
    }
    this.#strangers = strangers;
    return members;
  }

  #markOf(pid: number, groups: ReadonlyMap<number, string>): string | undefined {
    const stat = read(pid, "stat");
    // "pid (name) state parent group …"; the name may hold anything.
    const group = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ", 3)[2]);
    const byGroup = groups.get(group);
    if (byGroup !== undefined) return byGroup;
    const environment = read(pid, "environ");
    const at = environment.indexOf(this.#prefix);
    if (at < 0) return undefined;
    const end = environment.indexOf("\0", at);
    return environment.slice(at + MARK.length + 1, end < 0 ? undefined : end);
  }
}

/** undefined for one that is gone, or dead and merely not yet buried by its parent. */
function residentBytesOf(pid: number): number | undefined {
  const status = read(pid, "status");
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kibibytes !== undefined) return Number(kibibytes) * 1_024;
  return status === "" || /^State:\s+[ZX]/m.test(status) ? undefined : 0;
}

/** Empty when the process is gone, or not ours to read. */
function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}

const run = promisify(execFile);

/** By `ps`, where there is no /proc: sees who is in the group, and not who has left it. */
class PsTable implements ProcessTable {
  async look(groups: ReadonlyMap<number, string>): Promise<Members> {
    const members = new Map<string, Member[]>();
    const { stdout } = await run("ps", ["-A", "-o", "pid=,pgid=,rss=,stat="], { maxBuffer: 2 ** 24 });
    for (const line of stdout.split("\n")) {
      const [pid, group, kibibytes, state = ""] = line.trim().split(/\s+/);
      const mark = groups.get(Number(group));
      if (mark === undefined || state.startsWith("Z")) continue;
      const member = { pid: Number(pid), residentBytes: Number(kibibytes) * 1_024 };
      members.set(mark, [...(members.get(mark) ?? []), member]);
    }
    return members;
  }
}
