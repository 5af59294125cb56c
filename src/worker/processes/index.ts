export type { ChildCommand, ChildProcess, ChildResult } from "./child-process.js";
export { ChildProcesses } from "./child-processes.js";
export { ProcessOutput } from "./process-output.js";
export type { ProcessSpiderSource } from "./process-source.js";
export { ProcessSpiders } from "./process-spiders.js";
