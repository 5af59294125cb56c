import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, startApiMaster } from "./api-master.js";

const TOKENS = [
  { role: "viewer", token: "look" },
  { role: "operator", token: "act" },
] as const;

let master: ApiMaster;
let guarded: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("api-schedules");
  guarded = await startApiMaster("api-schedules-guarded", { tokens: TOKENS });
});

afterAll(async () => {
  await guarded.dispose();
  await master.dispose();
});

const CRAWL = { seeds: ["http://a.test/"] };
const NIGHTLY = { cron: "30 2 * * *", timezone: "Europe/Berlin", crawl: CRAWL };
const post = (body: unknown) => master.post("/api/v1/schedules", body);
const of = (id: string, more = "") => `/api/v1/schedules/${id}${more}`;

describe("POST /schedules", () => {
  it("answers with the schedule, its defaults and its next five ticks", async () => {
    const { status, headers, body } = await post({ name: "nightly", ...NIGHTLY });
    expect(status).toBe(201);
    expect(headers.get("location")).toBe(of(body.id));
    expect(body).toMatchObject({
      ...{ name: "nightly", cron: "30 2 * * *", timezone: "Europe/Berlin", after: null },
      ...{ overlap: "skip", maxQueued: 1, missed: "last", maxMissed: 10, paused: false },
      ...{ crawl: CRAWL, lastCrawl: null, revision: 1 },
    });
    expect(body.nextRuns).toHaveLength(5);
    const local = new Intl.DateTimeFormat("en-GB", { timeZone: "Europe/Berlin", timeStyle: "short" });
    const hours = body.nextRuns.map((instant: string) => local.format(new Date(instant)));
    expect(hours.every((hour: string) => hour === "02:30" || hour === "03:00")).toBe(true);
    expect((await master.get(of(body.id))).body).toEqual(body);
    expect((await master.get("/api/v1/schedules")).body.items).toContainEqual(body);
  });

  it.each([
    ["cron", { ...NIGHTLY, cron: "61 * * * *" }],
    ["cron", { ...NIGHTLY, cron: "* * *" }],
    ["cron", { ...NIGHTLY, cron: "0 0 30 2 *" }],
    ["cron", { ...NIGHTLY, cron: 5 }],
    ["timezone", { ...NIGHTLY, timezone: "Europe/Nowhere" }],
    ["timezone", { ...NIGHTLY, timezone: "+02:00" }],
    ["overlap", { ...NIGHTLY, overlap: "ignore" }],
    ["missed", { ...NIGHTLY, missed: "some" }],
    ["colour", { ...NIGHTLY, colour: "red" }],
    ["", { crawl: CRAWL }],
    ["", { ...NIGHTLY, after: { spider: "links" } }],
    ["after", { after: {}, crawl: CRAWL }],
    ["after.status.0", { after: { spider: "links", status: ["running"] }, crawl: CRAWL }],
    ["crawl", { cron: "@daily" }],
    ["crawl.seeds", { cron: "@daily", crawl: {} }],
    ["crawl.seeds.0", { cron: "@daily", crawl: { seeds: ["nonsense"] } }],
    ["crawl.colour", { cron: "@daily", crawl: { ...CRAWL, colour: "red" } }],
    ["crawl.spider", { cron: "@daily", crawl: { ...CRAWL, spider: "nonesuch" } }],
    ["crawl.params", { cron: "@daily", crawl: { ...CRAWL, params: [] } }],
    ["crawl.params", { cron: "@daily", crawl: { ...CRAWL, params: { big: "x".repeat(65_500) } } }],
  ])("names what is wrong: %s in %j", async (field, body) => {
    const answer = await post(body);
    expect(answer.status).toBe(400);
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toContain(field);
  });

  it("shows no secrets of the crawl, and keeps them", async () => {
    const fetch = { headers: { "x-key": "s3cret" }, auth: { "https://a.test": { bearer: "t0ken" } } };
    const { body } = await post({ ...NIGHTLY, crawl: { ...CRAWL, fetch } });
    const shown = JSON.stringify([body, (await master.get("/api/v1/schedules")).body]);
    expect(shown).not.toMatch(/s3cret|t0ken/);
    const run = await master.post(of(body.id, "/run"), {});
    expect((await master.store.crawls.get(run.body.crawl))?.fetch).toMatchObject(fetch);
  });
});

