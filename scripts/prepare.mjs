import { spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { SetupError } from "./servers.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const LEAST_NODE = [20, 19];

/**
 * Sees to it that packages are installed and the programs are built, each only if needed.
 * @param {{ report?: (line: string) => void }} [options]
 * @throws SetupError
 */
export async function prepare({ report = () => {} } = {}) {
  checkNode();
  const lock = path.join(ROOT, "package-lock.json");
  const installed = path.join(ROOT, "node_modules", ".package-lock.json");
  if (!existsSync(installed) || newestIn(installed) < newestIn(lock)) {
    report("Packages: installing (npm ci) …");
    await npm(["ci", "--no-audit", "--no-fund"], "the packages could not be installed");
  }
  const built = path.join(ROOT, "dist", ".tsbuildinfo");
  const sources = [
    path.join(ROOT, "src"),
    path.join(ROOT, "tsconfig.json"),
    path.join(ROOT, "tsconfig.build.json"),
  ];
  if (!existsSync(built) || newestIn(built) < Math.max(...sources.map(newestIn))) {
    report("Programs: building (npm run build) …");
    await npm(["run", "--silent", "build"], "the programs could not be built");
  }
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const [leastMajor, leastMinor] = LEAST_NODE;
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return;
  throw new SetupError(
    `Node.js ${LEAST_NODE.join(".")} or newer is needed; this is ${process.versions.node}`,
  );
}

/** The newest modification time of a file, or of anything in a folder, in milliseconds. */
function newestIn(place) {
  const stat = statSync(place);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(place).map((name) => newestIn(path.join(place, name))));
}

/** Runs npm with its output shown. */
async function npm(args, failure) {
  const code = await new Promise((resolve, reject) => {
    const child = spawn("npm", args, {
      cwd: ROOT,
      stdio: ["ignore", "inherit", "inherit"],
      shell: process.platform === "win32",
    });
    child.once("error", reject);
    child.once("exit", resolve);
  });
  if (code !== 0) throw new SetupError(`${failure}: npm ${args.join(" ")} ended with exit code ${code}`);
}
