import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "./cluster.js";
import { type ForeignProgram, ForeignWorker, goWorker, hasGo, pythonWorker } from "./foreign-worker.js";
import { GraphSite } from "./graph-site.js";

const PAGES = 200;

const LANGUAGES: readonly {
  readonly language: string;
  readonly isHere: boolean;
  readonly program: () => Promise<ForeignProgram>;
}[] = [
  { language: "Python", isHere: true, program: pythonWorker },
  { language: "Go", isHere: hasGo(), program: goWorker },
];

/**
 * Workers in other languages join a live crawl, and one of them is killed.
 * @param killsMaster and so is a master: what it had marked and not sent comes again after its deadline only, minutes later
 */
export function foreignCrawl(killsMaster: boolean): void {
  describe.each(LANGUAGES)("a worker in $language", ({ language, isHere, program: prepare }) => {
    const cluster = new Cluster();
    const workers: ForeignWorker[] = [];
    const spider = `titles-${language.toLowerCase()}`;
    let site: GraphSite;
    let first: Master;
    let master: Master;
    let program: ForeignProgram;

    beforeAll(async () => {
      if (!isHere) return;
      program = await prepare();
      site = await GraphSite.start({ pages: PAGES, hosts: 8, links: 10, delayMs: 20 });
      const lease = { WARREN_LEASE_MS: "2000" };
      [first, master] = await Promise.all([cluster.master(lease), cluster.master(lease)]);
      await cluster.worker("w1");
      const put = await api(master).call("PUT", `/api/v1/spiders/${spider}`, { external: true });
      expect(put.status).toBe(201);
    }, 240_000);

    afterEach(({ task }) => {
      if (task.result?.state === "fail") console.error(workers.map(({ output }) => output).join("\n"));
    });

    afterAll(async () => {
      for (const worker of workers) await worker.end();
      if (isHere) await cluster.stop();
      await site?.stop();
    });

    function start(): ForeignWorker {
      const worker = new ForeignWorker(program, spider, {
        AMQP_URL: cluster.amqpUrl,
        WARREN_NAMESPACE: cluster.namespace,
      });
      workers.push(worker);
      return worker;
    }

    it.skipIf(!isHere)(
      `joins a live crawl; no page is lost or doubled when it is killed and started again${killsMaster ? ", and a master killed" : ""}`,
      async () => {
        const client = api(master);
        const { id } = await client.createCrawl({
          spider,
          scope: "any",
          politeness: { obeyRobots: false },
          seeds: [site.seed],
        });
        // Another crawl goes on meanwhile: what waits for a worker that is not there starves nobody.
        const own = await client.createCrawl({
          scope: "any",
          politeness: { obeyRobots: false },
          seeds: [site.seed],
        });
        await until("the seed waits for a worker", async () => {
          // The master that holds its host knows.
          const lists = await Promise.all(
            [first, master].map((one) => api(one).list(`/api/v1/crawls/${id}/urls`)),
          );
          return lists.some(([url]) => url?.waitReason === "no worker");
        });
        await client.crawlOnce(own.id, "finished");
        expect((await client.crawl(id)).counts).toMatchObject({ queued: 1, active: 0, done: 0 });
        site.requests.clear();

        const [killed] = [start(), start()];
        await until("30 pages are done", async () => (await client.crawl(id)).counts.done >= 30);
        await killed?.end("SIGKILL");
        await until("90 pages are done", async () => (await client.crawl(id)).counts.done >= 90);
        start();
        await until("130 pages are done", async () => (await client.crawl(id)).counts.done >= 130);
        if (killsMaster) await first.end("SIGKILL");
        const finished = await client.crawlOnce(id, "finished", 280_000);

        expect(finished.counts).toMatchObject({
          queued: 0,
          active: 0,
          done: PAGES,
          failed: 0,
          skipped: 0,
          items: PAGES,
        });
        expect(site.requests.size).toBe(PAGES);
        // Only what the killed one had in its hands may have been asked for twice.
        expect(site.repeated.length).toBeLessThanOrEqual(4);
        const items = await client.items(id);
        expect(new Set(items.map(({ url }) => url)).size).toBe(PAGES);
        for (const item of items) expect(item).toMatchObject({ spider, crawl: id });
        expect(items.map(({ data }) => (data as { title: string }).title)).toContain("Page 7");
      },
      400_000,
    );
  });
}
