import { CallError, PublishReturnedError } from "../bus/index.js";
import { ANY_NODE, type NodeSelection, takesPart } from "../crawl/node-selection.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import type { WarrenBus } from "../protocol/index.js";
import {
  type HeartbeatAnswer,
  NODE_STATUSES,
  type NodeHeartbeat,
  type NodeRegistration,
  type NodeRow,
  type Nodes,
  type TakingNode,
} from "../store/index.js";
import type { EventFeed } from "./event-feed.js";

export type NodeMonitorOptions = {
  /** Silent for so long, a node is suspected to be gone: four heartbeats missed. @default 8_000 */
  readonly suspectMs: number;
  /** Silent for so long and gone from the broker, it counts as gone. @default 30_000 */
  readonly offlineMs: number;
  /**
   * A node that is gone from the broker before it was silent for so long has closed its connection: it ended, and
   * need not be waited for. Later on the broker may have given up one that is merely frozen, for which it takes
   * one and a half heartbeats of 10 s at least. @default 13_000
   */
  readonly closedMs: number;
  /** How often to look, in milliseconds; events of nodes make it look at once. @default 1_000 */
  readonly refreshMs: number;
  /**
   * How long the nodes are given to come back after this master was away itself, in milliseconds: twice the
   * longest wait between two of their attempts to connect, and some. @default 8_000
   */
  readonly graceMs: number;
};

export const NODE_MONITOR_DEFAULTS: NodeMonitorOptions = {
  suspectMs: 8_000,
  offlineMs: 30_000,
  closedMs: 13_000,
  refreshMs: 1_000,
  graceMs: 8_000,
};

/** A look that comes so much later than it should, or takes so long, shows that this master was away. */
const LATE_MS = 2_000;

/** How long the broker is given to say whether a node is there, in milliseconds. */
const ASK_TIMEOUT_MS = 1_500;

export type NodeMonitorParts = {
  readonly nodes: Nodes;
  readonly bus: Pick<WarrenBus, "events" | "calls" | "connected" | "onReconnect">;
  readonly feed: EventFeed;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
};

type Change = "online" | "suspect" | "offline";

/** What the broker said of a silent node. */
type Absence = {
  readonly epoch: number;
  /** Looks in a row at which it was gone. */
  readonly looks: number;
  /** For how long it had been silent at the first of them. */
  readonly sinceSilentMs: number;
};

/**
 * Watches over the nodes: notes their heartbeats, finds those that fell silent, and knows how much work all of
 * them can hold. Every master does so; each change is made by one update in the store, judged by its clock,
 * and the master whose update it was tells of it.
 *
 *   online ──silent for `suspectMs`──▶ suspect ──gone from the broker, and silent for `offlineMs`──▶ offline
 *      ▲                                  │   └─────gone from the broker at once: it ended────────────▲
 *      └──────────── heard of ────────────┴───────────────────────── heard of ────────────────────────┘
 *
 * Heartbeats are calls to any master over the broker, so a master that was away, or could not look, is no judge:
 * it counts a node's silence only from when it could have heard of it.
 */
export class NodeMonitor implements Service {
  readonly name = "node monitor";
  readonly #parts: NodeMonitorParts;
  readonly #options: NodeMonitorOptions;
  readonly #listeners = new Set<() => void>();
  #takers: readonly TakingNode[] = [];
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #isRunning = false;
  /** Monotonic instant from which on every node could have been heard. */
  #hearingSince = Number.POSITIVE_INFINITY;
  #lookedAt = Number.NEGATIVE_INFINITY;
  readonly #absences = new Map<string, Absence>();
  #stopTimer: StopTimer = () => {};
  #stopListening: (() => void)[] = [];

  constructor(parts: NodeMonitorParts, options: Partial<NodeMonitorOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...NODE_MONITOR_DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    this.#isRunning = true;
    const { feed, bus } = this.#parts;
    this.#wasAway();
    this.#stopListening = [
      ...(["online", "suspect", "offline"] as const).map((change) =>
        feed.on(`node.${change}`, () => void this.refresh()),
      ),
      bus.onReconnect(() => this.#wasAway()),
    ];
    await this.refresh();
    this.#again();
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    for (const stopListening of this.#stopListening.splice(0)) stopListening();
    this.#stopTimer();
    await this.#looking;
  }

  /** Tasks that the nodes that take part can have at once, paused and draining ones left out; as of the last look. */
  capacity(selection: NodeSelection = ANY_NODE): number {
    return this.#takers.reduce(
      (tasks, node) => tasks + (takesPart(selection, node) ? node.concurrency : 0),
      0,
    );
  }

  /** Calls `listener` whenever the capacity changes, until the returned function is called. */
  onCapacityChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @returns undefined when a later start of this node is known */
  async register(registration: NodeRegistration): Promise<NodeRow | undefined> {
    const node = await this.#parts.nodes.register(registration);
    if (node !== undefined) this.#tell("online", registration.id, { epoch: registration.epoch });
    return node;
  }

