import { randomBytes } from "node:crypto";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { connect } from "amqplib";
import { DEAD_NODE, UNKNOWN_NODE } from "./bus-load.mjs";
import { Children } from "./children.mjs";
import { Profile } from "./profile.mjs";

const START_MS = 60_000;
/** For one measurement, however slow the machine. */
const MEASURE_MS = 60_000;
const NODES = 20;
const IN_FLIGHT = 64;
const TASKS_UNCONFIRMED = 256;
/** Calls to nodes that are not there, each round. */
const REFUSALS = 10;

/**
 * What is measured, and with what: each contestant in turn, in every round.
 * @type {Record<string, { contestants: string[], measure: (parties: Parties, contestant: string, options: object) => Promise<object> }>}
 */
const MEASURES = {
  call: {
    contestants: ["ours", "bare", "direct"],
    measure: (parties, contestant, { sliceMs }) =>
      parties.latency(operationOf("call", contestant), { durationMs: sliceMs }),
  },
  calls: {
    contestants: ["ours", "bare", "direct"],
    measure: (parties, contestant, { sliceMs }) =>
      parties.rate(operationOf("call", contestant), { inFlight: IN_FLIGHT, durationMs: sliceMs }),
  },
  masterCall: {
    contestants: ["ours", "bare"],
    measure: (parties, _contestant, { sliceMs }) => parties.latency("masterCall", { durationMs: sliceMs }),
  },
  masterCalls: {
    contestants: ["ours", "bare"],
    measure: (parties, _contestant, { sliceMs }) =>
      parties.rate("masterCall", { inFlight: IN_FLIGHT, durationMs: sliceMs }),
  },
  tasks: {
    contestants: ["ours", "bare"],
    measure: (parties, _contestant, { tasks }) =>
      parties.tasks({ count: tasks, inFlight: TASKS_UNCONFIRMED }),
  },
  broadcast: {
    contestants: ["ours", "bare"],
    measure: (parties, _contestant, { sliceMs }) => parties.latency("broadcast", { durationMs: sliceMs }),
  },
  deadNode: {
    contestants: ["ours"],
    measure: (parties) => parties.latency("deadNode", { times: REFUSALS }),
  },
  unknownNode: {
    contestants: ["ours"],
    measure: (parties) => parties.latency("unknownNode", { times: REFUSALS }),
  },
};

function operationOf(operation, contestant) {
  return contestant === "direct" ? "directCall" : operation;
}

/**
 * Measures the bus beside the bare loop. The caller and whoever is called are processes of their own, for each
 * of the two; they run from the beginning to the end, and only those that are measured do anything.
 *
 * @param {{
 *   measures: string[], rounds: number, sliceMs: number, tasks: number, dist: string, amqpUrl: string,
 *   profileDir?: string, report: (line: string) => void, signal: AbortSignal,
 * }} options
 * @returns {Promise<object[]>} every measurement, in its order
 */
export async function benchBus(options) {
  const { measures, rounds, dist, profileDir, report, signal } = options;
  const [amqpUrl] = options.amqpUrl.split(",");
  const children = new Children();
  signal.addEventListener("abort", () => children.killAll(), { once: true });
  const namespace = `bench-${randomBytes(5).toString("hex")}`;
  const profile = await Profile.for(profileDir, "bus");
  const open = (kind) =>
    Parties.open({ children, kind, dist, amqpUrl, namespace: `${namespace}-${kind}`, profile });
  const runs = [];
  try {
    const [ours, bare] = [await open("ours"), await open("bare")];
    const partiesOf = { ours, bare, direct: bare };
    // The first round compiles and warms up, and is not kept.
    for (let round = 0; round <= rounds; round += 1) {
      for (const name of measures) {
        const { contestants, measure } = MEASURES[name];
        // Whoever goes first meets a broker that has just done something else.
        const order = contestants.map((_, index) => contestants[(index + round) % contestants.length]);
        const line = [];
        for (const contestant of order) {
          signal.throwIfAborted();
          const result = await measure(partiesOf[contestant], contestant, options);
          if (round > 0) runs.push({ measure: name, contestant, round, ...result });
          line.push(`${contestant} ${textOf(result)}`);
        }
        if (round > 0) report(`round ${round} of ${rounds}  ${name.padEnd(12)} ${line.join(", ")}`);
      }
    }
    await Promise.all([ours.close(), bare.close()]);
    return runs;
  } finally {
    children.killAll();
    await dropNamespaces({ amqpUrl, dist, namespaces: [`${namespace}-ours`, `${namespace}-bare`] });
  }
}

