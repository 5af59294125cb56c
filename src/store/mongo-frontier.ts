import {
  type AnyBulkWriteOperation,
  type Collection,
  type Filter,
  MongoServerError,
  type UpdateFilter,
} from "mongodb";
import type {
  AddResult,
  CrawlHost,
  Dispatch,
  DispatchedUrl,
  Ending,
  Frontier,
  NewUrl,
  QueuedBatch,
  QueuedHost,
  QueuedUrl,
  SuspectStart,
  UrlState,
} from "../crawl/frontier.js";
import { type Beginning, deathsOf, suspectOf } from "../crawl/suspicion.js";
import { shardOf } from "../crawl/urls/url.js";
import type { Clock } from "../lib/clock.js";
import { isDuplicateKey, refusedAsDuplicates } from "./duplicates.js";
import type { Retrier } from "./retrier.js";
import {
  MAX_PAST_EVENTS,
  markedInstant,
  type PastEvent,
  requestOf,
  type UrlDocument,
} from "./url-document.js";

/** A URL handed in from outside, one by one. */
export type Admission = {
  readonly url: NewUrl;
  /** Fetch it again when it has ended, as a new round. */
  readonly refetch?: boolean;
};

export type Admitted =
  | { readonly kind: "added" }
  /** It had ended, and waits again. */
  | { readonly kind: "requeued" }
  /** It was there, in this state, and still is. */
  | { readonly kind: "known"; readonly state: UrlState };

/** A URL as it is looked up, whatever its state. */
export type FoundUrl = {
  readonly url: QueuedUrl;
  /** While it is dispatched. */
  readonly dispatch?: Dispatch;
  readonly endedBy?: string;
};

export type MongoFrontierDeps = {
  readonly urls: Collection<UrlDocument>;
  readonly retrier: Retrier;
  readonly clock: Clock;
};

export type MongoFrontierOptions = {
  /** Number of shards that hosts hash into. Must never change while there are URLs. @default 64 */
  readonly shardCount?: number;
};

const OPEN: readonly UrlState[] = ["queued", "dispatched"];
const ENDED: readonly UrlState[] = ["done", "failed", "skipped"];

/** With so many crawls to look for, it pays to ask first which of them have anything. */
const MANY_CRAWLS = 3;

/** The server's answer when the values of a `distinct` do not fit one document. */
const DISTINCT_TOO_BIG = 17_217;

/**
 * Documents named by id that are to be in some state: without this the server tries out each time whether
 * the index of open URLs would not find them faster.
 */
const BY_ID = { hint: "_id_" } as const;

/** Share of known URLs from which on it pays to look before inserting, and how fast that share is learnt. */
const MUCH_KNOWN = 0.25;
const KNOWN_SHARE_WEIGHT = 0.2;

const MAX_ERROR_CHARACTERS = 500;

/**
 * The frontier in MongoDB, shared by all masters and workers. Each method is a small and fixed number of
 * commands, however many URLs it is given; state changes are guarded by the state (and the dispatch's token)
 * they start from, so that of two that race one wins, and making one again changes nothing.
 */
export class MongoFrontier implements Frontier {
  /** Which part of the URLs added lately was known already. */
  #knownShare = 0.5;
  readonly #urls: Collection<UrlDocument>;
  readonly #retrier: Retrier;
  readonly #clock: Clock;
  readonly #shardCount: number;

  constructor(deps: MongoFrontierDeps, options: MongoFrontierOptions = {}) {
    this.#urls = deps.urls;
    this.#retrier = deps.retrier;
    this.#clock = deps.clock;
    this.#shardCount = options.shardCount ?? 64;
  }

