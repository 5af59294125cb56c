import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, statSync, writeSync } from "node:fs";
import path from "node:path";
import { SetupError } from "./setup-error.mjs";

const GUARD = path.join(import.meta.dirname, "guard.mjs");
const GRACE_MS = 10_000;
const MAX_LOG_BYTES = 10 * 2 ** 20;

/**
 * @typedef {object} Guarded A process that ends when this one does.
 * @property {number} pid its own process id, which is that of its group too
 * @property {number} guardPid that of its guard
 * @property {Promise<{ code: number | null, signal: string | null }>} exited
 * @property {boolean} isRunning
 * @property {(graceMs?: number) => Promise<void>} stop asks it to end, and ends it after the grace
 * @property {() => Promise<void>} kill ends it at once
 * @property {() => string} logTail the last lines of its log file
 */

/** @type {Set<Guarded>} */
const running = new Set();
let isEnding = false;

/**
 * Starts a command under a guard.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ env?: Record<string, string | undefined>, cwd?: string, logFile?: string, runFolder?: string, graceMs?: number }} [options]
 *   `env` is added to ours, undefined removes; without a log file its output goes where ours goes; `runFolder` is not
 *   given to another run before it has ended; `graceMs` is its time for an orderly end when this process is gone
 * @returns {Promise<Guarded>}
 */
export async function spawnGuarded(command, args, options = {}) {
  if (isEnding) throw new SetupError(`${path.basename(command)} was not started any more`, { exitCode: 1 });
  const { logFile, runFolder, graceMs, cwd = process.cwd() } = options;
  let output = "inherit";
  if (logFile !== undefined) {
    mkdirSync(path.dirname(logFile), { recursive: true });
    // It grows from run to run where data is kept.
    if ((statSync(logFile, { throwIfNoEntry: false })?.size ?? 0) > MAX_LOG_BYTES)
      renameSync(logFile, `${logFile}.1`);
    output = openSync(logFile, "a");
    writeSync(output, `--- ${new Date().toISOString()} ${path.basename(command)} ---\n`);
  }
  const guard = spawn(process.execPath, [GUARD], {
    detached: true,
    stdio: ["ignore", output, output, "ipc"],
  });
  if (typeof output === "number") closeSync(output);
  const guardGone = new Promise((resolve) => {
    guard.once("exit", resolve);
    guard.once("error", resolve);
  });
  let exit;
  guard.on("message", (message) => {
    if (message.type === "exited") exit = { code: message.code, signal: message.signal };
  });
  const started = new Promise((resolve, reject) => {
    guard.on("message", (message) => {
      if (message.type === "started") resolve(message.pid);
      if (message.type === "failed") reject(new Error(`cannot run ${command}: ${message.error}`));
    });
    guard.on("error", reject);
    void guardGone.then(() => reject(new Error(`cannot run ${command}`)));
  });
  guard.send(
    { type: "run", command, args, env: { ...process.env, ...options.env }, cwd, runFolder, graceMs },
    () => {},
  );
  const end = async (signal, withinMs) => {
    if (guard.connected) guard.send({ type: "end", signal, graceMs: withinMs }, () => {});
    await guardGone;
  };
  const guarded = {
    pid: await started,
    guardPid: guard.pid,
    isRunning: true,
    exited: guardGone.then((code) => {
      running.delete(guarded);
      guarded.isRunning = false;
      // Somebody killed the guard itself.
      if (exit === undefined) killGroup(guarded.pid);
      return exit ?? { code: typeof code === "number" ? code : null, signal: null };
    }),
    stop: (withinMs = GRACE_MS) => end("SIGTERM", withinMs),
    kill: () => end("SIGKILL", 1_000),
    logTail: () => (logFile === undefined ? "" : tailOf(logFile)),
  };
  running.add(guarded);
  // Asked to end all while it was being started.
  if (isEnding) await guarded.stop();
  return guarded;
}

/** Ends whatever runs under guards of this process; from now on nothing can be started. */
export async function endAllGuarded(graceMs = GRACE_MS) {
  isEnding = true;
  await Promise.all([...running].map((guarded) => guarded.stop(graceMs)));
}

/**
 * Calls back when this process was asked to end: by SIGINT, SIGTERM or SIGHUP, or because the npm that started it
 * is gone (npm hands a signal to a shell between the two, which does not hand it on). A second signal ends it at
 * once, and the guards what it had started.
 * @param {(exitCode: number) => void} callback gets 128 plus the signal's number
 */
export function onEndRequested(callback) {
  /** The same key press may arrive twice, from the terminal and from npm. */
  const SAME_MS = 300;
  let firstAt;
  const request = (exitCode) => {
    if (firstAt === undefined) {
      firstAt = performance.now();
      callback(exitCode);
    } else if (performance.now() - firstAt > SAME_MS) process.exit(exitCode);
  };
  for (const [signal, number] of [
    ["SIGHUP", 1],
    ["SIGINT", 2],
    ["SIGTERM", 15],
  ]) {
    process.on(signal, () => request(128 + number));
  }
  if (process.env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    if (firstAt === undefined) request(143);
  }, 250);
  timer.unref();
}

/** The last lines of a file; empty when it cannot be read. */
export function tailOf(file, lines = 20) {
  try {
    return readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
  } catch {
    return "";
  }
}

function killGroup(pid) {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Gone already.
  }
}
