// npm start: a whole Warren on this machine, and a crawl to watch.
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { parseArgs } from "node:util";
import { prepare } from "./prepare.mjs";
import { spawnGuarded } from "./processes.mjs";
import { freePort, SetupError, startServers } from "./servers.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const DEFAULT_PORT = 8080;
const POLL_MS = 500;
const READY_TIMEOUT_MS = 60_000;

const HELP = `Usage: npm start [-- [URL] [--spider NAME] [--exit] [--workers N] [--port N]]

Brings up RabbitMQ, MongoDB, a master with its dashboard and workers, and crawls URL, or the bundled demo site.

  URL            what to crawl instead of the demo site
  --spider NAME  links or pdf [pdf]
  --workers N    how many workers [2]
  --port N       port of the API and the dashboard; 0 takes a free one [${DEFAULT_PORT}, or the next free one]
  --exit         stop everything when the crawl is over; exit code 0 only if it finished
  --help         this text
`;

const say = (line) => process.stdout.write(`${line}\n`);

/** Ends what was started, last first; whoever calls it again waits for the same end. */
const ending = { stops: [], promise: undefined };
function stopAll() {
  ending.promise ??= (async () => {
    for (const stop of ending.stops.reverse()) await stop();
  })();
  return ending.promise;
}

let signals = 0;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    signals += 1;
    // The guards end what is left when this process is gone.
    if (signals > 1) process.exit(1);
    clearStatus();
    say("\nStopping …");
    stopAll().then(() => process.exit(0));
  });
}

try {
  const code = await main(readArguments(process.argv.slice(2)));
  await stopAll();
  process.exit(code);
} catch (error) {
  clearStatus();
  if (signals === 0) {
    process.stderr.write(`${error instanceof SetupError ? error.message : error.stack}\n`);
    await stopAll();
    process.exit(error instanceof SetupError ? 2 : 1);
  }
}

/** @returns {Promise<number>} the exit code */
async function main(options) {
  await prepare({ report: say });
  const servers = await startServers({ purpose: "start", report: say });
  ending.stops.push(() => servers.stop());
  const demo = options.url === undefined ? await startDemo() : undefined;
  const cluster = await startCluster(options, servers, demo !== undefined || isLoopback(options.url));
  const died = Promise.race(cluster.members.map((member) => member.died));
  died.catch(() => {});

  const crawl = await Promise.race([crawlIt(cluster.url, options, demo), died]);
  const isGood =
    crawl.status === "finished" && (demo === undefined || (await checkPdfs(cluster.url, crawl.id, demo)));
  await summarize(cluster.url, crawl, servers);
  if (options.exit) return isGood ? 0 : 1;
  say("\nEverything stays up. Ctrl-C stops it.");
  await died;
  return 1;
}

function readArguments(args) {
  const known = { spider: "string", workers: "string", port: "string", exit: "boolean", help: "boolean" };
  const options = Object.fromEntries(Object.entries(known).map(([name, type]) => [name, { type }]));
  const { values, positionals, tokens } = parseArgs({
    args,
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    if (known[token.name] === undefined)
      throw new SetupError(`unknown flag ${token.rawName}; npm start -- --help lists them`);
    if (known[token.name] === "string" && token.value === undefined)
      throw new SetupError(`--${token.name} needs a value`);
  }
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  if (positionals.length > 1) throw new SetupError(`one URL is crawled at a time, not ${positionals.length}`);
  const [url] = positionals;
  if (url !== undefined && !/^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : "")) {
    throw new SetupError(`URL must be an absolute http(s) URL, not "${url}"`);
  }
  return {
    url,
    spider: values.spider ?? "pdf",
    workers: wholeNumber("workers", values.workers ?? "2", 1, 64),
    port: values.port === undefined ? undefined : wholeNumber("port", values.port, 0, 65_535),
    exit: values.exit === true,
  };
}

