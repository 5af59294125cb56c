import { cpus, freemem, hostname, loadavg, totalmem } from "node:os";
import type { HandlersOf } from "../bus/index.js";
import type { Engine } from "../crawl/engine.js";
import type { Renderer } from "../crawl/render/renderer.js";
import type { Clock } from "../lib/clock.js";
import type { LogRing } from "../lib/log-ring.js";
import type { NodeCalls } from "../protocol/index.js";
import { type SyncableSpiders, syncSpider } from "./code/sync-spider.js";
import type { CrawlLog } from "./crawl-log/index.js";
import type { NodeConfiguration } from "./node-configuration.js";
import { Profiler } from "./profiler.js";
import type { Stopped, TaskLoop } from "./task-loop.js";

export type NodeCommandsDeps = {
  readonly node: string;
  readonly version: string;
  readonly identity: { readonly epoch: number };
  readonly loop: TaskLoop;
  /** Stops what of a crawl is in hand here. */
  readonly cancelCrawl: (crawl: string, generation?: number) => Stopped;
  readonly engine: Pick<Engine, "leaveAlone">;
  readonly renderer: Pick<Renderer, "describe">;
  readonly configuration: NodeConfiguration;
  readonly spiders: SyncableSpiders;
  /** What this process has logged of late. */
  readonly log: LogRing;
  /** What was logged here about crawls. */
  readonly crawlLog: Pick<CrawlLog, "read">;
  readonly clock: Clock;
  /** Ends the process in the orderly way. */
  readonly shutdown: () => void;
  /** Called when what the node tells of itself has changed. */
  readonly onChange: () => void;
};

/** What a node does when it is told to, by the name of the command. */
export function nodeCommands(deps: NodeCommandsDeps): HandlersOf<NodeCalls> {
  const { loop, configuration, clock, node, version, identity } = deps;
  const profiler = new Profiler(clock);
  const config = () => configuration.current;
  return {
    ping: async () => ({ node, at: new Date(clock.now()).toISOString() }),

    "system-info": async () => ({
      node,
      version,
      epoch: identity.epoch,
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
      rendering: await deps.renderer.describe(),
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

    "get-log": async ({ crawl, ...args }) => {
      if (crawl !== undefined) {
        const page = await deps.crawlLog.read({ crawl, ...args });
        const lines = page.lines.map(({ at, message, ...line }) => ({
          ...line,
          time: new Date(at).toISOString(),
          msg: message,
        }));
        return { lines, next: page.next };
      }
      const { lines, next } = deps.log.read(args);
      return { lines: lines.map((line) => ({ level: "", time: "", ...line })), next };
    },

    "get-profile": ({ kind, seconds }, { signal }) => profiler.profile(kind, seconds, signal),

    "set-config": async (change) => {
      await configuration.change(change);
      deps.onChange();
      return config();
    },

    "sync-spider": (args) => syncSpider(deps.spiders, args),

    pause: async () => {
      await configuration.change({ paused: true });
      deps.onChange();
      return { status: "paused" };
    },

    resume: async () => {
      await configuration.change({ paused: false });
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

    "cancel-crawl": async ({ crawl, generation }) => deps.cancelCrawl(crawl, generation),

    "leave-host": async ({ host, until }) => {
      deps.engine.leaveAlone(host, until);
      return { host };
    },

    "cancel-task": async ({ task }) => ({ cancelled: loop.cancelTask(task) }),
  };
}
