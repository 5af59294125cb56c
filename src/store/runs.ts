import type { ClientSession, Collection, Filter } from "mongodb";
import { z } from "zod";
import type { RunEnd, RunFailReason, RunState } from "../crawl/run.js";
import type { RunCounts } from "../crawl/run-outputs.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  idsOf,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import { insertNew } from "./pages.js";
import type { Retrier } from "./retrier.js";

/** Why a run was ended from outside. */
export type RunStop = "cancelled" | "limit";

/** A run; `_id` is `<crawl>:run.<number>`. Dates are the server's. */
export type RunDocument = {
  readonly _id: string;
  readonly crawl: string;
  readonly spider: string;
  /** The node that it is for; any, without. */
  readonly node?: string;
  readonly state: RunState;
  /** How often it was begun. */
  readonly attempts: number;
  /** How often a node was lost that had it. */
  readonly losses: number;
  /** How often it could not be run, or what it brought not be stored. */
  readonly failures: number;
  readonly readyAt: Date;
  readonly createdAt: Date;
  readonly startedAt?: Date;
  readonly endedAt?: Date;
  /** Where it runs, by which right, and until when that holds unless it is renewed. */
  readonly holder?: { readonly node: string; readonly token: string; readonly until: Date };
  /** Where it ran last. */
  readonly ranOn?: string;
  /** It is to end. */
  readonly stop?: RunStop;
  readonly reason?: RunFailReason | RunStop | "closed";
  readonly error?: string;
  readonly exitCode?: number;
  readonly signal?: string;
} & RunCounts;

/** A run as users see it. Instants in milliseconds since the epoch. */
export type RunRow = RunCounts & {
  readonly id: string;
  readonly crawl: string;
  readonly spider: string;
  readonly state: RunState;
  /** Where it runs or ran; before that, the node that it is for. */
  readonly node?: string;
  readonly attempts: number;
  readonly createdAt: number;
  readonly startedAt?: number;
  readonly endedAt?: number;
  readonly reason?: string;
  readonly error?: string;
  readonly exitCode?: number;
  readonly signal?: string;
};

/** A run that a node has taken. */
export type HeldRun = {
  readonly id: string;
  readonly crawl: string;
  /** Names this taking of it. */
  readonly token: string;
  /** From 1. */
  readonly attempt: number;
  /** How often it could not be run before. */
  readonly failures: number;
};

export type RunFilter = {
  readonly crawl?: string;
  readonly state?: RunState;
  readonly node?: string;
};

export type RunsOptions = {
  /** How long a node holds a run without renewing it, in milliseconds. @default 15_000 */
  readonly leaseMs: number;
  /** Nodes that may be lost with a run before it is given up. @default 3 */
  readonly maxLosses: number;
};

const DEFAULTS: RunsOptions = { leaseMs: 15_000, maxLosses: 3 };

const position = z.string();

/** The runs of all crawls whose spiders run as a whole. Who has one holds it by a lease. */
export class Runs {
  readonly #runs: Collection<RunDocument>;
  readonly #retrier: Retrier;
  readonly #options: RunsOptions;

  constructor(runs: Collection<RunDocument>, retrier: Retrier, options: Partial<RunsOptions> = {}) {
    this.#runs = runs;
    this.#retrier = retrier;
    this.#options = { ...DEFAULTS, ...options };
  }

  /** How long a run is held without being renewed, in milliseconds. */
  get leaseMs(): number {
    return this.#options.leaseMs;
  }

