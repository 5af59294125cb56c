/**
 * Loaded before a program (`node --expose-gc --import`): on SIGUSR2 it collects garbage and says what is left. With
 * TEST_HEAP_SNAPSHOTS, a folder, it also leaves a heap snapshot there.
 */
import { writeSync } from "node:fs";
import path from "node:path";
import { writeHeapSnapshot } from "node:v8";

process.on("SIGUSR2", async () => {
  // What is finalized or settled by one collection is garbage for the next.
  for (let round = 0; round < 3; round += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    globalThis.gc();
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  const folder = process.env.TEST_HEAP_SNAPSHOTS;
  if (folder !== undefined) writeHeapSnapshot(path.join(folder, `${process.pid}-${Date.now()}.heapsnapshot`));
  writeSync(2, `\nheap-probe ${JSON.stringify({ heapUsed, external, rss })}\n`);
});
