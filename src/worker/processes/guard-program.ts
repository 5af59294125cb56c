// Ends what a worker's processes have started when the worker is gone, however that came: the pipe between the two
// breaks even by SIGKILL. In: a line "+GROUP" for each process group that is there, "-GROUP" when it is no more.
// Started by process-guard.ts with what the marks of the worker's processes begin with.
import { createInterface } from "node:readline";
import { processTable } from "./process-table.js";

const [owner = ""] = process.argv.slice(2);
const table = processTable(owner);
const groups = new Map<number, string>();

/** A process that is just being started may show up a little later. */
const LOOKS = 5;
const BETWEEN_LOOKS_MS = 50;
/** Against what starts new processes as fast as they are ended. */
const MAX_LOOKS = 200;

// A terminal's signals are for the worker; what it makes of them is told by the pipe.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const group = Number(line.slice(1));
    if (line.startsWith("+")) groups.set(group, String(group));
    else groups.delete(group);
  })
  .on("close", () => void endAll());

async function endAll(): Promise<void> {
  let clean = 0;
  for (let look = 0; clean < LOOKS && look < MAX_LOOKS; look += 1) {
    for (const group of groups.keys()) end(-group);
    const members = [...(await table.look(groups, true)).values()].flat();
    for (const { pid } of members) end(pid);
    clean = members.length === 0 ? clean + 1 : 0;
    await new Promise((resolve) => setTimeout(resolve, BETWEEN_LOOKS_MS));
  }
  process.exit(0);
}

function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone already.
  }
}