describe("a schedule", () => {
  it("is changed member by member, and not to what it could not have been made as", async () => {
    const { body } = await post(NIGHTLY);
    const changed = await master.patch(of(body.id), { overlap: "queue", name: "x" });
    expect(changed.body).toMatchObject({ overlap: "queue", name: "x", revision: 2, nextRuns: body.nextRuns });
    expect((await master.patch(of(body.id), { name: null })).body.name).toBeNull();
    const hourly = await master.patch(of(body.id), { cron: "@hourly" });
    expect(hourly.body.nextRuns).not.toEqual(body.nextRuns);
    const following = await master.patch(of(body.id), { after: { spider: "pdf" } });
    expect(following.body).toMatchObject({
      ...{ cron: null, after: { spider: "pdf", status: ["finished"] }, nextRuns: [] },
    });
    const back = await master.patch(of(body.id), { cron: "@hourly" });
    expect(back.body).toMatchObject({ cron: "@hourly", after: null, nextRuns: hourly.body.nextRuns });
    expect((await master.patch(of(body.id), { cron: "0 0 30 2 *" })).status).toBe(400);
    expect((await master.patch(of(body.id), { crawl: {} })).status).toBe(400);
    expect((await master.patch(of(body.id), { id: "another" })).status).toBe(400);
    expect((await master.get(of(body.id))).body).toMatchObject({ cron: "@hourly", crawl: CRAWL });
  });

  it("keeps all changes that are made at once", async () => {
    const { body } = await post(NIGHTLY);
    const changes = [
      { overlap: "queue" },
      { missed: "all" },
      { name: "x" },
      { maxMissed: 5 },
      { maxQueued: 7 },
    ];
    const answers = await Promise.all(changes.map((change) => master.patch(of(body.id), change)));
    expect(answers.map(({ status }) => status)).toEqual(changes.map(() => 200));
    expect((await master.get(of(body.id))).body).toMatchObject(Object.assign({}, ...changes));
  });

  it("is paused and resumed, and run meanwhile by hand", async () => {
    const { body } = await post(NIGHTLY);
    const paused = await master.post(of(body.id, "/pause"), {});
    expect(paused.body).toMatchObject({ paused: true, nextRuns: [] });
    const run = await master.post(of(body.id, "/run"), {});
    expect(run.status).toBe(202);
    expect(run.body).toMatchObject({ state: "started", cause: "run" });
    const crawl = (await master.get(`/api/v1/crawls/${run.body.crawl}`)).body;
    expect(crawl.origin).toEqual({ schedule: body.id, tick: run.body.tick, chain: 0 });
    expect((await master.get(of(body.id))).body.lastCrawl).toBe(crawl.id);
    const resumed = await master.post(of(body.id, "/resume"), {});
    expect(resumed.body).toMatchObject({ paused: false, nextRuns: body.nextRuns });
    // Not even at the same time as itself.
    await Promise.all([1, 2, 3].map(() => master.post(of(body.id, "/run"), {})));
    const { items } = (await master.get(of(body.id, "/runs"))).body;
    expect(items).toHaveLength(4);
    expect(items.filter(({ state }: { state: string }) => state === "started")).toHaveLength(1);
    expect((await master.get(of(body.id, "/runs?state=skipped&limit=2"))).body).toMatchObject({
      items: [{ reason: "overlap" }, { reason: "overlap" }],
      next: expect.any(String),
    });
  });

  it("goes with its history, and leaves its crawls", async () => {
    const { body } = await post(NIGHTLY);
    const { crawl } = (await master.post(of(body.id, "/run"), {})).body;
    expect((await master.send("DELETE", of(body.id))).status).toBe(204);
    for (const path of [of(body.id), of(body.id, "/runs")]) {
      expect((await master.get(path)).status).toBe(404);
    }
    for (const path of ["", "/pause", "/run"]) {
      const method = path === "" ? "DELETE" : "POST";
      expect((await master.send(method, of(body.id, path))).status).toBe(404);
    }
    expect(await master.store.collection("ticks").countDocuments({ schedule: body.id })).toBe(0);
    expect((await master.get(`/api/v1/crawls/${crawl}`)).body.status).toBe("running");
  });
});

it("schedules and notification rules are for operators to change, and for viewers to look at", async () => {
  const as = (token: string) => ({ authorization: `Bearer ${token}` });
  for (const [path, body] of [
    ["/api/v1/schedules", NIGHTLY],
    ["/api/v1/notification-rules", { on: "crawl.failed", channels: [{ kind: "email", to: ["a@b.test"] }] }],
  ] as const) {
    expect((await guarded.post(path, body, as("look"))).status).toBe(403);
    const made = await guarded.post(path, body, as("act"));
    expect(made.status).toBe(201);
    const one = `${path}/${made.body.id}`;
    expect((await guarded.send("GET", one, { headers: as("look") })).status).toBe(200);
    expect((await guarded.send("DELETE", one, { headers: as("look") })).status).toBe(403);
    expect((await guarded.send("DELETE", one, { headers: as("act") })).status).toBe(204);
  }
});
