import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Crawl } from "./crawl.js";
import { DueQueue } from "./due-queue.js";
import { Fifo } from "./fifo.js";
import type { CrawlHost, DispatchedUrl, Frontier, QueuedUrl } from "./frontier.js";
import { Lane, LaneSource } from "./lane.js";
import type { HostState, HostStates, Task, TaskEnd } from "./task.js";
import { shardOf } from "./url.js";

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
  /**
   * Asks where dispatched URLs are: resolves with the ids of all that some worker has, or with undefined when
   * that cannot be told for certain now. Without it, only the deadline tells that one was lost.
   */
  readonly locate?: () => Promise<ReadonlySet<string> | undefined>;
  /**
   * The crew that a spider's tasks go to: its own, if workers of someone else's read its pages. Undefined, or
   * without this: Warren's own workers.
   */
  readonly crewOf?: (spider: string) => string | undefined;
  /** Called when nothing of a crawl waits or runs here any more, as far as is known here. */
  readonly onIdle: (crawl: string) => void;
  /** Called when a crawl's page budget is used up. */
  readonly onBudgetSpent: (crawl: string) => void;
  /** Called for each batch that was sent, with each URL's wait since it might have gone, in milliseconds. */
  readonly onDispatched?: (tasks: readonly Task[]) => void;
};

/**
 * Sources passed over in one look because the frontier is being read as often as it may be, or because all
 * that they have must wait for a crew without room.
 */
const MAX_PASSED_OVER = 64;

/** By how much the clocks of two processes may differ that were set by the same server's, in milliseconds. */
const CLOCK_ERROR_MS = 50;

/** Time in flight from which on it is asked who has a URL, in milliseconds. */
const QUIET_FLIGHT_MS = 1_000;

/** URLs in flight from which on dispatches are gathered. */
const MUCH_IN_FLIGHT = 48;

/** Wait of tasks that could not be sent, in milliseconds. */
const REFUSED_WAIT_MS = 500;

/** How long a lane that nothing waits for is kept, in milliseconds; above the longest crawl delay obeyed. */
const QUIET_MS = 90_000;

/** The crew of Warren's own workers. */
const OWN = "";

/** A crawl in the round of turns. */
type Turn = {
  crawl: Crawl;
  /** Whom its URLs have been seen to need. */
  crews: Set<string>;
  /** Sources that may have something to give, in the order of their turns. */
  round: Fifo<LaneSource>;
  /** How far it has come, in turns divided by weight; the one that has come least far is next. */
  pass: number;
  budgetSpent: boolean;
  sources: Set<LaneSource>;
};