  async add(urls: readonly NewUrl[]): Promise<AddResult> {
    const unsettled = this.#knownShare > MUCH_KNOWN ? await this.#unsettled(urls) : urls;
    const { inserted, duplicates } = await this.#insert(unsettled);
    const known = (urls.length - inserted.size) / Math.max(1, urls.length);
    this.#knownShare += (known - this.#knownShare) * KNOWN_SHARE_WEIGHT;
    const reopened = await this.#meetAgain(duplicates);
    const added = [...inserted].filter((url) => url.skip === undefined);
    return {
      queued: [...added, ...reopened],
      skipped: inserted.size - added.length,
      known: urls.length - inserted.size - reopened.length,
    };
  }

  /** Adds URLs from outside, telling of each what became of it, in the order given. */
  async admit(admissions: readonly Admission[]): Promise<readonly Admitted[]> {
    const { inserted, duplicates } = await this.#insert(admissions.map(({ url }) => url));
    if (duplicates.length === 0) return admissions.map(() => ({ kind: "added" }));
    const refetched = admissions.filter(({ url, refetch }) => refetch === true && !inserted.has(url));
    const requeued = new Set<NewUrl>(await this.#refetch(refetched.map(({ url }) => url)));
    for (const url of await this.#meetAgain(duplicates.filter((duplicate) => !requeued.has(duplicate)))) {
      requeued.add(url);
    }
    const states = new Map<string, UrlState>();
    const known = this.#urls
      .find({ _id: { $in: duplicates.map(({ id }) => id) } })
      .project<{ _id: string; state: UrlState }>({ state: 1 });
    for await (const { _id, state } of known) states.set(_id, state);
    return admissions.map(({ url }) => {
      if (inserted.has(url)) return { kind: "added" };
      if (requeued.has(url)) return { kind: "requeued" };
      return { kind: "known", state: states.get(url.id) ?? "queued" };
    });
  }

  async queuedHosts(shards: readonly number[], crawls: readonly string[]): Promise<readonly QueuedHost[]> {
    let wanted = crawls;
    if (crawls.length > MANY_CRAWLS) {
      const waiting = new Set<string>(
        await this.#urls.distinct("crawl", { state: "queued", shard: { $in: [...shards] } }),
      );
      wanted = crawls.filter((crawl) => waiting.has(crawl));
    }
    const found: QueuedHost[] = [];
    for (const crawl of wanted) {
      for (const host of await this.#hostsOf(crawl, shards)) {
        found.push({ crawl, host, shard: shardOf(host, this.#shardCount) });
      }
    }
    return found;
  }

  async queued(of: CrawlHost, limit: number, now: number): Promise<QueuedBatch> {
    const lane = {
      state: "queued",
      shard: shardOf(of.host, this.#shardCount),
      crawl: of.crawl,
      host: of.host,
    } as const;
    // As a rule all that wait are ready, or they are few: then one look, in the index's order, tells all.
    const first = await this.#read(lane, limit);
    const ready = first.filter(({ readyAt }) => readyAt <= now);
    if (ready.length === limit) return { urls: ready };
    if (first.length < limit) {
      const later = first.filter(({ readyAt }) => readyAt > now).map(({ readyAt }) => readyAt);
      return later.length === 0 ? { urls: ready } : { urls: ready, nextReadyAt: Math.min(...later) };
    }
    // Some that wait for their instant stand before others that are ready.
    const urls = await this.#read({ ...lane, readyAt: { $lte: now } }, limit);
    if (urls.length === limit) return { urls };
    const [next] = await this.#urls
      .aggregate<{ readyAt: number }>([
        { $match: { ...lane, readyAt: { $gt: now } } },
        { $group: { _id: null, readyAt: { $min: "$readyAt" } } },
      ])
      .toArray();
    return next === undefined ? { urls } : { urls, nextReadyAt: next.readyAt };
  }

  async dispatched(shards: readonly number[]): Promise<readonly DispatchedUrl[]> {
    const found: DispatchedUrl[] = [];
    const documents = this.#urls
      .find({ state: "dispatched", shard: { $in: [...shards] } })
      .project<Pick<UrlDocument, "_id" | "crawl" | "host" | "request" | "dispatch">>({
        crawl: 1,
        host: 1,
        request: 1,
        dispatch: 1,
      });
    for await (const { _id, crawl, host, request, dispatch } of documents) {
      if (dispatch === undefined) continue;
      const spider = request === undefined ? undefined : requestOf(request).spider;
      found.push({ id: _id, crawl, host, ...(spider !== undefined && { spider }), dispatch });
    }
    return found;
  }

  /** A URL with the dispatch that it is under, and the token of the one whose end it remembers. */
  async find(id: string): Promise<FoundUrl | undefined> {
    const document = await this.#urls.findOne({ _id: id });
    if (document === null) return undefined;
    const { dispatch, endedBy } = document;
    return {
      url: toQueued(document),
      ...(dispatch !== undefined && { dispatch }),
      ...(endedBy !== undefined && { endedBy }),
    };
  }

  async dispatch(ids: readonly string[], dispatch: Dispatch): Promise<ReadonlySet<string>> {
    if (ids.length === 0) return new Set();
    return this.#retrier.run("dispatch URLs", async (again) => {
      const marked = await this.#urls.updateMany(
        { _id: { $in: [...ids] }, state: "queued" },
        { $set: { state: "dispatched", dispatch, at: this.#clock.now() }, $unset: { reason: "" } },
        BY_ID,
      );
      if (marked.modifiedCount === ids.length) return new Set(ids);
      if (marked.modifiedCount === 0 && !again) return new Set<string>();
      return this.#idsOf({ _id: { $in: [...ids] }, state: "dispatched", "dispatch.token": dispatch.token });
    });
  }

  async commit(endings: readonly Ending[]): Promise<ReadonlySet<string>> {
    if (endings.length === 0) return new Set();
    const at = markedInstant(this.#clock.now());
    return this.#retrier.run("commit the ends of URLs", async (again) => {
      // An ending is bound to its own token, an update of many only to one of theirs. So with several tokens
      // those that are no longer current are left out beforehand. That cannot be outrun: to become current
      // now and be among these tokens, a dispatch would have to be made and to end before this call.
      const current = hasOneToken(endings) ? endings : await this.#currentOf(endings);
      if (current.length === 0 && !again) return new Set<string>();
      let applied = 0;
      if (current.length > 0) {
        const result = await this.#urls.bulkWrite(this.#updatesOf(current, at), { ordered: false });
        applied = result.modifiedCount;
      }
      if (applied === current.length && !again) return new Set(current.map(({ id }) => id));
      return this.#idsOf({ _id: { $in: endings.map(({ id }) => id) }, at });
    });
  }

  async revoke(ids: readonly string[], tokens: readonly string[], readyAt: number): Promise<number> {
    return this.#retrier.run("take dispatches back", async () => {
      const revoked = await this.#urls.updateMany(
        { _id: { $in: [...ids] }, state: "dispatched", "dispatch.token": { $in: [...tokens] } },
        { $set: { state: "queued", readyAt, at: this.#clock.now() }, $unset: { dispatch: "" } },
        BY_ID,
      );
      return revoked.modifiedCount;
    });
  }

  /** Queues again all of a crawl that is dispatched: it was closed, and its tasks are stale. */
  async releaseCrawl(crawl: string): Promise<number> {
    const now = this.#clock.now();
    return this.#retrier.run("take a crawl's dispatches back", async () => {
      const released = await this.#urls.updateMany(
        { state: "dispatched", crawl },
        { $set: { state: "queued", readyAt: now, at: now }, $unset: { dispatch: "" } },
      );
      return released.modifiedCount;
    });
  }

  async claim(target: NewUrl, by: string): Promise<boolean> {
    const document = {
      ...this.#toDocument({ ...target, skip: "duplicate" }, this.#clock.now()),
      claimedBy: by,
    };
    return this.#retrier.run("claim the target of a redirect", async () => {
      try {
        await this.#urls.insertOne(document);
        return true;
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
      }
      const known = await this.#urls.findOne({ _id: target.id }, { projection: { claimedBy: 1 } });
      return known?.claimedBy === by;
    });
  }

  async begin({ id, token, node, maxCrashes }: SuspectStart): Promise<Beginning> {
    const at = this.#clock.now();
    return this.#retrier.run("note the start of a suspect", async () => {
      const current = { _id: id, state: "dispatched", "dispatch.token": token } as const;
      const found = await this.#urls.findOne(current, { ...BY_ID, projection: { suspicion: 1 } });
      if (found === null) return { kind: "stale" };
      const deaths = deathsOf(found.suspicion ?? {}, token);
      if (deaths.length >= maxCrashes) return { kind: "poison", deaths };
      const noted = await this.#urls.updateOne(
        current,
        { $addToSet: { "suspicion.begun": { token, node, at } } },
        BY_ID,
      );
      return { kind: noted.matchedCount === 1 ? "begun" : "stale" };
    });
  }

  async vouch(dispatches: readonly { readonly id: string; readonly token: string }[]): Promise<void> {
    if (dispatches.length === 0) return;
    const updates = grouped(dispatches, ({ token }) => token).map((group) => ({
      updateMany: {
        ...BY_ID,
        filter: { _id: { $in: group.map(({ id }) => id) }, state: { $in: OPEN } },
        update: { $addToSet: { "suspicion.vouched": group[0].token } },
      },
    }));
    await this.#retrier.run("vouch for dispatches", () => this.#urls.bulkWrite(updates, { ordered: false }));
  }

  /** URLs of running crawls by state, for gauges: counted in the index of open URLs only. */
  async openCounts(): Promise<{ readonly queued: number; readonly active: number }> {
    const [queued, active] = await Promise.all([
      this.#urls.countDocuments({ state: "queued" }),
      this.#urls.countDocuments({ state: "dispatched" }),
    ]);
    return { queued, active };
  }

  /** Inserts what is unknown; exact about which those were, even when it had to be tried again. */
  async #insert(
    urls: readonly NewUrl[],
  ): Promise<{ readonly inserted: ReadonlySet<NewUrl>; readonly duplicates: readonly NewUrl[] }> {
    if (urls.length === 0) return { inserted: new Set(), duplicates: [] };
    const at = markedInstant(this.#clock.now());
    const documents = urls.map((url) => this.#toDocument(url, at));
    return this.#retrier.run("add URLs", async (again) => {
      const refused = new Set<number>();
      try {
        await this.#urls.insertMany(documents, { ordered: false });
      } catch (error) {
        for (const index of refusedAsDuplicates(error)) refused.add(index);
      }
      const duplicates = urls.filter((_, index) => refused.has(index));
      const inserted = new Set(urls.filter((_, index) => !refused.has(index)));
      if (!again || duplicates.length === 0) return { inserted, duplicates };
      // What an earlier attempt inserted is refused now, and bears our mark.
      const ours = await this.#idsOf({ _id: { $in: duplicates.map(({ id }) => id) }, at });
      const stillRefused: NewUrl[] = [];
      const counted = new Set([...inserted].map(({ id }) => id));
      for (const duplicate of duplicates) {
        if (!ours.has(duplicate.id) || counted.has(duplicate.id)) stillRefused.push(duplicate);
        else {
          counted.add(duplicate.id);
          inserted.add(duplicate);
        }
      }
      return { inserted, duplicates: stillRefused };
    });
  }

  /**
   * Those of the URLs that are unknown, or found nearer to the seeds than they were known to be. To look costs a
   * fifth of an insertion that is refused, and half of one that is not.
   */
  async #unsettled(urls: readonly NewUrl[]): Promise<readonly NewUrl[]> {
    const known = await this.#retrier.run("add URLs", () =>
      this.#urls
        .find({ _id: { $in: urls.map(({ id }) => id) } }, { batchSize: 10_000 })
        .project<Pick<UrlDocument, "_id" | "depth">>({ depth: 1 })
        .toArray(),
    );
    const depths = new Map(known.map(({ _id, depth }) => [_id, depth]));
    return urls.filter(({ id, depth }) => depth < (depths.get(id) ?? Number.POSITIVE_INFINITY));
  }

  /** Known URLs were found again; returns those that wait again for that. */
  async #meetAgain(duplicates: readonly NewUrl[]): Promise<readonly NewUrl[]> {
    if (duplicates.length === 0) return [];
    const at = markedInstant(this.#clock.now());
    const updates: AnyBulkWriteOperation<UrlDocument>[] = [];
    const mayReopen = new Map<string, NewUrl>();
    for (const group of grouped(
      duplicates,
      ({ depth, kind, skip }) => `${depth} ${kind} ${skip === undefined}`,
    )) {
      const [{ depth, kind, skip }] = group;
      const shallower = { _id: { $in: group.map(({ id }) => id) }, depth: { $gt: depth } };
      updates.push({
        updateMany: {
          ...BY_ID,
          filter: { ...shallower, state: "queued" },
          update: { $set: kind === "page" ? { depth, kind } : { depth } },
        },
      });
      if (skip !== undefined) continue;
      for (const url of group) {
        const rival = mayReopen.get(url.id);
        if (rival === undefined || url.depth < rival.depth) mayReopen.set(url.id, url);
      }
      updates.push({
        updateMany: {
          ...BY_ID,
          filter: { ...shallower, state: "skipped", reason: { $in: ["depth", "type"] } },
          update: {
            $set: { state: "queued", depth, kind, readyAt: this.#clock.now(), at },
            $unset: { reason: "", error: "", statusCode: "" },
          },
        },
      });
    }
    return this.#retrier.run("lower the depth of known URLs", async (again) => {
      const result = await this.#urls.bulkWrite(updates, { ordered: false });
      if (mayReopen.size === 0 || (result.modifiedCount === 0 && !again)) return [];
      const reopened = await this.#idsOf({ _id: { $in: [...mayReopen.keys()] }, at });
      return [...reopened].flatMap((id) => mayReopen.get(id) ?? []);
    });
  }

  /** Opens URLs that have ended for another round, each as it is asked for now; returns those that were. */
  async #refetch(urls: readonly NewUrl[]): Promise<readonly NewUrl[]> {
    const byId = new Map(urls.map((url) => [url.id, url]));
    if (byId.size === 0) return [];
    const now = this.#clock.now();
    const at = markedInstant(now);
    const updates = [...byId.values()].map((url): AnyBulkWriteOperation<UrlDocument> => {
      const { _id, round: _round, ...fields } = this.#toDocument(url, at);
      const { reason: _reason, foundAt: _foundAt, parent, request, ...kept } = fields;
      return {
        updateOne: {
          filter: { _id, state: { $in: ENDED } },
          update: {
            $set: {
              ...kept,
              state: "queued",
              readyAt: now,
              ...(parent !== undefined && { parent }),
              ...(request !== undefined && { request }),
            },
            $inc: { round: 1 },
            $unset: {
              ...(parent === undefined && { parent: "" }),
              ...(request === undefined && { request: "" }),
              ...CLEARED,
              target: "",
              claimedBy: "",
              suspicion: "",
              nextVisitAt: "",
            },
          },
        },
      };
    });
    return this.#retrier.run("queue URLs again", async (again) => {
      const result = await this.#urls.bulkWrite(updates, { ordered: false });
      if (result.modifiedCount === byId.size && !again) return [...byId.values()];
      if (result.modifiedCount === 0 && !again) return [];
      const requeued = await this.#idsOf({ _id: { $in: [...byId.keys()] }, at });
      return [...requeued].flatMap((id) => byId.get(id) ?? []);
    });
  }

  /** The hosts of a crawl's queued URLs: a look from key to key in the index, not at each URL. */
  async #hostsOf(crawl: string, shards: readonly number[]): Promise<readonly string[]> {
    try {
      return await this.#urls.distinct("host", { state: "queued", shard: { $in: [...shards] }, crawl });
    } catch (error) {
      if (!(error instanceof MongoServerError) || error.code !== DISTINCT_TOO_BIG || shards.length < 2)
        throw error;
      const half = Math.ceil(shards.length / 2);
      const first = await this.#hostsOf(crawl, shards.slice(0, half));
      return [...first, ...(await this.#hostsOf(crawl, shards.slice(half)))];
    }
  }

  async #read(filter: Filter<UrlDocument>, limit: number): Promise<QueuedUrl[]> {
    const documents = await this.#urls.find(filter).sort({ priority: -1, readyAt: 1 }).limit(limit).toArray();
    return documents.map(toQueued);
  }

  async #currentOf(endings: readonly Ending[]): Promise<readonly Ending[]> {
    const tokens = new Map<string, string>();
    const dispatched = this.#urls
      .find({ _id: { $in: endings.map(({ id }) => id) }, state: "dispatched" }, BY_ID)
      .project<Pick<UrlDocument, "_id" | "dispatch">>({ "dispatch.token": 1 });
    for await (const { _id, dispatch } of dispatched) tokens.set(_id, dispatch?.token ?? "");
    return endings.filter(({ id, token }) => tokens.get(id) === token);
  }

  /** One update for each set of endings that write the same: as a rule a handful, whatever their number. */
  #updatesOf(endings: readonly Ending[], at: number): AnyBulkWriteOperation<UrlDocument>[] {
    return grouped(endings, sameWrite).map((group) => ({
      updateMany: {
        ...BY_ID,
        filter: {
          _id: { $in: group.map(({ id }) => id) },
          state: "dispatched",
          "dispatch.token": { $in: [...new Set(group.map(({ token }) => token))] },
        },
        update: this.#updateOf(group[0], at),
      },
    }));
  }

  #updateOf(ending: Ending, at: number): UpdateFilter<UrlDocument> {
    const { state, attempts, statusCode, reason } = ending;
    const $set: { -readonly [Field in keyof UrlDocument]?: UrlDocument[Field] } = { state, attempts, at };
    if (ending.isRemembered === true) $set.endedBy = ending.token;
    if (statusCode !== undefined) $set.statusCode = statusCode;
    if (ending.node !== undefined) $set.node = ending.node;
    if (reason !== undefined) $set.reason = reason.slice(0, MAX_ERROR_CHARACTERS);
    if (ending.state === "queued") {
      $set.readyAt = ending.readyAt;
      if (ending.target !== undefined) $set.target = ending.target;
      if (ending.host !== undefined) {
        $set.host = ending.host;
        $set.shard = shardOf(ending.host, this.#shardCount);
      }
    } else {
      if (ending.error !== undefined) $set.error = ending.error.slice(0, MAX_ERROR_CHARACTERS);
      if (ending.items > 0) $set.items = ending.items;
      if (ending.invalidItems !== undefined) $set.invalidItems = ending.invalidItems;
      if (ending.files > 0) $set.files = ending.files;
      if (ending.nextVisit !== undefined) {
        $set.nextVisitAt = ending.nextVisit.at;
        $set.revisit = ending.nextVisit.revisit;
      }
    }
    if (ending.state !== "queued") {
      const { items: _items, invalidItems: _invalidItems, files: _files, ...rest } = clearedBut($set);
      const cleared = ending.isUnchanged === true ? rest : clearedBut($set);
      return { $set, $unset: { ...cleared, suspicion: "" } };
    }
    const $push = { past: { $each: [pastEventOf(ending, at)], $slice: -MAX_PAST_EVENTS } };
    return withSuspicion({ $set, $unset: clearedBut($set), $push }, ending, at);
  }

  #toDocument(url: NewUrl, at: number): UrlDocument {
    const { id, crawl, host, kind, depth, priority, parent, request, skip, error } = url;
    return {
      _id: id,
      crawl,
      url: url.url,
      host,
      shard: shardOf(host, this.#shardCount),
      state: skip === undefined ? "queued" : "skipped",
      kind,
      depth,
      priority,
      readyAt: Math.floor(at),
      attempts: 0,
      ...(parent !== undefined && { parent }),
      ...(request !== undefined && { request: JSON.stringify(request) }),
      ...(skip !== undefined && { reason: skip }),
      foundAt: Math.floor(at),
      ...(error !== undefined && { error: error.slice(0, MAX_ERROR_CHARACTERS) }),
      at,
    };
  }

  async #idsOf(filter: Filter<UrlDocument>): Promise<Set<string>> {
    const documents = await this.#urls.find(filter, BY_ID).project<{ _id: string }>({ _id: 1 }).toArray();
    return new Set(documents.map(({ _id }) => _id));
  }
}

