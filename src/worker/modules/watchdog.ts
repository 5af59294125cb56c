import { writeSync } from "node:fs";
import { Socket } from "node:net";
import { workerData } from "node:worker_threads";

// The program of a thread in each process of spiders. It ends the process, and whatever that has started, when the
// worker is gone or when it takes too much memory: also while the main thread is in an endless loop, which can neither
// notice nor be told.
type Orders = { readonly leash: number; readonly maxBytes: number };

/** How often is looked at what the process takes, in milliseconds. */
const LOOK_MS = 100;

const { leash, maxBytes } = workerData as Orders;

const socket = new Socket({ fd: leash, readable: true, writable: false });
socket.on("error", end);
socket.on("close", end);
socket.resume();

setInterval(() => {
  const rss = process.memoryUsage.rss();
  if (rss <= maxBytes) return;
  try {
    writeSync(leash, `memory ${rss}\n`);
  } catch {
    // Then nobody is told why, but it ends all the same.
  }
  end();
}, LOOK_MS);

function end(): void {
  try {
    // It leads a group, so that what it started goes along.
    process.kill(-process.pid, "SIGKILL");
  } catch {
    process.kill(process.pid, "SIGKILL");
  }
}
