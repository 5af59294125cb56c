import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { eventually, untilReady, withFreshPorts } from "./own-server.mjs";
import { freePort } from "./ports.mjs";
import { spawnGuarded, tailOf } from "./processes.mjs";
import { findProgram } from "./programs.mjs";
import { step } from "./report.mjs";
import { SetupError } from "./setup-error.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const START_MS = 120_000;
const STOP_MS = 20_000;
const CONTROL_MS = 60_000;
/** A package manager that is cut short leaves a mess. */
const INSTALL_GRACE_MS = 120_000;

/** The packages' own folders come before PATH: what Debian puts into PATH changes the user. */
const PLACES = [
  "/usr/lib/rabbitmq/bin",
  "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
  "/opt/homebrew/sbin",
  "/opt/homebrew/opt/rabbitmq/sbin",
  "/usr/local/opt/rabbitmq/sbin",
];
const EPMD_PLACES = ["/usr/lib/erlang/bin", "/usr/lib/erlang/erts-*/bin", "/usr/lib64/erlang/erts-*/bin"];
const HOW_TO =
  "install RabbitMQ (Debian or Ubuntu: apt-get install rabbitmq-server), start Docker, or set AMQP_URL";

/** @typedef {import("./report.mjs").Report} Report */

/**
 * @typedef {object} Installation The programs of a RabbitMQ, each as a command line to which arguments can be added.
 * @property {(folder: string, report: Report) => Promise<readonly string[]>} rabbitmq for a node that keeps all that
 *   it has in that folder
 * @property {(folder: string) => readonly string[]} epmd
 */

/** @type {Installation} */
const ON_THIS_MACHINE = {
  rabbitmq: async (_folder, report) => [await findOrInstall(report)],
  epmd: () => [findEpmd()],
};

/** A RabbitMQ of our own: a process on loopback ports, with all that it keeps in one folder. */
export class PrivateRabbit {
  #folder;
  #installation;
  #joins;
  #runFolder;
  #report;
  #broker;
  #portMapper;
  #ports;
  #env;
  #settings;
  #plugins;

  /**
   * @param {object} options
   * @param {string} options.folder
   * @param {Report} [options.report]
   * @param {string} [options.runFolder] the run's folder, which nobody takes over before the broker has ended
   * @param {Installation} [options.installation] instead of the machine's own RabbitMQ
   * @param {PrivateRabbit} [options.joins] one that runs, whose cluster it becomes a member of; that one is to be
   *   stopped after all that joined it
   * @param {readonly string[]} [options.settings] further lines of rabbitmq.conf
   * @param {readonly string[]} [options.plugins] beside the management page
   */
  constructor({
    folder,
    report = () => {},
    runFolder,
    installation = ON_THIS_MACHINE,
    joins,
    settings = [],
    plugins = [],
  }) {
    this.#folder = folder;
    this.#joins = joins;
    this.#installation = installation;
    this.#settings = settings;
    this.#plugins = plugins;
    this.#report = report;
    this.#runFolder = runFolder;
  }

  get url() {
    return `amqp://guest:guest@127.0.0.1:${this.#ports.amqp}`;
  }

  get managementUrl() {
    return `http://127.0.0.1:${this.#ports.management}`;
  }

  /** Its name in Erlang, and in its cluster. The same in each run, since the data belongs to it; another for each folder. */
  get nodeName() {
    return `warren-${createHash("sha256").update(this.#folder).digest("hex").slice(0, 10)}@localhost`;
  }

  /** Starts it, on the same ports and data as before if it ran before. */
  async start() {
    const command = await this.#installation.rabbitmq(this.#folder, this.#report);
    for (const name of ["data", "log", "home", "schema"])
      mkdirSync(path.join(this.#folder, name), { recursive: true });
    await step(this.#report, "RabbitMQ: starting", async () => {
      if (this.#ports !== undefined) await this.#startOn(command, this.#ports);
      else
        this.#ports = await withFreshPorts(
          () => this.#choosePorts(),
          (ports) => this.#startOn(command, ports),
        );
    });
    this.#report(
      `RabbitMQ: ready at 127.0.0.1:${this.#ports.amqp}, logs in ${path.relative(ROOT, path.join(this.#folder, "log"))}`,
    );
  }

  /** Ends it in the orderly way. */
  async stop() {
    await this.#broker?.stop(STOP_MS);
    await this.#portMapper?.stop(2_000);
  }

  /** Ends it as a power cut would. */
  async kill() {
    await this.#broker?.kill();
  }

  /** Ends it in the orderly way, and starts it again on the same ports and data. */
  async restart() {
    await this.stop();
    await this.start();
  }

