import type { Collection, Filter } from "mongodb";
import { z } from "zod";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";

export const NODE_STATUSES = ["online", "paused", "draining", "offline"] as const;
export type NodeStatus = (typeof NODE_STATUSES)[number];

/** What a node says of itself when it starts. */
export type NodeRegistration = {
  readonly id: string;
  /** Rises with each start of the node; an older one is a process that should be gone. */
  readonly epoch: number;
  readonly version: string;
  /** Tasks at once. */
  readonly concurrency: number;
  /** Name of the machine it runs on. */
  readonly host: string;
  readonly pid: number;
  readonly labels?: Readonly<Record<string, string>>;
};

/** What users want of a node, whether it is there or not; what is left out is as the node was started. */
export type WantedConfiguration = {
  /** Grows with each change: a node that knows a lower one has to catch up. */
  readonly revision: number;
  readonly concurrency?: number;
  readonly logLevel?: string;
  readonly paused?: boolean;
};

/** A change of what is wanted; null takes it back. */
export type WantedChange = {
  readonly concurrency?: number | null;
  readonly logLevel?: string | null;
  readonly paused?: boolean | null;
};

export type NodeMemory = {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Of the process. */
  readonly rssBytes: number;
};

/** What a node says now and then. */
export type NodeHeartbeat = {
  readonly id: string;
  readonly epoch: number;
  /** Tasks in its hands. */
  readonly active: number;
  /** @default "online" */
  readonly status?: Exclude<NodeStatus, "offline">;
  readonly concurrency?: number;
  /** Of the machine, over 1, 5 and 15 minutes. */
  readonly load?: readonly number[];
  readonly memory?: NodeMemory;
  readonly version?: string;
};

/**
 * What became of a heartbeat. `returned`: noted, and the node had been silent; `stale`: a later start of the
 * node is known; `unknown`: it has to register.
 */
export type HeartbeatOutcome = "noted" | "returned" | "stale" | "unknown";

export type HeartbeatAnswer = {
  readonly outcome: HeartbeatOutcome;
  readonly wanted?: WantedConfiguration;
};

/** A node; `_id` is its id. Dates are the server's. */
export type NodeDocument = Omit<NodeRegistration, "id"> & {
  readonly _id: string;
  readonly status: NodeStatus;
  readonly active: number;
  readonly startedAt: Date;
  readonly heartbeatAt: Date;
  readonly load?: readonly number[];
  readonly memory?: NodeMemory;
  readonly wanted?: WantedConfiguration;
  /** The look-round that found it silent. */
  readonly foundSilentBy?: string;
  /** When it was last marked offline. */
  readonly offlineAt?: Date;
};

/** A node that is offline, and since when, in milliseconds since the epoch by the server's clock. */
export type GoneNode = {
  readonly id: string;
  readonly offlineAt: number;
  /** It said so; otherwise it was not heard of. */
  readonly hasLeft: boolean;
};

/** A node as users see it. Instants in milliseconds since the epoch, by the server's clock. */
export type NodeRow = NodeRegistration & {
  readonly status: NodeStatus;
  readonly active: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly startedAt: number;
  readonly heartbeatAt: number;
  /** Not heard of for a while, and not given up yet. */
  readonly suspect: boolean;
  readonly load?: readonly number[];
  readonly memory?: NodeMemory;
  readonly wanted?: WantedConfiguration;
};

/** A node that takes tasks, and how many at once. */
export type TakingNode = {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly concurrency: number;
};

/** A node that fell silent, and for how long it has been, by the server's clock. */
export type SilentNode = { readonly id: string; readonly epoch: number; readonly silentMs: number };

const position = z.string();

/** The nodes that ever registered, and whether they live. */
export class Nodes {
  readonly #nodes: Collection<NodeDocument>;

  constructor(nodes: Collection<NodeDocument>) {
    this.#nodes = nodes;
  }

