import type { Events } from "../bus/index.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import {
  type HeartbeatOutcome,
  NODE_STATUSES,
  type NodeHeartbeat,
  type NodeRegistration,
  type NodeRow,
  type Nodes,
} from "../store/index.js";
import type { EventFeed } from "./event-feed.js";

export type NodeMonitorOptions = {
  /** Silent for so long, a node is suspected to be gone: three heartbeats missed. @default 6_500 */
  readonly suspectMs: number;
  /** Silent for so long, it counts as gone. @default 15_000 */
  readonly offlineMs: number;
  /** How often to look, in milliseconds; events of nodes make it look at once. @default 1_000 */
  readonly refreshMs: number;
};

export const NODE_MONITOR_DEFAULTS: NodeMonitorOptions = {
  suspectMs: 6_500,
  offlineMs: 15_000,
  refreshMs: 1_000,
};

export type NodeMonitorParts = {
  readonly nodes: Nodes;
  readonly events: Pick<Events, "publish">;
  readonly feed: EventFeed;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
};

type Change = "online" | "suspect" | "offline";

/**
 * Watches over the nodes: notes their heartbeats, finds those that fell silent, and knows how much work all of
 * them can hold. Every master does so; each change is made by one update in the store, judged by its clock,
 * and the master whose update it was tells of it.
 */
export class NodeMonitor implements Service {
  readonly name = "node monitor";
  readonly #parts: NodeMonitorParts;
  readonly #options: NodeMonitorOptions;
  readonly #listeners = new Set<(capacity: number) => void>();
  #capacity = 0;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #isRunning = false;
  #stopTimer: StopTimer = () => {};
  #unsubscribe: () => void = () => {};

  constructor(parts: NodeMonitorParts, options: Partial<NodeMonitorOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...NODE_MONITOR_DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    this.#isRunning = true;
    this.#unsubscribe = this.#parts.feed.on("node.*", () => void this.refresh());
    await this.refresh();
    this.#again();
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    this.#unsubscribe();
    this.#stopTimer();
    await this.#looking;
  }

  /** Tasks that all nodes online can have at once, paused and draining ones left out; as of the last look. */
  capacity(): number {
    return this.#capacity;
  }

  /** Calls `listener` whenever the capacity changes, until the returned function is called. */
  onCapacityChange(listener: (capacity: number) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @returns false when a later start of this node is known */
  async register(registration: NodeRegistration): Promise<boolean> {
    const isCurrent = await this.#parts.nodes.register(registration);
    if (isCurrent) this.#tell("online", registration.id, { epoch: registration.epoch });
    return isCurrent;
  }

  async heartbeat(heartbeat: NodeHeartbeat): Promise<HeartbeatOutcome> {
    const outcome = await this.#parts.nodes.heartbeat(heartbeat);
    if (outcome === "returned") {
      this.#tell("online", heartbeat.id, { epoch: heartbeat.epoch });
    }
    return outcome;
  }

  /** A node says that it leaves. */
  async leave(id: string, epoch: number): Promise<void> {
    await this.#parts.nodes.leave(id, epoch);
    this.#tell("offline", id, { epoch, reason: "left" });
  }

  /** Looks now; what is asked for while it looks makes it look once more. */
  refresh(): Promise<void> {
    if (this.#looking !== undefined) {
      this.#lookAgain = true;
      return this.#looking;
    }
    this.#looking = this.#lookUntilSeen().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #lookUntilSeen(): Promise<void> {
    do {
      this.#lookAgain = false;
      try {
        await this.#look();
      } catch (error) {
        // The store is away. What was known last is the best guess.
        this.#parts.logger.warn({ error: messageOf(error) }, "could not look after the nodes");
      }
    } while (this.#lookAgain && this.#isRunning);
  }

  async #look(): Promise<void> {
    const { nodes, metrics } = this.#parts;
    const { suspectMs, offlineMs } = this.#options;
    this.#tellSilent("offline", await nodes.markOffline(offlineMs));
    this.#tellSilent("suspect", await nodes.markSuspect(suspectMs));
    const statuses = await nodes.statuses();
    for (const status of NODE_STATUSES) metrics.nodes.set({ status }, statuses.get(status) ?? 0);
    this.#setCapacity(await nodes.capacity());
  }

  #tellSilent(change: Change, nodes: readonly NodeRow[]): void {
    for (const { id, epoch, heartbeatAt } of nodes) {
      this.#tell(change, id, { epoch, heartbeatAt: new Date(heartbeatAt).toISOString() });
    }
  }

  #tell(change: Change, node: string, data: Readonly<Record<string, unknown>>): void {
    const { events, clock, logger } = this.#parts;
    const at = new Date(clock.now()).toISOString();
    logger.info({ node, change }, "a node changed");
    events.publish(`node.${change}`, [{ type: `node.${change}`, at, node, data }]);
  }

  #setCapacity(capacity: number): void {
    if (capacity === this.#capacity) return;
    this.#capacity = capacity;
    for (const listener of this.#listeners) listener(capacity);
  }

  #again(): void {
    if (!this.#isRunning) return;
    this.#stopTimer = this.#parts.clock.after(this.#options.refreshMs, () => {
      void this.refresh().then(() => this.#again());
    });
  }
}
