import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/lib/logger.js";
import { CrawlEnds } from "../../src/master/crawl-ends.js";
import { NotificationWatch } from "../../src/master/notification-watch.js";
import { Notifier, type WebhookDelivery } from "../../src/master/notifier.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;
/** As the deliveries of a database would be: by id, and the first of those with the same one. */
const delivered = new Map<string, WebhookDelivery>();
const HOOK = { kind: "webhook", url: "https://hooks.test/a", secret: "s3cret" } as const;

beforeAll(async () => {
  master = await startApiMaster("rules");
});

beforeEach(async () => {
  for (const name of ["notificationRules", "notifications", "mails"]) {
    await master.store.collection(name).deleteMany({});
  }
  delivered.clear();
});

afterAll(async () => {
  await master.dispose();
});

async function rule(members: Record<string, unknown>): Promise<string> {
  const { status, body } = await master.post("/api/v1/notification-rules", { channels: [HOOK], ...members });
  if (status !== 201) throw new Error(`POST /notification-rules answered ${status}: ${JSON.stringify(body)}`);
  return body.id;
}

const crawl = async (members: Record<string, unknown> = {}): Promise<string> =>
  (await master.post("/api/v1/crawls", { seeds: [`http://${randomUUID()}.test/`], ...members })).body.id;

/**
 * What a master has for it; it dies at the n-th thing that it writes down.
 * @param events those that it has told
 */
function masterOf(events: string[] = [], diesAt = Number.POSITIVE_INFINITY) {
  const { store, parts } = master;
  const { clock, feed } = parts;
  let writes = 0;
  const write = () => {
    writes += 1;
    if (writes >= diesAt) throw new Error("killed");
  };
  const deliveries = {
    async add(added: readonly WebhookDelivery[]) {
      write();
      for (const one of added) if (!delivered.has(one.id)) delivered.set(one.id, one);
    },
  };
  const dying = {
    notificationRules: store.notificationRules,
    mails: {
      add: async (mail: Parameters<typeof store.mails.add>[0]) => {
        write();
        return store.mails.add(mail);
      },
    },
    notifications: {
      has: (id: string) => store.notifications.has(id),
      add: async (notification: Parameters<typeof store.notifications.add>[0]) => {
        write();
        return store.notifications.add(notification);
      },
    },
  } as never;
  const bus = { events: { publish: (type: string) => events.push(type) } } as never;
  const notifier = new Notifier({ store: dying, deliveries, bus, clock, logger: silentLogger });
  const starter = { advance: async () => {}, skipped: () => {} };
  return {
    ends: new CrawlEnds({ store, starter, feed, listeners: [notifier], clock, logger: silentLogger }),
    watch: new NotificationWatch({ store, notifier, clock, logger: silentLogger }),
  };
}

const notifications = async () => (await master.get("/api/v1/notifications")).body.items;
const titles = async (): Promise<string[]> =>
  (await notifications()).map(({ title }: { title: string }) => title).sort();

describe("a rule", () => {
  it("is kept, shown without its secrets, and removed", async () => {
    const id = await rule({
      ...{ name: "nightly", on: "crawl.failed", filter: { spider: "links" } },
      channels: [HOOK, { kind: "email", to: ["ops@example.com"] }],
    });
    const { body } = await master.get(`/api/v1/notification-rules/${id}`);
    expect(body).toMatchObject({
      ...{ id, name: "nightly", on: ["crawl.failed"], filter: { spider: "links" } },
      channels: [
        { kind: "webhook", url: HOOK.url, signed: true },
        { kind: "email", to: ["ops@example.com"] },
      ],
    });
    const list = await master.get("/api/v1/notification-rules");
    expect(list.body.items).toEqual([body]);
    expect(JSON.stringify(list.body)).not.toContain("s3cret");
    expect((await master.send("DELETE", `/api/v1/notification-rules/${id}`)).status).toBe(204);
    expect((await master.send("DELETE", `/api/v1/notification-rules/${id}`)).status).toBe(404);
    expect((await master.get(`/api/v1/notification-rules/${id}`)).status).toBe(404);
  });

  it.each([
    ["channels", { on: "crawl.failed", channels: [] }],
    ["on", { on: [] }],
    ["on", { on: "crawl.started" }],
    ["colour", { on: "crawl.failed", colour: "red" }],
    ["thresholds", { on: "threshold" }],
    ["thresholds", { on: "threshold", thresholds: { minUrls: 3 } }],
    ["thresholds", { on: "crawl.failed", thresholds: { noItems: true } }],
    ["thresholds.failedPercent", { on: "threshold", thresholds: { failedPercent: 101 } }],
    ["channels.0.url", { on: "crawl.failed", channels: [{ kind: "webhook", url: "ftp://a.test/" }] }],
    ["channels.0.url", { on: "crawl.failed", channels: [{ kind: "webhook", url: "http://me:pw@a.test/" }] }],
    [
      "channels.0.to.0",
      { on: "crawl.failed", channels: [{ kind: "email", to: ["a@b.test\r\nBcc: c@d.test"] }] },
    ],
    ["channels.0.to.0", { on: "crawl.failed", channels: [{ kind: "email", to: ["a@b.test, c@d.test"] }] }],
    ["channels.0.to.0", { on: "crawl.failed", channels: [{ kind: "email", to: ["A <a@b.test>"] }] }],
  ])("with a wrong %s is refused by that name: %j", async (field, members) => {
    const { status, body } = await master.post("/api/v1/notification-rules", {
      ...{ channels: [HOOK], on: "crawl.failed" },
      ...members,
    });
    expect(status).toBe(400);
    expect(body.errors.map((one: { field: string }) => one.field)).toContain(field);
  });
});