type InFlight = {
  readonly source: LaneSource;
  readonly crew: string;
  /** Whether it can be asked who has it. */
  readonly isLocatable: boolean;
  token: string;
  /** Instant at which its silence is taken for a loss. */
  deadline: number;
  /** Instant since which its state in the frontier must be `dispatched`, unless it has ended. */
  settledAt: number | undefined;
  /** Nobody had it when that was last asked. */
  isMissing: boolean;
};

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
  readonly #shards = new Map<number, number>();
  readonly #lanes = new Map<string, Lane>();
  readonly #turns = new Map<string, Turn>();
  readonly #inFlight = new Map<string, InFlight>();
  /** URLs in flight, by crew. */
  readonly #flying = new Map<string, number>();
  /** How many may be, by crew. */
  readonly #windows = new Map<string, number>();
  readonly #waiting = new DueQueue<Lane>();
  readonly #newLanes = new Set<Lane>();
  #batchNumber = 0;
  #batches = 0;
  #lastBatchAt = Number.NEGATIVE_INFINITY;
  #stopGathering: StopTimer | undefined;
  #reads = 0;
  #buffered = 0;
  #pass = 0;
  #scheduled = false;
  #stopped = false;
  #stopTimer: StopTimer | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  /** Dispatches in the frontier, unknown here, when it was last compared. */
  #strangers = new Map<string, string>();
  #settled: (() => void)[] = [];

  constructor(deps: DispatcherDeps, options: Partial<DispatcherOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DISPATCHER_DEFAULTS, ...options };
  }

  /** URLs in flight, over all lanes held here. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  get lanes(): number {
    return this.#lanes.size;
  }

  /** How many URLs may be in flight at once over all lanes held here: with Warren's own workers, or with another crew. */
  setWindow(window: number, crew = OWN): void {
    this.#windows.set(crew, window);
    this.#wake();
  }

  /** The crawls that run; those no longer named are dispatched no more. */
  setCrawls(crawls: readonly Crawl[]): void {
    const named = new Set<string>();
    const fresh: string[] = [];
    for (const crawl of crawls) {
      named.add(crawl.id);
      const turn = this.#turns.get(crawl.id);
      if (turn === undefined) {
        this.#turns.set(crawl.id, newTurn(crawl, this.#crewOfSpider(crawl.spider), this.#pass));
        fresh.push(crawl.id);
      } else {
        const reopened = turn.crawl.generation !== crawl.generation;
        turn.crawl = crawl;
        turn.crews.add(this.#crewOfSpider(crawl.spider));
        if (reopened) this.#forgetBuffers(turn);
      }
    }
    for (const [id, turn] of this.#turns) {
      if (named.has(id)) continue;
      for (const source of turn.sources) this.#removeSource(source);
      this.#turns.delete(id);
    }
    this.#search(fresh);
    this.#wake();
  }

  /** Whether this crawl is in the round. */
  hasCrawl(crawl: string): boolean {
    return this.#turns.has(crawl);
  }

  /** Whether nothing of a crawl waits or runs here, as far as is known here. */
  isIdle(crawl: string): boolean {
    const turn = this.#turns.get(crawl);
    if (turn === undefined) return false;
    for (const source of turn.sources) {
      if (source.inFlight > 0 || source.loading) return false;
      if (!source.isSpent && !(turn.budgetSpent && source.buffer.length === 0)) return false;
    }
    return true;
  }

  /** The budget of a crawl has grown again. */
  budgetReturned(crawl: string): void {
    const turn = this.#turns.get(crawl);
    if (turn === undefined) return;
    turn.budgetSpent = false;
    this.#search([crawl]);
  }

  /** Takes responsibility for shards, each under its lease's epoch, rebuilding their lanes from the frontier. */
  async hold(shards: ReadonlyMap<number, number>): Promise<void> {
    const taken: number[] = [];
    for (const [shard, epoch] of shards) {
      if (this.#shards.get(shard) === epoch) continue;
      if (this.#shards.has(shard)) this.drop([shard]);
      taken.push(shard);
    }
    if (taken.length === 0) return;
    // What is in flight must be known before anything leaves: hence the shards count as held only afterwards.
    const dispatched = await this.#deps.frontier.dispatched(taken);
    for (const shard of taken) {
      const epoch = shards.get(shard);
      if (epoch !== undefined) this.#shards.set(shard, epoch);
    }
    for (const url of dispatched) this.#adopt(url);
    await this.#findQueued(taken, [...this.#turns.keys()]);
  }

  /** Gives shards up: their lanes are forgotten, what is in flight belongs to the next holder. */
  drop(shards: readonly number[]): void {
    const dropped = new Set(shards);
    for (const shard of dropped) this.#shards.delete(shard);
    for (const lane of this.#lanes.values()) {
      if (dropped.has(lane.shard)) this.#forgetLane(lane);
    }
    this.#wake();
  }

  get heldShards(): readonly number[] {
    return [...this.#shards.keys()];
  }

  /** URLs were queued for a crawl on these hosts. */
  added(crawl: string, hosts: Iterable<string>): void {
    const turn = this.#turns.get(crawl);
    if (turn === undefined) return;
    for (const host of hosts) this.#freshSource(turn, host);
    this.#wake();
  }

  /** A task has ended. Reports of dispatches that are not current here change no lane. */
  ended(end: TaskEnd): void {
    const flight = this.#inFlight.get(end.id);
    if (flight !== undefined && flight.token === end.token) {
      const { lane } = flight.source;
      // By our own clock, on which the delay is measured too; the worker's differs by some milliseconds.
      if (end.untouched !== true) lane.learn({ lastEndedAt: this.#deps.clock.now() });
      this.#land(end.id, flight);
    }
    const lane = this.#lanes.get(end.host);
    if (lane !== undefined) {
      if (end.backoffUntil !== undefined) lane.learn({ backoffUntil: end.backoffUntil });
      if (end.crawlDelayMs !== undefined) lane.learn({ crawlDelayMs: end.crawlDelayMs });
      lane.applyPoliteness(this.#crawlOf);
    }
    const again = end.queuedAgain;
    const turn = this.#turns.get(end.crawl);
    if (again !== undefined && turn !== undefined) {
      if (again.readyAt <= this.#deps.clock.now()) this.#freshSource(turn, again.host);
      else this.#laterSource(turn, again.host, again.readyAt);
    }
    if (lane !== undefined) this.#offer(lane);
    this.#checkIdle(end.crawl);
    this.#wake();
  }

  /** Something was learnt of a host before the end of a task tells it. */
  learnt({ host, ...state }: HostState): void {
    const lane = this.#lanes.get(host);
    if (lane === undefined) return;
    lane.learn(state);
    lane.applyPoliteness(this.#crawlOf);
    this.#offer(lane);
    this.#wake();
  }

  /**
   * Compares what is in flight here with the frontier: ends that were not heard of are taken note of,
   * dispatches that nobody reported in time are taken back, dispatches of a former holder are adopted, and
   * hosts with queued URLs that nobody spoke of are found.
   * @param slice which share of the shards to search for queued URLs this time, `[index, of]`
   */
  async reconcile(slice: readonly [number, number] = [0, 1]): Promise<void> {
    const { frontier, clock, logger } = this.#deps;
    const shards = this.heldShards;
    if (shards.length === 0) return;
    const askedAt = clock.now();
    const dispatched = new Map<string, DispatchedUrl>();
    for (const url of await frontier.dispatched(shards)) dispatched.set(url.id, url);

    for (const [id, flight] of [...this.#inFlight]) {
      if (flight.settledAt === undefined || flight.settledAt >= askedAt) continue;
      const there = dispatched.get(id);
      if (there?.dispatch.token === flight.token) continue;
      // It ended, and the report was lost. When it ended is not known, so the lane counts from now.
      flight.source.lane.learn({ lastEndedAt: clock.now() });
      this.#freshen(flight.source);
      this.#land(id, flight);
      this.#offer(flight.source.lane);
      this.#checkIdle(flight.source.crawl);
    }

    const strangers = new Map<string, string>();
    const unsent: DispatchedUrl[] = [];
    for (const url of dispatched.values()) {
      const { token } = url.dispatch;
      if (this.#inFlight.has(url.id)) continue;
      // Seen once, it may just have ended here. Seen twice, it was marked by us and never sent, or it is
      // the dispatch of a former holder.
      if (this.#strangers.get(url.id) !== token) strangers.set(url.id, token);
      else if (token.startsWith(`${this.#deps.id}.`)) unsent.push(url);
      else this.#adopt(url);
    }
    this.#strangers = strangers;

    if (unsent.length > 0) {
      await frontier.revoke(
        unsent.map((url) => url.id),
        unsent.map((url) => url.dispatch.token),
        clock.now(),
      );
      for (const url of unsent) this.added(url.crawl, [url.host]);
    }

    const now = clock.now();
    const lost = await this.#findLost(now);
    if (lost.length > 0) {
      logger.warn({ urls: lost.length }, "dispatched URLs that nobody has: dispatching them again");
      await frontier.revoke(
        lost.map(([id]) => id),
        lost.map(([, flight]) => flight.token),
        now,
      );
      for (const [id, flight] of lost) {
        if (this.#inFlight.get(id) !== flight) continue;
        flight.source.lane.learn({ lastEndedAt: now });
        this.#freshen(flight.source);
        this.#land(id, flight);
        this.#offer(flight.source.lane);
      }
    }

    this.#forgetQuietLanes(now);
    const [index, of] = slice;
    await this.#findQueued(
      shards.filter((shard) => shard % of === index),
      [...this.#turns.keys()],
    );
  }

  /**
   * What is in flight and will not end: nobody reported it in its time; or nobody has it, twice in a row, since
   * a message may be on its way between broker and worker when that is asked.
   */
  async #findLost(now: number): Promise<[string, InFlight][]> {
    const quiet = [...this.#inFlight].filter(
      ([, flight]) => flight.settledAt !== undefined && now - flight.settledAt >= QUIET_FLIGHT_MS,
    );
    const located = quiet.length > 0 ? await this.#deps.locate?.() : undefined;
    const lost: [string, InFlight][] = [];
    for (const entry of quiet) {
      const [id, flight] = entry;
      const wasMissing = flight.isMissing;
      flight.isMissing = flight.isLocatable && located !== undefined && !located.has(id);
      if (flight.deadline <= now || (wasMissing && flight.isMissing)) lost.push(entry);
    }
    return lost;
  }

  /** Resolves when no batch is being marked or sent, and none will be. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    this.#stopGathering?.();
    while (this.#batches > 0 || this.#reads > 0) {
      await new Promise<void>((resolve) => this.#settled.push(resolve));
    }
  }

  /** Why a crawl's next URL on a host waits, or undefined if it does not, or the host is not held here. */
  waitReason(of: CrawlHost): string | undefined {
    const lane = this.#lanes.get(of.host);
    if (lane === undefined || !this.#shards.has(lane.shard)) return undefined;
    const now = this.#deps.clock.now();
    if (lane.opensAt > now) return `host delay until ${new Date(lane.opensAt).toISOString()}`;
    if (lane.isFull) return "host busy";
    const turn = this.#turns.get(of.crawl);
    if (turn?.budgetSpent === true) return "limit";
    const crew = turn === undefined ? OWN : this.#crewOfSpider(turn.crawl.spider);
    if ((this.#windows.get(crew) ?? 0) === 0) return "no worker";
    if (this.#roomOf(crew) <= 0) return "all workers busy";
    return undefined;
  }

  // ---- crews ----

  #crewOfSpider(spider: string): string {
    return this.#deps.crewOf?.(spider) ?? OWN;
  }

  #crewFor(url: QueuedUrl, crawl: Crawl): string {
    return this.#crewOfSpider(url.request?.spider ?? crawl.spider);
  }

  /** How many more URLs a crew may be given. */
  #roomOf(crew: string): number {
    return (this.#windows.get(crew) ?? 0) - (this.#flying.get(crew) ?? 0);
  }

  #hasRoom(turn: Turn): boolean {
    for (const crew of turn.crews) if (this.#roomOf(crew) > 0) return true;
    return false;
  }

  #takeFlight(id: string, flight: InFlight): void {
    this.#inFlight.set(id, flight);
    this.#flying.set(flight.crew, (this.#flying.get(flight.crew) ?? 0) + 1);
  }

  #endFlight(id: string, { crew }: InFlight): void {
    this.#inFlight.delete(id);
    this.#flying.set(crew, (this.#flying.get(crew) ?? 0) - 1);
  }

  readonly #crawlOf = (id: string): Crawl | undefined => this.#turns.get(id)?.crawl;

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
    if (this.#newLanes.size > 0) this.#loadHostStates();
    this.#openDueLanes();
    while (this.#batches < this.#options.batchesAtOnce && !this.#isGathering()) {
      const chosen = this.#choose(this.#options.batchSize);
      if (chosen.length === 0) break;
      this.#batches += 1;
      this.#lastBatchAt = this.#deps.clock.monotonic();
      void this.#dispatch(chosen).finally(() => {
        this.#batches -= 1;
        this.#settle();
        this.#wake();
      });
    }
    this.#armTimer();
  }

  /** Whether to wait for more before the next batch; it is begun by a timer then. */
  #isGathering(): boolean {
    if (this.#inFlight.size < MUCH_IN_FLIGHT) return false;
    const { clock } = this.#deps;
    const leftMs = this.#lastBatchAt + this.#options.gatherMs - clock.monotonic();
    if (leftMs <= 0) return false;
    this.#stopGathering ??= clock.after(leftMs, () => {
      this.#stopGathering = undefined;
      this.#wake();
    });
    return true;
  }

  /** Up to `most` URLs, in the order of turns; each holds its place in its lane and its crew's window from here on. */
  #choose(most: number): { url: QueuedUrl; source: LaneSource }[] {
    const chosen: { url: QueuedUrl; source: LaneSource }[] = [];
    const now = this.#deps.clock.now();
    const active = new Set<Turn>();
    for (const turn of this.#turns.values()) {
      if (turn.round.size > 0 && this.#hasRoom(turn)) active.add(turn);
    }
    while (chosen.length < most && active.size > 0) {
      let next: Turn | undefined;
      for (const turn of active) if (next === undefined || turn.pass < next.pass) next = turn;
      if (next === undefined) break;
      const found = this.#hasRoom(next) ? this.#nextOf(next, now) : undefined;
      if (found === undefined) {
        active.delete(next);
        continue;
      }
      chosen.push(found);
      this.#pass = Math.max(this.#pass, next.pass);
      next.pass = Math.max(next.pass, this.#pass - 1) + 1 / (next.crawl.priority + 1);
    }
    return chosen;
  }

  /** The next URL of a crawl: of the first source in its round whose lane is open and that has one. */
  #nextOf(turn: Turn, now: number): { url: QueuedUrl; source: LaneSource } | undefined {
    let passedOver = 0;
    for (let looks = turn.round.size; looks > 0 && passedOver < MAX_PASSED_OVER; looks -= 1) {
      const source = turn.round.shift();
      if (source === undefined) break;
      if (!source.listed) continue; // It was removed since.
      const { lane } = source;
      if (!lane.isOpen(now) || !source.hasMore(now)) {
        // It comes back into the round when its lane opens or something is added.
        source.listed = false;
        this.#awaitOpening(lane, now);
        continue;
      }
      if (source.buffer.length === 0) {
        if (this.#reads >= this.#options.readsAtOnce) {
          turn.round.push(source);
          passedOver += 1;
          continue;
        }
        source.listed = false;
        void this.#read(source);
        continue;
      }
      turn.round.push(source);
      // As a rule the first: only where URLs of one crawl need several crews may one have to wait for its own.
      const at = source.buffer.findIndex((url) => this.#roomOf(this.#crewFor(url, turn.crawl)) > 0);
      const url = at === 0 ? source.buffer.shift() : source.buffer.splice(at, at < 0 ? 0 : 1)[0];
      if (url === undefined) {
        passedOver += 1;
        continue;
      }
      this.#buffered -= 1;
      this.#takeOff(url, source, this.#crewFor(url, turn.crawl));
      return { url, source };
    }
    return undefined;
  }

  #takeOff(url: QueuedUrl, source: LaneSource, crew: string): void {
    source.inFlight += 1;
    source.lane.inFlight += 1;
    this.#takeFlight(url.id, {
      source,
      crew,
      isLocatable: crew === OWN,
      token: "",
      deadline: Number.POSITIVE_INFINITY,
      settledAt: undefined,
      isMissing: false,
    });
  }

  /** A URL's place in its lane is free again. */
  #land(id: string, flight: InFlight): void {
    if (this.#inFlight.get(id) !== flight) return;
    this.#endFlight(id, flight);
    flight.source.inFlight -= 1;
    flight.source.lane.inFlight -= 1;
    if (flight.source.isSpent) this.#removeSource(flight.source);
  }

  /** Marks URLs in the frontier, sends them, and takes back what did not go. */
  async #dispatch(chosen: readonly { url: QueuedUrl; source: LaneSource }[]): Promise<void> {
    const byCrawl = new Map<string, { url: QueuedUrl; source: LaneSource }[]>();
    for (const entry of chosen) {
      const group = byCrawl.get(entry.url.crawl);
      if (group === undefined) byCrawl.set(entry.url.crawl, [entry]);
      else group.push(entry);
    }
    await Promise.all([...byCrawl].map(([crawl, group]) => this.#dispatchOf(crawl, group)));
  }

  async #dispatchOf(crawlId: string, group: { url: QueuedUrl; source: LaneSource }[]): Promise<void> {
    const { frontier, tasks, clock, logger } = this.#deps;
    const flights = new Map(group.map(({ url }) => [url.id, this.#inFlight.get(url.id)] as const));
    const giveBack = (ids: Iterable<string>) => {
      for (const id of ids) {
        const flight = flights.get(id);
        if (flight === undefined) continue;
        this.#freshen(flight.source);
        this.#land(id, flight);
        this.#offer(flight.source.lane);
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
        const epoch = this.#shards.get(lane.shard);
        // The shard may have been lost while the frontier was written: its new holder decides from now on.
        if (epoch === undefined || this.#lanes.get(lane.host) !== lane || this.#turns.get(crawlId) !== turn) {
          stale.push(url.id);
          continue;
        }
        sending.push(toTask(url, dispatch, lane, epoch));
      }
      let unsent: readonly string[] = [];
      if (sending.length > 0) {
        unsent = await tasks.send(sending);
        const settledAt = clock.now();
        for (const task of sending) {
          const flight = flights.get(task.id);
          if (flight !== undefined) flight.settledAt = settledAt;
        }
        this.#deps.onDispatched?.(sending);
      }
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

  /** Those of the group that the crawl's page budget allows; the others are given back. */
  async #withinBudget(
    turn: Turn,
    group: { url: QueuedUrl; source: LaneSource }[],
    giveBack: (ids: Iterable<string>) => void,
  ): Promise<{ url: QueuedUrl; source: LaneSource }[]> {
    if (turn.crawl.limits.maxPages === undefined) return group;
    const fresh = group.filter(({ url }) => isFresh(url));
    if (fresh.length === 0) return group;
    const reserved = await this.#deps.budget.reserve(turn.crawl.id, fresh.length);
    if (reserved >= fresh.length) return group;
    const refused = new Set(fresh.slice(reserved).map(({ url }) => url.id));
    turn.budgetSpent = true;
    for (const source of turn.sources) {
      const kept = source.buffer.filter((url) => !isFresh(url));
      this.#buffered -= source.buffer.length - kept.length;
      source.buffer = kept;
    }
    giveBack(refused);
    this.#deps.onBudgetSpent(turn.crawl.id);
    return group.filter(({ url }) => !refused.has(url.id));
  }

  // ---- lanes and sources ----

  #laneOf(host: string): Lane | undefined {
    const known = this.#lanes.get(host);
    if (known !== undefined) return known;
    const shard = shardOf(host, this.#options.shardCount);
    if (!this.#shards.has(shard)) return undefined;
    const lane = new Lane(host, shard, this.#deps.clock.now());
    this.#lanes.set(host, lane);
    this.#newLanes.add(lane);
    return lane;
  }

  #sourceOf(turn: Turn, host: string): LaneSource | undefined {
    const lane = this.#laneOf(host);
    if (lane === undefined) return undefined;
    const known = lane.sources.get(turn.crawl.id);
    if (known !== undefined) {
      turn.sources.add(known);
      return known;
    }
    const source = new LaneSource(lane, turn.crawl.id);
    lane.sources.set(turn.crawl.id, source);
    turn.sources.add(source);
    lane.applyPoliteness(this.#crawlOf);
    return source;
  }

  /** The frontier has URLs of this crawl on this host that may go now. */
  #freshSource(turn: Turn, host: string): void {
    const source = this.#sourceOf(turn, host);
    if (source === undefined) return;
    this.#freshen(source);
    this.#offer(source.lane);
  }

  #freshen(source: LaneSource): void {
    source.drained = false;
    if (source.loading) source.addedMeanwhile = true;
  }

  /** The frontier has a URL of this crawl on this host that may go from `readyAt` on. */
  #laterSource(turn: Turn, host: string, readyAt: number): void {
    const source = this.#sourceOf(turn, host);
    if (source === undefined) return;
    source.nextReadyAt = Math.min(source.nextReadyAt ?? readyAt, readyAt);
    if (source.loading) source.addedMeanwhile = true;
    this.#awaitOpening(source.lane, this.#deps.clock.now());
  }

  /** Puts the lane's sources that have something to give into the rounds of their crawls. */
  #offer(lane: Lane): void {
    const now = this.#deps.clock.now();
    if (!lane.isKnown || lane.isFull) return;
    if (lane.opensAt > now) {
      this.#awaitOpening(lane, now);
      return;
    }
    for (const source of lane.sources.values()) {
      if (source.listed || !source.hasMore(now)) continue;
      const turn = this.#turns.get(source.crawl);
      if (turn === undefined) continue;
      source.listed = true;
      turn.round.push(source);
    }
    this.#awaitOpening(lane, now);
  }

  /** Sees to it that the lane is looked at when it opens, or when one of its waiting URLs becomes ready. */
  #awaitOpening(lane: Lane, now: number): void {
    if (!lane.isKnown) return;
    let at = Number.POSITIVE_INFINITY;
    if (lane.opensAt > now) at = lane.opensAt;
    for (const source of lane.sources.values()) {
      if (source.nextReadyAt !== undefined && source.nextReadyAt > now) {
        at = Math.min(at, Math.max(source.nextReadyAt, lane.opensAt));
      }
    }
    if (at === Number.POSITIVE_INFINITY || (lane.wakesAt !== undefined && lane.wakesAt <= at)) return;
    lane.wakesAt = at;
    this.#waiting.push(at, lane);
    this.#armTimer();
  }

  #openDueLanes(): void {
    const now = this.#deps.clock.now();
    for (;;) {
      const lane = this.#waiting.takeDue(now);
      if (lane === undefined) return;
      if (this.#lanes.get(lane.host) !== lane) continue;
      if (lane.wakesAt !== undefined && lane.wakesAt <= now) lane.wakesAt = undefined;
      this.#offer(lane);
    }
  }

  #armTimer(): void {
    const at = this.#waiting.nextDueAt ?? Number.POSITIVE_INFINITY;
    if (at === this.#timerAt || this.#stopped) return;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    this.#timerAt = at;
    if (at === Number.POSITIVE_INFINITY) return;
    this.#stopTimer = this.#deps.clock.after(Math.max(1, at - this.#deps.clock.now()), () => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.#wake();
    });
  }

  #removeSource(source: LaneSource): void {
    const { lane } = source;
    this.#buffered -= source.buffer.length;
    source.buffer = [];
    source.listed = false;
    source.drained = true;
    source.nextReadyAt = undefined;
    this.#turns.get(source.crawl)?.sources.delete(source);
    if (source.inFlight > 0) return; // Its URLs still hold their places; it goes when the last one lands.
    lane.sources.delete(source.crawl);
    lane.applyPoliteness(this.#crawlOf);
  }

  #forgetBuffers(turn: Turn): void {
    for (const source of turn.sources) {
      this.#buffered -= source.buffer.length;
      source.buffer = [];
      this.#freshen(source);
      this.#offer(source.lane);
    }
    turn.budgetSpent = false;
  }

  #forgetLane(lane: Lane): void {
    for (const [id, flight] of this.#inFlight) {
      if (flight.source.lane !== lane) continue;
      this.#endFlight(id, flight);
      flight.source.inFlight = 0;
    }
    for (const source of [...lane.sources.values()]) this.#removeSource(source);
    this.#lanes.delete(lane.host);
    this.#newLanes.delete(lane);
  }

  /** Lanes that nothing waits for go once no promise hangs on them; what matters of them is on record. */
  #forgetQuietLanes(now: number): void {
    for (const lane of this.#lanes.values()) {
      if (lane.isKnown && lane.sources.size === 0 && lane.inFlight === 0 && lane.quietSince(now) > QUIET_MS) {
        this.#lanes.delete(lane.host);
      }
    }
  }

  // ---- reading the frontier ----

  #loadHostStates(): void {
    const lanes = [...this.#newLanes];
    this.#newLanes.clear();
    this.#reads += 1;
    void this.#deps.hosts
      .load(lanes.map((lane) => lane.host))
      .then(
        (states) => {
          for (const state of states) {
            const { lastEndedAt } = state;
            this.#lanes.get(state.host)?.learn({
              ...state,
              ...(lastEndedAt !== undefined && { lastEndedAt: lastEndedAt + CLOCK_ERROR_MS }),
            });
          }
          for (const lane of lanes) {
            lane.isKnown = true;
            lane.applyPoliteness(this.#crawlOf);
            this.#offer(lane);
          }
        },
        (error: unknown) => {
          this.#deps.logger.warn({ error: messageOf(error) }, "could not read what is known of hosts");
          for (const lane of lanes) if (this.#lanes.get(lane.host) === lane) this.#newLanes.add(lane);
          this.#retryLater();
        },
      )
      .finally(() => {
        this.#reads -= 1;
        this.#settle();
        this.#wake();
      });
  }

  async #read(source: LaneSource): Promise<void> {
    const { frontier, clock, logger } = this.#deps;
    const { readAhead, readAheadTotal } = this.#options;
    const fairShare = Math.floor((readAheadTotal - this.#buffered) / Math.max(1, this.#lanes.size));
    const limit = Math.max(4, Math.min(readAhead, fairShare));
    const of = { crawl: source.crawl, host: source.lane.host };
    source.loading = true;
    source.addedMeanwhile = false;
    this.#reads += 1;
    // Those just chosen are still queued in the frontier until they are marked, so ask for that many more.
    const inFlightThere = source.inFlight;
    try {
      const batch = await frontier.queued(of, limit + inFlightThere, clock.now());
      source.loading = false;
      const turn = this.#turns.get(source.crawl);
      if (turn === undefined || !turn.sources.has(source)) return;
      const known = new Set(source.buffer.map((url) => url.id));
      for (const url of batch.urls) {
        if (known.has(url.id) || this.#inFlight.has(url.id)) continue;
        if (turn.budgetSpent && isFresh(url)) continue;
        known.add(url.id);
        turn.crews.add(this.#crewFor(url, turn.crawl));
        source.buffer.push(url);
        this.#buffered += 1;
      }
      const gotAll = batch.urls.length < limit + inFlightThere;
      source.drained = gotAll && !source.addedMeanwhile;
      source.nextReadyAt = batch.nextReadyAt;
      if (turn.budgetSpent && source.buffer.length === 0) source.drained = true;
    } catch (error) {
      source.loading = false;
      logger.warn({ ...of, error: messageOf(error) }, "could not read the frontier");
      source.drained = true;
      source.nextReadyAt = clock.now() + 1_000;
    } finally {
      this.#reads -= 1;
      this.#settle();
      if (source.isSpent) this.#removeSource(source);
      else this.#offer(source.lane);
      this.#checkIdle(source.crawl);
      this.#wake();
    }
  }

  /** Looks for queued URLs of crawls that are new here. */
  #search(crawls: readonly string[]): void {
    if (crawls.length === 0 || this.#stopped) return;
    this.#reads += 1;
    void this.#findQueued(this.heldShards, crawls)
      .catch((error: unknown) => {
        this.#deps.logger.warn({ crawls, error: messageOf(error) }, "could not look for queued URLs");
        this.#deps.clock.after(1_000, () => this.#search(crawls));
      })
      .finally(() => {
        this.#reads -= 1;
        this.#settle();
        for (const crawl of crawls) this.#checkIdle(crawl);
        this.#wake();
      });
  }

  async #findQueued(shards: readonly number[], crawls: readonly string[]): Promise<void> {
    if (shards.length === 0 || crawls.length === 0) return;
    const found = await this.#deps.frontier.queuedHosts(shards, crawls);
    for (const { crawl, host } of found) {
      const turn = this.#turns.get(crawl);
      if (turn !== undefined) this.#freshSource(turn, host);
    }
    this.#wake();
  }

  #adopt(url: DispatchedUrl): void {
    const turn = this.#turns.get(url.crawl);
    const lane = this.#laneOf(url.host);
    if (lane === undefined || this.#inFlight.has(url.id)) return;
    let source = lane.sources.get(url.crawl);
    if (source === undefined) {
      source = new LaneSource(lane, url.crawl);
      source.drained = true;
      lane.sources.set(url.crawl, source);
      turn?.sources.add(source);
      lane.applyPoliteness(this.#crawlOf);
    }
    source.inFlight += 1;
    lane.inFlight += 1;
    const spider = url.spider ?? turn?.crawl.spider;
    const crew = spider === undefined ? OWN : this.#crewOfSpider(spider);
    this.#takeFlight(url.id, {
      source,
      crew,
      // Of a crawl that does not run it is not known whose workers have it.
      isLocatable: spider !== undefined && crew === OWN,
      token: url.dispatch.token,
      deadline: url.dispatch.notAfter + this.#options.endWithinMs,
      settledAt: this.#deps.clock.now(),
      isMissing: false,
    });
  }

  #retryLater(): void {
    this.#deps.clock.after(1_000, () => this.#wake());
  }

  #checkIdle(crawl: string): void {
    if (this.isIdle(crawl)) this.#deps.onIdle(crawl);
  }

  #settle(): void {
    const waiting = this.#settled;
    this.#settled = [];
    for (const resolve of waiting) resolve();
  }
}

function newTurn(crawl: Crawl, crew: string, pass: number): Turn {
  return { crawl, crews: new Set([crew]), round: new Fifo(), pass, budgetSpent: false, sources: new Set() };
}

/** Whether a dispatch of it counts against the crawl's page budget. */
function isFresh(url: QueuedUrl): boolean {
  return url.attempts === 0 && url.target === undefined;
}

function toTask(
  url: QueuedUrl,
  dispatch: { token: string; generation: number; dispatchedAt: number; notAfter: number },
  lane: Lane,
  epoch: number,
): Task {
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
    token: dispatch.token,
    shard: lane.shard,
    epoch,
    dispatchedAt: dispatch.dispatchedAt,
    notAfter: dispatch.notAfter,
    delayMs: lane.delayMs,
    ...(url.suspect !== undefined && { suspect: url.suspect }),
  };
}
