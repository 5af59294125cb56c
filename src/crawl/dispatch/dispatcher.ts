import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { Crawl } from "../crawl.js";
import type { CrawlHost, Dispatch, DispatchedUrl, Frontier, QueuedUrl } from "../frontier.js";
import type { Task, TaskEnd } from "../task.js";
import { type Flight, Flights, OWN_CREW } from "./flights.js";
import { BACKOFF_DEFAULTS, type BackoffOptions } from "./host-health.js";
import { type HostNote, type HostState, type HostStates, mergeHostNotes } from "./host-state.js";
import type { Backoff, Lane, LaneSource } from "./lane.js";
import { isFresh, LaneReader } from "./lane-reader.js";
import { Lanes } from "./lanes.js";
import { ReadAhead } from "./read-ahead.js";
import { type Turn, Turns } from "./turns.js";

/** Where dispatched tasks go. */
export interface TaskSink {
  /** Hands tasks out; resolves with the ids of those that were certainly not taken. */
  send(tasks: readonly Task[]): Promise<readonly string[]>;
}

/** The budget of crawls that have `maxPages`. */
export interface PageBudget {
  /** Takes up to `pages` from what the crawl has left; resolves with how many it got. */
  reserve(crawl: string, pages: number): Promise<number>;
}

export type DispatcherOptions = {
  /** Number of shards that hosts hash into; the same for all masters. @default 64 */
  readonly shardCount: number;
  /** URLs marked and sent together at most. @default 128 */
  readonly batchSize: number;
  /** Batches under way at once at most. @default 4 */
  readonly batchesAtOnce: number;
  /**
   * While much is in flight, batches begin so far apart at least, in milliseconds: marking a few URLs costs
   * the database nearly as much as marking many. @default 30
   */
  readonly gatherMs: number;
  /** URLs read ahead for one crawl on one host at most. @default 64 */
  readonly readAhead: number;
  /** URLs read ahead over all lanes, roughly, at most. @default 20_000 */
  readonly readAheadTotal: number;
  /** Reads of the frontier under way at once at most. @default 16 */
  readonly readsAtOnce: number;
  /** Time within which a dispatched task must have started, in milliseconds. @default 60_000 */
  readonly startWithinMs: number;
  /** Time after that within which its end is heard of, else it is dispatched again, in ms. @default 150_000 */
  readonly endWithinMs: number;
  /** How hosts in trouble are left alone. */
  readonly backoff: Partial<BackoffOptions>;
};

export const DISPATCHER_DEFAULTS: DispatcherOptions = {
  shardCount: 64,
  batchSize: 128,
  batchesAtOnce: 4,
  gatherMs: 30,
  readAhead: 64,
  readAheadTotal: 20_000,
  readsAtOnce: 16,
  startWithinMs: 60_000,
  endWithinMs: 150_000,
  backoff: {},
};

export type DispatcherDeps = {
  /** Unique among all dispatchers that ever run: part of every dispatch token. */
  readonly id: string;
  readonly frontier: Frontier;
  readonly hosts: HostStates;
  readonly tasks: TaskSink;
  readonly budget: PageBudget;
  readonly clock: Clock;
  readonly logger: Logger;
  /** From 0 up to 1. @default Math.random */
  readonly random?: () => number;
  /**
   * Asks where dispatched URLs are: resolves with the ids of all that some worker has, or with undefined when
   * that cannot be told for certain now. Without it, only the deadline tells that one was lost.
   */
  readonly locate?: () => Promise<ReadonlySet<string> | undefined>;
  /**
   * The crew that the tasks of a spider in a crawl go to: the spider's own, if workers of someone else's read its
   * pages; or the nodes that the crawl has selected. Undefined, or without this: any of Warren's own workers.
   */
  readonly crewOf?: (spider: string, crawl: Crawl) => string | undefined;
  /** Called when nothing of a crawl waits or runs here any more, as far as is known here. */
  readonly onIdle: (crawl: string) => void;
  /** Called when a crawl's page budget is used up. */
  readonly onBudgetSpent: (crawl: string) => void;
  /** Called for each batch that was sent, with each URL's wait since it might have gone, in milliseconds. */
  readonly onDispatched?: (tasks: readonly Task[]) => void;
};

/** Sources passed over in one look because all that they have must wait for a crew without room. */
const MAX_PASSED_OVER = 64;