  async heartbeat(heartbeat: NodeHeartbeat): Promise<HeartbeatAnswer> {
    const { id, epoch, ...data } = heartbeat;
    const answer = await this.#parts.nodes.heartbeat(heartbeat);
    const { outcome } = answer;
    if (outcome === "returned") this.#tell("online", id, { epoch });
    if (outcome === "returned" || outcome === "noted") this.#publish("heartbeat", id, { epoch, ...data });
    return answer;
  }

  /** A node says that it leaves. */
  async leave(id: string, epoch: number): Promise<void> {
    if (await this.#parts.nodes.leave(id, epoch)) this.#tell("offline", id, { epoch, reason: "left" });
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
    const { clock, logger } = this.#parts;
    do {
      this.#lookAgain = false;
      const startedAt = clock.monotonic();
      try {
        await this.#look();
      } catch (error) {
        // The store is away, and so is what the nodes said meanwhile. What was known last is the best guess.
        this.#wasAway();
        logger.warn({ error: messageOf(error) }, "could not look after the nodes");
      }
      this.#lookedAt = clock.monotonic();
      if (this.#lookedAt - startedAt > LATE_MS) this.#wasAway();
    } while (this.#lookAgain && this.#isRunning);
  }

  async #look(): Promise<void> {
    const { nodes, metrics, bus, clock } = this.#parts;
    const { suspectMs, refreshMs } = this.#options;
    if (!bus.connected || clock.monotonic() - this.#lookedAt > refreshMs + LATE_MS) this.#wasAway();
    const heardForMs = clock.monotonic() - this.#hearingSince;
    if (heardForMs >= suspectMs) {
      this.#tellSilent("suspect", await nodes.markSuspect(suspectMs));
      await this.#judge(heardForMs);
    } else this.#absences.clear();
    const statuses = await nodes.statuses();
    for (const status of NODE_STATUSES) metrics.nodes.set({ status }, statuses.get(status) ?? 0);
    this.#setTakers(await nodes.takers());
  }

  /** Every node is given time to come back before its silence counts. */
  #wasAway(): void {
    this.#hearingSince = this.#parts.clock.monotonic() + this.#options.graceMs;
  }

  /** Asks the broker for those who are silent, and gives up those who are gone. */
  async #judge(heardForMs: number): Promise<void> {
    const { nodes } = this.#parts;
    const { suspectMs, offlineMs, closedMs } = this.#options;
    const silent = await nodes.silent(suspectMs);
    const asked = await Promise.all(
      silent.map(async (node) => ({ node, isGone: await this.#isGone(node.id) })),
    );
    const known = new Map(this.#absences);
    this.#absences.clear();
    const ended: string[] = [];
    const lost: string[] = [];
    for (const { node, isGone } of asked) {
      if (!isGone) continue;
      const { id, epoch, silentMs } = node;
      const before = known.get(id);
      const absence =
        before?.epoch === epoch
          ? { ...before, looks: before.looks + 1 }
          : { epoch, looks: 1, sinceSilentMs: silentMs };
      this.#absences.set(id, absence);
      // Whoever reconnects is gone for a moment, so one look is not enough.
      if (absence.looks > 1 && absence.sinceSilentMs < closedMs) ended.push(id);
      else if (silentMs > offlineMs && heardForMs > offlineMs) lost.push(id);
    }
    if (ended.length > 0) this.#tellSilent("offline", await nodes.markOffline(suspectMs, ended));
    if (lost.length > 0) this.#tellSilent("offline", await nodes.markOffline(offlineMs, lost));
  }

  /** Whether the broker has no queue of this node; what it does not say counts as no. */
  async #isGone(node: string): Promise<boolean> {
    try {
      await this.#parts.bus.calls.commandNode(node, "ping", {}, { timeoutMs: ASK_TIMEOUT_MS });
      return false;
    } catch (error) {
      return error instanceof CallError && error.cause instanceof PublishReturnedError;
    }
  }

  #tellSilent(change: Change, nodes: readonly NodeRow[]): void {
    for (const { id, epoch, heartbeatAt } of nodes) {
      this.#tell(change, id, { epoch, heartbeatAt: new Date(heartbeatAt).toISOString() });
    }
  }

  #tell(change: Change, node: string, data: Readonly<Record<string, unknown>>): void {
    this.#parts.logger.info({ node, change }, "a node changed");
    this.#publish(change, node, data);
  }

  #publish(what: Change | "heartbeat", node: string, data: Readonly<Record<string, unknown>>): void {
    const { bus, clock } = this.#parts;
    const type = `node.${what}`;
    bus.events.publish(type, [{ type, at: new Date(clock.now()).toISOString(), node, data }]);
  }

  #setTakers(takers: readonly TakingNode[]): void {
    const isSame = JSON.stringify(takers) === JSON.stringify(this.#takers);
    this.#takers = takers;
    if (!isSame) for (const listener of this.#listeners) listener();
  }

  #again(): void {
    if (!this.#isRunning) return;
    this.#stopTimer = this.#parts.clock.after(this.#options.refreshMs, () => {
      void this.refresh().then(() => this.#again());
    });
  }
}