function wholeNumber(flag, text, least, most) {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= least && number <= most) return number;
  throw new SetupError(`--${flag} must be a whole number from ${least} to ${most}, not "${text}"`);
}

async function startDemo() {
  const { startDemoSite } = await import("./demo-site.mjs");
  const demo = await startDemoSite({ port: 0 });
  ending.stops.push(() => demo.close());
  say(`Demo site: ${demo.url}`);
  return demo;
}

/** A master and its workers, each a process under a guard. */
async function startCluster(options, servers, mayFetchLoopback) {
  const logs = path.join(servers.folder, "logs");
  mkdirSync(logs, { recursive: true });
  const port =
    options.port === 0
      ? await freePort()
      : await portFrom(options.port ?? DEFAULT_PORT, options.port !== undefined);
  const common = {
    AMQP_URL: servers.amqpUrl,
    MONGODB_URI: servers.mongodbUri,
    ...(mayFetchLoopback && { WARREN_ALLOWED_NETWORKS: "127.0.0.0/8,::1/128" }),
  };
  const members = [];
  const start = async (name, args) => {
    const logFile = path.join(logs, `${name}.log`);
    const env = { ...common, WARREN_DATA_DIR: path.join(servers.folder, name) };
    const guarded = await spawnGuarded(process.execPath, args, { cwd: ROOT, env, logFile });
    ending.stops.push(() => guarded.stop(20_000));
    const died = guarded.exited.then(({ code, signal }) => {
      if (ending.promise !== undefined) return new Promise(() => {});
      throw new SetupError(
        `${name} has ended (${signal ?? `exit code ${code}`}); the end of its log:\n${guarded.logTail()}`,
      );
    });
    died.catch(() => {});
    members.push({ name, died });
  };
  await start("master", ["dist/master.js", "--port", String(port), "--host", "127.0.0.1"]);
  const nodes = Array.from({ length: options.workers }, (_, index) => `worker-${index + 1}`);
  for (const node of nodes) await start(node, ["dist/worker.js", "--node-id", node]);
  const url = `http://127.0.0.1:${port}`;
  const died = Promise.race(members.map((member) => member.died));
  await Promise.race([ready(url, nodes), died]);
  say(`Master: ${url} (dashboard and API), ${nodes.length} worker(s), logs in ${path.relative(ROOT, logs)}`);
  return { url, members };
}

