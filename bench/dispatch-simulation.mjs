/**
 * The dispatcher at work in simulated time: a lean frontier, workers with as many places as wanted, and web servers
 * that are quick or slow, overloaded, silent, or ask to be left alone. Hours pass in seconds, and at every step is
 * checked what the dispatcher promises.
 *
 * It is given the program's classes, so that tests run it on the sources and the benchmark on what was compiled.
 */

const SHARDS = new Map(Array.from({ length: 64 }, (_, shard) => [shard, 1]));
const NO_LOG = () => {};
const SILENT_LOGGER = {
  child: () => SILENT_LOGGER,
  debug: NO_LOG,
  info: NO_LOG,
  warn: NO_LOG,
  error: NO_LOG,
};

/** Instants at which something happens, each with what happens then: a heap of instants over lists. */
class Agenda {
  #heap = [];
  #byInstant = new Map();

  get size() {
    return this.#heap.length;
  }

  add(at, run) {
    const known = this.#byInstant.get(at);
    if (known !== undefined) {
      known.push(run);
      return;
    }
    this.#byInstant.set(at, [run]);
    const heap = this.#heap;
    let index = heap.length;
    heap.push(at);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (heap[parent] <= at) break;
      heap[index] = heap[parent];
      index = parent;
    }
    heap[index] = at;
  }

  get next() {
    return this.#heap[0];
  }

  /** Takes out the next instant; returns what happens then. */
  take() {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length > 0) {
      let index = 0;
      for (;;) {
        let child = 2 * index + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && heap[child + 1] < heap[child]) child += 1;
        if (last <= heap[child]) break;
        heap[index] = heap[child];
        index = child;
      }
      heap[index] = last;
    }
    const runs = this.#byInstant.get(first);
    this.#byInstant.delete(first);
    return runs;
  }
}

/** A clock that goes on when everything of an instant has happened. */
class SimulatedClock {
  at = 1_700_000_000_000;
  agenda = new Agenda();

  now() {
    return this.at;
  }

  monotonic() {
    return this.at;
  }

  after(delayMs, fire) {
    let isOn = true;
    // Whole milliseconds: what happens in one is one step.
    this.agenda.add(this.at + Math.max(1, Math.ceil(delayMs)), () => {
      if (isOn) fire();
    });
    return () => {
      isOn = false;
    };
  }
}

/** The frontier as the dispatcher sees it, with as little behind it as can be: only what is open. */
class LeanFrontier {
  calls = 0;
  #shardOf;
  #open = new Map();
  #dispatched = new Map();
  /** By crawl and host: URLs in order of arrival, and those that wait for their time. */
  #sources = new Map();
  /** How many URLs are open, by crawl. */
  openOf = new Map();

  constructor(shardOf) {
    this.#shardOf = shardOf;
  }

  /** @param url what a `QueuedUrl` has */
  add(url) {
    this.#open.set(url.id, url);
    this.#enqueue(url);
    this.openOf.set(url.crawl, (this.openOf.get(url.crawl) ?? 0) + 1);
  }

  #enqueue(url) {
    url.isQueued = true;
    const hosts = getOrMake(this.#sources, url.crawl, () => new Map());
    const source = getOrMake(hosts, url.host, () => ({ urls: [], head: 0, later: [], queued: 0 }));
    source.queued += 1;
    if (url.readyAt > 0) source.later.push(url);
    else source.urls.push(url);
  }

