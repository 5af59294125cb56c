import { existsSync, mkdirSync, readdirSync, statSync, utimesSync } from "node:fs";
import path from "node:path";
import { spawnGuarded, tailOf } from "./processes.mjs";
import { step } from "./report.mjs";
import { oneAtATime } from "./run-folder.mjs";
import { SetupError } from "./setup-error.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const STATE = path.join(ROOT, ".warren");

/**
 * Sees to it that packages are installed and the programs are built, each only if needed. That Node is new enough is
 * the business of node-version.mjs.
 * @param {{ report?: import("./report.mjs").Report }} [options]
 * @throws SetupError
 */
export async function prepare({ report = () => {} } = {}) {
  if (!needsPackages() && !needsBuild()) return;
  // `npm start` and `npm test` may both find that there is something to do.
  await oneAtATime(
    { folder: path.join(STATE, "prepare"), report, what: "another run's preparations" },
    async () => {
      if (needsPackages()) {
        await npm(report, "Packages: installing (npm ci)", ["ci", "--no-audit", "--no-fund"]);
      }
      if (needsBuild()) {
        await npm(report, "Programs: building (npm run build)", ["run", "build"]);
        const now = new Date();
        // The compiler leaves it alone when nothing changed but times.
        utimesSync(buildInfo(), now, now);
      }
    },
  );
}

function needsPackages() {
  // npm writes it last.
  const installed = path.join(ROOT, "node_modules", ".package-lock.json");
  return !existsSync(installed) || newestIn(installed) < newestIn(path.join(ROOT, "package-lock.json"));
}

function needsBuild() {
  const sources = ["src", "tsconfig.json", "tsconfig.build.json"].map((name) => path.join(ROOT, name));
  return !existsSync(buildInfo()) || newestIn(buildInfo()) < Math.max(...sources.map(newestIn));
}

function buildInfo() {
  return path.join(ROOT, "dist", ".tsbuildinfo");
}

/** The newest modification time of a file, or of anything in a folder, in milliseconds. */
function newestIn(place) {
  const stat = statSync(place);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(place).map((name) => newestIn(path.join(place, name))));
}

async function npm(report, what, args) {
  const logFile = path.join(STATE, "logs", `npm-${args.at(0)}.log`);
  mkdirSync(path.dirname(logFile), { recursive: true });
  // The npm that runs us, if one does.
  const { npm_execpath: running } = process.env;
  const [command, ...first] = running?.endsWith("npm-cli.js") ? [process.execPath, running] : ["npm"];
  await step(report, what, async () => {
    const guarded = await spawnGuarded(command, [...first, ...args], { cwd: ROOT, logFile });
    const { code } = await guarded.exited;
    if (code === 0) return;
    throw new SetupError(
      `npm ${args.join(" ")} ended with exit code ${code}; the end of ${path.relative(ROOT, logFile)}:\n${tailOf(logFile, 40)}`,
      { exitCode: 1 },
    );
  });
}