/** URLs in flight from which on dispatches are gathered. */
const MUCH_IN_FLIGHT = 48;

/** How long what is new of hosts is gathered before it is noted, in milliseconds. */
const NOTE_MS = 250;

/** Wait of tasks that could not be sent, in milliseconds. */
const REFUSED_WAIT_MS = 500;

/** A URL that leaves next, and the source it was taken from. */
type Chosen = { readonly url: QueuedUrl; readonly source: LaneSource };

/**
 * Decides what may run now.
 *
 * 1. It holds shards: those it was given with `hold`, until `drop`. Only hosts of held shards have lanes.
 * 2. Crawls take turns by weight, and within a crawl its hosts take turns; so neither a long crawl nor a
 *    large host starves another.
 * 3. A URL leaves when its lane is open and the window has room. It is first marked as dispatched in the
 *    frontier, then sent; what could not be sent is taken back.
 * 4. Ends come in through `ended` and open the lanes again. Because an end may get lost, `reconcile` compares
 *    what is in flight here with the frontier: a lost event costs time, never a URL.
 *
 * It is told what happens (`added`, `ended`, `setCrawls`, `setWindow`) and acts at once; it polls nothing.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #options: DispatcherOptions;
  readonly #flights = new Flights();
  readonly #turns: Turns;
  readonly #readAhead: ReadAhead;
  readonly #lanes: Lanes;
  readonly #reader: LaneReader;
  readonly #backoff: Backoff;
  /** What is new of hosts and not noted yet. */
  readonly #notes = new Map<string, HostNote>();
  #stopNoting: StopTimer | undefined;
  #batchNumber = 0;
  #batches = 0;
  #lastBatchAt = Number.NEGATIVE_INFINITY;
  #stopGathering: StopTimer | undefined;
  #scheduled = false;
  #stopped = false;
  #onBatchEnded: (() => void)[] = [];

  constructor(deps: DispatcherDeps, options: Partial<DispatcherOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DISPATCHER_DEFAULTS, ...options };
    const { clock, frontier, hosts, logger } = deps;
    const { shardCount, readAhead, readAheadTotal, readsAtOnce } = this.#options;
    this.#backoff = {
      options: { ...BACKOFF_DEFAULTS, ...this.#options.backoff },
      random: deps.random ?? Math.random,
    };
    this.#turns = new Turns((crawl) => this.#crewOf(crawl.spider, crawl));
    this.#readAhead = new ReadAhead(readAheadTotal, readAhead);
    const shared = { turns: this.#turns, readAhead: this.#readAhead, clock };
    this.#lanes = new Lanes({ ...shared, shardCount, onDue: () => this.#wake() });
    this.#reader = new LaneReader({
      ...shared,
      frontier,
      hosts,
      logger,
      lanes: this.#lanes,
      readsAtOnce,
      backoff: this.#backoff,
      isInFlight: (id) => this.#flights.has(id),
      crewFor: (url, turn) => this.#crewFor(url, turn.crawl),
      onRead: (crawls) => {
        for (const crawl of crawls) this.#checkIdle(crawl);
        this.#wake();
      },
    });
  }

  /** URLs in flight, over all lanes held here. */
  get inFlight(): number {
    return this.#flights.size;
  }

  get lanes(): number {
    return this.#lanes.size;
  }

  get heldShards(): readonly number[] {
    return this.#lanes.heldShards;
  }

  /** How many URLs may be in flight at once over all lanes held here: with Warren's own workers, or with another crew. */
  setWindow(window: number, crew = OWN_CREW): void {
    this.#flights.setWindow(crew, window);
    this.#wake();
  }

  /** The crawls that run, as they are now; those no longer named are dispatched no more. */
  setCrawls(crawls: readonly Crawl[]): void {
    const { fresh, reopened, changed, gone } = this.#turns.set(crawls);
    for (const turn of changed) this.#applyChanges(turn);
    for (const turn of reopened) this.#readAgain(turn);
    for (const turn of gone) for (const source of turn.sources) this.#lanes.removeSource(source);
    this.#reader.search(fresh.map(({ crawl }) => crawl.id));
    this.#wake();
  }

  /** Whether this crawl is in the round. */
  hasCrawl(crawl: string): boolean {
    return this.#turns.has(crawl);
  }

  /** Whether nothing of a crawl waits or runs here, as far as is known here. */
  isIdle(crawl: string): boolean {
    return this.#turns.get(crawl)?.isIdle ?? false;
  }

  /** The budget of a crawl has grown again. */
  budgetReturned(crawl: string): void {
    const turn = this.#turns.get(crawl);
    if (turn === undefined) return;
    turn.budgetSpent = false;
    this.#reader.search([crawl]);
  }

  /** Takes responsibility for shards, each under its lease's epoch, rebuilding their lanes from the frontier. */
  async hold(shards: ReadonlyMap<number, number>): Promise<void> {
    const taken: number[] = [];
    const renewed: number[] = [];
    for (const [shard, epoch] of shards) {
      const known = this.#lanes.epochOf(shard);
      if (known === epoch) continue;
      if (known !== undefined) renewed.push(shard);
      taken.push(shard);
    }
    if (taken.length === 0) return;
    if (renewed.length > 0) this.drop(renewed);
    // What is in flight must be known before anything leaves: hence the shards count as held only afterwards.
    const dispatched = await this.#deps.frontier.dispatched(taken);
    for (const shard of taken) {
      const epoch = shards.get(shard);
      if (epoch !== undefined) this.#lanes.hold(shard, epoch);
    }
    for (const url of dispatched) this.#adopt(url);
    await this.#reader.findQueued(taken, this.#turns.crawls);
  }

  /** Gives shards up: their lanes are forgotten, what is in flight belongs to the next holder. */
  drop(shards: readonly number[]): void {
    const lanes = this.#lanes.drop(shards);
    this.#flights.forget(lanes);
    for (const lane of lanes) this.#lanes.forget(lane);
    this.#wake();
  }

  /** URLs were queued for a crawl on these hosts. */
  added(crawl: string, hosts: Iterable<string>): void {
    const turn = this.#turns.get(crawl);
    if (turn === undefined) return;
    for (const host of hosts) this.#reader.renew(turn, host);
    this.#wake();
  }

  /** A task has ended. Reports of dispatches that are not current here change no lane. */
  ended(end: TaskEnd): void {
    const flight = this.#flights.get(end.id);
    if (flight !== undefined && flight.token === end.token) {
      const { lane } = flight.source;
      const isNoteworthy = lane.land(end, flight.beganAt, this.#deps.clock.now(), this.#backoff);
      if (isNoteworthy) this.#note(lane);
      this.#land(end.id, flight);
    }
    const lane = this.#lanes.get(end.host);
    if (lane !== undefined) {
      if (end.backoffUntil !== undefined) lane.learn({ backoffUntil: end.backoffUntil });
      if (end.crawlDelayMs !== undefined) lane.learn({ crawlDelayMs: end.crawlDelayMs });
      this.#lanes.applyPoliteness(lane);
    }
    const again = end.queuedAgain;
    const turn = this.#turns.get(end.crawl);
    if (again !== undefined && turn !== undefined) {
      if (again.readyAt <= this.#deps.clock.now()) this.#reader.renew(turn, again.host);
      else this.#reader.expect(turn, again.host, again.readyAt);
    }
    if (lane !== undefined) this.#lanes.offer(lane);
    this.#checkIdle(end.crawl);
    this.#wake();
  }

  /** How many of its URLs are under way, as far as is known here; 0 when it is not held here. */
  inFlightOn(host: string): number {
    return this.#lanes.get(host)?.inFlight ?? 0;
  }

  /** Something was learnt of a host before the end of a task tells it. */
  learnt({ host, ...state }: HostState): void {
    const lane = this.#lanes.get(host);
    if (lane === undefined) return;
    lane.learn(state);
    this.#lanes.applyPoliteness(lane);
    this.#lanes.offer(lane);
    this.#wake();
  }

  /**
   * Compares what is in flight here with the frontier: ends that were not heard of are taken note of,
   * dispatches that nobody reported in time are taken back, dispatches of a former holder are adopted, and
   * hosts with queued URLs that nobody spoke of are found.
   * @param slice which share of the shards to search for queued URLs this time, `[index, of]`
   */
  async reconcile(slice: readonly [number, number] = [0, 1]): Promise<void> {
    const { frontier, clock } = this.#deps;
    const shards = this.heldShards;
    if (shards.length === 0) return;
    const askedAt = clock.now();
    const dispatched = new Map<string, DispatchedUrl>();
    for (const url of await frontier.dispatched(shards)) dispatched.set(url.id, url);

    for (const [id, flight] of this.#flights.endedUnheard(dispatched, askedAt)) {
      // When it ended is not known, so the lane counts from now. What else the end told is on record.
      flight.source.lane.learn({ lastEndedAt: clock.now() });
      this.#lanes.readAgain(flight.source.lane);
      this.#comeBack(id, flight);
      this.#checkIdle(flight.source.crawl);
    }
    const { unsent, inherited } = this.#flights.strangersAmong(dispatched.values(), (token) =>
      token.startsWith(`${this.#deps.id}.`),
    );
    for (const url of inherited) this.#adopt(url);
    if (unsent.length > 0) await this.#takeBack(unsent);
    await this.#dispatchLostAgain();

    this.#lanes.forgetQuiet(clock.now());
    const [index, of] = slice;
    await this.#reader.findQueued(
      shards.filter((shard) => shard % of === index),
      this.#turns.crawls,
    );
  }

  /** Resolves when no batch is being marked or sent, and none will be. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#lanes.stop();
    this.#stopGathering?.();
    await this.#writeNotes();
    while (this.#batches > 0) {
      await new Promise<void>((resolve) => this.#onBatchEnded.push(resolve));
    }
    await this.#reader.stop();
  }

  /** Why a crawl's next URL on a host waits, or undefined if it does not, or the host is not held here. */
  waitReason(of: CrawlHost): string | undefined {
    const lane = this.#lanes.get(of.host);
    if (lane === undefined || this.#lanes.epochOf(lane.shard) === undefined) return undefined;
    const now = this.#deps.clock.now();
    if (lane.backoffUntil > now && !lane.isGivenUp(now)) {
      const until = new Date(lane.backoffUntil).toISOString();
      return `host backed off until ${until} (${lane.trouble || "it asked for that"})`;
    }
    if (lane.opensAt > now) return `host delay until ${new Date(lane.opensAt).toISOString()}`;
    if (lane.isHeldBack) return `host held back (${lane.trouble || "it did not answer"})`;
    if (lane.isFull(now)) return lane.awaitsRobots ? "robots" : "host busy";
    const turn = this.#turns.get(of.crawl);
    if (turn?.budgetSpent === true) return "page budget";
    const crew = turn === undefined ? OWN_CREW : this.#crewOf(turn.crawl.spider, turn.crawl);
    if (this.#flights.windowOf(crew) === 0) return "no worker";
    if (this.#flights.roomOf(crew) <= 0) return "all workers busy";
    return undefined;
  }

  // ---- what is in flight ----

  #adopt(url: DispatchedUrl): void {
    const lane = this.#lanes.of(url.host);
    if (lane === undefined || this.#flights.has(url.id)) return;
    let source = lane.sources.get(url.crawl);
    if (source === undefined) {
      source = this.#lanes.addSource(lane, url.crawl);
      source.drained = true;
    }
    const crawl = this.#turns.crawlOf(url.crawl);
    const crew = crawl === undefined ? OWN_CREW : this.#crewOf(url.spider ?? crawl.spider, crawl);
    this.#flights.adopt(url.id, {
      source,
      crew,
      // Of a crawl that does not run it is not known whose workers have it.
      isLocatable: crawl !== undefined && crew === OWN_CREW,
      beganAt: url.dispatch.dispatchedAt,
      token: url.dispatch.token,
      deadline: url.dispatch.notAfter + this.#options.endWithinMs,
      settledAt: this.#deps.clock.now(),
    });
  }

  /** A URL's place in its lane is free again. */
  #land(id: string, flight: Flight): void {
    if (this.#flights.land(id, flight) && flight.source.isSpent) this.#lanes.removeSource(flight.source);
  }

  /** It is in flight no more, and may be found in the frontier again. */
  #comeBack(id: string, flight: Flight): void {
    flight.source.freshen();
    this.#land(id, flight);
    this.#lanes.offer(flight.source.lane);
  }

  /** Marked here, never sent, and forgotten. */
  async #takeBack(unsent: readonly DispatchedUrl[]): Promise<void> {
    await this.#deps.frontier.revoke(
      unsent.map(({ id }) => id),
      unsent.map(({ dispatch }) => dispatch.token),
      this.#deps.clock.now(),
    );
    for (const { crawl, host } of unsent) this.added(crawl, [host]);
  }

  async #dispatchLostAgain(): Promise<void> {
    const { frontier, clock, logger, locate } = this.#deps;
    const now = clock.now();
    const lost = await this.#flights.findLost(now, locate);
    if (lost.length === 0) return;
    logger.warn({ urls: lost.length }, "dispatched URLs that nobody has: dispatching them again");
    await frontier.revoke(
      lost.map(([id]) => id),
      lost.map(([, flight]) => flight.token),
      now,
    );
    for (const [id, flight] of lost) {
      if (this.#flights.get(id) !== flight) continue;
      flight.source.lane.landUnknown(now);
      this.#comeBack(id, flight);
    }
  }

  // ---- what is remembered of hosts ----

  /** To be remembered soon, with what else there is by then. */
  #note(lane: Lane): void {
    this.#notes.set(lane.host, lane.note);
    this.#stopNoting ??= this.#deps.clock.after(NOTE_MS, () => {
      this.#stopNoting = undefined;
      void this.#writeNotes();
    });
  }

  async #writeNotes(): Promise<void> {
    this.#stopNoting?.();
    this.#stopNoting = undefined;
    const notes = [...this.#notes.values()];
    this.#notes.clear();
    if (notes.length === 0) return;
    try {
      await this.#deps.hosts.note(mergeHostNotes(notes));
    } catch (error) {
      // It is known here, and noted the next time that something changes.
      this.#deps.logger.debug(
        { hosts: notes.length, error: messageOf(error) },
        "could not note hosts in trouble",
      );
    }
  }

  // ---- crews ----

  #crewOf(spider: string, crawl: Crawl): string {
    return this.#deps.crewOf?.(spider, crawl) ?? OWN_CREW;
  }

  #crewFor(url: QueuedUrl, crawl: Crawl): string {
    return this.#crewOf(url.request?.spider ?? crawl.spider, crawl);
  }

  // ---- the round of turns ----

  /** Runs the round soon: many reports that arrive together make one round. */
  #wake(): void {
    if (this.#scheduled || this.#stopped) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (!this.#stopped) this.#round();
    });
  }

  #round(): void {
    this.#reader.readHostStates();
    this.#lanes.letGo(this.#flights.doubtfulRoomOf(OWN_CREW));
    this.#lanes.openDue();
    this.#turns.read(this.#read, () => this.#readAhead.isEnough);
    while (this.#batches < this.#options.batchesAtOnce && !this.#isGathering()) {
      const chosen = this.#choose(this.#options.batchSize);
      if (chosen.length === 0) break;
      this.#batches += 1;
      this.#lastBatchAt = this.#deps.clock.monotonic();
      void this.#dispatch(chosen).finally(() => {
        this.#batches -= 1;
        const waiting = this.#onBatchEnded;
        this.#onBatchEnded = [];
        for (const resolve of waiting) resolve();
        this.#wake();
      });
    }
    this.#lanes.armTimer();
  }

  /** Reads what a source has, if that can be done now. */
  readonly #read = (source: LaneSource): boolean => {
    if (this.#reader.isBusy) return false;
    source.listed = false;
    const now = this.#deps.clock.now();
    if (source.lane.isOpen(now) && source.hasMore(now)) this.#reader.read(source);
    else this.#lanes.awaitOpening(source.lane);
    return true;
  };

  /** Whether to wait for more before the next batch; it is begun by a timer then. */
  #isGathering(): boolean {
    if (this.#flights.size < MUCH_IN_FLIGHT) return false;
    const { clock } = this.#deps;
    const { batchSize, gatherMs } = this.#options;
    const leftMs = this.#lastBatchAt + gatherMs - clock.monotonic();
    if (leftMs <= 0) return false;
    if (this.#flights.roomOf(OWN_CREW) >= batchSize && this.#turns.haveReady(batchSize)) return false;
    this.#stopGathering ??= clock.after(leftMs, () => {
      this.#stopGathering = undefined;
      this.#wake();
    });
    return true;
  }

  /** Up to `most` URLs, in the order of turns; each holds its place in its lane and its crew's window from here on. */
  #choose(most: number): readonly Chosen[] {
    const now = this.#deps.clock.now();
    return this.#turns.take(
      most,
      (turn) => this.#flights.hasRoom(turn.crews),
      (turn) => this.#nextOf(turn, now),
    );
  }

  /** The next URL of a crawl: of the first source in its round whose lane is open and that has one. */
  #nextOf(turn: Turn, now: number): Chosen | undefined {
    let passedOver = 0;
    for (let looks = turn.round.size; looks > 0 && passedOver < MAX_PASSED_OVER; looks -= 1) {
      const source = turn.round.shift();
      if (source === undefined) break;
      if (!source.listed) continue; // It was removed since.
      if (!source.lane.isOpen(now) || !source.hasMore(now)) {
        // It comes back into the round when its lane opens or something is added.
        source.listed = false;
        this.#lanes.awaitOpening(source.lane);
        continue;
      }
      if (source.buffer.length === 0) {
        turn.list(source);
        continue;
      }
      if (source.lane.isDoubtful && this.#mustHoldBack(source.lane, turn, now)) {
        source.listed = false;
        this.#lanes.holdBack(source.lane);
        continue;
      }
      // As a rule the first: only where URLs of one crawl need several crews may one have to wait for its own.
      const url = this.#readAhead.take(
        source,
        (each) => this.#flights.roomOf(this.#crewFor(each, turn.crawl)) > 0,
      );
      turn.list(source);
      if (url === undefined) {
        passedOver += 1;
        continue;
      }
      this.#flights.take(url.id, source, this.#crewFor(url, turn.crawl), now);
      return { url, source };
    }
    return undefined;
  }

  /** Whether enough hosts are being tried that have not answered lately. */
  #mustHoldBack(lane: Lane, { crawl }: Turn, now: number): boolean {
    if (lane.objection(now) !== undefined) return false;
    return this.#flights.doubtfulRoomOf(this.#crewOf(crawl.spider, crawl)) <= 0;
  }

  // ---- dispatching ----

  /** Marks URLs in the frontier, sends them, and takes back what did not go. */
  async #dispatch(chosen: readonly Chosen[]): Promise<void> {
    const byCrawl = new Map<string, Chosen[]>();
    for (const entry of chosen) {
      const group = byCrawl.get(entry.url.crawl);
      if (group === undefined) byCrawl.set(entry.url.crawl, [entry]);
      else group.push(entry);
    }
    await Promise.all([...byCrawl].map(([crawl, group]) => this.#dispatchOf(crawl, group)));
  }

  async #dispatchOf(crawlId: string, group: readonly Chosen[]): Promise<void> {
    const { frontier, clock, logger } = this.#deps;
    const flights = new Map(group.map(({ url }) => [url.id, this.#flights.get(url.id)] as const));
    const giveBack = (ids: Iterable<string>) => {
      for (const id of ids) {
        const flight = flights.get(id);
        if (flight !== undefined) this.#comeBack(id, flight);
      }
      this.#checkIdle(crawlId);
    };
    this.#batchNumber += 1;
    const token = `${this.#deps.id}.${this.#batchNumber}`;
    try {
      const turn = this.#turns.get(crawlId);
      const granted = turn === undefined ? [] : await this.#withinBudget(turn, group, giveBack);
      if (granted.length === 0) {
        if (turn === undefined) giveBack(flights.keys());
        return;
      }
      const crawl = turn?.crawl;
      if (crawl === undefined) return;
      const dispatchedAt = clock.now();
      const notAfter = dispatchedAt + this.#options.startWithinMs;
      const dispatch = { token, generation: crawl.generation, dispatchedAt, notAfter };
      for (const { url } of granted) {
        const flight = flights.get(url.id);
        if (flight !== undefined) {
          flight.token = token;
          flight.beganAt = dispatchedAt;
          flight.deadline = notAfter + this.#options.endWithinMs;
        }
      }
      const marked = await frontier.dispatch(
        granted.map(({ url }) => url.id),
        dispatch,
      );
      giveBack(granted.filter(({ url }) => !marked.has(url.id)).map(({ url }) => url.id));
      const sending: Task[] = [];
      const stale: string[] = [];
      for (const { url, source } of granted) {
        if (!marked.has(url.id)) continue;
        const { lane } = source;
        const epoch = this.#lanes.epochOf(lane.shard);
        // The shard may have been lost while the frontier was written: its new holder decides from now on.
        if (epoch === undefined || !this.#lanes.has(lane) || this.#turns.get(crawlId) !== turn) {
          stale.push(url.id);
          continue;
        }
        sending.push(toTask(url, dispatch, lane, epoch, flights.get(url.id)?.givenUp));
      }
      const unsent = sending.length > 0 ? await this.#send(sending, flights) : [];
      // Whoever refused them, a full queue for one, would do so again at once.
      const again = [
        { ids: stale, readyAt: clock.now() },
        { ids: unsent, readyAt: clock.now() + REFUSED_WAIT_MS },
      ];
      for (const { ids, readyAt } of again) {
        if (ids.length === 0) continue;
        await frontier.revoke(ids, [token], readyAt);
        giveBack(ids);
      }
    } catch (error) {
      // Whatever was marked is found by the reconciler as a stranger and taken back at its deadline; what
      // was not is still queued.
      logger.warn({ crawl: crawlId, urls: group.length, error: messageOf(error) }, "could not dispatch");
      try {
        await frontier.revoke([...flights.keys()], [token], clock.now());
      } catch {
        // The database is away: the reconciler sees to it when it is back.
      }
      giveBack(flights.keys());
    }
  }

  /** Resolves with the ids of those that were not taken. */
  async #send(
    sending: readonly Task[],
    flights: ReadonlyMap<string, Flight | undefined>,
  ): Promise<readonly string[]> {
    const unsent = await this.#deps.tasks.send(sending);
    const settledAt = this.#deps.clock.now();
    for (const task of sending) {
      const flight = flights.get(task.id);
      if (flight !== undefined) flight.settledAt = settledAt;
    }
    this.#deps.onDispatched?.(sending);
    return unsent;
  }

  /** Those of the group that the crawl's page budget allows; the others are given back. */
  async #withinBudget(
    turn: Turn,
    group: readonly Chosen[],
    giveBack: (ids: Iterable<string>) => void,
  ): Promise<readonly Chosen[]> {
    if (turn.crawl.limits.maxPages === undefined) return group;
    const fresh = group.filter(({ url }) => isFresh(url));
    if (fresh.length === 0) return group;
    const reserved = await this.#deps.budget.reserve(turn.crawl.id, fresh.length);
    if (reserved >= fresh.length) return group;
    const refused = new Set(fresh.slice(reserved).map(({ url }) => url.id));
    turn.budgetSpent = true;
    for (const source of turn.sources) this.#readAhead.keep(source, (url) => !isFresh(url));
    giveBack(refused);
    this.#deps.onBudgetSpent(turn.crawl.id);
    return group.filter(({ url }) => !refused.has(url.id));
  }

  /** Its hosts are treated otherwise from now on, and its limits may leave room again. */
  #applyChanges(turn: Turn): void {
    for (const { lane } of turn.sources) {
      this.#lanes.applyPoliteness(lane);
      this.#lanes.offer(lane);
    }
    if (turn.budgetSpent) this.budgetReturned(turn.crawl.id);
  }

  /** What was read of a crawl's URLs is old. */
  #readAgain(turn: Turn): void {
    for (const source of turn.sources) {
      this.#readAhead.clear(source);
      source.freshen();
      this.#lanes.offer(source.lane);
    }
    turn.budgetSpent = false;
  }

  #checkIdle(crawl: string): void {
    if (this.isIdle(crawl)) this.#deps.onIdle(crawl);
  }
}

function toTask(
  url: QueuedUrl,
  dispatch: Dispatch,
  lane: Lane,
  epoch: number,
  givenUp: string | undefined,
): Task {
  const { maxBytesPerSecond } = lane;
  return {
    id: url.id,
    crawl: url.crawl,
    generation: dispatch.generation,
    url: url.url,
    host: url.host,
    kind: url.kind,
    depth: url.depth,
    ...(url.parent !== undefined && { parent: url.parent }),
    ...(url.request !== undefined && { request: url.request }),
    ...(url.target !== undefined && { target: url.target }),
    attempts: url.attempts,
    round: url.round,
    ...(url.revisit !== undefined && { revisit: url.revisit }),
    token: dispatch.token,
    shard: lane.shard,
    epoch,
    dispatchedAt: dispatch.dispatchedAt,
    notAfter: dispatch.notAfter,
    delayMs: lane.delayMs,
    ...(maxBytesPerSecond !== undefined && { maxBytesPerSecond }),
    ...(lane.awaitsRobots && { awaitsRobots: true }),
    ...(givenUp !== undefined && { givenUp }),
    ...(url.suspect !== undefined && { suspect: url.suspect }),
  };
}
