import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/lib/logger.js";
import { ScheduleRunner } from "../../src/master/schedule-runner.js";
import { TickStarter } from "../../src/master/tick-starter.js";
import type { NewTick, TickRecord } from "../../src/store/index.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;
let others: readonly ApiMaster[];

beforeAll(async () => {
  master = await startApiMaster("schedules");
  others = await Promise.all(
    [1, 2].map(() => startApiMaster("schedules-other", { namespace: master.namespace })),
  );
});

afterAll(async () => {
  for (const other of others) await other.dispose();
  await master.dispose();
});

const seed = () => `http://${randomUUID()}.test/`;
const crawlOf = (members: Record<string, unknown> = {}) => ({ seeds: [seed()], ...members });

async function created(members: Record<string, unknown>) {
  const { status, body } = await master.post("/api/v1/schedules", members);
  if (status !== 201) throw new Error(`POST /schedules answered ${status}: ${JSON.stringify(body)}`);
  return body;
}

/** A schedule whose ticks are due from `agoMs` before now on, as if nobody had looked since. */
async function overdue(members: Record<string, unknown>, agoMs: number): Promise<string> {
  const { id } = await created({ cron: "* * * * * *", crawl: crawlOf(), ...members });
  const nextAt = Math.ceil((Date.now() - agoMs) / 1_000) * 1_000;
  await master.store.collection<{ _id: string }>("schedules").updateOne({ _id: id }, { $set: { nextAt } });
  return id;
}

/** What a master runs, but looked at by hand; each has a bus and a database connection of its own. */
function runners(count: number) {
  return [master, ...others].slice(0, count).map(({ parts, store }) => {
    const { crawls, clock } = parts;
    const starter = new TickStarter({ store, crawls, bus: busOf(), clock, logger: silentLogger });
    const runner = new ScheduleRunner({ store, starter, clock, logger: silentLogger });
    return {
      look: async () => {
        await runner.look();
        await starter.settled();
      },
      starter,
    };
  });
}

const told: { readonly type: string; readonly data: Readonly<Record<string, unknown>> }[] = [];
function busOf() {
  return { events: { publish: (_key: string, events: typeof told) => told.push(...events) } } as never;
}

async function ticksOf(schedule: string): Promise<readonly TickRecord[]> {
  const { items } = await master.store.ticks.list(schedule, { limit: 1_000 });
  return [...items].reverse();
}

async function crawlsOf(schedule: string) {
  const { items } = await master.store.crawls.list({ limit: 1_000 });
  return items.filter(({ origin }) => origin?.schedule === schedule).reverse();
}

const pauseAll = async () => {
  for (const { id } of (await master.store.schedules.list({ limit: 1_000 })).items) {
    await master.post(`/api/v1/schedules/${id}/pause`, {});
  }
};

