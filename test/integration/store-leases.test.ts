import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const SHARDS = 16;

describe("Leases", () => {
  const all: StoresUnderTest[] = [];
  afterAll(() => Promise.all(all.map((stores) => stores.dispose())));

  /** Masters on shards of their own. */
  async function setup(leaseTtlMs: number) {
    const stores = new StoresUnderTest();
    all.push(stores);
    const open = async () => (await stores.open({ shardCount: SHARDS, leaseTtlMs })).leases;
    const [one, other] = await Promise.all([open(), open()]);
    return { one, other, store: await stores.open({ shardCount: SHARDS, leaseTtlMs }) };
  }

  it("has a free lease for each shard from the start, however many processes start at once", async () => {
    const { one } = await setup(60_000);

    const view = await one.view();

    expect(view).toEqual(Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 0 })));
  });

  it("gives each shard to one of two masters that reach for all", async () => {
    const { one, other } = await setup(60_000);

    const [mine, theirs] = await Promise.all([one.claim("m1", SHARDS), other.claim("m2", SHARDS)]);

    expect(mine.shards.size + theirs.shards.size).toBe(SHARDS);
    expect(new Set([...mine.shards.keys(), ...theirs.shards.keys()]).size).toBe(SHARDS);
    expect(new Set([...mine.shards.values(), ...theirs.shards.values()])).toEqual(new Set([1]));
    const view = await one.view();
    for (const { shard, owner } of view) expect(owner).toBe(mine.shards.has(shard) ? "m1" : "m2");
    expect((await one.claim("m1", SHARDS)).shards.size).toBe(mine.shards.size);
  });

  it("gives no more than is asked for", async () => {
    const { one } = await setup(60_000);

    expect((await one.claim("m1", 5)).shards.size).toBe(5);
    expect((await one.claim("m1", 2)).shards.size).toBe(7);
    expect((await one.claim("m1", 0)).shards.size).toBe(7);
  });

  it("keeps what is renewed under the same epoch", async () => {
    const { one, other } = await setup(60_000);
    const claimed = await one.claim("m1", 4);
    const before = performance.now();

    const held = await one.heartbeat("m1");

    expect(held.shards).toEqual(claimed.shards);
    expect(held.validUntil).toBeGreaterThanOrEqual(before + 60_000);
    expect(held.validUntil).toBeLessThanOrEqual(performance.now() + 60_000);
    expect((await other.heartbeat("m2")).shards.size).toBe(0);
  });

  it("lets another master have what expired, under the next epoch, and tells the one that slept", async () => {
    const { one, other } = await setup(150);
    const slept = await one.claim("m1", SHARDS);
    expect(slept.shards.size).toBe(SHARDS);

    const taken = await until(
      () => other.claim("m2", SHARDS),
      ({ shards }) => shards.size === SHARDS,
    );

    expect(performance.now(), "taken only after the first one was told it ends").toBeGreaterThan(
      slept.validUntil,
    );
    expect(new Set(taken.shards.values())).toEqual(new Set([2]));
    expect((await one.heartbeat("m1")).shards.size).toBe(0);
  });

  it("lets another master have at once what is released", async () => {
    const { one, other } = await setup(60_000);
    const { shards } = await one.claim("m1", SHARDS);
    const released = [...shards.keys()].slice(0, 3);

    await other.release("m2", released);
    expect((await one.heartbeat("m1")).shards.size).toBe(SHARDS);
    await one.release("m1", released);

    const theirs = await other.claim("m2", SHARDS);
    expect([...theirs.shards.keys()].sort()).toEqual(released.sort());
    expect(new Set(theirs.shards.values())).toEqual(new Set([2]));
    await one.leave("m1");
    expect((await other.claim("m2", SHARDS)).shards.size).toBe(SHARDS);
  });

  it("counts the masters whose heartbeat is younger than a lease", async () => {
    const { one, other } = await setup(60_000);
    await Promise.all([one.heartbeat("m1"), other.heartbeat("m2"), one.heartbeat("$m3")]);
    expect(await one.liveMasters()).toEqual(["$m3", "m1", "m2"]);

    await other.leave("m2");

    expect(await one.liveMasters()).toEqual(["$m3", "m1"]);
  });

  it("counts a silent master no more", async () => {
    const { one } = await setup(150);
    await one.heartbeat("m1");

    const live = await until(
      () => one.liveMasters(),
      (masters) => masters.length === 0,
    );

    expect(live).toEqual([]);
  });

  it("shows an expired lease as nobody's", async () => {
    const { store } = await setup(150);
    await store.leases.claim("m1", 1);
    const held = (await store.leases.view()).filter(({ owner }) => owner !== undefined);
    expect(held).toMatchObject([{ owner: "m1", epoch: 1, since: expect.any(Number) }]);

    const view = await until(
      () => store.leases.view(),
      (leases) => leases.every(({ owner }) => owner === undefined),
    );

    expect(view.filter(({ epoch }) => epoch === 1)).toHaveLength(1);
  });
});

describe("ServerClock", () => {
  const stores = new StoresUnderTest();
  let store: Store;
  beforeAll(async () => {
    store = await stores.open();
  });
  afterAll(() => stores.dispose());

  it("tells the server's time to within the answer's way", async () => {
    await store.serverClock.refresh();
    const before = store.serverClock.now();
    const [answer] = await store
      .collection("leases")
      .aggregate<{ now: Date }>([{ $limit: 1 }, { $project: { _id: 0, now: "$$NOW" } }])
      .toArray();
    const after = store.serverClock.now();

    const now = answer?.now.getTime() ?? 0;
    expect(now).toBeGreaterThan(before - 1_000);
    expect(now).toBeLessThan(after + 1_000);
    expect(store.serverClock.isStale).toBe(false);
  });
});

/** Asks until the answer is as wanted, ten seconds at most. */
async function until<Answer>(
  ask: () => Promise<Answer>,
  isWanted: (answer: Answer) => boolean,
): Promise<Answer> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const answer = await ask();
    if (isWanted(answer)) return answer;
    if (performance.now() > deadline) throw new Error(`not within 10 s: ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
