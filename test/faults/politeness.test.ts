import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type CrawlAnswer, type Master, type Member, until } from "../support/cluster.js";
import {
  gapsOf,
  type LoggedRequest,
  mostAtOnce,
  type PoliteHost,
  PoliteSite,
  worstHaste,
} from "../support/polite-site.js";
import { PrivateBroker } from "../support/private-broker.js";
import { SeededRandom } from "../support/seeded-random.js";

/** What clocks that are read in different processes, and a machine that is busy, are allowed, in milliseconds. */
const TOLERANCE_MS = 5;
/**
 * Bytes are reckoned from when a fetch was begun, and not from when that reached the server: on a busy machine it takes
 * a while. Less than it takes to pay for one body, in milliseconds.
 */
const TRANSIT_MS = 200;
/** As long as faults go on, in milliseconds. */
const CHAOS_MS = 40_000;
const LEASE_MS = 3_000;
/** The broker gives up a connection that is silent for twice as long, in seconds. */
const HEARTBEAT_SECONDS = 2;
/** Longer than it takes the broker to give up a frozen worker, and others to take its messages, in milliseconds. */
const FROZEN_WORKER_MS = [8_000, 11_000] as const;
const FROZEN_MASTER_MS = [LEASE_MS + 1_500, LEASE_MS + 4_000] as const;
/** What was told by a change takes effect in this time, with what was on its way by then, in milliseconds. */
const CHANGE_MS = 2_500;
/** Requests to a host that were on their way when it asked to be left alone come within this, in milliseconds. */
const ON_THEIR_WAY_MS = 500;
/** In which a worker has stored what a fetch brought, in milliseconds. */
const COMMIT_MS = 1_000;
/** For how long after a fault a master may be missing that others wait for, in milliseconds. */
const DISTURBED_MS = FROZEN_MASTER_MS[1] + LEASE_MS;

type Politeness = Readonly<Record<string, number | boolean>>;
type Plan = { readonly name: string; readonly politeness: Politeness; readonly urls: readonly string[] };

const address = (group: number, index: number) => `127.0.${40 + group}.${index + 1}`;
const several = <Value>(count: number, make: (index: number) => Value) =>
  Array.from({ length: count }, (_, index) => make(index));

/** Hosts by what is to hold for them. */
const HOSTS = {
  paced: several(4, (index) => address(0, index)),
  asked: several(3, (index) => address(1, index)),
  single: several(2, (index) => address(2, index)),
  double: several(2, (index) => address(3, index)),
  wide: several(2, (index) => address(4, index)),
  measured: several(3, (index) => address(5, index)),
  capped: several(2, (index) => address(6, index)),
  cappedWide: several(2, (index) => address(12, index)),
  shared: several(2, (index) => address(7, index)),
  stormy: several(2, (index) => address(8, index)),
  stormyAlone: several(2, (index) => address(9, index)),
  tuned: several(2, (index) => address(10, index)),
  halted: several(2, (index) => address(11, index)),
} as const;

const PACE_MS = 250;
const ASKED_MS = 600;
const SHARED_MS = 200;
const FACTOR = 2;
const BYTES_PER_SECOND = 60_000;
const BODY_BYTES = 15_000;

const ORDINARY = { pageMs: [10, 60], bodyBytes: 2_000 } as const;
const SLOW = { pageMs: [100, 350], bodyBytes: 1_000 } as const;

function politeHosts(): readonly PoliteHost[] {
  const like = (addresses: readonly string[], host: Omit<PoliteHost, "address">): readonly PoliteHost[] =>
    addresses.map((one) => ({ address: one, ...host }));
  const robots = `User-agent: *\nDisallow: /private\nCrawl-delay: ${ASKED_MS / 1_000}\n`;
  return [
    ...like(HOSTS.paced, ORDINARY),
    ...like(HOSTS.asked, { ...ORDINARY, robots }),
    ...like([...HOSTS.single, ...HOSTS.double, ...HOSTS.wide], SLOW),
    ...like(HOSTS.measured, SLOW),
    ...like([...HOSTS.capped, ...HOSTS.cappedWide], { pageMs: [5, 40], bodyBytes: BODY_BYTES }),
    ...like(HOSTS.shared, ORDINARY),
    ...like([...HOSTS.stormy, ...HOSTS.stormyAlone], { ...ORDINARY, stormEvery: 12, retryAfterSeconds: 2 }),
    ...like([...HOSTS.tuned, ...HOSTS.halted], SLOW),
  ];
}

