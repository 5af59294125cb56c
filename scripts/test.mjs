// npm test: prepares, checks and tests on a real RabbitMQ and a real MongoDB. Arguments go to vitest.
import path from "node:path";
import { prepare } from "./prepare.mjs";
import { spawnGuarded } from "./processes.mjs";
import { SetupError, startServers } from "./servers.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const RESULTS = path.join(ROOT, ".warren", "test-results.json");
const report = (line) => process.stderr.write(`${line}\n`);
const args = process.argv.slice(2);

let servers;
let current;
let isStopping = false;

async function stop(code) {
  if (isStopping) return;
  isStopping = true;
  await current?.stop(5_000);
  await servers?.stop();
  process.exit(code);
}
process.on("SIGINT", () => void stop(130));
process.on("SIGTERM", () => void stop(143));

/** Runs a program of ours with its output shown; resolves with its exit code. */
async function run(what, command, commandArgs, env = {}) {
  report(`\n> ${what}`);
  current = await spawnGuarded(command, commandArgs, { cwd: ROOT, env });
  const { code } = await current.exited;
  return code ?? 1;
}

const tool = (name, ...rest) => [process.execPath, [path.join(ROOT, "node_modules", ...name), ...rest]];

try {
  await prepare({ report });
  const checks = [
    ["lint", ...tool(["@biomejs", "biome", "bin", "biome"], "check", "--error-on-warnings", ".")],
    ["types", ...tool(["typescript", "bin", "tsc"], "-p", "tsconfig.json", "--noEmit")],
  ];
  for (const check of checks) {
    const code = await run(...check);
    if (code !== 0) await stop(code);
  }
  servers = await startServers({ purpose: "test", report });
  const suites =
    args.length > 0 ? args : ["--project", "unit", "--project", "integration", "--project", "e2e"];
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${RESULTS}`];
  const code = await run("tests", ...tool(["vitest", "vitest.mjs"], "run", ...reporters, ...suites), {
    AMQP_URL: servers.amqpUrl,
    MONGODB_URI: servers.mongodbUri,
  });
  await stop(code);
} catch (error) {
  report(error instanceof SetupError ? error.message : error.stack);
  await stop(error instanceof SetupError ? 2 : 1);
}
