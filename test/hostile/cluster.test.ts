import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type CrawlAnswer, type Master, type Member } from "../support/cluster.js";
import {
  HOSTILE_BEHAVIOURS,
  HOSTILE_CRAWLS,
  HOSTILE_LIMITS,
  HOSTILE_NETWORK,
  HOSTILE_POLITENESS,
  HOSTILE_SCOPE,
  type HostileCrawl,
} from "../support/hostile-behaviours.js";
import { expectEnd, type Outcome } from "../support/hostile-outcomes.js";
import { HostileSite } from "../support/hostile-site.js";

const INNOCENT_PAGES = 60;
/** For connecting and for robots.txt, which is the same for all crawls. */
const FETCH_TIMEOUT_MS = 6_000;
/** Each bomb alone would be 1 GiB. */
const MAX_RSS_BYTES = 900 * 1_048_576;
/** How often master and nodes are looked at meanwhile, in milliseconds. */
const LOOK_MS = 250;

type Row = {
  readonly id: string;
  readonly url: string;
  readonly state: string;
  readonly reason?: string;
  readonly statusCode?: number;
  readonly attempts: number;
  readonly error?: string;
  readonly files: number;
};
type Item = { readonly id: string; readonly data: { readonly title?: string } };
type Node = {
  readonly id: string;
  readonly status: string;
  readonly epoch: number;
  readonly memory?: { readonly rssBytes: number };
  readonly heartbeatAt: string;
};

/** Looks at a master and its nodes all the while, and keeps what it saw. */
class Watch {
  readonly health = new Set<number | string>();
  readonly statuses = new Set<string>();
  mostRssBytes = 0;
  readonly epochs = new Map<string, Set<number>>();
  readonly heartbeats = new Map<string, Set<string>>();
  readonly #master: Master;
  readonly #watching: Promise<void>;
  #isOver = false;