/** As many pages of each host as take about this long, in seconds, if nothing disturbs. */
function plansFor(site: PoliteSite, seconds: number): readonly Plan[] {
  const pages = (name: string, addresses: readonly string[], perSecond: number) =>
    addresses.flatMap((one) =>
      several(Math.ceil(seconds * perSecond), (index) => site.url(one, `/${name}/${index + 1}`)),
    );
  const plan = (name: keyof typeof HOSTS, politeness: Politeness, perSecond: number): Plan => ({
    name,
    politeness,
    urls: pages(name, HOSTS[name], perSecond),
  });
  return [
    plan("paced", { delayMs: PACE_MS }, 2),
    {
      name: "asked",
      politeness: {},
      urls: [...pages("asked", HOSTS.asked, 0.9), ...pages("private", HOSTS.asked, 0.3)],
    },
    plan("single", { maxConcurrencyPerHost: 1 }, 2),
    plan("double", { maxConcurrencyPerHost: 2 }, 6),
    plan("wide", {}, 10),
    plan("measured", { delayFactor: FACTOR }, 0.9),
    plan("capped", { maxBytesPerSecond: BYTES_PER_SECOND, maxConcurrencyPerHost: 1 }, 2.2),
    plan("cappedWide", { maxBytesPerSecond: BYTES_PER_SECOND }, 2.2),
    { name: "shared", politeness: {}, urls: pages("loose", HOSTS.shared, 1.5) },
    {
      name: "shared strictly",
      politeness: { delayMs: SHARED_MS },
      urls: pages("strict", HOSTS.shared, 1.5),
    },
    plan("stormy", {}, 2.5),
    plan("stormyAlone", { maxConcurrencyPerHost: 1 }, 2),
    plan("tuned", {}, 4),
    plan("halted", {}, 4),
  ];
}

/** What happened to the cluster, and when, on the clock of `performance.now()`. */
type Happening = { readonly at: number; readonly what: string };

/** Breaks one thing after another, each in its own time, and puts it together again. */
class Chaos {
  readonly happened: Happening[] = [];
  readonly #cluster: Cluster;
  readonly #broker: PrivateBroker;
  readonly #random: SeededRandom;
  readonly #workers: Member[];
  readonly #masters: Master[];
  #workerNumber: number;
  #until = 0;

  constructor(parts: {
    readonly cluster: Cluster;
    readonly broker: PrivateBroker;
    readonly random: SeededRandom;
    readonly workers: Member[];
    readonly masters: Master[];
  }) {
    this.#cluster = parts.cluster;
    this.#broker = parts.broker;
    this.#random = parts.random;
    this.#workers = parts.workers;
    this.#masters = parts.masters;
    this.#workerNumber = parts.workers.length;
  }

  /** @param steer changes crawls meanwhile */
  async run(steer: (chaos: Chaos) => readonly (() => Promise<void>)[]): Promise<void> {
    this.#until = performance.now() + CHAOS_MS;
    await Promise.all([
      this.#again(1_500, 5_000, [() => this.#killWorker(), () => this.#freezeWorker()]),
      this.#again(2_500, 6_000, [() => this.#killMaster(), () => this.#freezeMaster()]),
      this.#again(9_000, 15_000, [() => this.#cutConnections()]),
      ...steer(this).map((step) => this.#again(3_000, 6_000, [step])),
    ]);
  }

  note(what: string): void {
    this.happened.push({ at: performance.now(), what });
  }

  /** Does the deeds in turn, each after a wait. */
  async #again(least: number, most: number, deeds: readonly (() => Promise<void>)[]): Promise<void> {
    for (let turn = 0; ; turn += 1) {
      const waitMs = this.#random.between(least, most);
      if (performance.now() + waitMs > this.#until) return;
      await passed(waitMs);
      await deeds[turn % deeds.length]?.();
    }
  }

  async #killWorker(): Promise<void> {
    const victim = this.#workers.splice(this.#random.between(0, this.#workers.length - 1), 1)[0];
    await victim?.end("SIGKILL");
    this.note(`worker ${victim?.name} killed`);
    this.#workerNumber += 1;
    this.#workers.push(await this.#cluster.worker(`w${this.#workerNumber}`));
  }

