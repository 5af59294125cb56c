import type { CrawlCounts } from "./crawl.js";
import { type HostNote, type HostState, type HostStates, stateAfter } from "./dispatch/host-state.js";
import type {
  AddResult,
  CrawlHost,
  Dispatch,
  DispatchedUrl,
  Ending,
  EndState,
  Frontier,
  NewUrl,
  Opened,
  OpenedUrl,
  QueuedBatch,
  QueuedHost,
  QueuedUrl,
  Rounds,
  SuspectStart,
  UrlState,
  Wanted,
} from "./frontier.js";
import { REOPENED_SKIPS } from "./frontier.js";
import type { Revisit } from "./revisit.js";
import { type Beginning, deathsOf, type Suspicion, suspectOf } from "./suspicion.js";
import { shardOf } from "./urls/url.js";

/** A URL in memory. Ended ones keep only what later questions need. */
type Entry = {
  url: NewUrl;
  state: UrlState;
  depth: number;
  host: string;
  readyAt: number;
  attempts: number;
  round: number;
  target?: QueuedUrl["target"];
  dispatch?: Dispatch;
  reason?: string;
  claimedBy?: string;
  suspicion?: Suspicion;
  revisit?: Revisit;
  /** While it has ended: when it is fetched again. */
  nextVisitAt?: number;
  /** When it ended, or was opened again; only of those that have ended once. */
  at?: number;
  /** How it had ended, of one that was opened again. */
  was?: EndState;
  /** Where it waits, while it is queued. */
  place?: Place;
};

/** URLs of one crawl on one host that wait, by priority (index 9 is first), each level in order of arrival. */
type Waiting = { levels: (Place[] | undefined)[]; count: number };

/** A place in the queue. A URL that left it and came back has a new one; the old one then counts no more. */
type Place = { readonly entry: Entry };

/** The frontier of standalone mode: all in this process, gone with it. */
export class MemoryFrontier implements Frontier, Rounds {
  readonly #entries = new Map<string, Entry>();
  readonly #waiting = new Map<string, Map<string, Waiting>>();
  readonly #dispatched = new Set<Entry>();
  /** Those that have a next visit. */
  readonly #comingAgain = new Map<string, Entry>();
  readonly #shardCount: number;
  readonly #counts = { queued: 0, dispatched: 0, done: 0, failed: 0, skipped: 0 };

  constructor(shardCount = 64) {
    this.#shardCount = shardCount;
  }

  /** URLs by state, over all crawls. */
  get counts(): Pick<CrawlCounts, "queued" | "active" | "done" | "failed" | "skipped"> {
    const { dispatched, ...others } = this.#counts;
    return { ...others, active: dispatched };
  }

  async add(urls: readonly NewUrl[]): Promise<AddResult> {
    const queued: NewUrl[] = [];
    let skipped = 0;
    let known = 0;
    for (const url of urls) {
      const entry = this.#entries.get(url.id);
      if (entry === undefined) {
        this.#insert(url);
        if (url.skip === undefined) queued.push(url);
        else skipped += 1;
        continue;
      }
      const wasReopened = this.#meetAgain(entry, url);
      if (wasReopened) queued.push(url);
      else known += 1;
    }
    return { queued, skipped, known };
  }

