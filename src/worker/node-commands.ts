import { cpus, freemem, hostname, loadavg, totalmem } from "node:os";
import type { Clock } from "../lib/clock.js";
import { LOG_LEVELS, type Logger } from "../lib/logger.js";
import { CommandError } from "./errors.js";
import type { TaskLoop } from "./task-loop.js";

export type NodeCommandsDeps = {
  readonly node: string;
  readonly version: string;
  readonly epoch: number;
  readonly loop: TaskLoop;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Ends the process in the orderly way. */
  readonly shutdown: () => void;
  /** Called when what the node tells of itself has changed. */
  readonly onChange: () => void;
};

type Args = Readonly<Record<string, unknown>>;
export type NodeHandlers = Readonly<Record<string, (args: Args) => Promise<unknown>>>;

/** What a node does when it is told to, by the name of the command. */
export function nodeCommands(deps: NodeCommandsDeps): NodeHandlers {
  const { loop, clock, logger, node, version, epoch } = deps;
  const config = () => ({ concurrency: loop.concurrency, logLevel: logger.level });
  return {
    ping: async () => ({ node, at: new Date(clock.now()).toISOString() }),

    "system-info": async () => ({
      node,
      version,
      epoch,
      host: hostname(),
      pid: process.pid,
      platform: `${process.platform} ${process.arch}`,
      nodeVersion: process.version,
      uptimeSeconds: Math.round(process.uptime()),
      cpus: cpus().length,
      load: loadavg(),
      memory: { totalBytes: totalmem(), freeBytes: freemem(), rssBytes: process.memoryUsage.rss() },
      ...config(),
      active: loop.active,
      status: loop.isDraining ? "draining" : loop.isPaused ? "paused" : "online",
    }),

    "active-tasks": async () => ({
      tasks: loop.tasks.map(({ task: { id, crawl, url, attempts }, isRunning }) => ({
        id,
        crawl,
        url,
        attempt: attempts + 1,
        running: isRunning,
      })),
    }),

    "get-config": async () => config(),

    "set-config": async (args) => {
      refuseUnknown(args, ["concurrency", "logLevel"]);
      const { concurrency, logLevel } = args;
      if (concurrency !== undefined) {
        if (!Number.isInteger(concurrency) || Number(concurrency) < 1 || Number(concurrency) > 1_000) {
          throw new CommandError("invalid", "concurrency must be a whole number from 1 to 1000");
        }
      }
      const level = LOG_LEVELS.find((name) => name === logLevel);
      if (logLevel !== undefined && level === undefined) {
        throw new CommandError("invalid", `logLevel must be one of ${LOG_LEVELS.join(", ")}`);
      }
      if (level !== undefined) logger.level = level;
      if (concurrency !== undefined) await loop.setConcurrency(Number(concurrency));
      deps.onChange();
      return config();
    },

    pause: async () => {
      await loop.pause();
      deps.onChange();
      return { status: "paused" };
    },

    resume: async () => {
      await loop.resume();
      deps.onChange();
      return { status: "online" };
    },

    drain: async () => {
      await loop.drain();
      deps.onChange();
      return { status: "draining", active: loop.active };
    },

    shutdown: async () => {
      // After the reply is on its way.
      setImmediate(deps.shutdown);
      return { status: "draining" };
    },

    "cancel-crawl": async (args) => loop.cancelCrawl(textArg(args, "crawl")),

    "cancel-task": async (args) => ({ cancelled: loop.cancelTask(textArg(args, "task")) }),
  };
}

function textArg(args: Args, name: string): string {
  const value = args[name];
  if (typeof value !== "string" || value === "") throw new CommandError("invalid", `${name} must be a text`);
  return value;
}

function refuseUnknown(args: Args, known: readonly string[]): void {
  for (const name of Object.keys(args)) {
    if (!known.includes(name)) throw new CommandError("invalid", `unknown argument ${name}`);
  }
}