describe("a tick", () => {
  it("makes one crawl, told of its tick, however many masters find it at once", async () => {
    const id = await overdue({ overlap: "replace", crawl: crawlOf({ params: { keep: 1 } }) }, 10_000);
    const masters = runners(3);
    for (let looks = 0; looks < 3; looks += 1) await Promise.all(masters.map(({ look }) => look()));
    await pauseAll();
    const ticks = await ticksOf(id);
    expect(ticks.length).toBeGreaterThanOrEqual(10);
    expect(new Set(ticks.map(({ at }) => at)).size).toBe(ticks.length);
    const started = ticks.filter(({ state }) => state === "started");
    expect(ticks.every(({ state }) => state === "started" || state === "skipped")).toBe(true);
    const crawls = await crawlsOf(id);
    expect(crawls.map((crawl) => crawl.id).sort()).toEqual(started.map(({ crawl }) => crawl).sort());
    for (const { origin, params } of crawls) {
      const tick = started.find((one) => one.id === origin?.tick);
      const scheduledAt = new Date(tick?.at ?? 0).toISOString();
      expect(params).toEqual({ keep: 1, schedule: id, scheduledAt });
    }
    const fired = told.filter(({ type, data }) => type === "schedule.fired" && data.schedule === id);
    expect(fired.map(({ data }) => data.tick).sort()).toEqual(started.map((tick) => tick.id).sort());
  });

  it("is completed by another when a master died at any step of it", async () => {
    const id = await overdue({ overlap: "replace" }, 0);
    const { store, parts } = master;
    const [runner] = runners(1);
    const now = Date.now();
    const make = async (name: string) => {
      const tick = `${id}:${name}`;
      await store.ticks.record([
        { id: tick, schedule: id, at: now, cause: "run", chain: 0, recordedAt: now },
      ]);
      const schedule = await store.schedules.get(id);
      if (schedule === undefined) throw new Error("it is gone");
      return { tick, schedule };
    };
    await pauseAll();
    // Decided, and nothing else.
    const one = await make("one");
    await store.schedules.begin(one.schedule, one.tick);
    await runner?.look();
    // The crawl is made, and nobody was told.
    const two = await make("two");
    await store.schedules.begin(two.schedule, two.tick);
    await store.ticks.starting(two.tick);
    const request = { seeds: [seed()], params: { before: "the schedule was changed" } };
    const { crawl } = await parts.crawls.create(request, `schedule ${two.tick}`);
    await runner?.look();
    // The tick knows, and the schedule does not.
    const three = await make("three");
    await store.schedules.begin(three.schedule, three.tick);
    await store.ticks.starting(three.tick);
    const third = await parts.crawls.create({ seeds: [seed()] }, `schedule ${three.tick}`);
    await store.ticks.started(three.tick, third.crawl.id, Date.now());
    await runner?.look();
    const ticks = new Map((await ticksOf(id)).map((tick) => [tick.id, tick]));
    expect(ticks.get(one.tick)).toMatchObject({ state: "started", crawl: expect.any(String) });
    expect(ticks.get(two.tick)).toMatchObject({ state: "started", crawl: crawl.id });
    expect(ticks.get(three.tick)).toMatchObject({ state: "started", crawl: third.crawl.id });
    const schedule = await store.schedules.get(id);
    expect(schedule).toMatchObject({ lastCrawl: third.crawl.id });
    expect(schedule?.starting).toBeUndefined();
  });

  it("is not begun by who looked at the last crawl before another tick began", async () => {
    const { id } = await created({ cron: "0 0 1 1 *", crawl: crawlOf() });
    const { schedules } = master.store;
    const seen = await schedules.get(id);
    if (seen === undefined) throw new Error("it is gone");
    expect(await schedules.begin(seen, `${id}:a`)).toBe(true);
    expect(await schedules.begin(seen, `${id}:b`)).toBe(false);
    await schedules.begun(id, `${id}:a`, "crawl");
    expect(await schedules.begin(seen, `${id}:b`)).toBe(false);
  });

  it("does not come about once the schedule was changed, paused or removed", async () => {
    const id = await overdue({}, 5_000);
    const { schedules, ticks } = master.store;
    const seen = await schedules.get(id);
    if (seen?.nextAt === undefined) throw new Error("nothing is due");
    const tick: NewTick = {
      ...{ id: `${id}:late`, schedule: id, at: seen.nextAt, cause: "cron" as const },
      ...{ chain: 0, recordedAt: Date.now() },
    };
    const to = { firedAt: seen.nextAt, nextAt: seen.nextAt + 1_000 };
    await master.patch(`/api/v1/schedules/${id}`, { name: "another" });
    expect(await schedules.fire(seen, [tick], to)).toBe(false);
    const changed = await schedules.get(id);
    await master.post(`/api/v1/schedules/${id}/pause`, {});
    expect(await schedules.fire(changed ?? seen, [tick], to)).toBe(false);
    await master.send("DELETE", `/api/v1/schedules/${id}`);
    expect(await schedules.fire(changed ?? seen, [tick], to)).toBe(false);
    expect(await ticks.get(tick.id)).toBeUndefined();
  });

  it("fails, with the reason, when its crawl can never be made", async () => {
    const { id } = await created({ cron: "0 0 1 1 *", crawl: crawlOf() });
    const crawl = JSON.stringify({ spider: "gone", seeds: [seed()] });
    await master.store.collection<{ _id: string }>("schedules").updateOne({ _id: id }, { $set: { crawl } });
    const { status, body } = await master.post(`/api/v1/schedules/${id}/run`, {});
    expect(status).toBe(202);
    expect(body).toMatchObject({ state: "failed", reason: "invalid", crawl: null });
    expect(body.error).toContain('there is no spider "gone"');
    // The next one is not held up by it.
    await master.patch(`/api/v1/schedules/${id}`, { crawl: crawlOf() });
    expect((await master.post(`/api/v1/schedules/${id}/run`, {})).body.state).toBe("started");
  });
});

