import { randomBytes } from "node:crypto";
import type { ClientSession, Collection, Filter, MongoClient } from "mongodb";
import { z } from "zod";
import {
  type Crawl,
  type CrawlCounts,
  type CrawlSpec,
  type CrawlStatus,
  DEFAULT_POLITENESS,
  type FinishReason,
  INBOX,
  NO_COUNTS,
} from "../crawl/crawl.js";
import type { CrawlChanges } from "../crawl/crawl-changes.js";
import type { FetchOptions } from "../crawl/fetch/fetch-options.js";
import type { NodeSelection } from "../crawl/node-selection.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import type { ArchiveDocument } from "./archive.js";
import { isDuplicateKey } from "./duplicates.js";
import { ConflictError, KeyReusedError, NotFoundError } from "./errors.js";
import type { FileDocument } from "./files.js";
import type { InvalidItemDocument } from "./invalid-items.js";
import type { ItemDocument, ItemVersionDocument } from "./items.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  idsOf,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { PageDocument } from "./pages.js";
import type { Retrier } from "./retrier.js";
import type { Runs } from "./runs.js";
import type { UrlDocument } from "./url-document.js";
import type { UrlRounds } from "./url-rounds.js";

/** A crawl as it is stored. Instants in milliseconds since the epoch. */
export type CrawlDocument = Omit<CrawlSpec, "params" | "fetch"> & {
  readonly _id: string;
  /** As JSON text, for the same reason as `params`. */
  readonly fetch?: string;
  /** As JSON text: its members may have names that MongoDB refuses. */
  readonly params: string;
  readonly status: CrawlStatus;
  readonly generation: number;
  readonly createdAt: number;
  readonly startedAt: number;
  readonly finishedAt?: number;
  readonly finishReason?: FinishReason;
  readonly error?: string;
  readonly counts: CrawlCounts;
  readonly additions: number;
  /** Pages of `maxPages` that were given out, and when last. */
  readonly reserved: number;
  readonly reservedAt?: Date;
  readonly cut?: FinishReason;
  readonly resource?: string;
  readonly idempotency?: { readonly key: string; readonly digest: string };
  readonly origin?: CrawlOrigin;
  /** Its ends that nobody has acted on yet. */
  readonly ends?: readonly CrawlEnd[];
};

/** The tick of a schedule that made a crawl. */
export type CrawlOrigin = {
  readonly schedule: string;
  readonly tick: string;
  /** Crawls that had followed one another before it. */
  readonly chain: number;
};

/** One end of a crawl, which may have several: it can be opened again. */
export type CrawlEnd = {
  readonly id: string;
  readonly status: "finished" | "failed" | "closed";
  /** In milliseconds since the epoch. */
  readonly at: number;
};

/** A crawl with what its users want to know. Instants in milliseconds since the epoch. */
export type CrawlRecord = Crawl & {
  readonly createdAt: number;
  readonly finishedAt?: number;
  readonly finishReason?: FinishReason;
  /** Why it `failed`. */
  readonly error?: string;
  /** Live while it runs, and then not exact when a process was killed; exact once it is finished. */
  readonly counts: CrawlCounts;
  /** How often URLs were added to it from outside. 0: not even its seeds were, yet. */
  readonly additions: number;
  /** The limit that ended it, or is about to. */
  readonly cut?: FinishReason;
  /** The name under which `/crawler/resource` knows it. */
  readonly resource?: string;
  readonly origin?: CrawlOrigin;
};

export type CreateOptions = {
  /** @default a new one, sortable by time */
  readonly id?: string;
  /** With the same key and digest again, the same crawl is returned; with another digest it is refused. */
  readonly idempotency?: { readonly key: string; readonly digest: string };
  readonly resource?: string;
  readonly origin?: CrawlOrigin;
};

export type CrawlsDeps = {
  readonly client: MongoClient;
  readonly crawls: Collection<CrawlDocument>;
  readonly urls: Collection<UrlDocument>;
  readonly rounds: Pick<UrlRounds, "hasNextVisits">;
  readonly runs: Pick<Runs, "hasOpen" | "failure">;
  readonly pages: Collection<PageDocument>;
  readonly items: Collection<ItemDocument>;
  readonly versions: Collection<ItemVersionDocument>;
  readonly invalidItems: Collection<InvalidItemDocument>;
  readonly files: Collection<FileDocument>;
  readonly archive: Collection<ArchiveDocument>;
  readonly retrier: Retrier;
  readonly clock: Clock;
};

