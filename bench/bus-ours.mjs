import path from "node:path";
import { pathToFileURL } from "node:url";
import {
  ARGS,
  CALL_TIMEOUT_MS,
  COMMAND,
  checkResult,
  DEAD_NODE,
  NODE,
  RESULT,
  TASK,
  TASK_PREFETCH,
  UNKNOWN_NODE,
} from "./bus-load.mjs";

/** The compiled bus, put together as masters and workers do. */
class Program {
  #buses = [];

  constructor({ dist, url, namespace }) {
    this.dist = dist;
    this.url = url;
    this.namespace = namespace;
  }

  async bus(id, role) {
    const load = (file) => import(pathToFileURL(path.join(this.dist, file)).href);
    const [{ Bus }, { silentLogger }, { systemClock }, { Metrics }] = await Promise.all(
      ["bus/index.js", "lib/logger.js", "lib/clock.js", "lib/metrics.js"].map(load),
    );
    const bus = new Bus(
      { urls: [this.url], namespace: this.namespace, identity: { role, id, version: "bench" } },
      { logger: silentLogger, clock: systemClock, metrics: new Metrics() },
    );
    await bus.start();
    this.#buses.push(bus);
    return bus;
  }

  async close() {
    await Promise.all(this.#buses.map((bus) => bus.stop()));
  }
}

export class Server extends Program {
  #taken = 0;
  #wanted = 0;
  #onTaken = () => {};

  async open({ nodes }) {
    const handlers = { [COMMAND]: async () => RESULT };
    for (let index = 0; index < nodes; index += 1) {
      const node = `node-${index}`;
      const bus = await this.bus(node, "worker");
      await bus.calls.serveNode(node, handlers);
      if (node === NODE) await this.#consume(bus);
    }
    const master = await this.bus("master", "master");
    await master.calls.serveMaster("master", handlers);
    const dead = await this.bus(DEAD_NODE, "worker");
    await dead.calls.serveNode(DEAD_NODE, handlers);
    await dead.stop();
  }

  /** Resolves with the instant at which so many tasks more were taken and acknowledged. */
  take(count) {
    this.#taken = 0;
    this.#wanted = count;
    return new Promise((resolve) => {
      this.#onTaken = resolve;
    });
  }

  async #consume({ tasks }) {
    await tasks.consume({ prefetch: TASK_PREFETCH }, (delivery) => {
      tasks.settle([delivery], { kind: "ack" });
      this.#taken += 1;
      if (this.#taken === this.#wanted) this.#onTaken(process.hrtime.bigint());
    });
  }
}

export class Caller extends Program {
  #bus;
  #nodes = [];

  async open({ nodes }) {
    this.#bus = await this.bus("caller", "master");
    this.#nodes = Array.from({ length: nodes }, (_, index) => `node-${index}`);
  }

  operations = {
    call: async () => {
      checkResult(await this.#bus.calls.callNode(NODE, COMMAND, ARGS, { timeoutMs: CALL_TIMEOUT_MS }));
    },
    masterCall: async () => {
      checkResult(await this.#bus.calls.callMaster(COMMAND, ARGS, { timeoutMs: CALL_TIMEOUT_MS }));
    },
    broadcast: async () => {
      const options = { timeoutMs: CALL_TIMEOUT_MS, expected: this.#nodes };
      const { answers, silent } = await this.#bus.calls.broadcastCall(COMMAND, ARGS, options);
      if (silent.length > 0) throw new Error(`no answer from ${silent.join(", ")}`);
      for (const { result } of answers) checkResult(result);
    },
    task: async () => {
      const message = { body: TASK, contentType: "application/json" };
      const [outcome] = await this.#bus.tasks.publish([message]);
      if (!outcome.ok) throw outcome.error;
    },
    deadNode: () => this.#isRefused(DEAD_NODE),
    unknownNode: () => this.#isRefused(UNKNOWN_NODE),
  };

  async #isRefused(node) {
    try {
      await this.#bus.calls.callNode(node, COMMAND, ARGS, { timeoutMs: CALL_TIMEOUT_MS });
    } catch (error) {
      if (error.code === "unavailable") return;
      throw error;
    }
    throw new Error(`${node} answered`);
  }
}
