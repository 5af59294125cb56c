// Runs one command in a process group of its own and sees to it that the group ends when the process that asked
// for it does: however that one ends, even by SIGKILL, the channel between the two breaks.
//
// Started by processes.mjs with an IPC channel. In: `run` (what), `end` (with which signal, and how long it may
// take). Out: `started`, `failed`, `exited`. While it lives it keeps a file `guard-…` in the run's folder, so that
// nobody takes the folder over before what ran there is gone.
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { hold } from "./run-folder.mjs";

/** Unless `run` says otherwise: time for an orderly end, when nobody is there any more to say. */
const GRACE_MS = 10_000;

let child;
let held;
let graceMs = GRACE_MS;
let isEnding = false;

process.on("message", (message) => {
  if (message.type === "run") run(message);
  if (message.type === "end") end(message.signal, message.graceMs);
});
process.on("disconnect", () => end("SIGTERM", graceMs));
process.on("SIGTERM", () => end("SIGTERM", graceMs));
// A terminal's signals are for the one who asked; what it makes of them is told through the channel.
for (const signal of ["SIGINT", "SIGHUP"]) process.on(signal, () => {});

function run({ command, args, env, cwd, runFolder, graceMs: given = GRACE_MS }) {
  graceMs = given;
  if (runFolder !== undefined) held = hold(runFolder, "guard");
  child = spawn(command, args, { env, cwd, detached: true, stdio: ["ignore", "inherit", "inherit"] });
  child.on("spawn", () => tell({ type: "started", pid: child.pid }));
  child.on("error", (error) => {
    // It says so of signals that could not be sent as well.
    if (child.pid !== undefined) return;
    tell({ type: "failed", error: error.message }, () => leave(127));
  });
  child.on("exit", (code, signal) => {
    // What it left behind in its group goes with it.
    signalGroup("SIGKILL");
    tell({ type: "exited", code, signal }, () => leave(code ?? 1));
  });
}

function end(signal, withinMs) {
  if (child?.pid === undefined) return leave(0);
  signalGroup(signal);
  if (isEnding) return;
  isEnding = true;
  setTimeout(() => signalGroup("SIGKILL"), withinMs);
}

function signalGroup(signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Gone already.
  }
}

function tell(message, done = () => {}) {
  if (!process.connected) return done();
  // Either way: the other end may go at any moment.
  process.send(message, () => done());
}

function leave(code) {
  if (held !== undefined) rmSync(held, { force: true });
  process.exit(code);
}
