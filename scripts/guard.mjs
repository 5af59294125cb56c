// Runs one command in a process group of its own and sees to it that the group ends when the process that
// asked for it does, however that one ends: even by SIGKILL, the channel between the two breaks.
//
// Started by processes.mjs with an IPC channel; the first message says what to run.
import { spawn } from "node:child_process";

let child;
let isEnding = false;

process.on("message", (message) => {
  if (message.type === "run") run(message);
  if (message.type === "end") end(message.graceMs, message.signal);
});
process.on("disconnect", () => end(5_000, "SIGTERM"));
// The group is ended by whoever asked for it, not by a Ctrl-C that reaches us all.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => end(5_000, "SIGTERM"));

function run({ command, args, env, cwd }) {
  child = spawn(command, args, { env, cwd, detached: true, stdio: ["ignore", "inherit", "inherit"] });
  child.on("spawn", () => tell({ type: "started", pid: child.pid }));
  child.on("error", (error) => {
    tell({ type: "failed", error: error.message });
    process.exit(127);
  });
  child.on("exit", (code, signal) => {
    // What it left behind in its group goes with it.
    signalGroup("SIGKILL");
    tell({ type: "exited", code, signal });
    process.exit(code ?? 1);
  });
}

function end(graceMs, signal) {
  if (child === undefined) process.exit(0);
  signalGroup(signal);
  if (isEnding) return;
  isEnding = true;
  setTimeout(() => signalGroup("SIGKILL"), graceMs);
}

function signalGroup(signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Gone already.
  }
}

function tell(message) {
  if (process.connected) process.send(message, () => {});
}
