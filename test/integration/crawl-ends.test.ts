import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/lib/logger.js";
import { CrawlEnds } from "../../src/master/crawl-ends.js";
import { TickStarter } from "../../src/master/tick-starter.js";
import type { CrawlEnd, CrawlRecord } from "../../src/store/index.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("crawl-ends");
});

afterAll(async () => {
  await master.dispose();
});

const crawlOf = () => ({ seeds: [`http://${randomUUID()}.test/`] });

async function created(members: Record<string, unknown>): Promise<string> {
  const { status, body } = await master.post("/api/v1/schedules", { crawl: crawlOf(), ...members });
  if (status !== 201) throw new Error(`POST /schedules answered ${status}: ${JSON.stringify(body)}`);
  return body.id;
}

const run = async (id: string): Promise<string> =>
  (await master.post(`/api/v1/schedules/${id}/run`, {})).body.crawl;

async function runsOf(id: string) {
  return (await master.get(`/api/v1/schedules/${id}/runs`)).body.items;
}

/** Several masters at once, whose listeners note what they are told. */
function endsOf(count: number, onEnd: (crawl: CrawlRecord, end: CrawlEnd) => Promise<void> = async () => {}) {
  const { store, parts } = master;
  const { crawls, clock, feed } = parts;
  const all = Array.from({ length: count }, () => {
    const bus = { events: { publish: () => {} } } as never;
    const starter = new TickStarter({ store, crawls, bus, clock, logger: silentLogger });
    const listeners = [{ ended: onEnd }];
    return {
      starter,
      ends: new CrawlEnds(
        { store, starter, feed, listeners, clock, logger: silentLogger },
        { everyMs: 100, maxChain: 3 },
      ),
    };
  });
  return {
    ends: all.map(({ ends }) => ends),
    look: async () => {
      await Promise.all(all.map(({ ends }) => ends.look()));
      await Promise.all(all.map(({ starter }) => starter.settled()));
    },
  };
}

describe("a schedule that follows another", () => {
  it("makes one crawl for each crawl of that one that ends, told which", async () => {
    const leader = await created({ cron: "0 0 1 1 *" });
    const follower = await created({ after: { schedule: leader } });
    const first = await run(leader);
    const masters = endsOf(3);
    await masters.look();
    expect(await runsOf(follower)).toEqual([]);
    await master.finish(first);
    await masters.look();
    await masters.look();
    const runs = await runsOf(follower);
    expect(runs).toMatchObject([{ state: "started", cause: "after", after: first }]);
    const crawl = await master.store.crawls.get(runs[0].crawl);
    expect(crawl?.params).toMatchObject({ after: first, schedule: follower });
    expect(crawl?.origin).toMatchObject({ schedule: follower, chain: 1 });
    expect(await master.store.crawls.ended()).toEqual([]);
  });

  it("makes its crawl also when who saw the end died before it was settled", async () => {
    const leader = await created({ cron: "0 0 1 1 *" });
    const follower = await created({ after: { schedule: leader } });
    const first = await run(leader);
    await master.finish(first);
    let deaths = 0;
    const dying = endsOf(1, async (crawl) => {
      if (crawl.id !== first) return;
      deaths += 1;
      throw new Error("killed");
    });
    await dying.look();
    await dying.look();
    expect(deaths).toBe(2);
    await endsOf(1).look();
    expect(await runsOf(follower)).toHaveLength(1);
  });

  it("goes by how the crawl ended, its spider, and its id", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { ...crawlOf(), spider: "pdf" });
    const closed = await created({ after: { crawl: crawl.id, status: ["closed", "failed"] } });
    const finished = await created({ after: { crawl: crawl.id } });
    const spider = await created({ after: { spider: "pdf", status: ["closed"] } });
    const other = await created({ after: { spider: "links", status: ["closed"] } });
    await master.post(`/api/v1/crawls/${crawl.id}/close`, {});
    await endsOf(1).look();
    const started = await Promise.all([closed, finished, spider, other].map(runsOf));
    expect(started.map((runs) => runs.length)).toEqual([1, 0, 1, 0]);
    // The same crawl ends once more.
    await master.post(`/api/v1/crawls/${crawl.id}/resume`, {});
    await master.finish(crawl.id);
    await endsOf(1).look();
    expect(await runsOf(finished)).toHaveLength(1);
    expect(await runsOf(closed)).toHaveLength(1);
  });

  it("does not follow for ever", async () => {
    const spider = "seeded";
    const { body: crawl } = await master.post("/api/v1/crawls", { spider });
    const follower = await created({ after: { spider, status: ["closed"] }, crawl: { spider } });
    const masters = endsOf(1);
    await master.post(`/api/v1/crawls/${crawl.id}/close`, {});
    for (let rounds = 0; rounds < 6; rounds += 1) {
      await masters.look();
      for (const { crawl: id, state } of await runsOf(follower)) {
        if (state === "started") await master.post(`/api/v1/crawls/${id}/close`, {});
      }
    }
    const runs = await runsOf(follower);
    expect(
      runs.map(({ state, reason }: { state: string; reason: string | null }) => reason ?? state),
    ).toEqual(["chain", "started", "started", "started"]);
  });

  it("does nothing while it is paused", async () => {
    const leader = await created({ cron: "0 0 1 1 *" });
    const follower = await created({ after: { schedule: leader }, paused: true });
    await master.finish(await run(leader));
    await endsOf(1).look();
    expect(await runsOf(follower)).toEqual([]);
  });

  it("is quick about it, since the end of a crawl is told", async () => {
    const leader = await created({ cron: "0 0 1 1 *" });
    const follower = await created({ after: { schedule: leader, status: ["closed"] } });
    const { ends } = endsOf(2);
    for (const one of ends) await one.start();
    try {
      await master.post(`/api/v1/crawls/${await run(leader)}/close`, {});
      expect(await master.until(async () => (await runsOf(follower))[0]?.state === "started")).toBe(true);
      expect(await runsOf(follower)).toHaveLength(1);
    } finally {
      for (const one of ends) await one.stop();
    }
  });
});
