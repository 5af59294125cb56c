export type { ChildCommand, ChildProcess, ChildResult } from "./child-process.js";
export { ChildProcesses } from "./child-processes.js";
export { ProcessOutput } from "./process-output.js";
export { type ProcessSpiderSource, ProcessSpiders } from "./process-spiders.js";