  async #freezeWorker(): Promise<void> {
    await this.#freeze(this.#random.pick(this.#workers as [Member, ...Member[]]), FROZEN_WORKER_MS);
  }

  async #killMaster(): Promise<void> {
    const victim = this.#masters.splice(this.#random.between(0, this.#masters.length - 1), 1)[0];
    await victim?.end("SIGKILL");
    this.note("master killed");
    this.#masters.push(await this.#cluster.master());
  }

  async #freezeMaster(): Promise<void> {
    // The other one answers meanwhile: it stands first.
    if (this.#random.next() < 0.5) this.#masters.reverse();
    await this.#freeze(this.#masters[1], FROZEN_MASTER_MS);
  }

  async #freeze(victim: Member | undefined, [least, most]: readonly [number, number]): Promise<void> {
    const frozenMs = this.#random.between(least, most);
    victim?.process.kill("SIGSTOP");
    this.note(`${victim?.name} frozen for ${frozenMs} ms`);
    await passed(frozenMs);
    this.note(`${victim?.name} woken`);
    victim?.process.kill("SIGCONT");
  }

  async #cutConnections(): Promise<void> {
    this.note("connections cut");
    await this.#broker.rabbit.control("close_all_connections", "a test cuts them");
    this.note("connections are cut");
  }
}

async function passed(ms: number): Promise<void> {
  const since = performance.now();
  await until(`${ms} ms are over`, async () => performance.now() - since >= ms, undefined, ms + 10_000);
}

/** A policy that held on the tuned hosts. */
type Tuning = { readonly at: number; readonly delayMs: number; readonly maxConcurrencyPerHost: number };

