// npm test: prepares, checks and tests on a real RabbitMQ and a real MongoDB. Arguments go to vitest.
// npm run test:browser: those that render pages with Chromium; exit code 2 where that cannot be had.
// npm run test:rabbitmq4: the tests that use a broker, on RabbitMQ 4; exit code 2 where that cannot be had.
import "./node-version.mjs";
import path from "node:path";
import { findOrInstallChromium } from "./chromium.mjs";
import { prepare } from "./prepare.mjs";
import { endAllGuarded, onEndRequested, spawnGuarded } from "./processes.mjs";
import { findOrMakeRabbit4 } from "./rabbitmq4.mjs";
import { reportTo } from "./report.mjs";
import { SetupError, startServers } from "./servers.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
/** The suites of `npm test`; `faults` and `hostile` take long, `examples` and `browser` need more: they are asked for. */
const SUITES = ["unit", "integration", "e2e"];
/** Those that use a broker, less the files for which it is all the same which one. */
const BROKER_SUITES = ["integration", "e2e"];
const ANY_BROKER_DOES = [
  ...[
    "store-",
    "api-schedules",
    "api-deliveries",
    "api-crawl-log",
    "cli-",
    "crawl-ends",
    "deliveries",
    "log-shipper",
  ].map((name) => `test/integration/${name}*`),
  ...["mails", "notification-rules", "runs", "schedules"].map((name) => `test/integration/${name}.test.ts`),
  ...[
    "start",
    "bad-start",
    "crawl-logs",
    "archive",
    "sitemaps",
    "why",
    "runs",
    "spider-code",
    "process-spiders",
  ].map((name) => `test/e2e/${name}.test.ts`),
];
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
async function main([first, ...rest]) {
  await prepare({ report });
  if (first === "--rabbitmq4") {
    servers = await startServers({ purpose: "test", report, rabbitmq: await findOrMakeRabbit4(report) });
    const args = [...ANY_BROKER_DOES.map((files) => `--exclude=${files}`), ...rest];
    return test({ suites: BROKER_SUITES, args, results: "test-results-rabbitmq4.json" });
  }
  const checks = [
    ["lint", ["@biomejs", "biome", "bin", "biome"], ["check", "--error-on-warnings", "."]],
    ["types", ["typescript", "bin", "tsc"], ["-p", "tsconfig.json", "--noEmit"]],
  ];
  for (const [what, tool, toolArgs] of checks) {
    const { code } = await (await start(what, tool, toolArgs)).exited;
    if (code !== 0) return code ?? 1;
  }
  const args = first === undefined ? [] : [first, ...rest];
  const browser = args.some((arg) => arg.includes("browser"))
    ? await findOrInstallChromium(report)
    : undefined;
  servers = await startServers({ purpose: "test", report });
  return test({ suites: SUITES, args, results: "test-results.json", browser });
}

/** Runs the suites, unless the arguments choose others. */
async function test({ suites, args, results, browser }) {
  const isChosen = args.some(
    (arg) => arg.startsWith("--project") || arg.includes("faults") || arg.includes("browser"),
  );
  const projects = isChosen ? [] : suites.flatMap((suite) => ["--project", suite]);
  const outputFile = path.join(ROOT, ".warren", results);
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${outputFile}`];
  const { amqpUrl, managementUrl, mongodbUri } = servers;
  const env = {
    ...{ AMQP_URL: amqpUrl, MONGODB_URI: mongodbUri },
    ...(browser !== undefined && { WARREN_BROWSER_PATH: browser }),
    ...(managementUrl !== undefined && { RABBITMQ_MANAGEMENT_URL: managementUrl }),
  };
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
