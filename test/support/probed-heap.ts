import type { ChildProcess } from "node:child_process";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { until } from "./cluster.js";

/** What a process has in memory once its garbage was collected, in bytes; `external` is what the heap only refers to. */
export type MemoryInUse = { readonly heapUsed: number; readonly external: number; readonly rss: number };

/** The environment of a Node program whose heap is to be probed. */
export const PROBED = {
  NODE_OPTIONS: `--expose-gc --import ${pathToFileURL(path.join(import.meta.dirname, "heap-probe.mjs"))}`,
};

/** Has a process that was started with `PROBED` collect its garbage, and resolves with what it has in use then. */
export async function memoryOf(member: {
  readonly name: string;
  readonly process: ChildProcess;
  output(): string;
}): Promise<MemoryInUse> {
  const answers = () => [...member.output().matchAll(/^heap-probe (\{.*\})$/gm)];
  const before = answers().length;
  member.process.kill("SIGUSR2");
  await until(`${member.name} says what it has in memory`, async () => answers().length > before);
  return JSON.parse(answers().at(-1)?.[1] ?? "") as MemoryInUse;
}
