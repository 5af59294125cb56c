import { MongoClient } from "mongodb";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CrawlDocument } from "../../src/store/crawls.js";
import type { TickDocument } from "../../src/store/ticks.js";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { MailServerUnderTest } from "../support/mail-server-under-test.js";
import { PageServer } from "../support/page-server.js";
import { SeededRandom } from "../support/seeded-random.js";

const MASTERS = 4;
const FOR_MS = 120_000;
const ENVIRONMENT = {
  WARREN_LEASE_MS: "1000",
  WARREN_SMTP_FROM: "warren@crawler.test",
  // However long none is there: the ticks of that time are late, and not missed.
  WARREN_SCHEDULE_MISSED_AFTER_MS: "3600000",
};

describe("schedules whose masters are killed at every tick for two minutes", () => {
  let cluster: Cluster;
  const site = new PageServer();
  const mails = new MailServerUnderTest();
  const random = new SeededRandom();
  let client: MongoClient;

  beforeAll(async () => {
    await site.start();
    await mails.start();
    site.serve("/", "<title>one page</title>");
    cluster = new Cluster({ environment: ENVIRONMENT });
    client = new MongoClient(cluster.mongodbUri);
  });

  afterAll(async () => {
    await client?.close();
    await cluster?.stop();
    await mails.stop();
    await site.stop();
  });

  it("make one crawl for each tick, one that follows for each of these, and tell of each once", async () => {
    const smtp = { WARREN_SMTP_URL: mails.url };
    const masters: (Master | undefined)[] = await Promise.all(
      Array.from({ length: MASTERS }, () => cluster.master(smtp)),
    );
    await cluster.worker("w1");
    const crawl = { seeds: [site.url("/")], politeness: { delayMs: 0, obeyRobots: false } };
    const any = () => {
      const alive = masters.find((master) => master !== undefined);
      if (alive === undefined) throw new Error("no master is there just now");
      return api(alive);
    };
    const make = async (route: string, members: Record<string, unknown>): Promise<string> => {
      const { status, body } = await any().call("POST", `/api/v1/${route}`, members);
      if (status !== 201) throw new Error(`POST ${route} answered ${status}: ${JSON.stringify(body)}`);
      return (body as { id: string }).id;
    };
    const eachSecond = { cron: "* * * * * *", crawl };
    const leader = await make("schedules", { ...eachSecond, overlap: "queue", maxQueued: 20 });
    const others = [
      await make("schedules", { ...eachSecond, overlap: "skip" }),
      await make("schedules", { ...eachSecond, overlap: "replace" }),
    ];
    const follower = await make("schedules", {
      ...{ after: { schedule: leader }, crawl, overlap: "queue", maxQueued: 100 },
    });
    const channels = [{ kind: "email", to: ["ops@example.com"] }];
    await make("notification-rules", { on: "crawl.finished", filter: { schedule: leader }, channels });

    const startedAt = Date.now();
    let kills = 0;
    const restarts: Promise<unknown>[] = [];
    while (Date.now() - startedAt < FOR_MS) {
      // Somewhere about the tick: before it is seen, while it is recorded, while its crawl is made.
      const next = Math.ceil(Date.now() / 1_000) * 1_000 + random.between(0, 400);
      await new Promise((resolve) => setTimeout(resolve, next - Date.now()));
      const place = masters.findIndex((master) => master !== undefined);
      const victim = masters[place];
      // On a slow machine masters may take so long to start that there is none to kill at this tick.
      if (victim === undefined) continue;
      masters[place] = undefined;
      kills += 1;
      await victim.end("SIGKILL");
      restarts.push(
        cluster.master(smtp).then((master) => {
          masters[place] = master;
        }),
      );
    }
    await Promise.all(restarts);
    expect(kills).toBeGreaterThan(MASTERS);
    // What waits goes on; nothing more comes.
    for (const id of [leader, ...others]) {
      const changed = await any().call("PATCH", `/api/v1/schedules/${id}`, { cron: "0 0 1 1 *" });
      expect(changed).toMatchObject({ status: 200 });
    }

    const database = client.db(cluster.namespace);
    const ticks = database.collection<TickDocument>("ticks");
    const crawls = database.collection<CrawlDocument>("crawls");
    const isOver = async () =>
      (await ticks.countDocuments({ open: true })) === 0 &&
      (await crawls.countDocuments({ origin: { $exists: true }, status: "running" })) === 0 &&
      (await crawls.countDocuments({ "ends.at": { $gt: 0 } })) === 0 &&
      (await database.collection("mails").countDocuments({ state: "waiting" })) === 0;
    // A crawl that ends brings about a tick before the end is settled, so that nothing is between two looks.
    await until(
      "everything has come to rest",
      async () => (await isOver()) && (await isOver()),
      undefined,
      240_000,
    );

    const about = `seed ${random.seed}, ${kills} masters killed`;
    const crawlsOf = (schedule: string) =>
      crawls.find({ "origin.schedule": schedule }).sort({ createdAt: 1 }).toArray();
    const pairsOfCrawls = (some: readonly CrawlDocument[]) =>
      sorted(some.map(({ _id, origin }) => [origin?.tick ?? "", _id]));
    const pairsOfTicks = (some: readonly TickDocument[]) =>
      sorted(some.map(({ _id, crawl: id }) => [_id, id ?? ""]));
    const reports: string[] = [];
    for (const id of [leader, ...others]) {
      const all = await ticks.find({ schedule: id }).sort({ at: 1 }).toArray();
      const made = all.filter(({ state }) => state === "started");
      const instants = all.map(({ at }) => at);
      // Each second has its tick, whoever was there in that second.
      expect(instants, about).toEqual(instants.map((_, index) => (instants[0] ?? 0) + index * 1_000));
      expect(instants.length, about).toBeGreaterThan(FOR_MS / 1_000 - 10);
      expect(
        all.filter(({ state }) => state !== "started" && state !== "skipped"),
        about,
      ).toEqual([]);
      // Each that has started has its crawl, and each crawl its tick.
      const itsCrawls = await crawlsOf(id);
      expect(pairsOfCrawls(itsCrawls), about).toEqual(pairsOfTicks(made));
      const endedAt = itsCrawls.map(({ finishedAt = 0 }) => finishedAt);
      const overlaps = itsCrawls.filter(({ createdAt }, index) => createdAt < (endedAt[index - 1] ?? 0));
      expect(overlaps, about).toEqual([]);
      reports.push(`${made.length} of ${all.length} ticks started`);
    }

    const led = await crawlsOf(leader);
    const ids = led.map(({ _id }) => _id).sort();
    const following = await ticks.find({ schedule: follower }).toArray();
    expect(following.map(({ after }) => after).sort(), about).toEqual(ids);
    const started = following.filter(({ state }) => state === "started");
    expect(pairsOfCrawls(await crawlsOf(follower)), about).toEqual(pairsOfTicks(started));

    const notified = await database
      .collection("notifications")
      .find({ rule: { $exists: true } })
      .toArray();
    expect(notified.map((one) => one.crawl).sort(), about).toEqual(ids);
    // Who dies after the server took a mail has it sent again, under the same id.
    const messageIds = mails.received.map(({ text }) => /^Message-ID: (.*)$/m.exec(text)?.[1]);
    expect(new Set(messageIds).size, about).toBe(ids.length);
    reports.push(`${messageIds.length - ids.length} mails sent twice`);
    process.stderr.write(`${about}: ${reports.join(", ")}\n`);
  }, 600_000);
});

function sorted(pairs: readonly (readonly string[])[]): readonly string[] {
  return pairs.map((pair) => pair.join(" ")).sort();
}
