import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

/** How long the guards of a run that was killed may take to end what it had started. */
const GUARDS_MS = 60_000;
let holds = 0;

/**
 * A folder for one run, under a name that no other run has: the next free one of `NAME`, `NAME-2`, … A run that is
 * over, in whatever way, leaves its folder to the next one, data included.
 * @param {{ parent: string, name: string, report: (line: string) => void }} options
 * @returns {Promise<{ folder: string, release: () => void }>}
 */
export async function claimRunFolder({ parent, name, report }) {
  for (let number = 1; ; number += 1) {
    const folder = path.join(parent, number === 1 ? name : `${name}-${number}`);
    mkdirSync(folder, { recursive: true });
    // First write, then look: of two that come at once, at least one sees the other and goes on to the next folder.
    const mine = hold(folder, "run");
    const release = () => rmSync(mine, { force: true });
    if (!livingIn(folder, "run").some((file) => file !== mine) && (await guardsAreGone(folder, report))) {
      return { folder, release };
    }
    release();
  }
}

/**
 * Does something that no two processes may do at once.
 * @template T
 * @param {{ folder: string, report: (line: string) => void, what: string }} options `folder`: the same for all of them
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function oneAtATime({ folder, report, what }, action) {
  mkdirSync(folder, { recursive: true });
  for (let rounds = 0; ; rounds += 1) {
    const mine = hold(folder, "run");
    try {
      if (livingIn(folder, "run").length === 1) return await action();
    } finally {
      rmSync(mine, { force: true });
    }
    if (rounds === 3) report(`Waiting for ${what} …`);
    // Not in step with others that wait.
    await new Promise((resolve) => setTimeout(resolve, 200 + Math.random() * 200));
  }
}

/**
 * Marks a folder as used by this process, as long as the file is there and the process lives.
 * @param {string} folder
 * @param {"run" | "guard"} kind
 * @returns {string} the file
 */
export function hold(folder, kind) {
  holds += 1;
  const file = path.join(folder, `${kind}-${process.pid}-${startOf(process.pid)}-${holds}`);
  writeFileSync(file, "");
  return file;
}

async function guardsAreGone(folder, report) {
  const deadline = performance.now() + GUARDS_MS;
  for (let rounds = 0; livingIn(folder, "guard").length > 0; rounds += 1) {
    if (performance.now() > deadline) return false;
    if (rounds === 10)
      report(`Waiting for the servers of an earlier run to end (${path.basename(folder)}) …`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return true;
}

/** The files of processes that live; those of others are removed. */
function livingIn(folder, kind) {
  const living = [];
  for (const name of readdirSync(folder)) {
    const [, pid, start] = new RegExp(`^${kind}-(\\d+)-(\\d+)-\\d+$`).exec(name) ?? [];
    if (pid === undefined) continue;
    const file = path.join(folder, name);
    if (isAlive(Number(pid), start)) living.push(file);
    else rmSync(file, { force: true });
  }
  return living;
}

function isAlive(pid, start) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code !== "EPERM") return false;
  }
  // Process ids come again, after a restart of the machine above all.
  return startOf(pid) === start;
}

/** When a process began, in the system's ticks; "0" where that cannot be known. */
function startOf(pid) {
  try {
    // The name, in parentheses, may hold anything; the 22nd field counts from the front (proc_pid_stat(5)).
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "0";
  } catch {
    return "0";
  }
}
