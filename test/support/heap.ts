import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const MIB = 1_048_576;

/** What is on the heap and still in use, in MiB. */
export async function heapInUse(): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect !== "function") throw new Error("the garbage collector cannot be called");
  // What is finalized or settled by one collection is garbage for the next.
  for (let round = 0; round < 3; round += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    collect();
  }
  return process.memoryUsage().heapUsed / MIB;
}
