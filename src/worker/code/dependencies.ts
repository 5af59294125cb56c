import { access, readFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import type { SpiderManifest } from "../../crawl/spider-manifest.js";
import type { ChildProcesses } from "../processes/child-processes.js";
import type { InstallLog } from "./install-log.js";

export type DependenciesOptions = {
  /** Longest time for all commands of a version together, in milliseconds. @default 600_000 */
  readonly timeoutMs: number;
  /** Whether the scripts that npm packages bring for their installation are run. @default false */
  readonly runScripts: boolean;
};

export const DEFAULT_DEPENDENCIES: DependenciesOptions = { timeoutMs: 600_000, runScripts: false };

/** How an installation went; in words what was wrong, if anything was. */
export type Installed = { readonly commands: number; readonly failure?: string };

type Step = { readonly command: readonly string[] };

const packageFile = z.looseObject({
  dependencies: z.record(z.string(), z.unknown()).default({}),
  optionalDependencies: z.record(z.string(), z.unknown()).default({}),
});
const installCommands = z.array(z.array(z.string()).min(1));

/** Where Python packages go, and programs that come with packages. */
const VENV = ".venv";
const MODULES = "node_modules";
/** What installing goes by besides: how the network is reached, and where packages come from. */
const INHERITED =
  /^(https?_proxy|no_proxy|all_proxy|ssl_cert_file|ssl_cert_dir|node_extra_ca_certs|requests_ca_bundle)$|^(pip|npm_config|go|cargo|uv)[_a-z]*$/i;

/**
 * Installs what a version of a spider needs, in its own folder: npm packages by `package.json`, Python packages by
 * `requirements.txt` into a virtual environment, and whatever its manifest has run.
 */
export class Dependencies {
  readonly #children: Pick<ChildProcesses, "run">;
  readonly #options: DependenciesOptions;

  constructor(children: Pick<ChildProcesses, "run">, options: Partial<DependenciesOptions> = {}) {
    this.#children = children;
    this.#options = { ...DEFAULT_DEPENDENCIES, ...options };
  }

  /** Runs the commands one after the other, until one fails or the time is over. */
  async install(
    folder: string,
    manifest: SpiderManifest,
    log: InstallLog,
    signal: AbortSignal,
  ): Promise<Installed> {
    const steps = await this.#stepsOf(folder, manifest);
    const deadline = performance.now() + this.#options.timeoutMs;
    for (const { command } of steps) {
      const shown = command.join(" ");
      log.add(`$ ${shown}`);
      const runTimeoutMs = Math.max(1, Math.ceil(deadline - performance.now()));
      const child = this.#children.run({
        command,
        cwd: folder,
        env: { ...inherited(), PATH: programsOf(folder) },
        limits: { runTimeoutMs },
        onLine: (_stream, line) => log.add(line),
      });
      child.closeInput();
      const end = () => void child.end();
      signal.addEventListener("abort", end, { once: true });
      if (signal.aborted) end();
      const result = await child.ended;
      signal.removeEventListener("abort", end);
      log.add(`(${result.message})`);
      if (result.code !== 0) return { commands: steps.length, failure: `${shown}: ${result.message}` };
    }
    return { commands: steps.length };
  }

  async #stepsOf(
    folder: string,
    { kind, files, process: ofProcess }: SpiderManifest,
  ): Promise<readonly Step[]> {
    if (kind === "declarative") return [];
    const has = (file: string) => files.some(({ path: other }) => other === file);
    const steps: Step[] = [];
    // Who packs node_modules has installed already.
    if (has("package.json") && !files.some(({ path: file }) => file.startsWith(`${MODULES}/`))) {
      const { dependencies, optionalDependencies } = packageFile.parse(
        JSON.parse(await readFile(path.join(folder, "package.json"), "utf8")),
      );
      const isLocked = has("package-lock.json") || has("npm-shrinkwrap.json");
      if (Object.keys({ ...dependencies, ...optionalDependencies }).length > 0) {
        const scripts = this.#options.runScripts ? [] : ["--ignore-scripts"];
        const quiet = ["--no-audit", "--no-fund", "--no-update-notifier"];
        steps.push({ command: ["npm", isLocked ? "ci" : "install", "--omit=dev", ...scripts, ...quiet] });
      }
    }
    if (has("requirements.txt") && (await namesPackages(path.join(folder, "requirements.txt")))) {
      const python = path.join(VENV, "bin", "python");
      steps.push({ command: ["python3", "-m", "venv", VENV] });
      steps.push({
        command: [
          python,
          "-m",
          "pip",
          "install",
          "--no-input",
          "--disable-pip-version-check",
          "-r",
          "requirements.txt",
        ],
      });
    }
    for (const command of installCommands.parse(ofProcess?.install ?? [])) steps.push({ command });
    return steps;
  }
}

/** What finds that which was installed in a folder. */
export async function environmentOf(folder: string): Promise<Readonly<Record<string, string>>> {
  const venv = path.join(folder, VENV);
  const hasPython = await access(venv).then(
    () => true,
    () => false,
  );
  return { PATH: programsOf(folder), ...(hasPython && { VIRTUAL_ENV: venv }) };
}

/** PATH for what runs in a folder: its own programs come first. */
function programsOf(folder: string): string {
  const own = [path.join(folder, VENV, "bin"), path.join(folder, MODULES, ".bin")];
  return [...own, process.env.PATH ?? ""].filter((each) => each !== "").join(path.delimiter);
}

function inherited(): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && INHERITED.test(name)) environment[name] = value;
  }
  return environment;
}

async function namesPackages(file: string): Promise<boolean> {
  return (await readFile(file, "utf8")).split("\n").some((line) => !/^\s*(#|$)/.test(line));
}
