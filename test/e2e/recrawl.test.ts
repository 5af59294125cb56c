import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { MongoClient } from "mongodb";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Member, until } from "../support/cluster.js";

type Asked = { readonly path: string; readonly isConditional: boolean };

/** A start page that links to pages some of which are others each time, and some of which never change. */
class ChangingSite {
  readonly asked: Asked[] = [];
  readonly #server: Server;
  readonly paths: readonly string[];

  constructor(steady: number, changing: number) {
    this.paths = [
      "/",
      ...Array.from({ length: steady }, (_, n) => `/steady/${n}`),
      ...Array.from({ length: changing }, (_, n) => `/changing/${n}`),
    ];
    let version = 0;
    this.#server = createServer((request, response) => {
      const path = request.url ?? "";
      if (!this.paths.includes(path)) {
        response.writeHead(404).end();
        return;
      }
      const known = request.headers["if-none-match"];
      this.asked.push({ path, isConditional: known !== undefined });
      version += 1;
      const etag = path.startsWith("/changing") ? `"${version}"` : '"1"';
      if (known === etag) {
        response.writeHead(304, { etag }).end();
        return;
      }
      const links = path === "/" ? this.paths.map((link) => `<a href="${link}">x</a>`).join("") : "";
      response.writeHead(200, { "content-type": "text/html", etag });
      response.end(`<title>${path} ${etag.replaceAll('"', "")}</title>${links}`);
    });
  }

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  fetches(prefix: string): number {
    return this.asked.filter(({ path }) => path.startsWith(prefix)).length;
  }
}

const SOON = { minIntervalMs: 100, initialIntervalMs: 400, maxIntervalMs: 6_400, factor: 2, jitter: 0.1 };
const EAGER = { delayMs: 0, maxConcurrencyPerHost: 8, obeyRobots: false };

describe("a crawl with recrawl", () => {
  let cluster: Cluster;
  let client: ReturnType<typeof api>;
  let worker: Member;
  let site: ChangingSite | undefined;
  beforeAll(async () => {
    cluster = new Cluster();
    const master = await cluster.master();
    [worker] = await Promise.all([cluster.worker("worker-a"), cluster.worker("worker-b")]);
    client = api(master);
  });
  afterEach(() => site?.close());
  afterAll(() => cluster?.stop());

  it("fetches what changes often and what does not seldom, storing each version once, while workers die", async () => {
    site = new ChangingSite(12, 6);
    const seed = await site.start();
    const crawl = await client.createCrawl({ seeds: [seed], politeness: EAGER, recrawl: SOON });
    const changing = () => site?.fetches("/changing") ?? 0;
    await until("the changing pages were fetched some times", async () => changing() > 6 * 6);

    await worker.end("SIGKILL");
    await cluster.worker("worker-c");
    const before = changing();
    await until("they are fetched on", async () => changing() > before + 6 * 12);

    // Of the same number of pages those that change are fetched more often, by far: in each round twice as often.
    const steady = site.fetches("/steady");
    expect(changing() / 6).toBeGreaterThan((steady / 12) * 1.5);
    expect(
      site.asked.filter(({ path, isConditional }) => path !== "/" && isConditional).length,
    ).toBeGreaterThan(50);
    const running = await client.crawl(crawl.id);
    expect(running.status).toBe("running");
    const { queued, active, done, failed, skipped } = running.counts;
    expect([queued + active + done, failed, skipped]).toEqual([19, 0, 0]);
    const rows = await client.list(`/api/v1/crawls/${crawl.id}/urls`);
    expect(rows).toHaveLength(19);
    for (const row of rows.filter(({ state }) => state === "done")) {
      expect(row.waitReason).toMatch(/^recrawl at \d{4}-/);
    }
    expect((await client.call("POST", `/api/v1/crawls/${crawl.id}/close`, {})).status).toBe(200);
    await until("nothing of it is under way", async () => (await client.crawl(crawl.id)).counts.active === 0);

    await checkRecords(cluster, crawl.id, await client.items(crawl.id));
  });

  it("ends when its limit is reached, which counts every fetch", async () => {
    site = new ChangingSite(2, 2);
    const seed = await site.start();
    const crawl = await client.createCrawl({
      seeds: [seed],
      politeness: EAGER,
      recrawl: SOON,
      limits: { maxPages: 17 },
    });

    const finished = await client.crawlOnce(crawl.id, "finished");
    expect(finished.finishReason).toBe("maxPages");
    expect(site.asked).toHaveLength(17);
    const { queued, active, done, failed, skipped } = finished.counts;
    expect([queued, active, done, failed, skipped]).toEqual([0, 0, 5, 0, 0]);
  });

  it("fetches again on request what had ended, and ends again", async () => {
    site = new ChangingSite(2, 2);
    const seed = await site.start();
    const crawl = await client.createCrawl({ seeds: [seed], politeness: EAGER });
    await client.crawlOnce(crawl.id, "finished");
    expect(site.asked).toHaveLength(5);

    const { body } = await client.call("POST", `/api/v1/crawls/${crawl.id}/recrawl`, { olderThanMs: 0 });

    expect(body).toEqual({ opened: 5 });
    const again = await client.crawlOnce(crawl.id, "finished");
    expect(site.asked).toHaveLength(10);
    expect(again.counts).toMatchObject({ queued: 0, active: 0, done: 5, items: 10 });
  });
});

/** Each round of each URL is on record once, none is missing, and only changed pages have items anew. */
async function checkRecords(
  cluster: Cluster,
  crawl: string,
  items: Record<string, unknown>[],
): Promise<void> {
  const mongodb = new MongoClient(cluster.mongodbUri);
  try {
    const pages = await mongodb
      .db(cluster.namespace)
      .collection<{ _id: string; url: string; notModified?: boolean; isUnchanged?: boolean }>("pages")
      .find({ _id: { $gte: `${crawl}:`, $lt: `${crawl};` } })
      .toArray();
    const rounds = new Map<string, number[]>();
    for (const { _id, url } of pages) {
      const known = rounds.get(url) ?? [];
      known.push(Number(_id.split(".").at(-1)));
      rounds.set(url, known);
    }
    expect(rounds.size).toBe(19);
    for (const [url, numbers] of rounds) {
      const inOrder = numbers.sort((one, other) => one - other);
      expect([url, inOrder]).toEqual([url, inOrder.map((_, index) => index)]);
    }
    const changed = pages.filter(
      ({ notModified, isUnchanged }) => notModified !== true && isUnchanged !== true,
    );
    const ids = items.map(({ id }) => String(id).split(".").slice(0, 2).join("."));
    expect(ids.sort()).toEqual(changed.map(({ _id }) => _id).sort());
    expect(changed.filter(({ url }) => url.includes("/steady/"))).toHaveLength(12);
  } finally {
    await mongodb.close();
  }
}
