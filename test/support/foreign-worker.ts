import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const PARTS = path.join(ROOT, ".warren");

/** How to start a worker in another language. */
export type ForeignProgram = {
  readonly command: readonly [string, ...string[]];
  readonly environment: Readonly<Record<string, string>>;
};

/** The worker of `examples/workers/python`, with its one package. */
export async function pythonWorker(): Promise<ForeignProgram> {
  const packages = path.join(PARTS, "python-workers");
  await prepared(packages, async (folder) => {
    await run("python3", ["-m", "pip", "install", "--quiet", "--target", folder, "pika==1.3.2"]);
  });
  return {
    command: ["python3", path.join(ROOT, "examples/workers/python/worker.py")],
    environment: { PYTHONPATH: packages, PYTHONDONTWRITEBYTECODE: "1" },
  };
}

export function hasGo(): boolean {
  return spawnSync("go", ["version"]).status === 0;
}

/** The worker of `examples/workers/go`, built. */
export async function goWorker(): Promise<ForeignProgram> {
  const source = path.join(ROOT, "examples/workers/go");
  const folder = path.join(PARTS, "go-workers");
  await mkdir(folder, { recursive: true });
  const binary = path.join(folder, `worker-${process.pid}`);
  await run("go", ["build", "-o", binary, "."], { cwd: source });
  return { command: [binary], environment: {} };
}

/** A worker in another language that takes the tasks of one spider, as a process of its own. */
export class ForeignWorker {
  readonly process: ChildProcess;
  #output = "";

  constructor(program: ForeignProgram, spider: string, environment: Readonly<Record<string, string>>) {
    const [command, ...args] = program.command;
    this.process = spawn(command, [...args, spider], {
      env: { ...process.env, ...program.environment, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        this.#output += chunk.toString("utf8");
      });
    }
  }

  get output(): string {
    return this.#output;
  }

  async end(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = once(this.process, "exit");
    this.process.kill(signal);
    await exited;
  }
}

/** Fills a folder once, whoever else is at it: it is there as a whole or not at all. */
async function prepared(folder: string, fill: (scratch: string) => Promise<void>): Promise<void> {
  if (existsSync(folder)) return;
  await mkdir(PARTS, { recursive: true });
  const scratch = await mkdtemp(`${folder}-`);
  await fill(scratch);
  try {
    await rename(scratch, folder);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
}