/** How often live counts are written, in milliseconds. */
const COUNT_EVERY_MS = 200;
const COUNT_NAMES = Object.keys(NO_COUNTS) as (keyof CrawlCounts)[];
const CUT_BATCH = 1_000;
const PURGE_BATCH = 5_000;
const FILES_BATCH = 50;

/**
 * What of a page budget a URL has used: its earlier rounds, each in full, and the one that it is in if that has
 * begun. One that waits for its first attempt has not.
 */
const PAGES_OF_URL = {
  $add: [
    { $ifNull: ["$round", 0] },
    {
      $cond: [
        {
          $and: [
            { $in: ["$state", ["skipped", "queued"]] },
            { $eq: ["$attempts", 0] },
            { $eq: [{ $type: "$target" }, "missing"] },
          ],
        },
        0,
        1,
      ],
    },
  ],
};

const INBOX_SPEC: CrawlSpec = {
  name: "inbox",
  spider: "pdf",
  seeds: [],
  scope: "any",
  limits: { maxDepth: 0 },
  politeness: DEFAULT_POLITENESS,
  priority: 5,
  params: {},
};

/**
 * All crawls.
 *
 *   create ──▶ running ◀──pause/resume──▶ paused
 *                │  ▲                       │
 *       nothing  │  │ URLs are added        │ close
 *       is left  ▼  │                       ▼
 *             finished ──────close──────▶ closed ──resume──▶ running
 *
 * A change to the state a crawl is in already is harmless; one that the drawing does not have is a
 * `ConflictError`. A `failed` crawl can be closed and resumed. The standing crawl `inbox` never finishes.
 */
export class Crawls {
  readonly #deps: CrawlsDeps;
  readonly #pendingCounts = new Map<string, { -readonly [Name in keyof CrawlCounts]: number }>();
  #stopFlush: StopTimer | undefined;

  constructor(deps: CrawlsDeps) {
    this.#deps = deps;
  }