describe("what is promised to hosts, by their own log", () => {
  const random = new SeededRandom();
  let broker: PrivateBroker;
  let cluster: Cluster;
  const masters: Master[] = [];
  const workers: Member[] = [];

  beforeAll(async () => {
    broker = await PrivateBroker.start();
    cluster = new Cluster({
      amqpUrl: `${broker.url}?heartbeat=${HEARTBEAT_SECONDS}`,
      environment: { WARREN_LEASE_MS: String(LEASE_MS), WARREN_CONCURRENCY: "10" },
    });
    masters.push(...(await Promise.all([cluster.master(), cluster.master()])));
    workers.push(...(await Promise.all(several(3, (index) => cluster.worker(`w${index + 1}`)))));
  });

  afterAll(async () => {
    await cluster?.stop();
    await broker?.stop();
  });

  async function create(plan: Plan): Promise<CrawlAnswer> {
    return await client().createCrawl({
      name: plan.name,
      spider: "links",
      scope: "any",
      seeds: plan.urls,
      politeness: plan.politeness,
    });
  }

  const client = () => api(masters[0] as Master);

  /** Asks one master after the other until one of them does it; resolves with false when the crawl is over. */
  async function insist(method: string, route: string, body?: unknown): Promise<boolean> {
    let turn = 0;
    let status = 0;
    await until(`${method} ${route}`, async () => {
      turn += 1;
      const response = await fetch(`${masters[turn % masters.length]?.url}${route}`, {
        method,
        signal: AbortSignal.timeout(5_000),
        ...(body !== undefined && {
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
        }),
      });
      ({ status } = response);
      return response.ok || status === 409;
    });
    return status !== 409;
  }

  async function expectAllDone(crawls: readonly CrawlAnswer[], plans: readonly Plan[]): Promise<void> {
    for (const [index, { id }] of crawls.entries()) {
      const { name, urls } = plans[index] as Plan;
      const ended = await client().crawlOnce(id, "finished", 180_000);
      const wanted = urls.filter((url) => !url.includes("/private/"));
      const counts = { queued: 0, active: 0, failed: 0, done: wanted.length, items: wanted.length };
      expect.soft(ended.counts, `crawl ${name}, seed ${random.seed}`).toMatchObject(counts);
      const items = (await client().items(id)).map(({ url }) => String(url));
      expect.soft(items.sort(), `items of ${name}`).toEqual([...wanted].sort());
    }
  }

  /** What a host is promised whatever happens. */
  function expectPoliteness(site: PoliteSite, happened: readonly Happening[]): void {
    const trace = (request: LoggedRequest) => {
      const near = happened.filter(({ at }) => Math.abs(at - request.at) < 12_000);
      const told = near.map(({ at, what }) => `${what} ${Math.round(request.at - at)} ms before`);
      return `seed ${random.seed}; ${JSON.stringify(request)}; ${told.join(", ")}`;
    };
    const lossesAt = happened
      .filter(({ what }) => what.startsWith("worker") || what.includes("cut"))
      .map(({ at }) => at);
    const lates: number[] = [];
    const expectGaps = (addresses: readonly string[], delayMs: number) => {
      for (const one of addresses) {
        const requests = site.requestsOf(one);
        for (const { ms, before, after } of gapsOf(requests)) {
          if (ms >= delayMs - TOLERANCE_MS) continue;
          expect
            .soft(ms, `gap after ${JSON.stringify(before)}: ${trace(after)}`)
            .toBeGreaterThanOrEqual(delayMs);
        }
        expect.soft(mostAtOnce(site.requestsOf(one, true)), `at once on ${one}`).toBeLessThanOrEqual(1);
      }
    };
    expectGaps(HOSTS.paced, PACE_MS);
    expectGaps(HOSTS.asked, ASKED_MS);
    // The strictest counts while it is there.
    for (const one of HOSTS.shared) {
      const requests = site.requestsOf(one);
      const lastStrict = requests.findLastIndex(({ path }) => path.startsWith("/strict/"));
      const firstStrict = requests.findIndex(({ path }) => path.startsWith("/strict/"));
      for (const { ms, before, after } of gapsOf(requests.slice(firstStrict, lastStrict + 1))) {
        if (ms >= SHARED_MS - TOLERANCE_MS) continue;
        expect
          .soft(ms, `gap after ${JSON.stringify(before)}: ${trace(after)}`)
          .toBeGreaterThanOrEqual(SHARED_MS);
      }
    }
    for (const [addresses, most] of [
      [HOSTS.single, 1],
      [HOSTS.double, 2],
      [HOSTS.wide, 4],
      [HOSTS.stormy, 4],
      [HOSTS.stormyAlone, 1],
      [HOSTS.halted, 4],
      [HOSTS.tuned, 4],
    ] as const) {
      for (const one of addresses) {
        const requests = site.requestsOf(one, true);
        const broken = requests.find((request, index) => {
          const before = requests.slice(0, index);
          return before.filter(({ endedAt }) => endedAt > request.at).length >= most;
        });
        expect.soft(mostAtOnce(requests), broken && trace(broken)).toBeLessThanOrEqual(most);
      }
    }
    for (const one of HOSTS.measured) {
      for (const { ms, before, after } of gapsOf(site.requestsOf(one))) {
        // How long a fetch took that its client did not see the end of nobody knows.
        if (before.wasCut) continue;
        const delayMs = FACTOR * (before.endedAt - before.at);
        if (ms >= delayMs - FACTOR * TOLERANCE_MS) continue;
        expect
          .soft(ms, `gap after ${JSON.stringify(before)}: ${trace(after)}`)
          .toBeGreaterThanOrEqual(delayMs);
      }
    }
    // What is fetched at once is paid for together afterwards.
    for (const [addresses, atOnce] of [
      [HOSTS.capped, 1],
      [HOSTS.cappedWide, 4],
    ] as const) {
      for (const one of addresses) {
        const haste = worstHaste(site.requestsOf(one), BYTES_PER_SECOND);
        const allowed = ((atOnce - 1) * BODY_BYTES * 1_000) / BYTES_PER_SECOND + TRANSIT_MS;
        expect.soft(haste, `too early on ${one}, seed ${random.seed}`).toBeLessThanOrEqual(allowed);
      }
    }
    for (const one of [...HOSTS.stormy, ...HOSTS.stormyAlone]) {
      const requests = site.requestsOf(one);
      const atOnce = (HOSTS.stormy as readonly string[]).includes(one) ? 4 : 1;
      for (const { endedAt, retryAfterMs } of requests) {
        if (retryAfterMs === undefined) continue;
        const early = requests.filter(({ at }) => at > endedAt && at < endedAt + retryAfterMs - TOLERANCE_MS);
        const isWorkerLost = lossesAt.some((at) => at > endedAt - 500 && at < endedAt + COMMIT_MS);
        // Those on their way; and when who heard of it died with that, those who hear it anew.
        const allowed = atOnce - 1 + (isWorkerLost ? atOnce : 0);
        const last = early.at(-1);
        const asked = `${early.length} after it asked for rest at ${Math.round(endedAt)}`;
        expect.soft(early.length, last && `${asked}: ${trace(last)}`).toBeLessThanOrEqual(allowed);
        if (last === undefined) continue;
        lates.push(Math.round(last.at - endedAt));
        // Its master tells the workers, if it is there.
        if (happened.some(({ at }) => at > endedAt - DISTURBED_MS && at < endedAt + 1_000)) continue;
        expect.soft(last.at - endedAt, `${asked}: ${trace(last)}`).toBeLessThan(ON_THEIR_WAY_MS);
      }
    }
    console.log(`on their way when a host asked for rest, seed ${random.seed}: ${lates.join(", ")} ms`);
    for (const one of HOSTS.asked) {
      const forbidden = site.requestsOf(one).filter(({ path }) => path.startsWith("/private"));
      expect.soft(forbidden, "what robots.txt forbids").toEqual([]);
    }
  }

  it("holds while nothing happens, and each page is fetched once", async () => {
    const site = await PoliteSite.start(politeHosts(), random);
    try {
      const plans = plansFor(site, 6);
      const crawls = await Promise.all(plans.map(create));
      await expectAllDone(crawls, plans);

      expectPoliteness(site, []);
      const answered = site.log.filter(({ path, status }) => path !== "/robots.txt" && status === 200);
      const pages = answered.map(({ host, path }) => `${host}${path}`);
      expect(pages.length).toBe(new Set(pages).size);
      expect(site.log.filter(({ wasCut }) => wasCut)).toEqual([]);
    } finally {
      await site.stop();
    }
  });

  it("holds while workers and masters are killed and frozen, connections cut, and crawls changed", async () => {
    const site = await PoliteSite.start(politeHosts(), random);
    const chaos = new Chaos({ cluster, broker, random, workers, masters });
    const tunings: Tuning[] = [{ at: 0, delayMs: 0, maxConcurrencyPerHost: 4 }];
    const halts: { from: number; until: number }[] = [];
    try {
      const plans = plansFor(site, CHAOS_MS / 1_000);
      const crawls = await Promise.all(plans.map(create));
      const idOf = (name: string) => crawls[plans.findIndex((plan) => plan.name === name)]?.id;
      const tune = async () => {
        const politeness = {
          delayMs: random.pick([0, 0, 150, 400]),
          maxConcurrencyPerHost: random.pick([1, 2, 4]),
        };
        await insist("PATCH", `/api/v1/crawls/${idOf("tuned")}`, { politeness });
        tunings.push({ at: performance.now(), ...politeness });
      };
      const halt = async () => {
        if (!(await insist("POST", `/api/v1/crawls/${idOf("halted")}/pause`))) return;
        const from = performance.now();
        await passed(random.between(2_000, 4_000));
        halts.push({ from, until: performance.now() });
        await insist("POST", `/api/v1/crawls/${idOf("halted")}/resume`);
      };

      await chaos.run(() => [tune, halt]);
      chaos.note("the end of it");
      await expectAllDone(crawls, plans);

      expectPoliteness(site, chaos.happened);
      for (const one of HOSTS.tuned) {
        const requests = site.requestsOf(one);
        for (const [index, { at, delayMs, maxConcurrencyPerHost }] of tunings.entries()) {
          const until = tunings[index + 1]?.at ?? Number.POSITIVE_INFINITY;
          const during = requests.filter((request) => request.at > at + CHANGE_MS && request.at < until);
          const told = chaos.happened.map((one) => `${one.what} at ${Math.round(one.at)}`).join(", ");
          const seen = during.map((request) => `${Math.round(request.at)}-${Math.round(request.endedAt)}`);
          const what = `${JSON.stringify(tunings[index])}, seed ${random.seed}: ${told}: ${seen.join(" ")}`;
          expect.soft(mostAtOnce(during), what).toBeLessThanOrEqual(maxConcurrencyPerHost);
          if (delayMs === 0) continue;
          const least = Math.min(...gapsOf(during).map(({ ms }) => ms));
          expect.soft(least, what).toBeGreaterThanOrEqual(delayMs - TOLERANCE_MS);
        }
      }
      for (const one of HOSTS.halted) {
        for (const { from, until } of halts) {
          const during = site.requestsOf(one).filter(({ at }) => at > from + CHANGE_MS && at < until);
          expect.soft(during, `while the crawl is paused, seed ${random.seed}`).toEqual([]);
        }
      }
    } finally {
      const what = chaos.happened.map(({ what: one }) => one);
      console.log(`seed ${random.seed}, ${site.log.length} requests:\n${what.join("\n")}`);
      await site.stop();
    }
  });
});
