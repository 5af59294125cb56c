#!/usr/bin/env node
/** `npm run bench -- crawl`, `npm run bench -- bus` and `npm run bench -- dispatch`: see docs/performance.md. */
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import * as busReport from "../bench/bus-report.mjs";
import * as crawlReport from "../bench/crawl-report.mjs";
import * as dispatchReport from "../bench/dispatch-report.mjs";
import { MEASURES, NEEDS_SERVERS, VARIANTS } from "../bench/variants.mjs";
import { prepare } from "./prepare.mjs";
import { SetupError, startServers } from "./servers.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const GROWTH = 10;
const SCENARIOS = ["rush", "wild"];

const USAGE = `Usage: npm run bench -- crawl [flags]
       npm run bench -- bus [flags]
       npm run bench -- dispatch [flags]

crawl: crawls a synthetic site on loopback in several ways, in turns, and compares them.

  --pages N        pages of the site, 50 or more [5000]
  --rounds N       how often everything is run; medians count [3]
  --only NAMES     floor (floor1, floor2), standalone, cluster1, cluster2 [all]
  --growth         two sizes, N and ${GROWTH} times N pages; of cluster2 unless --only says otherwise

bus: calls, tasks and broadcasts over our bus and over bare amqplib, in turns.

  --rounds N       how often everything is measured; medians count [9]
  --slice MS       how long each measurement of calls and broadcasts takes, 50 or more [400]
  --tasks N        tasks of each measurement [4000]
  --only NAMES     ${MEASURES.join(", ")} [all]

dispatch: the dispatcher alone, in simulated time.

  --hosts N        hosts [100000]
  --urls N         URLs [1000000]
  --rounds N       how often everything is run; medians count [3]
  --only NAMES     ${SCENARIOS.join(", ")} [all]

All:

  --profile DIR    write CPU profiles of all processes of ours to DIR (for bench/top-of-profile.mjs)
  --json FILE      where the numbers go [.warren/bench/crawl.json, bus.json, dispatch.json]
  --docs           put the tables into docs/performance.md
  --dist FOLDER    a compiled program other than dist/, taken as it is

RabbitMQ and MongoDB are those of AMQP_URL and MONGODB_URI, else private ones are started.
`;

const BENCHMARKS = {
  dispatch: {
    report: dispatchReport,
    flags: {
      hosts: { type: "string", default: "100000" },
      urls: { type: "string", default: "1000000" },
      rounds: { type: "string", default: "3" },
    },
    readOptions: (values) => ({
      hosts: wholeNumber("--hosts", values.hosts, 100),
      urls: wholeNumber("--urls", values.urls, 1_000),
      scenarios: values.only === undefined ? SCENARIOS : namesFrom(values.only.split(","), SCENARIOS),
    }),
    async run(options) {
      const { benchDispatch } = await import("../bench/dispatch-bench.mjs");
      return benchDispatch(options);
    },
    // A broken promise ends it.
    failed: () => false,
  },
  crawl: {
    report: crawlReport,
    flags: {
      pages: { type: "string", default: "5000" },
      rounds: { type: "string", default: "3" },
      growth: { type: "boolean", default: false },
    },
    readOptions: crawlOptions,
    async run(options) {
      const needsServers = options.variants.some((variant) => NEEDS_SERVERS.has(variant));
      const { benchCrawls } = await import("../bench/crawl-bench.mjs");
      const use = (servers) => benchCrawls({ ...options, ...(servers !== undefined && { servers }) });
      return needsServers ? withServers({}, use) : use();
    },
    failed: (runs) => runs.some(({ complaints }) => complaints.length > 0),
  },
  bus: {
    report: busReport,
    flags: {
      rounds: { type: "string", default: "9" },
      slice: { type: "string", default: "400" },
      tasks: { type: "string", default: "4000" },
    },
    readOptions: busOptions,
    async run(options) {
      const { benchBus } = await import("../bench/bus-bench.mjs");
      return withServers({ mongodb: false }, ({ amqpUrl }) => benchBus({ ...options, amqpUrl }));
    },
    // A wrong or missing answer ends it.
    failed: () => false,
  },
};

class UsageError extends Error {}

const SIGNALS = { SIGINT: 130, SIGTERM: 143 };
const stopping = new AbortController();
const report = (line) => process.stderr.write(`${line}\n`);
process.exitCode = await main().catch((error) => {
  if (stopping.signal.aborted) {
    report(stopping.signal.reason.message);
    return stopping.signal.reason.exitCode;
  }
  if (error instanceof UsageError || error instanceof SetupError) {
    report(error.message);
    return 2;
  }
  report(error.stack);
  return 1;
});