  /** Sees to it that the standing crawl exists; harmless when several processes do so at once. */
  async ensureInbox(): Promise<void> {
    const { _id, ...fields } = this.#newDocument(INBOX_SPEC, { id: INBOX });
    try {
      await this.#deps.crawls.updateOne(
        { _id },
        { $setOnInsert: { ...fields, additions: 1 } },
        { upsert: true },
      );
    } catch (error) {
      if (!isDuplicateKey(error)) throw error;
    }
  }

  /**
   * Records a new crawl, which runs from now on. It cannot finish before URLs were added to it once and
   * `added` has told so.
   * @throws ConflictError when there is a crawl with this id or resource already
   * @throws KeyReusedError
   */
  async create(
    spec: CrawlSpec,
    options: CreateOptions = {},
  ): Promise<{ readonly crawl: CrawlRecord; readonly isNew: boolean }> {
    const document = this.#newDocument(spec, options);
    return this.#deps.retrier.run("create a crawl", async (again) => {
      try {
        await this.#deps.crawls.insertOne(document);
        return { crawl: toRecord(document), isNew: true };
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
      }
      const own = again
        ? await this.#deps.crawls.findOne({ _id: document._id, createdAt: document.createdAt })
        : null;
      if (own !== null) return { crawl: toRecord(own), isNew: true };
      const { idempotency } = options;
      if (idempotency !== undefined) {
        const first = await this.#deps.crawls.findOne({ "idempotency.key": idempotency.key });
        if (first?.idempotency?.digest === idempotency.digest)
          return { crawl: toRecord(first), isNew: false };
        if (first !== null) throw new KeyReusedError(idempotency.key, first._id);
      }
      const { resource } = options;
      if (resource !== undefined && (await this.byResource(resource)) !== undefined) {
        throw new ConflictError(`there is a crawl of the resource "${resource}" already`);
      }
      throw new ConflictError(`there is a crawl "${document._id}" already`);
    });
  }

  async get(id: string): Promise<CrawlRecord | undefined> {
    const document = await this.#deps.crawls.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  /** Those of these crawls that exist. */
  async getMany(ids: readonly string[]): Promise<readonly CrawlRecord[]> {
    const documents = await this.#deps.crawls.find({ _id: { $in: [...ids] } }).toArray();
    return documents.map(toRecord);
  }

  async byResource(resource: string): Promise<CrawlRecord | undefined> {
    const document = await this.#deps.crawls.findOne({ resource });
    return document === null ? undefined : toRecord(document);
  }

  async byIdempotencyKey(key: string): Promise<CrawlRecord | undefined> {
    const document = await this.#deps.crawls.findOne({ "idempotency.key": key });
    return document === null ? undefined : toRecord(document);
  }

  /** Crawls with ends that nobody has acted on yet, those that ended first before the others. */
  async ended(
    limit = 100,
  ): Promise<readonly { readonly crawl: CrawlRecord; readonly ends: readonly CrawlEnd[] }[]> {
    const documents = await this.#deps.crawls
      .find({ "ends.at": { $gt: 0 } })
      .sort({ "ends.at": 1 })
      .limit(limit)
      .toArray();
    return documents.map((document) => ({ crawl: toRecord(document), ends: document.ends ?? [] }));
  }

  /** All that had to follow from this end is on record. */
  async settleEnd(id: string, end: string): Promise<void> {
    await this.#deps.retrier.run("settle the end of a crawl", () =>
      this.#deps.crawls.updateOne({ _id: id }, { $pull: { ends: { id: end } } }),
    );
  }

  /** Newest first. */
  async list(options: ListOptions & { readonly status?: CrawlStatus } = {}): Promise<ListPage<CrawlRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor, status } = options;
    const filter: Filter<CrawlDocument> = status === undefined ? {} : { status };
    if (cursor !== undefined) {
      const [createdAt, id] = decodeCursor(cursor, POSITION);
      filter.$or = [{ createdAt: { $lt: createdAt } }, { createdAt, _id: { $lt: id } }];
    }
    const documents = await this.#deps.crawls
      .find(filter)
      .sort({ createdAt: -1, _id: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ createdAt, _id }) => encodeCursor([createdAt, _id]));
  }

  /** The crawls that a dispatcher has to serve. */
  async running(): Promise<readonly CrawlRecord[]> {
    return (await this.#deps.crawls.find({ status: "running" }).toArray()).map(toRecord);
  }

  /** Of the crawls that run, which nodes they have selected. */
  async selections(): Promise<readonly NodeSelection[]> {
    const crawls = await this.#deps.crawls
      .find({ status: "running", "nodes.mode": "selected" }, { projection: { nodes: 1 } })
      .toArray();
    return crawls.flatMap(({ nodes }) => (nodes === undefined ? [] : [nodes]));
  }

  /** A crawl of this spider that runs or is paused, if there is one. */
  async openOf(spider: string): Promise<string | undefined> {
    const crawl = await this.#deps.crawls.findOne(
      { status: { $in: ["running", "paused"] }, spider },
      { projection: { _id: 1 } },
    );
    return crawl?._id;
  }

  /** A crawl, whatever its state, that is pinned to this version of a spider, if there is one. */
  async pinnedTo(spider: string, spiderVersion: string): Promise<string | undefined> {
    const crawl = await this.#deps.crawls.findOne({ spider, spiderVersion }, { projection: { _id: 1 } });
    return crawl?._id;
  }

  /** Ids and generations of closed crawls, newest first: for nodes that were away. */
  async closed(limit = 1_000): Promise<readonly { readonly id: string; readonly generation: number }[]> {
    const documents = await this.#deps.crawls
      .find({ status: "closed" })
      .project<{ _id: string; generation: number }>({ generation: 1 })
      .sort({ createdAt: -1, _id: -1 })
      .limit(limit)
      .toArray();
    return documents.map(({ _id, generation }) => ({ id: _id, generation }));
  }

  /** Running crawls, created longer ago than this, whose seeds were never added: their creator was killed. */
  async unseeded(olderThanMs: number): Promise<readonly CrawlRecord[]> {
    const before = this.#deps.clock.now() - olderThanMs;
    const documents = await this.#deps.crawls
      .find({ status: "running", additions: 0, createdAt: { $lt: before } })
      .toArray();
    return documents.map(toRecord);
  }

  /** How many crawls there are of each status. */
  async statuses(): Promise<ReadonlyMap<CrawlStatus, number>> {
    const groups = this.#deps.crawls.aggregate<{ _id: CrawlStatus; crawls: number }>([
      { $group: { _id: "$status", crawls: { $sum: 1 } } },
    ]);
    return new Map((await groups.toArray()).map(({ _id, crawls }) => [_id, crawls]));
  }

  /** @throws NotFoundError, ConflictError */
  pause(id: string): Promise<CrawlRecord> {
    return this.#change(id, "pause", ["running"], "paused", { $set: { status: "paused" } });
  }

  /** @throws NotFoundError, ConflictError */
  async resume(id: string): Promise<CrawlRecord> {
    const opened = await this.#deps.retrier.run("resume a crawl", () =>
      this.#deps.crawls.findOneAndUpdate(
        { _id: id, status: { $in: ["closed", "failed"] } },
        {
          $set: { status: "running" },
          $inc: { generation: 1 },
          $unset: { finishedAt: "", finishReason: "", error: "", cut: "" },
        },
        { returnDocument: "after" },
      ),
    );
    if (opened !== null) return toRecord(opened);
    return this.#change(id, "resume", ["paused"], "running", { $set: { status: "running" } });
  }

  /** Changes it, whatever state it is in. @throws NotFoundError */
  async update(
    id: string,
    { name, priority, politeness = {}, limits = {} }: CrawlChanges,
  ): Promise<CrawlRecord> {
    const members: [string, unknown][] = [
      ["name", name],
      ["priority", priority],
      ...Object.entries(politeness).map(([member, value]): [string, unknown] => [
        `politeness.${member}`,
        value,
      ]),
      ...Object.entries(limits).map(([limit, value]): [string, unknown] => [`limits.${limit}`, value]),
    ];
    const $set = Object.fromEntries(members.filter(([, value]) => value !== undefined && value !== null));
    const $unset = Object.fromEntries(
      members.filter(([, value]) => value === null).map(([member]) => [member, true] as const),
    );
    const update = {
      ...(Object.keys($set).length > 0 && { $set }),
      ...(Object.keys($unset).length > 0 && { $unset }),
    };
    const changed =
      Object.keys(update).length === 0
        ? await this.#deps.crawls.findOne({ _id: id })
        : await this.#deps.retrier.run("change a crawl", () =>
            this.#deps.crawls.findOneAndUpdate({ _id: id }, update, { returnDocument: "after" }),
          );
    if (changed === null) throw new NotFoundError("crawl", id);
    return toRecord(changed);
  }

  /** Tasks of it that are under way become stale. @throws NotFoundError, ConflictError */
  close(id: string): Promise<CrawlRecord> {
    return this.#change(id, "close", ["running", "paused", "finished", "failed"], "closed", {
      $set: { status: "closed" },
      $inc: { generation: 1 },
      $push: { ends: this.#newEnd("closed") },
    });
  }

  /** It cannot go on at all, for a reason that its owner has to see to. @throws NotFoundError, ConflictError */
  fail(id: string, error: string): Promise<CrawlRecord> {
    return this.#change(id, "fail", ["running", "paused"], "failed", {
      $set: { status: "failed", error, finishedAt: this.#deps.clock.now() },
      $inc: { generation: 1 },
      $push: { ends: this.#newEnd("failed") },
    });
  }

  /**
   * Tells that URLs were added from outside, after they are in the frontier: a finished crawl runs again.
   * Being one update, this and the end of the crawl cannot pass each other unseen.
   * @returns the crawl as it is now, and whether this opened it again
   * @throws NotFoundError
   */
  async added(id: string): Promise<{ readonly crawl: CrawlRecord; readonly reopened: boolean }> {
    const wasFinished = { $eq: ["$status", "finished"] };
    const before = await this.#deps.retrier.run("note added URLs", () =>
      this.#deps.crawls.findOneAndUpdate(
        { _id: id },
        [
          {
            $set: {
              additions: { $add: ["$additions", 1] },
              status: { $cond: [wasFinished, "running", "$status"] },
              generation: { $cond: [wasFinished, { $add: ["$generation", 1] }, "$generation"] },
              finishedAt: { $cond: [wasFinished, "$$REMOVE", "$finishedAt"] },
              finishReason: { $cond: [wasFinished, "$$REMOVE", "$finishReason"] },
              cut: { $cond: [wasFinished, "$$REMOVE", "$cut"] },
            },
          },
        ],
        { returnDocument: "before" },
      ),
    );
    const crawl = await this.get(id);
    if (before === null || crawl === undefined) throw new NotFoundError("crawl", id);
    return { crawl, reopened: before.status === "finished" };
  }

  /**
   * Adds to the live counts, a little later and many at once. They are for people: what is lost with a process
   * is mended when the crawl finishes.
   */
  count(id: string, delta: Partial<CrawlCounts>): void {
    let pending = this.#pendingCounts.get(id);
    if (pending === undefined) {
      pending = { ...NO_COUNTS };
      this.#pendingCounts.set(id, pending);
    }
    for (const name of COUNT_NAMES) pending[name] += delta[name] ?? 0;
    this.#stopFlush ??= this.#deps.clock.after(COUNT_EVERY_MS, () => {
      this.flushCounts().catch(() => {});
    });
  }

  /** Writes what `count` was told. */
  async flushCounts(): Promise<void> {
    this.#stopFlush?.();
    this.#stopFlush = undefined;
    const pending = [...this.#pendingCounts];
    this.#pendingCounts.clear();
    const updates = pending.flatMap(([id, delta]) => {
      const changes = COUNT_NAMES.filter((name) => delta[name] !== 0);
      if (changes.length === 0) return [];
      const increments = Object.fromEntries(changes.map((name) => [`counts.${name}`, delta[name]]));
      // Once it is over its counts are exact, and these are among them.
      const filter = { _id: id, status: { $in: ["running", "paused"] as CrawlStatus[] } };
      return [{ updateOne: { filter, update: { $inc: increments } } }];
    });
    if (updates.length === 0) return;
    await this.#deps.crawls.bulkWrite(updates, { ordered: false, writeConcern: { w: 1 } });
  }

  /**
   * Finishes a running crawl of which nothing is queued or dispatched, with exact counts.
   *
   * Crawl, URLs and results are read at one instant; whoever adds URLs from outside puts them into the
   * frontier first and then tells `added`. So an addition that this instant did not see raises `additions`
   * later: either before the crawl is marked finished, which then does not happen, or after, which opens it
   * again. Links are added before the page they were found on ends, so they need no such care.
   *
   * A crawl whose spider runs as a whole is not over while a run of it waits or is active; it has `failed` if all of them did.
   * A crawl that fetches its URLs again is not over while one of them has a next visit, unless a limit ends it.
   * @returns the finished crawl; undefined when it is not over, or was finished by someone else
   */
  async finishIfOver(id: string): Promise<CrawlRecord | undefined> {
    if (id === INBOX) return undefined;
    const running = await this.#deps.crawls.findOne({ _id: id, status: "running" });
    if (running === null || running.additions === 0) return undefined;
    if (running.cut !== undefined) await this.#skipQueued(id, running.cut);
    const mayComeAgain = running.recrawl !== undefined && running.cut === undefined;
    if (mayComeAgain && (await this.#deps.rounds.hasNextVisits(id))) return undefined;
    if (await this.#hasOpenUrls(id)) return undefined;
    const hasOpenRuns = async (session?: ClientSession) =>
      running.runs === true && (await this.#deps.runs.hasOpen(id, session));
    if (await hasOpenRuns()) return undefined;
    const seen = await this.#deps.retrier.run("count a crawl", () =>
      this.#deps.client.withSession({ snapshot: true }, async (session) => {
        const crawl = await this.#deps.crawls.findOne({ _id: id, status: "running" }, { session });
        if (crawl === null || crawl.additions === 0) return undefined;
        if (mayComeAgain && (await this.#deps.rounds.hasNextVisits(id, session))) return undefined;
        if (await hasOpenRuns(session)) return undefined;
        const counts = await this.#exactCounts(id, session);
        return counts.queued + counts.active > 0 ? undefined : { crawl, counts };
      }),
    );
    if (seen === undefined) return undefined;
    const { crawl, counts } = seen;
    const failure = crawl.runs === true ? await this.#deps.runs.failure(id) : undefined;
    const end = this.#newEnd(failure === undefined ? "finished" : "failed");
    const { status, at: finishedAt } = end;
    const finished = await this.#deps.retrier.run("finish a crawl", (again) =>
      this.#deps.crawls.findOneAndUpdate(
        again
          ? {
              _id: id,
              additions: crawl.additions,
              $or: [{ status: "running" }, { status, finishedAt }],
            }
          : { _id: id, additions: crawl.additions, status: "running" },
        {
          $set: {
            ...{ status, counts, finishedAt, finishReason: crawl.cut ?? "completed" },
            ...(failure !== undefined && { error: failure }),
          },
          // Done twice, it is one end all the same.
          $addToSet: { ends: end },
        },
        { returnDocument: "after" },
      ),
    );
    return finished === null ? undefined : toRecord(finished);
  }

  /** Counts a crawl exactly and keeps that, unless it finished meanwhile. For one that is paused or closed. */
  async recount(id: string): Promise<CrawlCounts> {
    const counts = await this.#deps.client.withSession({ snapshot: true }, (session) =>
      this.#exactCounts(id, session),
    );
    await this.#deps.crawls.updateOne({ _id: id, status: { $ne: "finished" } }, { $set: { counts } });
    return counts;
  }

  /**
   * Ends a running crawl early: what is queued is skipped for `limit`, what is dispatched may end, and then
   * `finishIfOver` finishes it for this reason. With `maxPages`, URLs that were fetched before and wait for
   * another attempt are within the limit, and stay.
   * @returns how many URLs were skipped
   */
  async cut(id: string, reason: FinishReason): Promise<number> {
    const marked = await this.#deps.crawls.updateOne(
      { _id: id, status: "running" },
      { $set: { cut: reason } },
    );
    return marked.matchedCount === 0 ? 0 : this.#skipQueued(id, reason);
  }

  /** Takes up to `pages` from what `maxPages` leaves; resolves with how many were granted. */
  async reserve(id: string, pages: number): Promise<number> {
    // Not tried again on a lost connection by us: a reservation made twice is given back by `settleBudget`.
    const limit = { $ifNull: ["$limits.maxPages", Number.MAX_SAFE_INTEGER] };
    const left = { $max: [0, { $subtract: [limit, "$reserved"] }] };
    const before = await this.#deps.crawls.findOneAndUpdate(
      { _id: id },
      [
        {
          $set: {
            reserved: { $add: ["$reserved", { $min: [pages, left] }] },
            reservedAt: { $cond: [{ $gt: [left, 0] }, "$$NOW", "$reservedAt"] },
          },
        },
      ],
      { returnDocument: "before", projection: { reserved: 1, limits: 1 } },
    );
    if (before === null) return 0;
    const maxPages = before.limits.maxPages ?? Number.MAX_SAFE_INTEGER;
    return Math.min(pages, Math.max(0, maxPages - before.reserved));
  }

  /**
   * Gives back what was reserved and not used: for URLs that were never fetched after all (robots.txt
   * forbade it, the dispatch was taken back).
   * @param quietMs how long ago the last reservation must be, so that whoever made it has either dispatched
   *   by now or can no longer: a lease, or 0 when nobody else may dispatch this crawl
   * @returns `returned`: pages may be fetched again; `spent`: all were used; `wait`: it is too early to tell
   */
  async settleBudget(id: string, quietMs: number): Promise<"returned" | "spent" | "wait"> {
    const crawl = await this.#deps.crawls.findOne({ _id: id }, { projection: { reserved: 1 } });
    if (crawl === null) return "spent";
    const [used] = await this.#deps.urls
      .aggregate<{ pages: number }>([
        {
          $match: {
            _id: idsOf(id),
            $or: [
              { state: { $in: ["done", "failed", "dispatched"] } },
              { state: { $in: ["skipped", "queued"] }, attempts: { $gt: 0 } },
              { state: { $in: ["skipped", "queued"] }, target: { $exists: true } },
              { round: { $gt: 0 } },
            ],
          },
        },
        { $group: { _id: null, pages: { $sum: PAGES_OF_URL } } },
      ])
      .toArray();
    const pages = used?.pages ?? 0;
    if (pages >= crawl.reserved) return "spent";
    const lowered = await this.#deps.crawls.updateOne(
      {
        _id: id,
        reserved: crawl.reserved,
        $expr: { $lte: ["$reservedAt", { $subtract: ["$$NOW", quietMs] }] },
      },
      { $set: { reserved: pages } },
    );
    return lowered.modifiedCount === 0 ? "wait" : "returned";
  }

  /**
   * Removes a crawl that is not running, and all that it left behind. Bodies of its files go through
   * `discardContent`.
   * @throws NotFoundError
   * @throws ConflictError when it runs, or for the standing crawl
   */
  async purge(id: string, discardContent: (contentId: string) => Promise<void>): Promise<void> {
    if (id === INBOX) throw new ConflictError("the standing crawl cannot be purged");
    const crawl = await this.get(id);
    if (crawl === undefined) throw new NotFoundError("crawl", id);
    if (crawl.status === "running" || crawl.status === "paused") {
      throw new ConflictError(`crawl "${id}" is ${crawl.status}: close it before it is purged`);
    }
    const { urls, pages, items, versions, invalidItems, files, archive, crawls } = this.#deps;
    // Bytes go after the records that refer to them, if no others do. The crawl itself goes last: whatever stops this
    // on the way, asking again goes on; bytes that were left are found as something that nothing refers to.
    await deleteAll(archive, idsOf(id));
    for (;;) {
      const batch = await files
        .find({ _id: idsOf(id) })
        .project<{ _id: string; contentId: string }>({ contentId: 1 })
        .limit(FILES_BATCH)
        .toArray();
      if (batch.length === 0) break;
      await files.deleteMany({ _id: { $in: batch.map(({ _id }) => _id) } });
      const contents = new Set(batch.map(({ contentId }) => contentId));
      await Promise.all([...contents].map(discardContent));
    }
    await deleteAll(versions, idsOf(id));
    await deleteAll(items, idsOf(id));
    await deleteAll(invalidItems, idsOf(id));
    await deleteAll(pages, idsOf(id));
    await deleteAll(urls, idsOf(id));
    await crawls.deleteOne({ _id: id });
  }

  async #change(
    id: string,
    verb: string,
    from: readonly CrawlStatus[],
    to: CrawlStatus,
    update: {
      readonly $set: Partial<CrawlDocument>;
      readonly $inc?: { readonly generation: number };
      readonly $push?: { readonly ends: CrawlEnd };
    },
  ): Promise<CrawlRecord> {
    return this.#deps.retrier.run(`${verb} a crawl`, async () => {
      const changed = await this.#deps.crawls.findOneAndUpdate(
        { _id: id, status: { $in: [...from] } },
        update,
        {
          returnDocument: "after",
        },
      );
      if (changed !== null) return toRecord(changed);
      const found = await this.get(id);
      if (found === undefined) throw new NotFoundError("crawl", id);
      if (found.status === to) return found;
      throw new ConflictError(`cannot ${verb} crawl "${id}": it is ${found.status}`);
    });
  }

  /** One seek per shard in the index of open URLs. */
  async #hasOpenUrls(id: string): Promise<boolean> {
    const open = await this.#deps.urls.findOne(
      { state: { $in: ["queued", "dispatched"] }, crawl: id },
      { projection: { _id: 0, state: 1 } },
    );
    return open !== null;
  }

  async #skipQueued(id: string, reason: FinishReason): Promise<number> {
    const { urls, retrier, clock } = this.#deps;
    const left: Filter<UrlDocument> = { state: "queued", crawl: id };
    if (reason === "maxPages") Object.assign(left, { attempts: 0, target: { $exists: false } });
    for (let skipped = 0; ; ) {
      const batch = await urls.find(left).project<{ _id: string }>({ _id: 1 }).limit(CUT_BATCH).toArray();
      if (batch.length === 0) return skipped;
      const ids = batch.map(({ _id }) => _id);
      // What was done before stays done: only another look at it is given up.
      const again = { _id: { $in: ids }, ...left, was: "done" as const };
      const ended = await retrier.run("skip queued URLs", async () => {
        await urls.updateMany(again, { $set: { state: "done", at: clock.now() } }, { hint: "_id_" });
        return urls.updateMany(
          { _id: { $in: ids }, ...left },
          { $set: { state: "skipped", reason: "limit", at: clock.now() } },
          { hint: "_id_" },
        );
      });
      skipped += ended.modifiedCount;
    }
  }

  async #exactCounts(id: string, session: ClientSession): Promise<CrawlCounts> {
    const ofCrawl = { $match: { _id: idsOf(id) } };
    const { urls, pages, items, invalidItems, files } = this.#deps;
    // One after the other: a session carries one operation at a time.
    const states = await urls
      .aggregate<{ _id: UrlDocument["state"]; urls: number }>(
        [ofCrawl, { $group: { _id: "$state", urls: { $sum: 1 } } }],
        { session },
      )
      .toArray();
    const [ofPages] = await pages
      .aggregate<{ bytes: number }>([ofCrawl, { $group: { _id: null, bytes: { $sum: "$bytes" } } }], {
        session,
      })
      .toArray();
    const [ofItems] = await items
      .aggregate<{ items: number }>([ofCrawl, { $count: "items" }], { session })
      .toArray();
    const [ofInvalidItems] = await invalidItems
      .aggregate<{ items: number }>([ofCrawl, { $count: "items" }], { session })
      .toArray();
    const [ofFiles] = await files
      .aggregate<{ files: number; bytes: number }>(
        [ofCrawl, { $group: { _id: null, files: { $sum: 1 }, bytes: { $sum: "$bytes" } } }],
        { session },
      )
      .toArray();
    const urlsIn = (state: UrlDocument["state"]) => states.find(({ _id }) => _id === state)?.urls ?? 0;
    return {
      queued: urlsIn("queued"),
      active: urlsIn("dispatched"),
      done: urlsIn("done"),
      failed: urlsIn("failed"),
      skipped: urlsIn("skipped"),
      items: ofItems?.items ?? 0,
      invalidItems: ofInvalidItems?.items ?? 0,
      files: ofFiles?.files ?? 0,
      bytes: (ofPages?.bytes ?? 0) + (ofFiles?.bytes ?? 0),
    };
  }

  #newEnd(status: CrawlEnd["status"]): CrawlEnd {
    return { id: randomBytes(6).toString("hex"), status, at: this.#deps.clock.now() };
  }

  #newDocument({ fetch, ...spec }: CrawlSpec, options: CreateOptions): CrawlDocument {
    const now = this.#deps.clock.now();
    return {
      _id: options.id ?? newCrawlId(now),
      ...spec,
      params: JSON.stringify(spec.params),
      ...(fetch !== undefined && { fetch: JSON.stringify(fetch) }),
      status: "running",
      generation: 1,
      createdAt: now,
      startedAt: now,
      counts: NO_COUNTS,
      additions: 0,
      reserved: 0,
      ...(options.resource !== undefined && { resource: options.resource }),
      ...(options.idempotency !== undefined && { idempotency: options.idempotency }),
      ...(options.origin !== undefined && { origin: options.origin }),
    };
  }
}