function textOf({ p50Ms, perSecond }) {
  return p50Ms === undefined ? `${Math.round(perSecond)}/s` : `${p50Ms.toFixed(3)} ms`;
}

/** Who calls and who is called, in a process each. */
class Parties {
  #caller;
  #server;

  static async open({ children, kind, dist, amqpUrl, namespace, profile }) {
    const parties = new Parties();
    const start = (role) =>
      Party.start({
        children,
        kind,
        role,
        dist,
        amqpUrl,
        namespace,
        flags: profile.flags(`${kind}-${role}`),
      });
    [parties.#server, parties.#caller] = await Promise.all([start("server"), start("caller")]);
    await parties.#server.do("open", { nodes: NODES });
    await parties.#caller.do("open", { nodes: NODES });
    return parties;
  }

  latency(operation, bounds) {
    return this.#withServerCpu(() => this.#caller.do("latency", { operation, ...bounds }));
  }

  rate(operation, bounds) {
    return this.#withServerCpu(() => this.#caller.do("rate", { operation, ...bounds }));
  }

  /** From the first task that is sent to the last acknowledgement and confirmation. */
  tasks({ count, inFlight }) {
    return this.#withServerCpu(async () => {
      await this.#server.do("expect", { count });
      const { startedAt, seconds: sentIn, cpuSeconds } = await this.#caller.do("send", { count, inFlight });
      const { finishedAt } = await this.#server.do("taken");
      const seconds = Math.max(sentIn, (finishedAt - startedAt) / 1e9);
      return { count, seconds, cpuSeconds, perSecond: count / seconds };
    });
  }

  async close() {
    for (const party of [this.#caller, this.#server]) await party.close();
  }

  async #withServerCpu(measure) {
    const before = await this.#server.do("cpuSeconds");
    const { cpuSeconds, ...result } = await measure();
    const spent = cpuSeconds + (await this.#server.do("cpuSeconds")) - before;
    return { ...result, cpuMicrosecondsEach: (spent / result.count) * 1e6 };
  }
}

/** A process of bus-party.mjs. */
class Party {
  #child;
  #lastId = 0;
  #waiting = new Map();

  static async start({ children, kind, role, dist, amqpUrl, namespace, flags }) {
    const party = new Party();
    const program = path.join(import.meta.dirname, "bus-party.mjs");
    party.#child = children.start({
      name: `${role} (${kind})`,
      args: [...flags, program, kind, role, dist, amqpUrl, namespace],
      ipc: true,
    });
    party.#child.process.on("message", ({ id, result, error }) => {
      const settle = party.#waiting.get(id);
      if (settle === undefined) return;
      party.#waiting.delete(id);
      settle({ result, error });
    });
    await party.#child.tells("ready", START_MS);
    return party;
  }

  /** @throws what went wrong over there, also that it has ended or is too slow */
  async do(method, args) {
    this.#lastId += 1;
    const id = this.#lastId;
    const told = new Promise((resolve) => this.#waiting.set(id, resolve));
    this.#child.send({ id, method, args });
    const { result, error } = await Promise.race([told, this.#gone(method)]);
    if (error !== undefined) throw new Error(`${this.#child.name}: ${method}: ${error}`);
    return result;
  }

  async close() {
    await this.do("close");
    this.#child.process.disconnect();
    await this.#child.exits(START_MS);
  }

  async #gone(method) {
    const { code, signal } = await this.#child.exits(MEASURE_MS);
    throw new Error(`${this.#child.name} ended (${code ?? signal}) over ${method}\n${this.#child.output}`);
  }
}

async function dropNamespaces({ amqpUrl, dist, namespaces }) {
  const { Names } = await import(pathToFileURL(path.join(dist, "bus", "topology.js")).href);
  const connection = await connect(amqpUrl);
  try {
    const channel = await connection.createChannel();
    for (const names of namespaces.map((namespace) => new Names(namespace))) {
      const nodes = [
        DEAD_NODE,
        UNKNOWN_NODE,
        ...Array.from({ length: NODES }, (_, index) => `node-${index}`),
      ];
      const queues = [names.tasks(), names.master(), names.rejected(), names.dead()];
      const exchanges = [
        names.events(),
        names.items(),
        names.broadcast(),
        names.cancels(),
        names.rejected(),
        names.dead(),
      ];
      for (const queue of queues) await channel.deleteQueue(queue);
      for (const exchange of [...exchanges, ...nodes.map(names.node)]) await channel.deleteExchange(exchange);
    }
  } finally {
    await connection.close();
  }
}