  /**
   * Runs its command line tool on it.
   * @param {readonly string[]} args
   * @throws Error with what the tool said
   */
  async control(...args) {
    const tool = findProgram("rabbitmqctl", PLACES);
    if (tool === undefined || this.#env === undefined)
      throw new Error("there is no rabbitmqctl, or no RabbitMQ yet");
    const env = { ...process.env, ...this.#env };
    await promisify(execFile)(tool, args, { env, timeout: CONTROL_MS });
  }

  async #startOn([program, ...args], ports) {
    const env = this.#configure(ports);
    this.#env = env;
    await this.#startPortMapper(ports, env);
    const logFile = path.join(this.#folder, "log", "start.log");
    this.#broker = await spawnGuarded(program, args, {
      ...{ env, cwd: this.#folder, logFile, runFolder: this.#runFolder, graceMs: STOP_MS },
    });
    const ready = () => waitForAmqp(ports.amqp, START_MS);
    try {
      await untilReady({ name: "RabbitMQ", server: this.#broker, ready, logFile });
    } catch (error) {
      await this.#portMapper?.stop(2_000);
      throw error;
    }
  }

  /**
   * A node announces itself to a port mapper (epmd), which it starts if there is none. The usual one is shared with
   * all others on the machine and outlives us, so ours is started beforehand, on a port of its own.
   */
  async #startPortMapper(ports, env) {
    if (this.#joins !== undefined || this.#portMapper?.isRunning === true) return;
    const [program, ...args] = this.#installation.epmd(this.#folder);
    const logFile = path.join(this.#folder, "log", "epmd.log");
    const listening = ["-port", String(ports.epmd), "-address", "127.0.0.1"];
    this.#portMapper = await spawnGuarded(program, [...args, ...listening], {
      ...{ env, cwd: this.#folder, logFile, runFolder: this.#runFolder },
      // After the broker, which tells it that it leaves.
      graceMs: 1_000,
    });
    const ready = () => eventually(10_000, () => connects(ports.epmd));
    await untilReady({ name: "epmd", server: this.#portMapper, ready, logFile });
  }

  /** Members of a cluster find each other through the same port mapper. */
  async #choosePorts() {
    const [amqp, management, distribution, epmd] = await Promise.all(Array.from({ length: 4 }, freePort));
    return {
      amqp,
      management,
      distribution,
      epmd: this.#joins === undefined ? epmd : this.#joins.#ports.epmd,
    };
  }

  /** Writes its configuration; gives its environment. */
  #configure(ports) {
    const place = (name) => path.join(this.#folder, name);
    writeFileSync(place("plugins"), `[${["rabbitmq_management", ...this.#plugins].join(",")}].\n`);
    writeFileSync(place("advanced.config"), "[].\n");
    writeFileSync(
      place("rabbitmq.conf"),
      [
        `listeners.tcp.1 = 127.0.0.1:${ports.amqp}`,
        "management.tcp.ip = 127.0.0.1",
        `management.tcp.port = ${ports.management}`,
        // The alarms' usual limits are for machines that are the broker's own.
        "disk_free_limit.absolute = 50MB",
        "vm_memory_high_watermark.relative = 0.6",
        ...(this.#joins === undefined
          ? []
          : [
              "cluster_formation.peer_discovery_backend = classic_config",
              `cluster_formation.classic_config.nodes.1 = ${this.#joins.nodeName}`,
            ]),
        ...this.#settings,
        "",
      ].join("\n"),
    );
    const inherited = Object.keys(process.env).filter((name) => /^(RABBITMQ|ERL)_/.test(name));
    return {
      // What is set there is meant for another node.
      ...Object.fromEntries(inherited.map((name) => [name, undefined])),
      // The Erlang cookie lives there, which members of a cluster share.
      HOME: path.join((this.#joins ?? this).#folder, "home"),
      ERL_EPMD_PORT: String(ports.epmd),
      ERL_EPMD_ADDRESS: "127.0.0.1",
      RABBITMQ_NODENAME: this.nodeName,
      RABBITMQ_CONF_ENV_FILE: place("none"),
      RABBITMQ_CONFIG_FILE: place("rabbitmq.conf"),
      RABBITMQ_ADVANCED_CONFIG_FILE: place("advanced.config"),
      RABBITMQ_ENABLED_PLUGINS_FILE: place("plugins"),
      RABBITMQ_MNESIA_BASE: place("data"),
      RABBITMQ_SCHEMA_DIR: place("schema"),
      RABBITMQ_LOG_BASE: place("log"),
      RABBITMQ_DIST_PORT: String(ports.distribution),
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
    };
  }
}

/** A private RabbitMQ that is up. */
export async function startRabbit(options) {
  const rabbit = new PrivateRabbit(options);
  await rabbit.start();
  return rabbit;
}

/**
 * Checks that a broker answers and lets us in, at one of the URLs at least.
 * @param {string} urls comma-separated, as in AMQP_URL
 * @throws SetupError that names AMQP_URL
 */
export async function checkAmqpUrl(urls) {
  const { connect } = await import("amqplib");
  const failures = [];
  for (const url of urls.split(",").map((part) => part.trim())) {
    if (!URL.canParse(url) || !/^amqps?:$/.test(new URL(url).protocol)) {
      throw new SetupError("AMQP_URL must look like amqp://user:password@host:5672, and this does not");
    }
    try {
      const connection = await connect(url, { timeout: 5_000, noDelay: true });
      connection.on("error", () => {});
      await connection.close();
      return;
    } catch (error) {
      failures.push(`${new URL(url).host}: ${error.message || error.code || error.errors?.[0]?.message}`);
    }
  }
  throw new SetupError(
    `AMQP_URL: no RabbitMQ there that lets us in (${failures.join("; ")}). Start it, correct AMQP_URL, or unset it to have one started`,
  );
}

function findEpmd() {
  const program = findProgram("epmd", EPMD_PLACES);
  if (program !== undefined) return program;
  throw new SetupError(
    `epmd, a part of Erlang that RabbitMQ needs, is in none of ${EPMD_PLACES.join(", ")} and not in PATH: put it there, start Docker, or set AMQP_URL`,
  );
}

function connects(port) {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host: "127.0.0.1", port });
    socket.once("error", reject);
    socket.once("connect", () => socket.end(resolve));
  });
}

/** Resolves when something answers there as an AMQP 0-9-1 broker does. */
async function waitForAmqp(port, timeoutMs) {
  await eventually(timeoutMs, () => {
    return new Promise((resolve, reject) => {
      const socket = connectTcp({ host: "127.0.0.1", port });
      socket.setTimeout(5_000, () => socket.destroy(new Error("no answer")));
      socket.once("error", reject);
      socket.once("connect", () => socket.write("AMQP\0\0\x09\x01"));
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

/**
 * Installs the package's programs and none of its services: a service that a package brings starts at once, unless
 * a policy forbids it (invoke-rc.d(8)), and with the machine. A shell does it, so that the policy goes again
 * whatever becomes of us.
 */
const INSTALL = `
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 143' INT TERM
  printf '#!/bin/sh\\nexit 101\\n' > "$policy"
  chmod 755 "$policy"
fi
before=" $(ls /etc/systemd/system/*.wants 2>/dev/null | tr '\\n' ' ') "
apt-get update || { sleep 5; apt-get update; } || echo "going on with the package lists as they are"
install() { apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends rabbitmq-server; }
install || { dpkg --configure -a && install; } || exit 1
if command -v systemctl > /dev/null; then
  for unit in rabbitmq-server.service epmd.service epmd.socket; do
    case "$before" in
      *" $unit "*) ;;
      *) systemctl disable "$unit" > /dev/null 2>&1; systemctl stop "$unit" > /dev/null 2>&1 ;;
    esac
  done
fi
exit 0
`;

async function findOrInstall(report) {
  const found = findProgram("rabbitmq-server", PLACES);
  if (found !== undefined) return found;
  if (process.getuid?.() !== 0 || findProgram("apt-get") === undefined) {
    throw new SetupError(
      `RabbitMQ is not on this machine, and only root on Debian or Ubuntu can install it here: ${HOW_TO}`,
    );
  }
  const logFile = path.join(ROOT, ".warren", "logs", "install-rabbitmq.log");
  report(`RabbitMQ is not on this machine; the installation's log is ${path.relative(ROOT, logFile)}`);
  await step(report, "RabbitMQ: installing it (apt-get install rabbitmq-server)", async () => {
    const installing = await spawnGuarded("/bin/sh", ["-c", INSTALL], {
      ...{ env: { DEBIAN_FRONTEND: "noninteractive" }, logFile, graceMs: INSTALL_GRACE_MS },
    });
    const { code } = await installing.exited;
    if (code !== 0) throw new SetupError(`RabbitMQ could not be installed; ${HOW_TO}\n${tailOf(logFile)}`);
  });
  const installed = findProgram("rabbitmq-server", PLACES);
  if (installed === undefined) throw new SetupError(`RabbitMQ was installed but cannot be found; ${HOW_TO}`);
  return installed;
}