describe("the end of a crawl", () => {
  it("is told once by each channel of each rule, however many masters see it", async () => {
    const id = await rule({
      on: ["crawl.finished", "crawl.closed"],
      channels: [HOOK, { kind: "email", to: ["ops@example.com"] }],
    });
    await rule({ on: "crawl.failed" });
    const finished = await crawl({ name: "näch\nste" });
    await master.finish(finished);
    const events: string[] = [];
    const masters = [masterOf(events), masterOf(events), masterOf(events)];
    await Promise.all(masters.map(({ ends }) => ends.look()));
    await masterOf(events).ends.look();
    expect(await notifications()).toMatchObject([
      { level: "info", title: `Crawl "näch ste" (${finished}) has finished`, crawl: finished, rule: id },
    ]);
    expect(events).toEqual(["notification.info"]);
    expect([...delivered.values()]).toMatchObject([
      {
        target: HOOK,
        type: "crawl.finished",
        crawl: finished,
        body: { rule: id, crawl: finished, data: { status: "finished", counts: { done: 1 } } },
      },
    ]);
    const { items } = (await master.get("/api/v1/mails")).body;
    expect(items).toMatchObject([{ to: ["ops@example.com"], state: "waiting" }]);
    expect(items[0].subject).toBe(`[Warren] Crawl "näch ste" (${finished}) has finished`);
    expect(items[0].text).toContain("done: 1");
  });

  it("is told once also when masters die at each step of it", async () => {
    await rule({ on: "crawl.closed", channels: [HOOK, { kind: "email", to: ["ops@example.com"] }, HOOK] });
    const closed = await crawl();
    await master.post(`/api/v1/crawls/${closed}/close`, {});
    const events: string[] = [];
    for (const diesAt of [1, 2, 3, 4]) await masterOf(events, diesAt).ends.look();
    expect(await notifications()).toEqual([]);
    await masterOf(events).ends.look();
    await masterOf(events).ends.look();
    expect(await notifications()).toHaveLength(1);
    expect(events).toEqual(["notification.warn"]);
    expect([...delivered.keys()]).toHaveLength(2);
    expect((await master.get("/api/v1/mails")).body.items).toHaveLength(1);
  });

  it("is told to those whose filter fits", async () => {
    const one = await crawl({ spider: "pdf" });
    await rule({ name: "this", on: "crawl.closed", filter: { crawl: one } });
    await rule({ name: "spider", on: "crawl.closed", filter: { spider: "pdf" } });
    await rule({ name: "other spider", on: "crawl.closed", filter: { spider: "links" } });
    await rule({ name: "schedule", on: "crawl.closed", filter: { schedule: "0011223344556677" } });
    await rule({ name: "node", on: "crawl.closed", filter: { node: "worker-1" } });
    await master.post(`/api/v1/crawls/${one}/close`, {});
    await masterOf().ends.look();
    expect([...delivered.values()].map(({ body }) => body.ruleName).sort()).toEqual(["spider", "this"]);
  });
});

