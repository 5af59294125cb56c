import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import path from "node:path";

const GUARD = path.join(import.meta.dirname, "guard.mjs");

/**
 * @typedef {object} Guarded A process that ends when this one does.
 * @property {number} pid its own process id, which is that of its group too
 * @property {Promise<{ code: number | null, signal: string | null }>} exited
 * @property {boolean} isRunning
 * @property {(graceMs?: number) => Promise<void>} stop asks it to end, and ends it after the grace
 * @property {() => Promise<void>} kill ends it at once
 * @property {() => string} logTail the last lines of its log file
 */

/**
 * Starts a command under a guard.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ env?: Record<string, string | undefined>, cwd?: string, logFile?: string }} [options] without a
 *   log file its output goes where ours goes
 * @returns {Promise<Guarded>}
 */
export async function spawnGuarded(command, args, options = {}) {
  const { logFile, cwd = process.cwd() } = options;
  let output = "inherit";
  if (logFile !== undefined) {
    mkdirSync(path.dirname(logFile), { recursive: true });
    output = openSync(logFile, "a");
  }
  const guard = spawn(process.execPath, [GUARD], {
    detached: true,
    stdio: ["ignore", output, output, "ipc"],
  });
  if (typeof output === "number") closeSync(output);
  const guardGone = new Promise((resolve) => guard.once("exit", resolve));
  const handle = { pid: 0, isRunning: true };
  const exited = new Promise((resolve) => {
    guard.on("message", (message) => {
      if (message.type === "exited") resolve({ code: message.code, signal: message.signal });
    });
    guard.once("exit", (code) => resolve({ code, signal: null }));
  });
  void exited.then(() => {
    handle.isRunning = false;
  });
  const started = new Promise((resolve, reject) => {
    guard.on("message", (message) => {
      if (message.type === "started") resolve(message.pid);
      if (message.type === "failed") reject(new Error(`cannot run ${command}: ${message.error}`));
    });
    guard.once("error", reject);
    guard.once("exit", () => reject(new Error(`cannot run ${command}`)));
  });
  guard.send({ type: "run", command, args, env: { ...process.env, ...options.env }, cwd });
  handle.pid = await started;
  const end = async (graceMs, signal) => {
    if (guard.connected && handle.isRunning) guard.send({ type: "end", graceMs, signal });
    await guardGone;
  };
  return Object.assign(handle, {
    exited,
    stop: (graceMs = 10_000) => end(graceMs, "SIGTERM"),
    kill: () => end(1_000, "SIGKILL"),
    logTail: () => (logFile === undefined ? "" : tailOf(logFile)),
  });
}

/** The last lines of a file; empty when it cannot be read. */
export function tailOf(file, lines = 20) {
  try {
    return readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
  } catch {
    return "";
  }
}