  /** Hosts with something queued for any crawl. */
  get hosts() {
    const found = new Set();
    for (const hosts of this.#sources.values()) for (const host of hosts.keys()) found.add(host);
    return found;
  }

  async queuedHosts(shards, crawls) {
    this.calls += 1;
    const wanted = new Set(shards);
    const found = [];
    for (const crawl of crawls) {
      for (const host of this.#sources.get(crawl)?.keys() ?? []) {
        const shard = this.#shardOf(host, SHARDS.size);
        if (wanted.has(shard)) found.push({ crawl, host, shard });
      }
    }
    return found;
  }

  async queued(of, limit, now) {
    this.calls += 1;
    const source = this.#sources.get(of.crawl)?.get(of.host);
    if (source === undefined) return { urls: [] };
    const urls = [];
    while (source.head < source.urls.length && !source.urls[source.head].isQueued) source.head += 1;
    if (source.head > 64) source.urls = source.urls.slice(source.head);
    if (source.head > 64) source.head = 0;
    for (let at = source.head; at < source.urls.length && urls.length < limit; at += 1) {
      if (source.urls[at].isQueued) urls.push(source.urls[at]);
    }
    source.later = source.later.filter(({ isQueued }) => isQueued);
    let nextReadyAt;
    for (const url of source.later) {
      if (url.readyAt > now) nextReadyAt = Math.min(nextReadyAt ?? url.readyAt, url.readyAt);
      else if (urls.length < limit) urls.push(url);
    }
    return urls.length >= limit || nextReadyAt === undefined ? { urls } : { urls, nextReadyAt };
  }

  async dispatched(shards) {
    this.calls += 1;
    const wanted = new Set(shards);
    const found = [];
    for (const [id, dispatch] of this.#dispatched) {
      const { crawl, host } = this.#open.get(id);
      if (wanted.has(this.#shardOf(host, SHARDS.size))) found.push({ id, crawl, host, dispatch });
    }
    return found;
  }

  async dispatch(ids, dispatch) {
    this.calls += 1;
    const marked = new Set();
    for (const id of ids) {
      const url = this.#open.get(id);
      if (url?.isQueued !== true) continue;
      url.isQueued = false;
      const hosts = this.#sources.get(url.crawl);
      const source = hosts.get(url.host);
      source.queued -= 1;
      if (source.queued === 0) hosts.delete(url.host);
      this.#dispatched.set(id, dispatch);
      marked.add(id);
    }
    return marked;
  }

  /** @returns whether the dispatch was the current one */
  end(id, token) {
    if (this.#dispatched.get(id)?.token !== token) return false;
    const { crawl } = this.#open.get(id);
    this.#dispatched.delete(id);
    this.#open.delete(id);
    this.openOf.set(crawl, this.openOf.get(crawl) - 1);
    return true;
  }

  /** Another attempt is to be made. @returns whether the dispatch was the current one */
  again(id, token, readyAt) {
    if (this.#dispatched.get(id)?.token !== token) return false;
    const url = this.#open.get(id);
    this.#dispatched.delete(id);
    // What was read of it before must not change under whoever has it.
    const next = { ...url, attempts: url.attempts + 1, readyAt };
    this.#open.set(id, next);
    this.#enqueue(next);
    return true;
  }

  async revoke(ids, tokens, readyAt) {
    this.calls += 1;
    let revoked = 0;
    for (const id of ids) {
      if (!tokens.includes(this.#dispatched.get(id)?.token)) continue;
      this.#dispatched.delete(id);
      const next = { ...this.#open.get(id), readyAt };
      this.#open.set(id, next);
      this.#enqueue(next);
      revoked += 1;
    }
    return revoked;
  }
}

function getOrMake(map, key, make) {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}

/**
 * @typedef {object} SimulatedCrawl
 * @property {string} id
 * @property {object} [politeness] over the defaults
 * @property {number} [priority]
 * @property {number} urls how many it has in the end
 * @property {(index: number) => number} hostOf the host of its URL of this number
 * @property {number} [known] how many of them are known from the start; the others are found on the way
 * @property {number} [startsAtMs]
 *
 * @typedef {object} Answer what a server does with a request
 * @property {number} ms how long it takes
 * @property {"served" | "asked" | "overloaded" | "silent"} kind
 * @property {number} [bytes]
 * @property {number} [retryAfterMs]
 *
 * @typedef {object} SimulationOptions
 * @property {SimulatedCrawl[]} crawls
 * @property {number} places fetches that the workers can run at once
 * @property {() => number} random
 * @property {(host: number, nowMs: number) => Answer} serve
 * @property {(host: number) => number} [crawlDelayOf] in milliseconds
 * @property {number} [windowPerPlace]
 * @property {number} [takeOverEveryMs] a new dispatcher takes over this often, knowing only what is on record
 * @property {string} [ends] it is over with this crawl, whatever the others do
 * @property {number} [mostMs] simulated time after which it is given up
 * @property {boolean} [isChecked] whether the promises are checked @default true
 * @property {object} [dispatcher] options of the dispatcher
 */

const TICK_MS = 5;
const REPORT_MS = 20;
const RECONCILE_MS = 5_000;
const LANE_KEPT_MS = 90_000;
const ROBOTS_MS = 50;
const MAX_ATTEMPTS = 3;

export class DispatchSimulation {
  clock = new SimulatedClock();
  #options;
  #program;
  #frontier;
  #hosts;
  #dispatcher;
  #epoch = 0;
  #crawls;
  #byId = new Map();
  #waiting;
  #running = 0;
  #reports = [];
  #slice = 0;
  /** By host. */
  #servers = new Map();
  #begunAt;
  #broken;
  figures = {
    dispatched: 0,
    fetched: 0,
    done: 0,
    failed: 0,
    givenUp: 0,
    overloads: 0,
    silences: 0,
    takeOvers: 0,
    mostLanes: 0,
    mostInFlight: 0,
    mostHeapBytes: 0,
    endedAtMs: {},
  };

  /** @param {{ Dispatcher: Function, MemoryHostStates: Function, TaskRound: Function, shardOf: Function }} program @param {SimulationOptions} options */
  constructor(program, options) {
    this.#program = program;
    this.#options = {
      windowPerPlace: 3,
      isChecked: true,
      mostMs: 30 * 86_400_000,
      crawlDelayOf: () => 0,
      ...options,
    };
    this.#frontier = new LeanFrontier(program.shardOf);
    this.#hosts = new program.MemoryHostStates();
    this.#waiting = new program.TaskRound();
    this.#crawls = options.crawls.map((crawl) => ({ ...crawl, found: 0, spec: specOf(crawl) }));
    for (const crawl of this.#crawls) this.#byId.set(crawl.id, crawl);
    this.#begunAt = this.clock.at;
  }

  get elapsedMs() {
    return this.clock.at - this.#begunAt;
  }

  /** Runs until every crawl is over; resolves with the figures. @throws Error saying which promise was broken */
  async run() {
    const started = performance.now();
    this.#takeOver();
    for (const crawl of this.#crawls) this.#at(crawl.startsAtMs ?? 0, () => this.#begin(crawl));
    this.#every(RECONCILE_MS, () => this.#reconcile());
    const { takeOverEveryMs, mostMs } = this.#options;
    if (takeOverEveryMs !== undefined) this.#every(takeOverEveryMs, () => this.#takeOver());
    while (!this.#isOver) {
      if (this.elapsedMs > mostMs)
        throw new Error(`not over after ${mostMs / 1_000} s: ${this.#whatIsLeft()}`);
      this.clock.at = this.clock.agenda.next;
      for (const run of this.clock.agenda.take()) run();
      await this.#settle();
      if (this.#broken !== undefined) throw this.#broken;
      this.figures.mostInFlight = Math.max(this.figures.mostInFlight, this.#dispatcher.inFlight);
    }
    await this.#dispatcher.stop();
    this.#checkEnd();
    const seconds = (performance.now() - started) / 1_000;
    return { ...this.figures, seconds, simulatedSeconds: this.elapsedMs / 1_000 };
  }

  get #isOver() {
    const { ends } = this.#options;
    return this.#crawls.every(({ id, isOver }) => isOver === true || (ends !== undefined && ends !== id));
  }

  #whatIsLeft() {
    return [...this.#frontier.openOf].map(([crawl, urls]) => `${crawl} has ${urls} URLs open`).join(", ");
  }

  #at(ms, run) {
    this.clock.agenda.add(Math.max(this.clock.at, this.#begunAt + Math.ceil(ms / TICK_MS) * TICK_MS), run);
  }

  #in(ms, run) {
    this.#at(this.elapsedMs + Math.max(TICK_MS, ms), run);
  }

  #every(ms, run) {
    this.#in(ms, () => {
      run();
      this.#every(ms, run);
    });
  }

  /** Lets everything happen that needs no time. */
  async #settle() {
    let before;
    do {
      before = this.#frontier.calls;
      await new Promise((resolve) => setImmediate(resolve));
    } while (this.#frontier.calls !== before && this.#broken === undefined);
  }

  // ---- masters ----

  /** A dispatcher begins that knows what is on record, and nothing else. */
  #takeOver() {
    const before = this.#dispatcher;
    if (before !== undefined) {
      before.drop([...SHARDS.keys()]);
      void before.stop();
      this.figures.takeOvers += 1;
    }
    this.#epoch += 1;
    const { Dispatcher } = this.#program;
    const { random, places, windowPerPlace } = this.#options;
    const dispatcher = new Dispatcher(
      {
        id: `d${this.#epoch}`,
        frontier: this.#frontier,
        hosts: this.#hosts,
        clock: this.clock,
        logger: SILENT_LOGGER,
        random,
        tasks: { send: async (tasks) => this.#receive(tasks) },
        budget: { reserve: async (_, pages) => pages },
        onIdle: () => {},
        onBudgetSpent: () => {},
      },
      this.#options.dispatcher,
    );
    this.#dispatcher = dispatcher;
    dispatcher.setWindow(places * windowPerPlace);
    dispatcher.setCrawls(this.#runningCrawls());
    void dispatcher.hold(new Map([...SHARDS.keys()].map((shard) => [shard, this.#epoch])));
  }

  #runningCrawls() {
    return this.#crawls.filter(({ isBegun, isOver }) => isBegun && !isOver).map(({ spec }) => spec);
  }

  #reconcile() {
    this.#slice = (this.#slice + 1) % 4;
    this.#frontier.calls += 1;
    void this.#dispatcher.reconcile([this.#slice, 4]).then(() => this.#measure());
  }

  #measure() {
    const { figures } = this;
    const { lanes } = this.#dispatcher;
    figures.mostLanes = Math.max(figures.mostLanes, lanes);
    figures.mostHeapBytes = Math.max(figures.mostHeapBytes, process.memoryUsage().heapUsed);
    if (!this.#options.isChecked) return;
    const active = this.#frontier.hosts;
    for (const [host, server] of this.#servers) {
      if (server.active > 0 || this.clock.at - server.stirredAt <= LANE_KEPT_MS + 2 * RECONCILE_MS)
        active.add(host);
      else if (!active.has(host)) this.#servers.delete(host);
    }
    if (lanes > active.size) this.#fail(`${lanes} lanes, but only ${active.size} hosts are active`);
  }

  // ---- crawls ----

  #begin(crawl) {
    crawl.isBegun = true;
    crawl.begunAtMs = this.elapsedMs;
    this.#dispatcher.setCrawls(this.#runningCrawls());
    this.#find(crawl, crawl.known ?? crawl.urls);
  }

  /** So many more of its URLs become known. */
  #find(crawl, most) {
    const hosts = new Set();
    for (let left = Math.min(most, crawl.urls - crawl.found); left > 0; left -= 1) {
      const number = crawl.found;
      crawl.found += 1;
      const host = `h${crawl.hostOf(number)}.test`;
      hosts.add(host);
      const id = `${crawl.id}:${number}`;
      const place = {
        crawl: crawl.id,
        host,
        url: `http://${host}/${number}`,
        kind: "page",
        depth: 0,
        priority: 5,
      };
      this.#frontier.add({ id, ...place, readyAt: 0, attempts: 0, round: 0 });
    }
    if (hosts.size > 0) this.#dispatcher.added(crawl.id, hosts);
  }

  // ---- workers ----

  #receive(tasks) {
    const { figures } = this;
    this.#frontier.calls += 1;
    figures.dispatched += tasks.length;
    for (const task of tasks) {
      if (this.#options.isChecked) this.#checkSent(task);
      if (task.givenUp !== undefined) {
        figures.givenUp += 1;
        this.#report(task, { untouched: true }, undefined);
      } else this.#waiting.push({ task });
    }
    this.#fill();
    return [];
  }

  #fill() {
    while (this.#running < this.#options.places && this.#waiting.size > 0) {
      this.#fetch(this.#waiting.shift().task);
    }
  }

  #fetch(task) {
    const server = this.#serverOf(task.host);
    const { serve, isChecked } = this.#options;
    if (isChecked) this.#checkStart(task, server);
    this.#running += 1;
    server.active += 1;
    this.figures.fetched += 1;
    const answer = serve(server.number, this.elapsedMs);
    if (task.awaitsRobots === true && answer.kind !== "silent") {
      const { crawlDelayMs } = server;
      this.#in(ROBOTS_MS, () => this.#dispatcher.learnt({ host: task.host, crawlDelayMs }));
    }
    const begunAt = this.clock.at;
    this.#in(answer.ms, () => this.#end(task, server, answer, begunAt));
  }

  #end(task, server, answer, begunAt) {
    const now = this.clock.at;
    this.#running -= 1;
    server.active -= 1;
    server.lastAt = now;
    // Not on record, and so unknown to whoever takes over: nobody wanted a delay then.
    server.knownTo = task.delayMs > 0 || server.crawlDelayMs > 0 ? undefined : this.#epoch;
    server.lastFetchMs = now - begunAt;
    const { kind, bytes = 0, retryAfterMs } = answer;
    const end = {
      ...(kind !== "silent" && { answered: true, crawlDelayMs: server.crawlDelayMs }),
      fetchMs: now - begunAt,
      ...(task.maxBytesPerSecond !== undefined && {
        owedMs: Math.ceil((bytes * 1_000) / task.maxBytesPerSecond),
      }),
    };
    if (kind === "served") this.#report(task, end, undefined);
    else {
      if (kind === "silent") this.figures.silences += 1;
      else this.figures.overloads += 1;
      if (kind === "asked") end.backoffUntil = now + retryAfterMs;
      end.trouble = { kind, why: kind };
      this.#report(
        task,
        end,
        task.attempts + 1 < MAX_ATTEMPTS ? now + 1_000 * 2 ** task.attempts : undefined,
      );
    }
    this.#fill();
  }

  /** What came of a task is stored and told, with all else that came about the same time. */
  #report(task, end, readyAt) {
    if (this.#reports.length === 0) {
      this.#in(REPORT_MS, () => {
        const reports = this.#reports;
        this.#reports = [];
        for (const report of reports) this.#commit(report);
      });
    }
    this.#reports.push({ task, end, readyAt, endedAt: this.clock.at });
  }

  #commit({ task, end, readyAt, endedAt }) {
    const { id, crawl, host, token } = task;
    const { fetchMs, owedMs, backoffUntil, crawlDelayMs, untouched } = end;
    const debt = owedMs === undefined ? undefined : { from: endedAt - fetchMs, ms: owedMs };
    const isPaced = (task.delayMs > 0 || (crawlDelayMs ?? 0) > 0) && untouched !== true;
    void this.#hosts.note([
      {
        host,
        ...(isPaced && { lastEndedAt: endedAt }),
        ...(isPaced && fetchMs !== undefined && { lastFetchMs: fetchMs }),
        ...(backoffUntil !== undefined && { backoffUntil }),
        ...(crawlDelayMs !== undefined && { crawlDelayMs }),
        ...(debt !== undefined && { debt }),
      },
    ]);
    const { figures } = this;
    const isCurrent =
      readyAt === undefined ? this.#frontier.end(id, token) : this.#frontier.again(id, token, readyAt);
    if (!isCurrent) this.#fail(`${id} ended under a dispatch that is not the current one`);
    const of = this.#byId.get(crawl);
    if (readyAt === undefined) {
      if (end.trouble === undefined && task.givenUp === undefined) figures.done += 1;
      else figures.failed += 1;
      // Pages lead to others: two while not too many wait.
      this.#find(of, this.#frontier.openOf.get(crawl) < of.known ? 2 : 1);
    }
    const server = this.#serverOf(host);
    server.stirredAt = this.clock.at;
    if (backoffUntil !== undefined) server.restsUntil = Math.max(server.restsUntil, backoffUntil);
    if (debt !== undefined) server.paidUntil = Math.max(server.paidUntil, debt.from) + debt.ms;
    this.#dispatcher.ended({
      ...{ id, crawl, host, token, endedAt },
      ...end,
      ...(readyAt !== undefined && { queuedAgain: { readyAt, host } }),
    });
    if (readyAt === undefined && of.found === of.urls && this.#frontier.openOf.get(crawl) === 0) {
      of.isOver = true;
      figures.endedAtMs[crawl] = this.elapsedMs - of.begunAtMs;
      this.#dispatcher.setCrawls(this.#runningCrawls());
    }
  }

  #serverOf(host) {
    let server = this.#servers.get(host);
    if (server === undefined) {
      const number = Number(/\d+/.exec(host)[0]);
      server = {
        number,
        crawlDelayMs: this.#options.crawlDelayOf(number),
        active: 0,
        stirredAt: this.clock.at,
        lastAt: Number.NEGATIVE_INFINITY,
        lastFetchMs: 0,
        restsUntil: Number.NEGATIVE_INFINITY,
        paidUntil: Number.NEGATIVE_INFINITY,
      };
      this.#servers.set(host, server);
    }
    return server;
  }

  // ---- promises ----

  /** What is sent must not be for a host that has been heard to want rest, or whose bytes are not paid for. */
  #checkSent(task) {
    const server = this.#serverOf(task.host);
    if (task.maxBytesPerSecond !== undefined && this.clock.at < server.paidUntil - 1) {
      this.#fail(
        `${task.id} was sent ${server.paidUntil - this.clock.at} ms before the bytes of ${task.host} were paid for`,
      );
    }
    if (task.givenUp === undefined && server.restsUntil > this.clock.at) {
      this.#fail(
        `${task.id} was sent ${server.restsUntil - this.clock.at} ms before ${task.host} may be asked again`,
      );
    }
  }

  /** A fetch must not begin too early, nor beside too many others. */
  #checkStart(task, server) {
    const { spec } = this.#byId.get(task.crawl);
    const {
      delayMs,
      maxConcurrencyPerHost,
      obeyRobots,
      delayFactor = 0,
      maxDelayMs = 30_000,
    } = spec.politeness;
    const now = this.clock.at;
    const factorMs = Math.min(maxDelayMs, delayFactor * server.lastFetchMs);
    const owedMs = Math.max(delayMs, obeyRobots ? server.crawlDelayMs : 0, factorMs);
    if (server.active >= maxConcurrencyPerHost) {
      this.#fail(`${task.id} began beside ${server.active} fetches from ${task.host}`);
    }
    if (owedMs > 0 && server.active > 0) {
      this.#fail(
        `${task.id} began beside another fetch from ${task.host}, which has a delay of ${owedMs} ms`,
      );
    }
    const isKnown = server.knownTo === undefined || server.knownTo === this.#epoch;
    if (isKnown && now < server.lastAt + owedMs) {
      this.#fail(`${task.id} began ${server.lastAt + owedMs - now} ms too early`);
    }
    if (task.attempts >= MAX_ATTEMPTS) this.#fail(`${task.id} was tried ${task.attempts} times before`);
  }

  #checkEnd() {
    if (this.#options.ends !== undefined) return;
    const { done, failed } = this.figures;
    const urls = this.#crawls.reduce((sum, crawl) => sum + crawl.urls, 0);
    // Each ends once: the frontier takes no second end of a dispatch.
    if (done + failed !== urls) this.#fail(`${done} done and ${failed} failed are not ${urls}`);
    if (this.#dispatcher.inFlight !== 0)
      this.#fail(`${this.#dispatcher.inFlight} URLs are in flight at the end`);
  }

  /** Kept, because whoever called may catch it. */
  #fail(what) {
    this.#broken ??= new Error(`after ${this.elapsedMs / 1_000} simulated seconds: ${what}`);
    throw this.#broken;
  }
}

function specOf({ id, politeness = {}, priority = 5 }) {
  return {
    ...{
      id,
      spider: "links",
      seeds: [],
      scope: "any",
      limits: {},
      params: {},
      status: "running",
      generation: 1,
    },
    politeness: { delayMs: 0, maxConcurrencyPerHost: 4, obeyRobots: true, ...politeness },
    priority,
    startedAt: 0,
  };
}