/** What an end leaves no trace of unless it says so anew. */
const CLEARED = {
  dispatch: "",
  statusCode: "",
  reason: "",
  error: "",
  items: "",
  invalidItems: "",
  files: "",
  node: "",
} as const;

function clearedBut(kept: object): Partial<typeof CLEARED> {
  return Object.fromEntries(Object.entries(CLEARED).filter(([field]) => !(field in kept)));
}

function pastEventOf(ending: Ending & { readonly state: "queued" }, at: number): PastEvent {
  const { reason, statusCode, node, readyAt } = ending;
  return {
    at: Math.floor(at),
    what: (reason ?? "handed back").slice(0, MAX_ERROR_CHARACTERS),
    ...(statusCode !== undefined && { statusCode }),
    ...(node !== undefined && { node }),
    ...(readyAt > at && { until: readyAt }),
  };
}

function withSuspicion(
  update: UpdateFilter<UrlDocument>,
  { token, suspicion }: Ending & { readonly state: "queued" },
  at: number,
): UpdateFilter<UrlDocument> {
  switch (suspicion) {
    case "raised":
      return { ...update, $addToSet: { "suspicion.lost": { token, at: Math.floor(at) } } };
    case "survived":
      return { ...update, $pull: { "suspicion.begun": { token } } };
    default:
      return update;
  }
}

