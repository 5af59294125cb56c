/** One scenario of the dispatcher's benchmark, in a process of its own: prints its figures as JSON. */
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { rush, wild } from "./dispatch-scenarios.mjs";
import { DispatchSimulation } from "./dispatch-simulation.mjs";

const SCENARIOS = { rush, wild };

const { values } = parseArgs({
  options: {
    scenario: { type: "string" },
    dist: { type: "string" },
    hosts: { type: "string" },
    urls: { type: "string" },
    seed: { type: "string" },
  },
});

const load = (file) => import(pathToFileURL(path.join(values.dist, "crawl", file)).href);
const { Dispatcher } = await load("dispatch/dispatcher.js");
const { MemoryHostStates } = await load("memory-frontier.js");
const { TaskRound } = await load("dispatch/task-round.js");
const { shardOf } = await load("urls/url.js");

const size = { hosts: Number(values.hosts), urls: Number(values.urls), random: seeded(Number(values.seed)) };
const simulation = new DispatchSimulation(
  { Dispatcher, MemoryHostStates, TaskRound, shardOf },
  // What is measured is the dispatcher; that it keeps its promises is also checked where that costs little.
  { ...SCENARIOS[values.scenario](size), isChecked: values.scenario === "wild" },
);
const before = process.cpuUsage();
const figures = await simulation.run();
const { user, system } = process.cpuUsage(before);
console.log(
  JSON.stringify({ ...figures, cpuSeconds: (user + system) / 1e6, hosts: size.hosts, urls: size.urls }),
);

/** The same numbers for the same seed: a SplitMix generator of 32 bits. */
function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}