async function ready(url, nodes) {
  const startedAt = performance.now();
  let saidAt = startedAt;
  for (;;) {
    const missing = await whatIsMissing(url, nodes);
    if (missing === undefined) return;
    const now = performance.now();
    if (now - startedAt > READY_TIMEOUT_MS) {
      throw new SetupError(
        `not ready after ${READY_TIMEOUT_MS / 1_000} s: ${missing}. See the logs under .warren/start/logs`,
      );
    }
    if (now - saidAt > 2_000) {
      saidAt = now;
      say(`Waiting for ${missing} … ${Math.round((now - startedAt) / 1_000)} s`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function whatIsMissing(url, nodes) {
  try {
    if ((await fetch(`${url}/readyz`)).status !== 200) return "the master to reach RabbitMQ and MongoDB";
    const { items } = await get(url, "/api/v1/nodes?limit=500");
    const online = new Set(items.filter(({ status }) => status === "online").map(({ id }) => id));
    const away = nodes.filter((node) => !online.has(node));
    return away.length === 0 ? undefined : away.join(", ");
  } catch {
    return "the master";
  }
}

/** Starts the crawl and shows how it goes until it is over. */
async function crawlIt(url, options, demo) {
  const seed = options.url ?? demo.url;
  const response = await fetch(`${url}/api/v1/crawls`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ spider: options.spider, seeds: [seed], name: new URL(seed).host }),
  });
  const crawl = await response.json();
  if (response.status !== 201) {
    const errors = (crawl.errors ?? []).map(({ field, message }) => `${field} ${message}`).join("; ");
    throw new SetupError(`the crawl was refused: ${errors || crawl.detail || crawl.title}`);
  }
  say(`Crawling ${seed} with the spider "${crawl.spider}"\n`);
  const startedAt = performance.now();
  let last = "";
  let lastSaidAt = 0;
  for (;;) {
    const now = await get(url, `/api/v1/crawls/${crawl.id}`);
    const line = progressOf(now.counts, (performance.now() - startedAt) / 1_000);
    const isOver = now.status !== "running" && now.status !== "paused";
    if (process.stdout.isTTY && !isOver) showStatus(line);
    else if (isOver || (line !== last && performance.now() - lastSaidAt > 2_000)) {
      clearStatus();
      say(line);
      last = line;
      lastSaidAt = performance.now();
    }
    if (isOver) return now;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function progressOf(counts, seconds) {
  const ended = counts.done + counts.failed;
  const rate = seconds < 1 ? ended : ended / seconds;
  const parts = ["queued", "active", "done", "failed", "skipped", "items", "files"].map(
    (name) => `${name} ${counts[name]}`,
  );
  return `${rate.toFixed(1)} pages/s  ${parts.join("  ")}`;
}

/** Whether every PDF of the demo site was stored as it is there. */
async function checkPdfs(url, crawl, demo) {
  const { items } = await get(url, `/api/v1/crawls/${crawl}/files?limit=500`);
  const stored = new Map(items.map((file) => [new URL(file.url).pathname, file]));
  let good = 0;
  for (const { path: place, body } of demo.pdfs) {
    const file = stored.get(place);
    const bytes =
      file &&
      Buffer.from(await (await fetch(`${url}/api/v1/files/${encodeURIComponent(file.id)}`)).arrayBuffer());
    if (bytes?.equals(body)) good += 1;
    else say(`PDF ${place}: ${file === undefined ? "was not stored" : "differs from what the site has"}`);
  }
  say(`PDFs: ${good} of ${demo.pdfs.length} stored byte for byte`);
  return good === demo.pdfs.length;
}

async function summarize(url, crawl, servers) {
  const seconds =
    (Date.parse(crawl.finishedAt ?? new Date().toISOString()) - Date.parse(crawl.startedAt)) / 1_000;
  const items = `${url}/api/v1/crawls/${crawl.id}/items?format=ndjson`;
  say(
    `\nThe crawl is ${crawl.status}${crawl.finishReason ? ` (${crawl.finishReason})` : ""} after ${seconds.toFixed(1)} s.`,
  );
  const { items: sample } = await get(url, `/api/v1/crawls/${crawl.id}/items?limit=3`);
  if (sample.length > 0) say("Some of its items:");
  for (const item of sample) say(`  ${item.url}  ${JSON.stringify(item.data)}`);
  say("Where to look:");
  say(`  dashboard  ${url}/`);
  if (servers.managementUrl) say(`  RabbitMQ   ${servers.managementUrl} (guest, guest)`);
  say(`  files      ${url}/api/v1/crawls/${crawl.id}/files`);
  say(`  items      curl '${items}'`);
}

async function get(url, route) {
  const response = await fetch(`${url}${route}`);
  if (!response.ok) throw new Error(`GET ${route} answered ${response.status}`);
  return response.json();
}

function isLoopback(url) {
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || /^127\./.test(hostname);
}

/** This port, or the next free one unless it was asked for. */
async function portFrom(port, wasAskedFor) {
  for (let candidate = port; candidate < port + 100; candidate += 1) {
    if (await isFree(candidate)) return candidate;
    if (wasAskedFor) throw new SetupError(`--port: port ${port} is taken`);
  }
  return freePort();
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

function showStatus(line) {
  process.stdout.write(`\r\u001b[2K${line.slice(0, (process.stdout.columns ?? 120) - 1)}`);
}

function clearStatus() {
  if (process.stdout.isTTY) process.stdout.write("\r\u001b[2K");
}