  /** Makes the runs of a crawl: one for each node named, undefined for any. Safe to be repeated with the same nodes. */
  async plan(
    crawl: { readonly id: string; readonly spider: string },
    nodes: readonly (string | undefined)[],
  ): Promise<void> {
    const now = new Date();
    await this.#retrier.run("plan runs", () =>
      insertNew(
        this.#runs,
        nodes.map((node, number) => ({
          _id: `${crawl.id}:run.${number + 1}`,
          crawl: crawl.id,
          spider: crawl.spider,
          ...(node !== undefined && { node }),
          ...{ state: "queued", attempts: 0, losses: 0, failures: 0, items: 0, invalidItems: 0, requests: 0 },
          readyAt: now,
          createdAt: now,
        })),
      ),
    );
  }

  /** Runs that this node might take now, oldest first. */
  async waitingFor(
    node: string,
    limit = 100,
  ): Promise<readonly { readonly id: string; readonly crawl: string }[]> {
    const waiting = await this.#runs
      .find({ ...takeableBy(node), $expr: { $lte: ["$readyAt", "$$NOW"] } })
      .sort({ createdAt: 1 })
      .limit(limit)
      .project<{ _id: string; crawl: string }>({ crawl: 1 })
      .toArray();
    return waiting.map(({ _id, crawl }) => ({ id: _id, crawl }));
  }

  /** Takes a run. @returns undefined when another node was first */
  async take(id: string, node: string, token: string): Promise<HeldRun | undefined> {
    const taken = await this.#runs.findOneAndUpdate(
      { _id: id, ...takeableBy(node) },
      [
        {
          $set: {
            state: "active",
            attempts: { $add: ["$attempts", 1] },
            startedAt: "$$NOW",
            ranOn: { $literal: node },
            holder: {
              node: { $literal: node },
              token: { $literal: token },
              until: { $add: ["$$NOW", this.#options.leaseMs] },
            },
            ...{ items: 0, invalidItems: 0, requests: 0 },
          },
        },
        { $unset: ["reason", "error", "exitCode", "signal", "endedAt"] },
      ],
      { returnDocument: "after" },
    );
    if (taken === null) return undefined;
    return { id, crawl: taken.crawl, token, attempt: taken.attempts, failures: taken.failures };
  }

  /** Keeps what a node holds. @returns by token, what is still held, and whether it is to end */
  async renew(tokens: readonly string[]): Promise<ReadonlyMap<string, RunStop | undefined>> {
    const held: Filter<RunDocument> = { state: "active", "holder.token": { $in: [...tokens] } };
    await this.#runs.updateMany(held, [
      { $set: { "holder.until": { $add: ["$$NOW", this.#options.leaseMs] } } },
    ]);
    const runs = await this.#runs
      .find(held)
      .project<Pick<RunDocument, "holder" | "stop">>({ holder: 1, stop: 1 });
    return new Map((await runs.toArray()).map(({ holder, stop }) => [holder?.token ?? "", stop]));
  }

  /** Notes what a run has brought so far. */
  async progress({ id, token }: HeldRun, counts: RunCounts): Promise<void> {
    await this.#runs.updateOne({ _id: id, "holder.token": token }, { $set: counts });
  }

  /** A run has ended where it is held. @returns false when it was not held any more */
  async end({ id, token }: HeldRun, end: RunEnd, counts: RunCounts): Promise<boolean> {
    const { state, exitCode, signal } = end;
    return this.#leave(id, token, {
      state,
      ...counts,
      ...(exitCode !== undefined && { exitCode }),
      ...(signal !== undefined && { signal }),
      ...(end.state === "failed" && { reason: end.reason, error: end.error }),
    });
  }

  /** A run was ended from outside. @returns false when it was not held any more */
  async stopped({ id, token }: HeldRun, reason: RunStop, counts: RunCounts): Promise<boolean> {
    return this.#leave(id, token, { state: "skipped", reason, ...counts });
  }

  /** Gives a run back, to be begun anew: nothing speaks against it. */
  async release(run: HeldRun, reason: string): Promise<void> {
    await this.#giveBack(run, reason, 0, run.failures);
  }

  /** Gives a run back that could not be run here now, to be begun anew a little later. */
  async failed(run: HeldRun, reason: string, waitMs: number): Promise<void> {
    await this.#giveBack(run, reason, waitMs, run.failures + 1);
  }

  async #giveBack({ id, token }: HeldRun, reason: string, waitMs: number, failures: number): Promise<void> {
    await this.#retrier.run("give back a run", () =>
      this.#runs.updateOne({ _id: id, state: "active", "holder.token": token }, [
        {
          $set: {
            state: "queued",
            readyAt: { $add: ["$$NOW", waitMs] },
            error: { $literal: reason },
            failures,
          },
        },
        { $unset: ["holder", "startedAt"] },
      ]),
    );
  }

  /** Queues again what lost nodes had, or gives it up. @returns those that this call did so to */
  async sweep(): Promise<readonly RunRow[]> {
    const lost = await this.#runs
      .find({ state: "active", $expr: { $lt: ["$holder.until", "$$NOW"] } })
      .limit(100)
      .toArray();
    const swept: RunRow[] = [];
    for (const run of lost) {
      const losses = run.losses + 1;
      const error = `the node "${run.holder?.node}" was lost while it ran`;
      const isGivenUp = losses >= this.#options.maxLosses;
      const after = await this.#runs.findOneAndUpdate(
        {
          _id: run._id,
          state: "active",
          "holder.token": run.holder?.token ?? "",
          $expr: { $lt: ["$holder.until", "$$NOW"] },
        },
        [
          isGivenUp
            ? { $set: { state: "failed", reason: "poison", error, losses, endedAt: "$$NOW" } }
            : { $set: { state: "queued", error, losses, readyAt: "$$NOW" } },
          { $unset: "holder" },
        ],
        { returnDocument: "after" },
      );
      if (after !== null) swept.push(toRow(after));
    }
    return swept;
  }

  /** Ends a run: one that waits at once, one that is active where it runs. @returns undefined when it has ended */
  async cancel(id: string): Promise<RunRow | undefined> {
    const skipped = await this.#runs.findOneAndUpdate(
      { _id: id, state: "queued" },
      [{ $set: { state: "skipped", reason: "cancelled", endedAt: "$$NOW" } }],
      { returnDocument: "after" },
    );
    if (skipped !== null) return toRow(skipped);
    const stopping = await this.#runs.findOneAndUpdate(
      { _id: id, state: "active" },
      { $set: { stop: "cancelled" } },
      { returnDocument: "after" },
    );
    return stopping === null ? undefined : toRow(stopping);
  }

  /** A limit of the crawl is reached: what waits of it is skipped, and what runs is to end. */
  async cut(crawl: string): Promise<void> {
    await this.#runs.updateMany({ crawl, state: "queued" }, [
      { $set: { state: "skipped", reason: "limit", endedAt: "$$NOW" } },
    ]);
    await this.#runs.updateMany(
      { crawl, state: "active", stop: { $exists: false } },
      { $set: { stop: "limit" } },
    );
  }

  /** Queues again what failed or was ended of a crawl that goes on. */
  async reopen(crawl: string): Promise<void> {
    await this.#runs.updateMany(
      { crawl, $or: [{ state: "failed" }, { state: "skipped", reason: "limit" }] },
      [
        { $set: { state: "queued", losses: 0, failures: 0, readyAt: "$$NOW" } },
        { $unset: ["endedAt", "reason"] },
      ],
    );
  }

  /** Whether a run of the crawl waits or is active. */
  async hasOpen(crawl: string, session?: ClientSession): Promise<boolean> {
    const open = await this.#runs.findOne(
      { crawl, state: { $in: ["queued", "active"] } },
      { projection: { _id: 1 }, ...(session !== undefined && { session }) },
    );
    return open !== null;
  }

  /** What all runs of a crawl failed for, of the last of them; undefined unless all of them did. */
  async failure(crawl: string): Promise<string | undefined> {
    const runs = await this.#runs
      .find({ crawl })
      .sort({ endedAt: -1 })
      .project<Pick<RunDocument, "state" | "error">>({ state: 1, error: 1 })
      .toArray();
    if (runs.length === 0 || runs.some(({ state }) => state !== "failed")) return undefined;
    return runs[0]?.error ?? "its run failed";
  }

  async get(id: string): Promise<RunRow | undefined> {
    const run = await this.#runs.findOne({ _id: id });
    return run === null ? undefined : toRow(run);
  }

  /** By id: a crawl's runs together, newest crawls last. */
  async list(filter: RunFilter, options: ListOptions = {}): Promise<ListPage<RunRow>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const { crawl, state, node } = filter;
    const runs = await this.#runs
      .find({
        ...(crawl !== undefined && { crawl }),
        ...(state !== undefined && { state }),
        ...(node !== undefined && { $or: [{ ranOn: node }, { node, ranOn: { $exists: false } }] }),
        ...(cursor !== undefined && { _id: { $gt: decodeCursor(cursor, position) } }),
      })
      .sort({ _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(runs, limit, toRow, ({ _id }) => encodeCursor(_id));
  }

  /** Removes the runs of a crawl. */
  async drop(crawl: string): Promise<void> {
    await this.#runs.deleteMany({ _id: idsOf(crawl) });
  }

  async #leave(id: string, token: string, set: Readonly<Record<string, unknown>>): Promise<boolean> {
    const literals = Object.fromEntries(
      Object.entries(set).map(([name, value]) => [name, { $literal: value }]),
    );
    return this.#retrier.run("end a run", async (again) => {
      const { matchedCount } = await this.#runs.updateOne(
        { _id: id, state: "active", "holder.token": token },
        [{ $set: { ...literals, endedAt: "$$NOW" } }, { $unset: ["holder", "stop"] }],
      );
      return matchedCount > 0 || again;
    });
  }
}

function takeableBy(node: string): Filter<RunDocument> {
  return { state: "queued", $or: [{ node }, { node: { $exists: false } }] };
}

function toRow(run: RunDocument): RunRow {
  const {
    _id,
    node,
    ranOn,
    holder,
    losses: _losses,
    failures: _failures,
    readyAt: _readyAt,
    stop: _stop,
    ...rest
  } = run;
  const { createdAt, startedAt, endedAt, ...fields } = rest;
  const where = holder?.node ?? ranOn ?? node;
  return {
    id: _id,
    ...fields,
    ...(where !== undefined && { node: where }),
    createdAt: createdAt.getTime(),
    ...(startedAt !== undefined && { startedAt: startedAt.getTime() }),
    ...(endedAt !== undefined && { endedAt: endedAt.getTime() }),
  };
}
