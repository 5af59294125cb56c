import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { DEFAULT_TASK_LIMITS } from "../../crawl/limits.js";
import type { Config } from "../../lib/config.js";
import type { MODULE_SETTINGS } from "../../lib/settings.js";

/** Bounds of module spiders. */
export type ModuleSettings = {
  /** Processes of one spider at most. @default one for each core */
  readonly processes: number;
  /** Memory of each process, in MiB: its heap, and all that it has. @default 512 */
  readonly memoryMb: number;
  /** Pages that may be in one process at once. @default 16 */
  readonly pagesPerProcess: number;
  /** Time for one page, in milliseconds. @default 30_000 */
  readonly pageTimeoutMs: number;
  /** Time for loading the module, in milliseconds. @default 20_000 */
  readonly loadTimeoutMs: number;
  /** Items, requests and files from one page. @default 25_000 */
  readonly maxOutputs: number;
  /** Lines that are logged for one page. @default 1_000 */
  readonly maxLogLines: number;
  /** How long a process is kept that has nothing to do, in milliseconds. @default 60_000 */
  readonly idleMs: number;
  /** The processes' program. @default the one that is built beside this file */
  readonly program: string;
};

export const DEFAULT_MODULE_SETTINGS: ModuleSettings = {
  processes: availableParallelism(),
  memoryMb: 512,
  pagesPerProcess: 16,
  pageTimeoutMs: DEFAULT_TASK_LIMITS.spiderTimeoutMs,
  loadTimeoutMs: 20_000,
  maxOutputs: DEFAULT_TASK_LIMITS.maxOutputs,
  maxLogLines: 1_000,
  idleMs: 60_000,
  program: fileURLToPath(new URL("./spider-process.js", import.meta.url)),
};

/** Those that can be set. */
export function moduleSettingsOf(config: Config<(typeof MODULE_SETTINGS)[number]>): Partial<ModuleSettings> {
  return {
    ...(config.moduleProcesses !== undefined && { processes: config.moduleProcesses }),
    memoryMb: config.moduleMemoryMb,
    pagesPerProcess: config.modulePages,
    pageTimeoutMs: config.spiderTimeoutMs,
    loadTimeoutMs: config.moduleLoadTimeoutMs,
    maxLogLines: config.moduleLogLines,
    idleMs: config.moduleIdleMs,
  };
}