async function main() {
  const options = readOptions(process.argv.slice(2));
  if (options === undefined) {
    console.log(USAGE);
    return 0;
  }
  for (const [name, exitCode] of Object.entries(SIGNALS)) {
    process.on(name, () => {
      // The second time there is no cleaning up; every process of ours ends with this one all the same.
      if (stopping.signal.aborted) process.exit(exitCode);
      stopping.abort(Object.assign(new Error(`stopped by ${name}`), { exitCode }));
    });
  }
  if (options.dist === undefined) await prepare({ report });
  const benchmark = BENCHMARKS[options.benchmark];
  // What it imports is not there before packages are installed.
  const runs = await benchmark.run({
    ...options,
    dist: options.dist ?? path.join(ROOT, "dist"),
    report,
    signal: stopping.signal,
  });
  const tables = benchmark.report.tablesOf(runs);
  console.log(`\n${tables}`);
  await writeJson(options, benchmark.report, runs);
  if (options.docs) await writeDocs(options.benchmark, tables);
  return benchmark.failed(runs) ? 1 : 0;
}

async function withServers(wanted, use) {
  const servers = await startServers({ purpose: "bench", report, ...wanted });
  try {
    return await use(servers);
  } finally {
    await servers.stop();
  }
}

function readOptions(args) {
  // Which flags there are depends on the benchmark, and it may be named after them.
  const name = args.find((argument) => Object.hasOwn(BENCHMARKS, argument));
  const benchmark = BENCHMARKS[name ?? "crawl"];
  let parsed;
  try {
    parsed = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...benchmark.flags,
        only: { type: "string" },
        profile: { type: "string" },
        json: { type: "string", default: path.join(ROOT, ".warren", "bench", `${name}.json`) },
        docs: { type: "boolean", default: false },
        dist: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new UsageError(`${error.message}\n\n${USAGE}`);
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  if (positionals.length !== 1 || positionals[0] !== name) {
    throw new UsageError(`which benchmark? There are: ${Object.keys(BENCHMARKS).join(", ")}\n\n${USAGE}`);
  }
  return {
    benchmark: name,
    ...benchmark.readOptions(values),
    rounds: wholeNumber("--rounds", values.rounds, 1),
    json: path.resolve(values.json),
    docs: values.docs,
    ...(values.profile !== undefined && { profileDir: path.resolve(values.profile) }),
    ...(values.dist !== undefined && { dist: path.resolve(values.dist) }),
  };
}

function crawlOptions(values) {
  const pages = wholeNumber("--pages", values.pages, 50);
  return {
    variants: variantsOf(values.only ?? (values.growth ? "cluster2" : "floor,standalone,cluster1,cluster2")),
    sizes: values.growth ? [pages, pages * GROWTH] : [pages],
  };
}

function busOptions(values) {
  return {
    measures: values.only === undefined ? MEASURES : namesFrom(values.only.split(","), MEASURES),
    sliceMs: wholeNumber("--slice", values.slice, 50),
    tasks: wholeNumber("--tasks", values.tasks, 1),
  };
}

function wholeNumber(flag, text, least) {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < least) {
    throw new UsageError(`${flag} must be a whole number, ${least} or more, not "${text}"`);
  }
  return number;
}

function variantsOf(only) {
  const names = only.split(",").flatMap((name) => (name === "floor" ? ["floor1", "floor2"] : [name]));
  return namesFrom(names, VARIANTS, ["floor", ...VARIANTS]);
}

/** What was named of all there are, in the order of a round. */
function namesFrom(given, all, shown = all) {
  const names = given.map((name) => name.trim());
  for (const name of names) {
    if (!all.includes(name)) {
      throw new UsageError(`--only: no "${name}"; there are ${shown.join(", ")}`);
    }
  }
  return all.filter((name) => names.includes(name));
}

async function writeJson(options, { summarize, judge }, runs) {
  const { benchmark, json, sizes, rounds, sliceMs, tasks, hosts, urls, profileDir } = options;
  const machine = { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length, node: process.version };
  const result = {
    benchmark,
    at: new Date().toISOString(),
    machine,
    ...{ sizes, rounds, sliceMs, tasks, hosts, urls, profiled: profileDir !== undefined },
    summary: summarize(runs),
    targets: judge(runs),
    runs,
  };
  await mkdir(path.dirname(json), { recursive: true });
  await writeFile(json, `${JSON.stringify(result, undefined, 2)}\n`);
  console.log(`numbers: ${path.relative(process.cwd(), json)}`);
}

async function writeDocs(benchmark, tables) {
  const file = path.join(ROOT, "docs", "performance.md");
  const [begin, end] = [`<!-- bench:${benchmark} -->`, `<!-- /bench:${benchmark} -->`];
  const text = existsSync(file) ? await readFile(file, "utf8") : "";
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no place for the tables: ${begin} … ${end}`);
  const about = `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}:`;
  await writeFile(file, `${text.slice(0, from + begin.length)}\n${about}\n\n${tables}${text.slice(to)}`);
  console.log(`tables: ${path.relative(process.cwd(), file)}`);
}
