import { randomBytes } from "node:crypto";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { connect } from "amqplib";
import { MongoClient } from "mongodb";
import { ProcessMeter } from "./process-meter.mjs";

const START_MS = 60_000;
/** How often a crawl is asked whether it is finished, once its last page was fetched. */
const POLL_MS = 10;

/** A master and workers as real processes, on real servers, in a namespace of their own that is dropped afterwards. */
export async function runCluster(options) {
  const { children, site, pages, workers, servers, dist, dataDir, profile, deadlineMs } = options;
  const namespace = `bench-${randomBytes(5).toString("hex")}`;
  const label = `cluster${workers}`;
  const { seeds } = await site.open(pages);
  const env = {
    AMQP_URL: servers.amqpUrl,
    MONGODB_URI: servers.mongodbUri,
    WARREN_NAMESPACE: namespace,
    WARREN_ALLOWED_NETWORKS: "127.0.0.0/8",
    WARREN_LOG_LEVEL: "info",
  };
  const start = (name, program, ...flags) =>
    children.start({
      name,
      args: [...profile.flags(`${label}-${name}`), path.join(dist, program), ...flags],
      env: { ...env, WARREN_DATA_DIR: path.join(dataDir, namespace, name) },
    });
  const nodes = Array.from({ length: workers }, (_, index) => `worker-${index + 1}`);
  const members = [];
  try {
    const master = start("master", "master.js", "--port", "0");
    members.push(master);
    for (const node of nodes) members.push(start(node, "worker.js", "--node-id", node));
    const url = await master.says(/"url":"(http:[^"]+)"/, START_MS);
    const api = (route, init) => callApi(`${url}/api/v1${route}`, init);
    await until("the master is ready", START_MS, async () => (await fetch(`${url}/readyz`)).ok);
    await until(`${workers} workers are online`, START_MS, async () => {
      const { items } = await api("/nodes?status=online");
      return items.length === workers;
    });

    const subjects = members.map((member) => ({ name: member.name.replace("-", " "), pid: member.pid }));
    const meter = new ProcessMeter([
      ...subjects,
      { name: "rabbitmq", pid: servers.rabbitmqPid },
      { name: "mongod", pid: servers.mongodPid },
      { name: "site", pid: site.pid },
    ]);
    const lastPage = site.complete(deadlineMs).catch(() => {});
    const crawl = await api("/crawls", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ spider: "links", seeds, name: label }),
    });
    const deadline = performance.now() + deadlineMs;
    // Asking costs the master time as well, so it is asked seldom until there is no page left to fetch.
    let pollMs = 500;
    void lastPage.then(() => {
      pollMs = POLL_MS;
    });
    let state = crawl;
    while (state.status !== "finished") {
      if (performance.now() > deadline || ["failed", "closed"].includes(state.status)) {
        throw new Error(`${label}: not finished within ${deadlineMs} ms: ${JSON.stringify(state)}`);
      }
      const ended = members.find((member) => member.hasEnded);
      if (ended !== undefined)
        throw new Error(`${label}: ${ended.name} has ended\n${ended.output.slice(-2_000)}`);
      await (pollMs === POLL_MS ? sleep(pollMs) : Promise.race([lastPage, sleep(pollMs)]));
      state = await api(`/crawls/${crawl.id}`);
    }
    const finishedAt = Number(process.hrtime.bigint());
    const measured = meter.stop();
    const report = await site.report();
    const complaints = complaintsAboutCounts(state.counts, pages);
    complaints.push(...(await complaintsAboutStore(servers.mongodbUri, namespace, crawl.id, pages)));
    for (const member of members.slice(1).concat(master)) {
      await member.stop();
      const { code, signal } = await member.exits();
      if (code !== 0)
        complaints.push(`${member.name} ended with ${code ?? signal} when it was asked to stop`);
    }
    return { ...measured, report, finishedAt, complaints };
  } finally {
    await Promise.all(members.map((member) => member.stop("SIGKILL")));
    await dropNamespace({ servers, dist, namespace, nodes });
  }
}

function complaintsAboutCounts(counts, pages) {
  const wanted = { queued: 0, active: 0, done: pages, failed: 0, skipped: 0, items: pages, files: 0 };
  return Object.entries(wanted)
    .filter(([name, count]) => counts[name] !== count)
    .map(([name, count]) => `the crawl counts ${counts[name]} ${name} instead of ${count}`);
}

async function complaintsAboutStore(uri, namespace, crawl, pages) {
  return withMongo(uri, async (client) => {
    const complaints = [];
    for (const name of ["pages", "items"]) {
      const count = await client.db(namespace).collection(name).countDocuments({ crawl });
      if (count !== pages) complaints.push(`${count} ${name} stored instead of ${pages}`);
    }
    return complaints;
  });
}

async function dropNamespace({ servers, dist, namespace, nodes }) {
  const { Names } = await import(pathToFileURL(path.join(dist, "bus", "topology.js")).href);
  const names = new Names(namespace);
  const queues = [names.tasks(), names.master(), names.rejected(), names.dead()];
  const exchanges = [
    names.events(),
    names.items(),
    names.broadcast(),
    names.cancels(),
    names.rejected(),
    names.dead(),
  ];
  const connection = await connect(servers.amqpUrl);
  try {
    const channel = await connection.createChannel();
    for (const queue of queues) await channel.deleteQueue(queue);
    for (const exchange of [...exchanges, ...nodes.map(names.node)]) await channel.deleteExchange(exchange);
  } finally {
    await connection.close();
  }
  await withMongo(servers.mongodbUri, (client) => client.db(namespace).dropDatabase());
}

async function withMongo(uri, use) {
  const client = new MongoClient(uri);
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

async function callApi(url, init) {
  const response = await fetch(url, init);
  const text = await response.text();
  if (!response.ok) throw new Error(`${init?.method ?? "GET"} ${url} answered ${response.status}: ${text}`);
  return JSON.parse(text);
}

async function until(what, timeoutMs, holds) {
  const deadline = performance.now() + timeoutMs;
  while (!(await holds().catch(() => false))) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await sleep(20);
  }
}
