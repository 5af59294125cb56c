import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "..");
const KEPT_OUTPUT = 65_536;

/**
 * The processes that a benchmark starts. None outlives it: whatever still runs is killed when this process
 * exits, for whatever reason.
 */
export class Children {
  #running = new Set();

  constructor() {
    process.once("exit", () => this.killAll());
  }

  killAll() {
    for (const child of this.#running) child.kill("SIGKILL");
  }

  /**
   * Starts a Node program.
   * @param {{ name: string, args: string[], env?: Record<string, string>, ipc?: boolean }} options
   */
  start({ name, args, env = {}, ipc = false }) {
    const process_ = spawn(process.execPath, args, {
      cwd: ROOT,
      env: { ...cleanEnvironment(), ...env },
      stdio: ["ignore", "pipe", "pipe", ...(ipc ? ["ipc"] : [])],
    });
    this.#running.add(process_);
    process_.once("exit", () => this.#running.delete(process_));
    return new Child(name, process_);
  }
}

/** A running program: what it says, and how it ends. */
export class Child {
  #output = "";
  #watchers = new Set();
  #exited;

  constructor(name, process_) {
    this.name = name;
    this.process = process_;
    const take = (chunk) => {
      this.#output = (this.#output + chunk.toString("utf8")).slice(-KEPT_OUTPUT);
      for (const watcher of this.#watchers) watcher();
    };
    process_.stdout.on("data", take);
    process_.stderr.on("data", take);
    this.#exited = once(process_, "exit").then(([code, signal]) => {
      for (const watcher of this.#watchers) watcher();
      return { code, signal };
    });
    this.#exited.catch(() => {});
  }

  get pid() {
    return this.process.pid;
  }

  get hasEnded() {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  /** The end of what it wrote to its standard streams. */
  get output() {
    return this.#output;
  }

  send(message) {
    this.process.send(message);
  }

  /** The first group of a pattern, as soon as it has written a line that matches. */
  says(pattern, timeoutMs) {
    return this.#await(`to say ${pattern}`, timeoutMs, (settle) => {
      const look = () => {
        const match = pattern.exec(this.#output);
        if (match !== null) settle(match[1] ?? match[0]);
      };
      this.#watchers.add(look);
      look();
      return () => this.#watchers.delete(look);
    });
  }

  /** The next message of a type that it sends over IPC. */
  tells(type, timeoutMs) {
    return this.#await(`to tell "${type}"`, timeoutMs, (settle) => {
      const take = (message) => {
        if (message?.type === type) settle(message);
      };
      this.process.on("message", take);
      return () => this.process.off("message", take);
    });
  }

  /** Resolves with `{ code, signal }`. */
  exits(timeoutMs) {
    if (timeoutMs === undefined) return this.#exited;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(this.#failure(`did not exit within ${timeoutMs} ms`)), timeoutMs);
    });
    return Promise.race([this.#exited, late]).finally(() => clearTimeout(timer));
  }

  /** Asks it to stop, and kills it if it does not within 30 s. */
  async stop(signal = "SIGTERM") {
    if (this.hasEnded) return;
    this.process.kill(signal);
    const timer = setTimeout(() => this.process.kill("SIGKILL"), 30_000);
    await this.#exited;
    clearTimeout(timer);
  }

  #await(what, timeoutMs, begin) {
    return new Promise((resolve, reject) => {
      let stop = () => {};
      const end = (action) => {
        clearTimeout(timer);
        stop();
        this.process.off("exit", onExit);
        action();
      };
      const timer = setTimeout(
        () => end(() => reject(this.#failure(`was waited for ${timeoutMs} ms ${what}`))),
        timeoutMs,
      );
      // What it wrote last may still be on its way.
      const onExit = (code, signal) =>
        setTimeout(
          () => end(() => reject(this.#failure(`ended (${code ?? signal}) and was waited for ${what}`))),
          100,
        );
      stop = begin((value) => end(() => resolve(value)));
      if (this.hasEnded) onExit(this.process.exitCode, this.process.signalCode);
      else this.process.once("exit", onExit);
    });
  }

  #failure(what) {
    const tail = this.#output.trimEnd().split("\n").slice(-15).join("\n");
    return new Error(`${this.name} ${what}${tail === "" ? "" : `\n${tail}`}`);
  }
}

/** Our own settings in the environment would change what is measured. */
function cleanEnvironment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("WARREN_")));
}