function hasOneToken(endings: readonly Ending[]): boolean {
  const token = endings[0]?.token;
  return endings.every((ending) => ending.token === token);
}

function sameWrite({ id: _id, crawl: _crawl, token, ...written }: Ending): string {
  const names =
    written.isRemembered === true || (written.state === "queued" && written.suspicion !== undefined);
  return JSON.stringify(names ? { ...written, token } : written);
}

function grouped<Entry>(entries: readonly Entry[], keyOf: (entry: Entry) => string): [Entry, ...Entry[]][] {
  const groups = new Map<string, [Entry, ...Entry[]]>();
  for (const entry of entries) {
    const key = keyOf(entry);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [entry]);
    else group.push(entry);
  }
  return [...groups.values()];
}

function toQueued(document: UrlDocument): QueuedUrl {
  const {
    _id,
    crawl,
    url,
    host,
    kind,
    depth,
    priority,
    parent,
    request,
    target,
    readyAt,
    attempts,
    round,
    revisit,
    suspicion,
  } = document;
  const suspect = suspicion === undefined ? undefined : suspectOf(suspicion);
  return {
    id: _id,
    crawl,
    url,
    host,
    kind,
    depth,
    priority,
    ...(parent !== undefined && { parent }),
    ...(request !== undefined && { request: requestOf(request) }),
    ...(target !== undefined && { target }),
    readyAt,
    attempts,
    round: round ?? 0,
    ...(revisit !== undefined && { revisit }),
    ...(suspect !== undefined && { suspect }),
  };
}
