import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Children } from "./children.mjs";
import { runCluster } from "./cluster-run.mjs";
import { runFloor } from "./floor-run.mjs";
import { pidListeningOn } from "./process-meter.mjs";
import { Profile } from "./profile.mjs";
import { complaintsAbout, ServedSite } from "./served-site.mjs";
import { runStandalone } from "./standalone-run.mjs";

const RUNNERS = {
  floor1: (options) => runFloor({ ...options, processes: 1 }),
  floor2: (options) => runFloor({ ...options, processes: 2 }),
  standalone: runStandalone,
  cluster1: (options) => runCluster({ ...options, workers: 1 }),
  cluster2: (options) => runCluster({ ...options, workers: 2 }),
};

/**
 * Crawls the synthetic site in every variant, in turns, so that a machine that gets slower or faster meanwhile
 * does so for all of them.
 *
 * @param {{
 *   variants: string[], sizes: number[], rounds: number, dist: string,
 *   servers?: { amqpUrl: string, mongodbUri: string }, profileDir?: string,
 *   report: (line: string) => void, signal: AbortSignal,
 * }} options
 * @returns every run, in its order
 */
export async function benchCrawls(options) {
  const { variants, sizes, rounds, dist, report, signal } = options;
  const children = new Children();
  // Whoever waits for a process hears that it was killed, and cleans up after itself.
  signal.addEventListener("abort", () => children.killAll(), { once: true });
  const dataDir = await mkdtemp(path.join(tmpdir(), "warren-bench-"));
  const servers = options.servers === undefined ? undefined : withPids(options.servers);
  const runs = [];
  try {
    const concurrency = await defaultConcurrency(dist);
    const site = await ServedSite.start(children);
    for (let round = 1; round <= rounds; round += 1) {
      for (const pages of sizes) {
        for (const variant of variants) {
          signal.throwIfAborted();
          const profile = await Profile.for(options.profileDir, `round-${round}-${pages}`);
          const deadlineMs = 60_000 + 20 * pages;
          const run = await RUNNERS[variant]({
            ...{ children, site, pages, dist, dataDir, servers, concurrency, profile, deadlineMs },
          });
          const summary = summaryOf(run, { variant, round, pages });
          runs.push(summary);
          report(lineOf(summary, rounds));
        }
      }
    }
    await site.stop();
    return runs;
  } finally {
    children.killAll();
    await rm(dataDir, { recursive: true, force: true });
  }
}

function summaryOf({ processes, otherCores, report, finishedAt, complaints }, identity) {
  const seconds = (finishedAt - report.beganAt) / 1e9;
  const perThousand = (cpuSeconds) =>
    cpuSeconds === undefined ? undefined : (cpuSeconds / identity.pages) * 1_000;
  return {
    ...identity,
    seconds,
    pagesPerSecond: identity.pages / seconds,
    processes: Object.fromEntries(
      Object.entries(processes).map(([name, { cpuSeconds, peakRssBytes }]) => [
        name,
        { cpuSeconds, cpuSecondsPerThousand: perThousand(cpuSeconds), peakRssBytes },
      ]),
    ),
    siteCores: (processes.site?.cpuSeconds ?? 0) / seconds,
    otherCores,
    complaints: [...complaintsAbout(report), ...complaints],
  };
}

function lineOf({ variant, round, pages, seconds, pagesPerSecond, complaints }, rounds) {
  const speed = `${Math.round(pagesPerSecond)} pages/s (${pages} in ${seconds.toFixed(2)} s)`;
  const wrong = complaints.map((complaint) => `\n    WRONG: ${complaint}`).join("");
  return `round ${round} of ${rounds}  ${variant.padEnd(10)} ${speed}${wrong}`;
}

/** How many tasks a worker runs at once unless told otherwise: the floor does the same. */
async function defaultConcurrency(dist) {
  const { SETTINGS } = await import(pathToFileURL(path.join(dist, "lib", "settings.js")).href);
  return SETTINGS.concurrency.parse(SETTINGS.concurrency.fallback);
}

function withPids({ amqpUrl, mongodbUri }) {
  const [firstAmqpUrl] = amqpUrl.split(",");
  const [, mongodbHost = ""] = /^mongodb:\/\/(?:[^@/]*@)?([^,/?]+)/.exec(mongodbUri) ?? [];
  return {
    amqpUrl: firstAmqpUrl,
    mongodbUri,
    rabbitmqPid: pidAt(new URL(firstAmqpUrl).host, 5_672, "beam.smp"),
    mongodPid: pidAt(mongodbHost, 27_017, "mongod"),
  };
}

function pidAt(host, defaultPort, program) {
  const [, name, port] = /^(.*?)(?::(\d+))?$/.exec(host);
  const isHere = name === "localhost" || name === "[::1]" || name.startsWith("127.");
  return isHere ? pidListeningOn(Number(port ?? defaultPort), program) : undefined;
}