  async queuedHosts(shards: readonly number[], crawls: readonly string[]): Promise<readonly QueuedHost[]> {
    const wanted = new Set(shards);
    const found: QueuedHost[] = [];
    for (const crawl of crawls) {
      for (const [host, waiting] of this.#waiting.get(crawl) ?? []) {
        const shard = shardOf(host, this.#shardCount);
        if (waiting.count > 0 && wanted.has(shard)) found.push({ crawl, host, shard });
      }
    }
    return found;
  }

  async queued(of: CrawlHost, limit: number, now: number): Promise<QueuedBatch> {
    const waiting = this.#waiting.get(of.crawl)?.get(of.host);
    const urls: QueuedUrl[] = [];
    let nextReadyAt: number | undefined;
    for (let priority = 9; waiting !== undefined && priority >= 0; priority -= 1) {
      const level = this.#tidy(waiting, priority);
      for (const place of level) {
        const { entry } = place;
        if (entry.place !== place) continue;
        if (entry.readyAt > now) nextReadyAt = Math.min(nextReadyAt ?? entry.readyAt, entry.readyAt);
        else if (urls.length < limit) urls.push(toQueued(entry));
        if (urls.length >= limit) return { urls };
      }
    }
    return nextReadyAt === undefined ? { urls } : { urls, nextReadyAt };
  }

  async dispatched(shards: readonly number[]): Promise<readonly DispatchedUrl[]> {
    const wanted = new Set(shards);
    const found: DispatchedUrl[] = [];
    for (const { url, host, dispatch } of this.#dispatched) {
      if (dispatch !== undefined && wanted.has(shardOf(host, this.#shardCount))) {
        const spider = url.request?.spider;
        found.push({ id: url.id, crawl: url.crawl, host, ...(spider !== undefined && { spider }), dispatch });
      }
    }
    return found;
  }

  async dispatch(ids: readonly string[], dispatch: Dispatch): Promise<ReadonlySet<string>> {
    const marked = new Set<string>();
    for (const id of ids) {
      const entry = this.#entries.get(id);
      if (entry?.state !== "queued") continue;
      this.#leaveQueue(entry);
      this.#become(entry, "dispatched");
      entry.dispatch = dispatch;
      this.#dispatched.add(entry);
      marked.add(id);
    }
    return marked;
  }

  async commit(endings: readonly Ending[]): Promise<ReadonlySet<string>> {
    const applied = new Set<string>();
    for (const ending of endings) {
      const entry = this.#entries.get(ending.id);
      if (entry === undefined || entry.dispatch?.token !== ending.token) continue;
      this.#dispatched.delete(entry);
      delete entry.dispatch;
      entry.attempts = ending.attempts;
      if (ending.state === "queued") {
        noteSuspicion(entry, ending);
        if (ending.target !== undefined) entry.target = ending.target;
        if (ending.host !== undefined) entry.host = ending.host;
        this.#enqueue(entry, ending.readyAt);
      } else {
        if (ending.reason !== undefined) entry.reason = ending.reason;
        else delete entry.reason;
        delete entry.suspicion;
        entry.at = Date.now();
        if (ending.nextVisit !== undefined) {
          entry.revisit = ending.nextVisit.revisit;
          entry.nextVisitAt = ending.nextVisit.at;
          this.#comingAgain.set(ending.id, entry);
        }
        this.#become(entry, ending.state);
      }
      applied.add(ending.id);
    }
    return applied;
  }

  async revoke(ids: readonly string[], tokens: readonly string[], readyAt: number): Promise<number> {
    const revocable = new Set(tokens);
    let revoked = 0;
    for (const id of ids) {
      const entry = this.#entries.get(id);
      if (entry?.dispatch === undefined || !revocable.has(entry.dispatch.token)) continue;
      this.#dispatched.delete(entry);
      delete entry.dispatch;
      this.#enqueue(entry, readyAt);
      revoked += 1;
    }
    return revoked;
  }

  async claim(target: NewUrl, by: string): Promise<boolean> {
    const known = this.#entries.get(target.id);
    if (known !== undefined) return known.claimedBy === by;
    const entry = this.#insert({ ...target, skip: "duplicate" });
    entry.claimedBy = by;
    return true;
  }

  async begin({ id, token, node, maxCrashes }: SuspectStart): Promise<Beginning> {
    const entry = this.#entries.get(id);
    if (entry?.dispatch?.token !== token) return { kind: "stale" };
    const { suspicion = {} } = entry;
    const deaths = deathsOf(suspicion, token);
    if (deaths.length >= maxCrashes) return { kind: "poison", deaths };
    entry.suspicion = { ...suspicion, begun: [...(suspicion.begun ?? []), { token, node, at: Date.now() }] };
    return { kind: "begun" };
  }

  async vouch(dispatches: readonly { readonly id: string; readonly token: string }[]): Promise<void> {
    for (const { id, token } of dispatches) {
      const entry = this.#entries.get(id);
      if (entry?.state !== "queued" && entry?.state !== "dispatched") continue;
      entry.suspicion = { ...entry.suspicion, vouched: [...(entry.suspicion?.vouched ?? []), token] };
    }
  }

  /** Ends everything of a crawl that still waits and was never tried; returns how many that were. */
  skipQueued(crawl: string, reason: string): number {
    let ended = 0;
    for (const entry of this.#entries.values()) {
      if (entry.url.crawl !== crawl || entry.state !== "queued") continue;
      if (entry.attempts > 0 || entry.target !== undefined) continue;
      this.#leaveQueue(entry);
      // What was done before stays done: only another look at it is given up.
      if (entry.was === "done") this.#become(entry, "done");
      else {
        entry.reason = reason;
        this.#become(entry, "skipped");
      }
      ended += 1;
    }
    return ended;
  }

  /** How many URLs are to be fetched again, over all crawls. */
  get nextVisits(): number {
    return this.#comingAgain.size;
  }

  async openDue(crawl: string, shards: readonly number[], now: number, limit: number): Promise<Opened> {
    const wanted = new Set(shards);
    const urls: OpenedUrl[] = [];
    let nextDueAt = Number.POSITIVE_INFINITY;
    for (const entry of this.#comingAgain.values()) {
      const { nextVisitAt = 0, url, host } = entry;
      if (url.crawl !== crawl || !wanted.has(shardOf(host, this.#shardCount))) continue;
      if (nextVisitAt > now) nextDueAt = Math.min(nextDueAt, nextVisitAt);
      else if (urls.length === limit) return { urls, more: "" };
      else urls.push(this.#open(entry));
    }
    return nextDueAt === Number.POSITIVE_INFINITY ? { urls } : { urls, nextDueAt };
  }

  async open(crawl: string, wanted: Wanted, limit: number, after = ""): Promise<Opened> {
    const ids = "ids" in wanted ? wanted.ids : this.#entries.keys();
    const known = [...ids].filter((id) => id > after && this.#entries.get(id)?.url.crawl === crawl).sort();
    const looked = known.slice(0, limit);
    const urls: OpenedUrl[] = [];
    for (const id of looked) {
      const entry = this.#entries.get(id);
      if (entry !== undefined && isWanted(entry, wanted)) urls.push(this.#open(entry));
    }
    const last = looked.at(-1);
    return known.length > limit && last !== undefined ? { urls, more: last } : { urls };
  }

  async hasNextVisits(crawl: string): Promise<boolean> {
    for (const { url } of this.#comingAgain.values()) if (url.crawl === crawl) return true;
    return false;
  }

  #open(entry: Entry): OpenedUrl {
    const was = entry.state as EndState;
    const { id, crawl, host } = entry.url;
    this.#comingAgain.delete(id);
    delete entry.nextVisitAt;
    delete entry.target;
    delete entry.reason;
    entry.host = host;
    entry.attempts = 0;
    entry.round += 1;
    entry.was = was;
    this.#enqueue(entry, 0);
    return { id, crawl, host, was };
  }

  #insert(url: NewUrl): Entry {
    const entry: Entry = {
      url,
      state: "skipped",
      depth: url.depth,
      host: url.host,
      readyAt: 0,
      attempts: 0,
      round: 0,
    };
    this.#entries.set(url.id, entry);
    this.#counts.skipped += 1;
    if (url.skip === undefined) this.#enqueue(entry, 0);
    else entry.reason = url.skip;
    return entry;
  }

  /** A known URL was found again; returns whether it waits again. */
  #meetAgain(entry: Entry, url: NewUrl): boolean {
    const isShallower = url.depth < entry.depth;
    if (entry.state === "queued" && isShallower) {
      entry.depth = url.depth;
      if (url.kind === "page") entry.url = { ...entry.url, kind: "page" };
      return false;
    }
    const wasLeftOut = entry.state === "skipped" && (entry.reason === "depth" || entry.reason === "type");
    if (!wasLeftOut || url.skip !== undefined || !isShallower) return false;
    entry.url = url;
    entry.depth = url.depth;
    delete entry.reason;
    this.#enqueue(entry, 0);
    return true;
  }

  #enqueue(entry: Entry, readyAt: number): void {
    entry.readyAt = readyAt;
    this.#become(entry, "queued");
    const { crawl, priority } = entry.url;
    let hosts = this.#waiting.get(crawl);
    if (hosts === undefined) {
      hosts = new Map();
      this.#waiting.set(crawl, hosts);
    }
    let waiting = hosts.get(entry.host);
    if (waiting === undefined) {
      waiting = { levels: [], count: 0 };
      hosts.set(entry.host, waiting);
    }
    waiting.count += 1;
    const place = { entry };
    entry.place = place;
    const level = waiting.levels[priority];
    if (level === undefined) waiting.levels[priority] = [place];
    else level.push(place);
  }

  #leaveQueue(entry: Entry): void {
    delete entry.place;
    const hosts = this.#waiting.get(entry.url.crawl);
    const waiting = hosts?.get(entry.host);
    if (waiting === undefined) return;
    waiting.count -= 1;
    // Its place is dropped from the level when the level is next looked at.
    if (waiting.count === 0) hosts?.delete(entry.host);
  }

  /** A level without the places at its front that count no more. */
  #tidy(waiting: Waiting, priority: number): Place[] {
    const level = waiting.levels[priority];
    if (level === undefined) return [];
    let gone = 0;
    while (gone < level.length) {
      const place = level[gone];
      if (place !== undefined && place.entry.place === place) break;
      gone += 1;
    }
    if (gone > 0) level.splice(0, gone);
    return level;
  }

  #become(entry: Entry, state: UrlState): void {
    this.#counts[entry.state] -= 1;
    this.#counts[state] += 1;
    entry.state = state;
  }
}

function isWanted(entry: Entry, wanted: Wanted): boolean {
  const { state, reason } = entry;
  if ("endedBefore" in wanted) {
    if ((entry.at ?? 0) >= wanted.endedBefore) return false;
    return state === "done" || (state === "failed" && reason !== "poison");
  }
  if (state === "skipped") return (REOPENED_SKIPS as readonly (string | undefined)[]).includes(reason);
  return state === "done" || state === "failed";
}

/** What is remembered of hosts in standalone mode. */
export class MemoryHostStates implements HostStates {
  readonly #states = new Map<string, HostState>();

  async load(hosts: readonly string[]): Promise<readonly HostState[]> {
    return hosts.flatMap((host) => this.#states.get(host) ?? []);
  }

  async note(notes: readonly HostNote[]): Promise<void> {
    for (const note of notes) this.#states.set(note.host, stateAfter(this.#states.get(note.host), note));
  }
}

function noteSuspicion(entry: Entry, { token, suspicion }: Ending & { readonly state: "queued" }): void {
  const { lost = [], begun = [] } = entry.suspicion ?? {};
  if (suspicion === "raised") {
    entry.suspicion = { ...entry.suspicion, lost: [...lost, { token, at: Date.now() }] };
  } else if (suspicion === "survived") {
    entry.suspicion = { ...entry.suspicion, begun: begun.filter((each) => each.token !== token) };
  }
}

function toQueued(entry: Entry): QueuedUrl {
  const suspect = suspectOf(entry.suspicion ?? {});
  const { id, crawl, url, kind, priority, parent, request } = entry.url;
  return {
    id,
    crawl,
    url,
    host: entry.host,
    kind,
    depth: entry.depth,
    priority,
    ...(parent !== undefined && { parent }),
    ...(request !== undefined && { request }),
    ...(entry.target !== undefined && { target: entry.target }),
    readyAt: entry.readyAt,
    attempts: entry.attempts,
    round: entry.round,
    ...(entry.revisit !== undefined && { revisit: entry.revisit }),
    ...(suspect !== undefined && { suspect }),
  };
}