const POSITION = z.tuple([z.number(), z.string()]);

const DIGITS = "0123456789abcdefghjkmnpqrstvwxyz";

/** 9 digits of time, 7 of chance, 5 bits each: short, since it stands in the id of all that a crawl has. */
export function newCrawlId(now: number): string {
  let time = "";
  for (let rest = now; time.length < 9; rest = Math.floor(rest / 32)) time = DIGITS.charAt(rest % 32) + time;
  const chance = [...randomBytes(7)].map((byte) => DIGITS.charAt(byte % 32)).join("");
  return time + chance;
}

function toRecord(document: CrawlDocument): CrawlRecord {
  const {
    _id,
    params,
    fetch,
    reserved: _reserved,
    reservedAt: _reservedAt,
    idempotency: _idempotency,
    ends: _ends,
    ...fields
  } = document;
  return {
    id: _id,
    ...fields,
    // Those of crawls that were made before something was counted lack it.
    counts: { ...NO_COUNTS, ...fields.counts },
    params: JSON.parse(params) as Record<string, unknown>,
    ...(fetch !== undefined && { fetch: JSON.parse(fetch) as FetchOptions }),
  };
}

/** In batches, so that no single command runs for long. */
async function deleteAll<Document extends { readonly _id: string }>(
  collection: Collection<Document>,
  ids: ReturnType<typeof idsOf>,
): Promise<void> {
  const filter = { _id: ids } as Filter<Document>;
  for (;;) {
    const batch = await collection
      .find(filter)
      .project<{ _id: string }>({ _id: 1 })
      .sort({ _id: 1 })
      .limit(PURGE_BATCH)
      .toArray();
    const last = batch.at(-1);
    if (last === undefined) return;
    await collection.deleteMany({ _id: { $gte: ids.$gte, $lte: last._id } } as Filter<Document>);
  }
}