describe("while the last crawl has not ended, a tick", () => {
  const states = async (id: string) => (await ticksOf(id)).map(({ state, reason }) => reason ?? state);
  const run = async (id: string) => (await master.post(`/api/v1/schedules/${id}/run`, {})).body;
  const yearly = (members: Record<string, unknown>) =>
    created({ cron: "0 0 1 1 *", crawl: crawlOf(), ...members }).then(({ id }) => id as string);

  it("is skipped", async () => {
    const id = await yearly({ overlap: "skip" });
    const first = await run(id);
    expect(await run(id)).toMatchObject({ state: "skipped", reason: "overlap" });
    await master.finish(first.crawl);
    expect(await run(id)).toMatchObject({ state: "started", reason: null });
  });

  it("waits, one at a time, and starts when it has ended", async () => {
    const id = await yearly({ overlap: "queue" });
    const first = await run(id);
    const second = await run(id);
    expect(second).toMatchObject({ state: "queued", crawl: null });
    expect(await run(id)).toMatchObject({ state: "skipped", reason: "waiting" });
    await master.finish(first.crawl);
    const masters = runners(3);
    await Promise.all(masters.map(({ look }) => look()));
    const ticks = await ticksOf(id);
    expect(ticks.find((tick) => tick.id === second.tick)).toMatchObject({ state: "started" });
    expect((await crawlsOf(id)).filter(({ status }) => status === "running")).toHaveLength(1);
  });

  it("replaces it", async () => {
    const id = await yearly({ overlap: "replace" });
    const first = await run(id);
    const second = await run(id);
    expect(second.state).toBe("started");
    const crawls = await crawlsOf(id);
    expect(crawls.map((crawl) => [crawl.id, crawl.status])).toEqual([
      [first.crawl, "closed"],
      [second.crawl, "running"],
    ]);
  });

  it("starts alone, however many masters decide about several at once", async () => {
    for (const overlap of ["skip", "queue"] as const) {
      const id = await yearly({ overlap, maxQueued: 3 });
      const now = Date.now();
      const masters = runners(3);
      await Promise.all(
        Array.from({ length: 12 }, async (_, index) => {
          const tick = { id: `${id}:${index}`, schedule: id, at: now + index, cause: "run" } as const;
          await master.store.ticks.record([{ ...tick, chain: 0, recordedAt: now }]);
          await masters[index % 3]?.starter.advance(id);
        }),
      );
      await Promise.all(masters.map(({ look }) => look()));
      expect((await crawlsOf(id)).length).toBe(1);
      const expected = { skip: { started: 1, overlap: 11 }, queue: { started: 1, queued: 3, waiting: 8 } };
      expect(countsOf(await states(id))).toEqual(expected[overlap]);
    }
  });
});

describe("after an absence", () => {
  it.each([
    ["skip", 0],
    ["last", 1],
    ["all", 3],
  ] as const)("ticks are made up for as the schedule wants it: %s", async (missed, made) => {
    const id = await overdue({ missed, maxMissed: 3, overlap: "queue", maxQueued: 100 }, 120_000);
    const masters = runners(3);
    await Promise.all(masters.map(({ look }) => look()));
    await pauseAll();
    const ticks = await ticksOf(id);
    const late = ticks.filter(({ at, recordedAt }) => recordedAt - at > 60_000);
    expect(late.filter(({ reason }) => reason !== "missed")).toHaveLength(made);
    expect(late.filter(({ reason }) => reason === "missed")).toHaveLength(10);
  });
});

function countsOf(words: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}
