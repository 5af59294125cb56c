import path from "node:path";
import { ApiClient } from "./api-client.mjs";
import { spawnGuarded } from "./processes.mjs";
import { step } from "./report.mjs";
import { SetupError } from "./setup-error.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const READY_MS = 60_000;
const POLL_MS = 100;
/** How long a failure waits for the death of a member, which would be its cause. */
const DEATH_MS = 1_000;
/** A little more than the programs themselves take at most (WARREN_SHUTDOWN_TIMEOUT_MS). */
const STOP_MS = 27_000;

/** A master and its workers on this machine, each a process under a guard, with a log of its own. */
export class LocalCluster {
  #servers;
  #report;
  #port;
  #nodes;
  #mayFetchLoopback;
  #members = [];
  #isStopping = false;
  #startedAt = Date.now();

  /**
   * @param {object} options
   * @param {import("./servers.mjs").Servers} options.servers
   * @param {import("./report.mjs").Report} options.report
   * @param {number} options.port
   * @param {number} options.workers how many
   * @param {boolean} options.mayFetchLoopback
   */
  constructor({ servers, report, port, workers, mayFetchLoopback }) {
    this.#servers = servers;
    this.#report = report;
    this.#port = port;
    this.#nodes = Array.from({ length: workers }, (_, index) => `worker-${index + 1}`);
    this.#mayFetchLoopback = mayFetchLoopback;
    this.api = new ApiClient(`http://127.0.0.1:${port}`, process.env.WARREN_API_TOKENS);
  }

  get logs() {
    return path.join(this.#servers.folder, "logs");
  }

  /**
   * Resolves when the master and all workers are ready for work.
   * @throws SetupError when they are not in time, or one of them ends
   */
  async start() {
    const count = this.#nodes.length;
    await step(this.#report, `Master and ${count} worker${count === 1 ? "" : "s"}: starting`, async () => {
      await Promise.all([
        this.#spawn("master", "dist/master.js", "--port", String(this.#port), "--host", "127.0.0.1"),
        ...this.#nodes.map((node) => this.#spawn(node, "dist/worker.js", "--node-id", node)),
      ]);
      await this.whileAlive(this.#ready());
    });
    this.#report(`Master: ${this.api.url} (dashboard and API); logs in ${path.relative(ROOT, this.logs)}`);
  }

  /**
   * @template T
   * @param {Promise<T>} promise
   * @returns {Promise<T>} rejected when a member ends before it is settled
   */
  whileAlive(promise) {
    const died = this.#members.map((member) => member.died);
    // A request may fail before it is known that the master is gone, and would say less about it.
    const settled = promise.catch(async (error) => {
      await Promise.race([new Promise((resolve) => setTimeout(resolve, DEATH_MS)), ...died]);
      throw error;
    });
    return Promise.race([settled, ...died]);
  }

  /** Ends the workers, and then the master that they tell about it. */
  async stop() {
    this.#isStopping = true;
    const [workers, masters] = [true, false].map((isWorker) =>
      this.#members.filter(({ name }) => name.startsWith("worker") === isWorker),
    );
    await Promise.all(workers.map(({ guarded }) => guarded.stop(STOP_MS)));
    await Promise.all(masters.map(({ guarded }) => guarded.stop(STOP_MS)));
  }

  async #spawn(name, ...args) {
    const { amqpUrl, mongodbUri, folder } = this.#servers;
    const guarded = await spawnGuarded(process.execPath, args, {
      ...{ cwd: ROOT, logFile: path.join(this.logs, `${name}.log`), runFolder: folder },
      env: {
        AMQP_URL: amqpUrl,
        MONGODB_URI: mongodbUri,
        WARREN_DATA_DIR: path.join(folder, name),
        // One for all workers would be taken by the first of them.
        WARREN_METRICS_PORT: undefined,
        ...(this.#mayFetchLoopback && { WARREN_ALLOWED_NETWORKS: withLoopback() }),
      },
    });
    const died = guarded.exited.then(({ code, signal }) => {
      if (this.#isStopping) return new Promise(() => {});
      const how = signal === null ? `exit code ${code}` : signal;
      const log = path.relative(ROOT, path.join(this.logs, `${name}.log`));
      throw new SetupError(`${name} has ended (${how}). The end of ${log}:\n${guarded.logTail()}`, {
        exitCode: 1,
      });
    });
    died.catch(() => {});
    this.#members.push({ name, guarded, died });
  }

  async #ready() {
    const deadline = performance.now() + READY_MS;
    for (;;) {
      const missing = await this.#whatIsMissing();
      if (missing === undefined) return;
      if (performance.now() > deadline) {
        throw new SetupError(
          `not ready after ${READY_MS / 1_000} s: ${missing}. The logs in ${path.relative(ROOT, this.logs)} say more`,
          { exitCode: 1 },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #whatIsMissing() {
    try {
      const response = await fetch(`${this.api.url}/readyz`);
      if (response.status !== 200) return `the master says ${await response.text()}`;
      const online = new Set();
      for await (const node of this.api.list("/api/v1/nodes")) {
        if (node.status === "online" && this.#isOfThisRun(node)) online.add(node.id);
      }
      const away = this.#nodes.filter((node) => !online.has(node));
      return away.length === 0 ? undefined : `${away.join(", ")} not online`;
    } catch (error) {
      return `the master does not answer (${error.cause?.message ?? error.message})`;
    }
  }

  /** A run before this one, on the same data, had nodes with the same names, which may be thought alive still. */
  #isOfThisRun(node) {
    return this.#servers.kind.mongodb !== "private" || Date.parse(node.startedAt) >= this.#startedAt;
  }
}

/** The networks that the environment allows, and loopback. */
function withLoopback() {
  const { WARREN_ALLOWED_NETWORKS: given } = process.env;
  return [...(given ? [given] : []), "127.0.0.0/8", "::1/128"].join(",");
}