describe("a threshold", () => {
  const countsOf = (id: string, counts: Record<string, number>) =>
    master.store.collection<{ _id: string }>("crawls").updateOne(
      { _id: id },
      {
        $set: Object.fromEntries(Object.entries(counts).map(([name, value]) => [`counts.${name}`, value])),
      },
    );

  it("is told of once while a crawl is beyond it", async () => {
    await rule({ on: "threshold", thresholds: { failedPercent: 10 } });
    const id = await crawl();
    const look = () => Promise.all([masterOf().watch.look(), masterOf().watch.look()]);
    await countsOf(id, { done: 5, failed: 4 });
    await look();
    // Too few to tell.
    expect(await titles()).toEqual([]);
    await countsOf(id, { done: 90, failed: 10 });
    await look();
    expect(await titles()).toEqual([]);
    await countsOf(id, { done: 90, failed: 11 });
    await look();
    await countsOf(id, { done: 90, failed: 20 });
    await look();
    expect(await titles()).toEqual([`Crawl ${id} fails: 11 of 101 URLs (10.9 %, more than 10 %)`]);
  });

  it("is judged at the end of a crawl, however quick it was", async () => {
    const id = await crawl();
    const thresholds = { noItems: true, durationMs: 1, failedPercent: 0 };
    await rule({ on: "threshold", thresholds, filter: { crawl: id } });
    await master.finish(id);
    await masterOf().ends.look();
    await masterOf().watch.look();
    const [without, takes] = await titles();
    expect(takes).toMatch(/takes .* s, more than 0\.0 s$/);
    expect(without).toBe(`Crawl ${id} has finished without an item`);
    expect(await titles()).toHaveLength(2);
  });

  it("of dead letters is told of at each crossing", async () => {
    const id = await rule({ on: "threshold", thresholds: { deadLetters: 1 } });
    const letter = (body: string) => ({
      ...{ reason: "invalid-message", error: "no", firstQueue: "q", count: 1, at: Date.now() },
      ...{ body: Buffer.from(body), contentType: undefined, headers: {}, messageId: body },
      ...{ replyTo: undefined, correlationId: undefined },
    });
    const { deadLetters } = master.store;
    const look = () =>
      Promise.all([masterOf().watch.look(), masterOf().watch.look(), masterOf().watch.look()]);
    await deadLetters.record([letter("one")]);
    await look();
    expect(await titles()).toEqual([]);
    await deadLetters.record([letter("two")]);
    await look();
    await look();
    expect(await titles()).toEqual(["There are more than 1 dead letters"]);
    await deadLetters.discardAll({});
    await look();
    await deadLetters.record([letter("three"), letter("four")]);
    // One dies between telling and noting it.
    await masterOf([], 2)
      .watch.look()
      .catch(() => {});
    await look();
    expect(await titles()).toHaveLength(2);
    expect(delivered.size).toBe(2);
    const known = await master.store.notificationRules.get(id);
    expect(known?.deadLetters).toEqual({ crossings: 2, isAbove: true });
  });
});

describe("other events", () => {
  it("tell of nodes that went after the rule was there", async () => {
    const { nodes } = master.store;
    const register = (id: string) =>
      nodes.register({ id, epoch: 1, version: "0", concurrency: 1, host: "h", pid: 1 });
    for (const id of ["before", "lost", "left", "other"]) await register(id);
    await nodes.leave("before", 1);
    const wentAt = Date.now();
    await master.until(() => Date.now() > wentAt + 1);
    await rule({ on: "node.offline" });
    await rule({ on: "node.offline", filter: { node: "lost" } });
    await nodes.markOffline(-1_000, ["lost"]);
    await nodes.leave("left", 1);
    for (let looks = 0; looks < 2; looks += 1) {
      await Promise.all([masterOf().watch.look(), masterOf().watch.look()]);
    }
    expect(await titles()).toEqual(["Node left has left", "Node lost is offline", "Node lost is offline"]);
    // It comes back, and goes again.
    await nodes.heartbeat({ id: "lost", epoch: 1, active: 0 });
    await nodes.markOffline(-1_000, ["lost"]);
    await masterOf().watch.look();
    expect(await titles()).toHaveLength(5);
  });

  it("tell of a schedule whose crawl cannot be made", async () => {
    await rule({ on: "schedule.failed" });
    const made = await master.post("/api/v1/schedules", {
      ...{ cron: "0 0 1 1 *", crawl: { seeds: ["http://a.test/"] } },
    });
    const { id } = made.body;
    await master.store
      .collection<{ _id: string }>("schedules")
      .updateOne({ _id: id }, { $set: { crawl: '{"spider":"gone"}' } });
    await master.post(`/api/v1/schedules/${id}/run`, {});
    await masterOf([], 1)
      .watch.look()
      .catch(() => {});
    await Promise.all([masterOf().watch.look(), masterOf().watch.look()]);
    await masterOf().watch.look();
    expect(await titles()).toEqual([`Schedule ${id} could not make its crawl`]);
    expect(delivered.size).toBe(1);
  });
});
