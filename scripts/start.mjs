// npm start: a whole Warren on this machine, and a crawl to watch.
import "./node-version.mjs";
import { readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { LocalCluster } from "./local-cluster.mjs";
import { freePort, isFree } from "./ports.mjs";
import { prepare } from "./prepare.mjs";
import { endAllGuarded, onEndRequested, spawnGuarded } from "./processes.mjs";
import { reportTo } from "./report.mjs";
import { SetupError, startServers } from "./servers.mjs";
import { DEFAULT_PORT, HELP, readStartArguments } from "./start-arguments.mjs";
import { WatchedCrawl } from "./watched-crawl.mjs";

const DEMO_MS = 10_000;
const report = reportTo(process.stdout);

/** How to stop what was started, in the order of the starts. */
const stops = [];
let isStopping = false;
/** The crawl is over, and things are up for as long as somebody wants to look at them. */
let isShowing = false;

onEndRequested((code) => {
  report("\nStopping …");
  void stop(isShowing ? 0 : code);
});
try {
  await stop(await main(process.argv.slice(2)));
} catch (error) {
  if (!isStopping) process.stderr.write(`${error instanceof SetupError ? error.message : error.stack}\n`);
  await stop(error instanceof SetupError ? error.exitCode : 1);
}

/** @returns {Promise<number>} the exit code */
async function main(args) {
  const options = readStartArguments(args);
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  // Said now rather than after minutes of installing.
  if (options.port !== undefined) await portFor(options.port);
  await prepare({ report });
  const servers = await startServers({ purpose: "start", report });
  stops.push(() => servers.stop());
  const logs = path.join(servers.folder, "logs");
  rmSync(logs, { recursive: true, force: true });
  const demo = options.url === undefined ? await startDemoSite(servers.folder, logs) : undefined;

  const port = await portFor(options.port);
  const mayFetchLoopback = demo !== undefined || isLoopback(options.url);
  const cluster = new LocalCluster({ servers, report, port, workers: options.workers, mayFetchLoopback });
  stops.push(() => cluster.stop());
  await cluster.start();
  const parts = { api: cluster.api, report };
  const isGood = await cluster.whileAlive(crawl(parts, options.spider, options.url, demo, servers));
  if (options.exit) return isGood ? 0 : 1;

  isShowing = true;
  report("\nEverything stays up. Ctrl-C stops it.");
  return await cluster.whileAlive(new Promise(() => {}));
}

/** Crawls to the end and says what came of it; true if all is well. */
async function crawl(parts, spider, url, demo, servers) {
  await sayWhatElseRuns(parts);
  const watched = await WatchedCrawl.start(parts, { spider, seed: url ?? demo.url });
  // A crawl of somebody's site goes on with the next run. The demo site will be gone from its port by then.
  stops.push(() => watched.leave({ andClose: demo !== undefined }));
  await watched.watch();
  // Other spiders store no PDFs.
  const isWhole = demo === undefined || spider !== "pdf" || (await watched.hasFiles(demo.url, demo.pdfs));
  await watched.summarize(servers);
  return watched.isFinished && isWhole;
}

/** Crawls of earlier runs go on where these ended. */
async function sayWhatElseRuns({ api, report }) {
  const { items } = await api.get("/api/v1/crawls?status=running&limit=50");
  // The crawl of what comes without one is always there.
  const others = items.filter(({ id }) => id !== "inbox");
  if (others.length === 0) return;
  report(`Going on as well, from before (DELETE ${api.url}/api/v1/crawls/ID closes one):`);
  for (const { id, name, spider } of others) report(`  ${id}  ${name} (${spider})`);
}

/** Starts the demo site; gives what it says of itself in its first line. */
async function startDemoSite(runFolder, logs) {
  const logFile = path.join(logs, "demo-site.log");
  const program = path.join(import.meta.dirname, "demo-site.mjs");
  const site = await spawnGuarded(process.execPath, [program, "--port", "0"], { logFile, runFolder });
  stops.push(() => site.stop(1_000));
  const deadline = performance.now() + DEMO_MS;
  for (;;) {
    const line = /^\{.*\}$/m.exec(readFileSync(logFile, "utf8"))?.[0];
    if (line !== undefined) {
      const demo = JSON.parse(line);
      report(`Demo site: ${demo.url}`);
      return demo;
    }
    if (!site.isRunning || performance.now() > deadline) {
      throw new SetupError(`the demo site did not come up:\n${site.logTail()}`, { exitCode: 1 });
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The port that was asked for, else the usual one, or the next that is free. */
async function portFor(wanted) {
  if (wanted === 0) return freePort();
  if (wanted !== undefined) {
    if (await isFree(wanted)) return wanted;
    throw new SetupError(`--port: port ${wanted} is taken; choose another, or 0 for a free one`);
  }
  for (let port = DEFAULT_PORT; port < DEFAULT_PORT + 100; port += 1) if (await isFree(port)) return port;
  return freePort();
}

function isLoopback(url) {
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

/** Stops everything, what was started last first, and ends the process. */
async function stop(code) {
  if (isStopping) return new Promise(() => {});
  isStopping = true;
  for (const stopOne of stops.reverse()) await stopOne();
  // What was about to start.
  await endAllGuarded();
  process.exit(code);
}