  /** @returns undefined when a later start of this node is known: the one that registers should leave */
  async register({ id, labels, ...node }: NodeRegistration): Promise<NodeRow | undefined> {
    // Fields from outside are literals: a name that begins with "$" must not be read as an expression.
    const fields = Object.fromEntries(
      Object.entries(node).map(([name, value]) => [name, { $literal: value }]),
    );
    const isStale = { $gt: ["$epoch", node.epoch] };
    const registered = await this.#nodes.findOneAndUpdate(
      { _id: id },
      [
        {
          $replaceWith: {
            $cond: [
              isStale,
              "$$ROOT",
              {
                _id: "$_id",
                ...fields,
                labels: labels === undefined ? { $ifNull: ["$labels", {}] } : { $literal: labels },
                status: "online",
                active: { $literal: 0 },
                wanted: { $ifNull: ["$wanted", "$$REMOVE"] },
                startedAt: { $cond: [{ $eq: ["$epoch", node.epoch] }, "$startedAt", "$$NOW"] },
                heartbeatAt: "$$NOW",
              },
            ],
          },
        },
      ],
      { upsert: true, returnDocument: "after" },
    );
    return registered?.epoch === node.epoch ? toRow(registered) : undefined;
  }

  async heartbeat({
    id,
    epoch,
    active,
    status = "online",
    ...about
  }: NodeHeartbeat): Promise<HeartbeatAnswer> {
    const told = Object.entries(about).filter(([, value]) => value !== undefined);
    const fields = Object.fromEntries(told.map(([name, value]) => [name, { $literal: value }]));
    const before = await this.#nodes.findOneAndUpdate(
      { _id: id, epoch },
      [
        {
          $set: {
            heartbeatAt: "$$NOW",
            active: { $literal: active },
            status,
            ...fields,
          },
        },
        { $unset: "foundSilentBy" },
      ],
      { returnDocument: "before", projection: { status: 1, foundSilentBy: 1, wanted: 1 } },
    );
    if (before !== null) {
      const wasAway = before.status === "offline" || before.foundSilentBy !== undefined;
      return {
        outcome: wasAway ? "returned" : "noted",
        ...(before.wanted !== undefined && { wanted: before.wanted }),
      };
    }
    const known = await this.#nodes.findOne({ _id: id }, { projection: { epoch: 1 } });
    return { outcome: known !== null && known.epoch > epoch ? "stale" : "unknown" };
  }

  /** A node says that it leaves. @returns false when it is offline already, or another start of it is known */
  async leave(id: string, epoch: number): Promise<boolean> {
    const left = await this.#nodes.updateOne(
      { _id: id, epoch, status: { $ne: "offline" } },
      {
        $set: { status: "offline", active: 0 },
        $unset: { foundSilentBy: "" },
        $currentDate: { offlineAt: true },
      },
    );
    return left.modifiedCount > 0;
  }

  /** Nodes marked as suspect, or silent for so long in spite of that, that are not offline. */
  async silent(silentMs: number): Promise<readonly SilentNode[]> {
    const nodes = await this.#nodes
      .aggregate<{ _id: string; epoch: number; silentMs: number }>([
        { $match: { status: { $ne: "offline" }, foundSilentBy: { $exists: true } } },
        { $project: { epoch: 1, silentMs: { $subtract: ["$$NOW", "$heartbeatAt"] } } },
        { $match: { silentMs: { $gt: silentMs } } },
      ])
      .toArray();
    return nodes.map(({ _id, ...node }) => ({ id: _id, ...node }));
  }

  /**
   * Notes what is wanted of a node. It need not be there: it catches up when it is.
   * @returns undefined when there is no such node
   */
  async want(id: string, change: WantedChange): Promise<WantedConfiguration | undefined> {
    const node = await this.#nodes.findOne({ _id: id }, { projection: { wanted: 1 } });
    if (node === null) return undefined;
    const known: Readonly<Record<string, unknown>> = node.wanted ?? {};
    const changes = Object.entries(change).filter(
      ([name, value]) => value !== undefined && (known[name] ?? null) !== value,
    );
    if (changes.length === 0) return node.wanted ?? { revision: 0 };
    const kept = changes.filter(([, value]) => value !== null);
    const takenBack = changes.filter(([, value]) => value === null);
    const changed = await this.#nodes.findOneAndUpdate(
      { _id: id },
      {
        $inc: { "wanted.revision": 1 },
        ...(kept.length > 0 && {
          $set: Object.fromEntries(kept.map(([name, value]) => [`wanted.${name}`, value])),
        }),
        ...(takenBack.length > 0 && {
          $unset: Object.fromEntries(takenBack.map(([name]) => [`wanted.${name}`, ""])),
        }),
      },
      { returnDocument: "after", projection: { wanted: 1 } },
    );
    return changed?.wanted;
  }

  /** What is wanted of a node, if anything is. */
  async wanted(id: string): Promise<WantedConfiguration | undefined> {
    return (await this.#nodes.findOne({ _id: id }, { projection: { wanted: 1 } }))?.wanted;
  }

  /**
   * Marks nodes offline that were silent for so long, by the server's clock.
   * @param ids only these; by default any
   * @returns those that this call marked: of several masters that look at once, one is told of each
   */
  async markOffline(silentMs: number, ids?: readonly string[]): Promise<readonly NodeRow[]> {
    const mark = `${Date.now()}.${Math.random()}`;
    const marked = await this.#nodes.updateMany(
      {
        ...(ids !== undefined && { _id: { $in: [...ids] } }),
        status: { $ne: "offline" },
        $expr: { $lt: ["$heartbeatAt", { $subtract: ["$$NOW", silentMs] }] },
      },
      { $set: { status: "offline", active: 0, foundSilentBy: mark }, $currentDate: { offlineAt: true } },
    );
    if (marked.modifiedCount === 0) return [];
    return (await this.#nodes.find({ foundSilentBy: mark }).toArray()).map(toRow);
  }

  /**
   * Marks nodes that were silent for so long, until they are heard of again. Their status stays.
   * @returns those that this call marked: of several masters that look at once, one is told of each
   */
  async markSuspect(silentMs: number): Promise<readonly NodeRow[]> {
    const mark = `${Date.now()}.${Math.random()}`;
    const marked = await this.#nodes.updateMany(
      {
        status: { $ne: "offline" },
        foundSilentBy: { $exists: false },
        $expr: { $lt: ["$heartbeatAt", { $subtract: ["$$NOW", silentMs] }] },
      },
      { $set: { foundSilentBy: mark } },
    );
    if (marked.modifiedCount === 0) return [];
    return (await this.#nodes.find({ foundSilentBy: mark }).toArray()).map(toRow);
  }

  /** Changes what users may change of a node. @returns undefined when there is none */
  async describe(id: string, labels: Readonly<Record<string, string>>): Promise<NodeRow | undefined> {
    const document = await this.#nodes.findOneAndUpdate(
      { _id: id },
      { $set: { labels } },
      { returnDocument: "after" },
    );
    return document === null ? undefined : toRow(document);
  }

  async get(id: string): Promise<NodeRow | undefined> {
    const document = await this.#nodes.findOne({ _id: id });
    return document === null ? undefined : toRow(document);
  }

  /** By id. */
  async list(options: ListOptions & { readonly status?: NodeStatus } = {}): Promise<ListPage<NodeRow>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor, status } = options;
    const filter: Filter<NodeDocument> = {
      ...(status !== undefined && { status }),
      ...(cursor !== undefined && { _id: { $gt: decodeCursor(cursor, position) } }),
    };
    const documents = await this.#nodes
      .find(filter)
      .sort({ _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRow, ({ _id }) => encodeCursor(_id));
  }

  /** The nodes that take tasks now: not those that are paused or being drained. */
  async takers(): Promise<readonly TakingNode[]> {
    const online = await this.#nodes
      .find({ status: "online" })
      .project<{ _id: string; labels?: Readonly<Record<string, string>>; concurrency: number }>({
        labels: 1,
        concurrency: 1,
      })
      .toArray();
    return online.map(({ _id, labels = {}, concurrency }) => ({ id: _id, labels, concurrency }));
  }

  /** The labels of a node; none of one that is not known. */
  async labelsOf(id: string): Promise<Readonly<Record<string, string>>> {
    return (await this.#nodes.findOne({ _id: id }, { projection: { labels: 1 } }))?.labels ?? {};
  }

  /** Ids of the nodes heard of in this time, whatever their status: those that may still hold something. */
  async heardOf(withinMs: number): Promise<readonly string[]> {
    const nodes = await this.#nodes
      .find({ $expr: { $gt: ["$heartbeatAt", { $subtract: ["$$NOW", withinMs] }] } })
      .project<{ _id: string }>({ _id: 1 })
      .toArray();
    return nodes.map(({ _id }) => _id);
  }

  /** The nodes that are not offline. */
  async present(): Promise<readonly Pick<NodeRow, "id" | "labels">[]> {
    const nodes = await this.#nodes
      .find({ status: { $ne: "offline" } })
      .project<Pick<NodeDocument, "_id" | "labels">>({ labels: 1 })
      .toArray();
    return nodes.map(({ _id, labels = {} }) => ({ id: _id, labels }));
  }

  /** Nodes that went offline within this time, and still are. */
  async gone(withinMs: number): Promise<readonly GoneNode[]> {
    const nodes = await this.#nodes
      .find({
        status: "offline",
        offlineAt: { $exists: true },
        $expr: { $gt: ["$offlineAt", { $subtract: ["$$NOW", withinMs] }] },
      })
      .project<Pick<NodeDocument, "_id" | "offlineAt" | "foundSilentBy">>({ offlineAt: 1, foundSilentBy: 1 })
      .toArray();
    return nodes.map(({ _id, offlineAt, foundSilentBy }) => ({
      id: _id,
      offlineAt: offlineAt?.getTime() ?? 0,
      hasLeft: foundSilentBy === undefined,
    }));
  }

  /** How many nodes there are of each status. */
  async statuses(): Promise<ReadonlyMap<NodeStatus, number>> {
    const groups = this.#nodes.aggregate<{ _id: NodeStatus; nodes: number }>([
      { $group: { _id: "$status", nodes: { $sum: 1 } } },
    ]);
    return new Map((await groups.toArray()).map(({ _id, nodes }) => [_id, nodes]));
  }
}

function toRow(document: NodeDocument): NodeRow {
  const { _id, startedAt, heartbeatAt, foundSilentBy, labels, offlineAt: _offlineAt, ...fields } = document;
  return {
    id: _id,
    ...fields,
    labels: labels ?? {},
    suspect: foundSilentBy !== undefined && document.status !== "offline",
    startedAt: startedAt.getTime(),
    heartbeatAt: heartbeatAt.getTime(),
  };
}
