import { freemem, hostname, loadavg, totalmem } from "node:os";
import { CallError } from "../bus/index.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import type { WarrenCalls } from "../protocol/index.js";
import type { NodeConfiguration } from "./node-configuration.js";
import type { NodeIdentity } from "./node-identity.js";
import type { TaskLoop } from "./task-loop.js";

export type NodePresenceOptions = {
  readonly node: string;
  readonly version: string;
  /** @default 2_000 */
  readonly heartbeatMs: number;
  /** Told when it registers. @default those that it had */
  readonly labels?: Readonly<Record<string, string>>;
};

export type NodePresenceDeps = {
  readonly identity: Pick<NodeIdentity, "epoch" | "outdated">;
  readonly configuration: Pick<NodeConfiguration, "revision" | "adopt">;
  readonly calls: WarrenCalls;
  readonly loop: TaskLoop;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called with the crawls that a master says are closed. */
  readonly onClosed: (crawls: readonly string[]) => void;
};

/**
 * Makes the node known to the masters and keeps saying that it lives. A heartbeat is a call, so a master that
 * does not know the node (any more) says so, and the node registers again.
 */
export class NodePresence implements Service {
  readonly name = "node presence";
  readonly #options: NodePresenceOptions;
  readonly #deps: NodePresenceDeps;
  #stopTimer: StopTimer | undefined;
  #isStopped = false;
  #isRegistered = false;
  #beating: Promise<void> | undefined;
  #failures = 0;

  constructor(options: NodePresenceOptions, deps: NodePresenceDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Does not wait for a master: a worker can do without one for as long as there is work. */
  async start(): Promise<void> {
    this.beatNow();
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stopTimer?.();
    await this.#beating;
    // Where nobody has answered of late nobody will now.
    if (!this.#isRegistered || this.#failures > 0) return;
    try {
      await this.#heartbeat("offline", FAREWELL_TIMEOUT_MS);
    } catch {
      // Its silence will tell.
    }
  }

  /** Something about the node has changed, or it is time. */
  beatNow(): void {
    if (this.#isStopped || this.#beating !== undefined) return;
    this.#stopTimer?.();
    this.#beating = this.#beat().finally(() => {
      this.#beating = undefined;
      if (this.#isStopped) return;
      // The first to fail may have been a master that froze over it: another is asked at once.
      const waitMs = this.#failures === 1 ? 0 : this.#options.heartbeatMs;
      this.#stopTimer = this.#deps.clock.after(waitMs, () => this.beatNow());
    });
  }

  async #beat(): Promise<void> {
    const { identity, configuration, calls, onClosed, logger } = this.#deps;
    try {
      if (!this.#isRegistered) {
        const { closed, wanted } = await calls.callMaster(
          "register-node",
          {
            ...this.#report,
            host: hostname(),
            pid: process.pid,
            ...(this.#options.labels !== undefined && { labels: this.#options.labels }),
          },
          { timeoutMs: CALL_TIMEOUT_MS },
        );
        this.#isRegistered = true;
        onClosed(closed.map(({ id }) => id));
        await configuration.adopt(wanted);
        logger.info("registered");
        if (this.#status !== "online") await this.#heartbeat(this.#status, CALL_TIMEOUT_MS);
      } else {
        const { outcome, wanted } = await this.#heartbeat(this.#status, CALL_TIMEOUT_MS);
        // Known no more: it was silent for long, or the database is a new one.
        if (outcome === "unknown" || outcome === "stale") this.#isRegistered = false;
        if (outcome === "stale") identity.outdated();
        await configuration.adopt(wanted);
      }
      this.#failures = 0;
    } catch (error) {
      if (error instanceof CallError && error.code === "conflict") this.#deps.identity.outdated();
      this.#failures += 1;
      const level = this.#failures === 3 ? "warn" : "debug";
      this.#deps.logger[level]({ error: messageOf(error) }, "no master answers; working on without");
    }
  }

  get #status(): "online" | "paused" | "draining" {
    const { loop } = this.#deps;
    if (loop.isDraining) return "draining";
    return loop.isPaused ? "paused" : "online";
  }

  #heartbeat(status: "online" | "paused" | "draining" | "offline", timeoutMs: number) {
    const { loop, configuration, calls } = this.#deps;
    const memory = {
      totalBytes: totalmem(),
      freeBytes: freemem(),
      rssBytes: process.memoryUsage.rss(),
    };
    const said = {
      ...this.#report,
      ...{ status, active: loop.active, revision: configuration.revision, load: loadavg(), memory },
    };
    return calls.callMaster("heartbeat", said, { timeoutMs });
  }

  get #report() {
    const { loop, identity } = this.#deps;
    const { node, version } = this.#options;
    return { id: node, epoch: identity.epoch, version, concurrency: loop.concurrency };
  }
}

/** Short enough that a node is not suspected because one master froze, in milliseconds. */
const CALL_TIMEOUT_MS = 3_000;
const FAREWELL_TIMEOUT_MS = 1_000;
