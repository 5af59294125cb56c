// npm test: prepares, checks and tests on a real RabbitMQ and a real MongoDB. Arguments go to vitest.
import "./node-version.mjs";
import path from "node:path";
import { prepare } from "./prepare.mjs";
import { endAllGuarded, onEndRequested, spawnGuarded } from "./processes.mjs";
import { reportTo } from "./report.mjs";
import { SetupError, startServers } from "./servers.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const RESULTS = path.join(ROOT, ".warren", "test-results.json");
/** The suites that every change runs; `faults` takes long and is asked for. */
const SUITES = ["unit", "integration", "e2e"];
const VITEST_STOP_MS = 10_000;
const report = reportTo(process.stderr);

let servers;
let testing;
let isStopping = false;

onEndRequested((code) => void stop(code));
try {
  await stop(await main(process.argv.slice(2)));
} catch (error) {
  if (!isStopping) report(error instanceof SetupError ? error.message : error.stack);
  await stop(error instanceof SetupError ? error.exitCode : 1);
}

/** @returns {Promise<number>} the exit code */
async function main(args) {
  await prepare({ report });
  const checks = [
    ["lint", ["@biomejs", "biome", "bin", "biome"], ["check", "--error-on-warnings", "."]],
    ["types", ["typescript", "bin", "tsc"], ["-p", "tsconfig.json", "--noEmit"]],
  ];
  for (const [what, tool, toolArgs] of checks) {
    const { code } = await (await start(what, tool, toolArgs)).exited;
    if (code !== 0) return code ?? 1;
  }
  servers = await startServers({ purpose: "test", report });
  const isChosen = args.some((arg) => arg.startsWith("--project") || arg.includes("faults"));
  const projects = isChosen ? [] : SUITES.flatMap((suite) => ["--project", suite]);
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${RESULTS}`];
  const env = { AMQP_URL: servers.amqpUrl, MONGODB_URI: servers.mongodbUri };
  testing = await start("tests", ["vitest", "vitest.mjs"], ["run", ...reporters, ...projects, ...args], env);
  const { code } = await testing.exited;
  return code ?? 1;
}

/** Starts a program of a package with its output shown. */
function start(what, place, args, env = {}) {
  report(`\n> ${what}`);
  const program = path.join(ROOT, "node_modules", ...place);
  return spawnGuarded(process.execPath, [program, ...args], { cwd: ROOT, env, graceMs: VITEST_STOP_MS });
}

/** Ends everything, the tests before the servers that they use. */
async function stop(code) {
  if (isStopping) return new Promise(() => {});
  isStopping = true;
  await testing?.stop(VITEST_STOP_MS);
  await servers?.stop();
  await endAllGuarded();
  process.exit(code);
}
