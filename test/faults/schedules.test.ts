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
/** On a slow machine masters take so long to start that there is none to kill at some ticks. */
const LEAST_KILLS = 60;
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
    const queue = { overlap: "queue", maxQueued: 100 };
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
    const leader = await make("schedules", { cron: "* * * * * *", crawl, ...queue });
    const follower = await make("schedules", { after: { schedule: leader }, crawl, ...queue });
    const channels = [{ kind: "email", to: ["ops@example.com"] }];
    await make("notification-rules", { on: "crawl.finished", filter: { schedule: leader }, channels });

    const startedAt = Date.now();
    let kills = 0;
    const restarts: Promise<unknown>[] = [];
    while (Date.now() - startedAt < FOR_MS || kills < LEAST_KILLS) {
      // Somewhere about the tick: before it is seen, while it is recorded, while its crawl is made.
      const next = Math.ceil(Date.now() / 1_000) * 1_000 + random.between(0, 400);
      await new Promise((resolve) => setTimeout(resolve, next - Date.now()));
      const place = masters.findIndex((master) => master !== undefined);
      const victim = masters[place];
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
    expect((await any().call("POST", `/api/v1/schedules/${leader}/pause`)).status).toBe(200);

    const database = client.db(cluster.namespace);
    const ticks = database.collection<TickDocument>("ticks");
    const crawls = database.collection<CrawlDocument>("crawls");
    const isOver = async () =>
      (await ticks.countDocuments({ open: true })) === 0 &&
      (await crawls.countDocuments({ origin: { $exists: true }, status: { $ne: "finished" } })) === 0 &&
      (await crawls.countDocuments({ "ends.at": { $gt: 0 } })) === 0 &&
      (await ticks.countDocuments({ schedule: follower })) ===
        (await crawls.countDocuments({ "origin.schedule": leader })) &&
      (await database.collection("mails").countDocuments({ state: "waiting" })) === 0;
    await until(
      "everything has come to rest",
      async () => (await isOver()) && (await isOver()),
      undefined,
      240_000,
    );

    const about = `seed ${random.seed}, ${kills} masters killed`;
    const ofLeader = await ticks.find({ schedule: leader }).sort({ at: 1 }).toArray();
    const made = ofLeader.filter(({ state }) => state === "started");
    const instants = ofLeader.map(({ at }) => at);
    const first = instants[0] ?? 0;
    // Each second has its tick, however many masters were there in that second.
    expect(instants, about).toEqual(instants.map((_, index) => first + index * 1_000));
    expect(instants.length, about).toBeGreaterThan(FOR_MS / 1_000 - 10);
    // What was skipped was so for the pause, which came last.
    expect(
      new Set(ofLeader.filter(({ state }) => state !== "started").map(({ reason }) => reason)),
      about,
    ).toEqual(new Set(made.length === ofLeader.length ? [] : ["paused"]));
    const crawlsOf = async (schedule: string) =>
      (await crawls.find({ "origin.schedule": schedule }).toArray()).map(({ _id, origin }) => [
        origin?.tick ?? "",
        _id,
      ]);
    const pairsOf = (some: readonly TickDocument[]) => some.map(({ _id, crawl: id }) => [_id, id ?? ""]);
    expect(sorted(await crawlsOf(leader)), about).toEqual(sorted(pairsOf(made)));

    const ofFollower = await ticks.find({ schedule: follower }).toArray();
    expect(
      ofFollower.every(({ state }) => state === "started"),
      about,
    ).toBe(true);
    expect(ofFollower.map(({ after }) => after).sort(), about).toEqual(made.map((tick) => tick.crawl).sort());
    expect(sorted(await crawlsOf(follower)), about).toEqual(sorted(pairsOf(ofFollower)));

    const notified = await database
      .collection("notifications")
      .find({ rule: { $exists: true } })
      .toArray();
    expect(notified.map((one) => one.crawl).sort(), about).toEqual(made.map((tick) => tick.crawl).sort());
    // Who dies after the server took a mail has it sent again, under the same id.
    const ids = mails.received.map(({ text }) => /^Message-ID: (.*)$/m.exec(text)?.[1]);
    expect(new Set(ids).size, about).toBe(made.length);
    process.stderr.write(
      `${about}: ${made.length} ticks, as many followed, ${ids.length - made.length} mails sent twice\n`,
    );
  }, 600_000);
});

function sorted(pairs: readonly (readonly string[])[]): readonly string[] {
  return pairs.map((pair) => pair.join(" ")).sort();
}