  constructor(master: Master) {
    this.#master = master;
    this.#watching = this.#watch();
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#watching;
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      const answer = await fetch(`${this.#master.url}/healthz`).then(
        ({ status }) => status,
        (error: unknown) => String(error),
      );
      this.health.add(answer);
      for (const node of (await api(this.#master).list("/api/v1/nodes")) as Node[]) {
        this.statuses.add(node.status);
        this.mostRssBytes = Math.max(this.mostRssBytes, node.memory?.rssBytes ?? 0);
        this.epochs.set(node.id, (this.epochs.get(node.id) ?? new Set()).add(node.epoch));
        this.heartbeats.set(node.id, (this.heartbeats.get(node.id) ?? new Set()).add(node.heartbeatAt));
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }
}

describe("a cluster that crawls hostile servers", () => {
  const cluster = new Cluster();
  const ends = { links: new Map<string, Outcome>(), pdf: new Map<string, Outcome>() };
  const finished: CrawlAnswer[] = [];
  let site: HostileSite;
  let master: Master;
  let workers: Member[];
  let watch: Watch;

  beforeAll(async () => {
    site = await HostileSite.start(HOSTILE_BEHAVIOURS, INNOCENT_PAGES);
    master = await cluster.master();
    const environment = {
      WARREN_ALLOWED_NETWORKS: HOSTILE_NETWORK,
      WARREN_CONCURRENCY: "40",
      WARREN_FETCH_CONNECT_TIMEOUT_MS: String(FETCH_TIMEOUT_MS),
      WARREN_FETCH_TIMEOUT_MS: String(FETCH_TIMEOUT_MS),
      WARREN_RETRY_DELAY_MS: String(HOSTILE_LIMITS.retryDelayMs),
      WARREN_MAX_RETRY_DELAY_MS: String(HOSTILE_LIMITS.maxRetryDelayMs),
      WARREN_MAX_FILE_BYTES: String(HOSTILE_LIMITS.maxFileBytes),
      WARREN_FETCH_CA_FILE: site.caFile,
    };
    workers = await Promise.all(["w1", "w2"].map((id) => cluster.worker(id, [], environment)));
    watch = new Watch(master);
    await Promise.all(
      HOSTILE_CRAWLS.map((hostile, index) => crawl(hostile, index === 0 ? [site.innocent] : [])),
    );
    await watch.stop();
  }, 300_000);

  afterAll(async () => {
    await cluster.stop();
    await site?.close();
  });

  async function crawl(hostile: HostileCrawl, besides: readonly string[]): Promise<void> {
    const { spider, behaviours, fetchTimeoutMs } = hostile;
    const { id } = await api(master).createCrawl({
      spider,
      seeds: [...behaviours.map((behaviour) => site.urlOf(behaviour)), ...besides],
      scope: HOSTILE_SCOPE,
      politeness: HOSTILE_POLITENESS,
      fetch: { timeoutMs: fetchTimeoutMs },
    });
    finished.push(await api(master).crawlOnce(id, "finished", 280_000));
    const items = (await api(master).items(id)) as Item[];
    const titles = new Map(items.map((item) => [urlOf(item), item.data.title]));
    for (const row of (await api(master).list(`/api/v1/crawls/${id}/urls`)) as Row[]) {
      const { url, state, reason, statusCode, attempts, error, files } = row;
      ends[spider].set(url, {
        state,
        reason,
        statusCode,
        attempts,
        error,
        files,
        title: titles.get(row.id),
      });
    }
  }

  it("comes to the end of its crawls, and nothing is left waiting", () => {
    expect(finished).toHaveLength(HOSTILE_CRAWLS.length);
    for (const { counts, finishReason } of finished) {
      expect(finishReason).toBe("completed");
      expect(counts).toMatchObject({ queued: 0, active: 0 });
    }
  });

  describe.each(HOSTILE_BEHAVIOURS)("$name", (behaviour) => {
    const { spider = "links", leadsTo = {} } = behaviour;

    it(`ends as ${behaviour.ends.reason ?? behaviour.ends.state}`, () => {
      expectEnd(ends[spider].get(site.urlOf(behaviour)), behaviour.ends);
    });

    it.each(Object.entries(leadsTo))("leads to %s", (target, end) => {
      expectEnd(ends[spider].get(site.resolve(behaviour, target)), end);
    });
  });

  it("fetches an innocent host beside them whole, without waiting for them", () => {
    const { origin } = new URL(site.innocent);
    for (let number = 0; number < INNOCENT_PAGES; number += 1) {
      expect(ends.links.get(`${origin}/${number}`)).toMatchObject({ state: "done" });
    }
    expect(site.innocentWasFirst).toBe(true);
  });

  it("answers health checks and hears from its nodes all the while", () => {
    expect([...watch.health]).toEqual([200]);
    expect([...watch.statuses]).toEqual(["online"]);
    for (const id of ["w1", "w2"]) {
      expect(watch.heartbeats.get(id)?.size).toBeGreaterThan(2);
      expect(watch.epochs.get(id)?.size).toBe(1);
    }
  });

  it("is not made to hold what bombs and endless bodies would be", () => {
    expect(watch.mostRssBytes).toBeGreaterThan(0);
    expect(watch.mostRssBytes).toBeLessThan(MAX_RSS_BYTES);
  });

  it("loses no worker, and gives up no message", async () => {
    for (const worker of workers) {
      expect(worker.process.exitCode).toBeNull();
      expect(worker.process.signalCode).toBeNull();
      expect(worker.output()).not.toMatch(/"level":(50|60|"error"|"fatal")/);
    }
    expect(await api(master).list("/api/v1/dead-letters")).toEqual([]);
  });
});

/** The id of the URL that an item came from: the rest of the item's own tells the round and which one it is. */
function urlOf({ id }: Item): string {
  return id.split(".").slice(0, -2).join(".");
}
