import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NodeRegistration, Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

describe("Nodes", () => {
  const stores = new StoresUnderTest();
  let one: Store;
  let other: Store;
  beforeAll(async () => {
    one = await stores.open();
    other = await stores.open();
  });
  afterAll(() => stores.dispose());

  let nodes = 0;
  function newNode(about: Partial<NodeRegistration> = {}): NodeRegistration {
    nodes += 1;
    return {
      id: `node-${nodes}`,
      epoch: 3,
      version: "$version",
      concurrency: 8,
      host: "$NOW",
      pid: 1,
      ...about,
    };
  }

  it("shows a node as it registered, online", async () => {
    const node = newNode({ labels: { zone: "$a" } });

    expect(await one.nodes.register(node)).toMatchObject({ id: node.id, status: "online" });

    expect(await other.nodes.get(node.id)).toEqual({
      ...node,
      status: "online",
      active: 0,
      suspect: false,
      startedAt: expect.any(Number),
      heartbeatAt: expect.any(Number),
    });
    expect(await other.nodes.get("nobody")).toBeUndefined();
  });

  it("takes note of heartbeats, and keeps labels through a restart", async () => {
    const node = newNode({ labels: { zone: "a" } });
    await one.nodes.register(node);
    const started = await one.nodes.get(node.id);

    expect(
      await one.nodes.heartbeat({
        ...{ id: node.id, epoch: 3, active: 5, status: "paused", concurrency: 9, version: "$NOW" },
        ...{ load: [0.5, 1, 2], memory: { totalBytes: 3, freeBytes: 2, rssBytes: 1 } },
      }),
    ).toEqual({ outcome: "noted" });

    expect(await one.nodes.get(node.id)).toMatchObject({
      active: 5,
      status: "paused",
      concurrency: 9,
      version: "$NOW",
      load: [0.5, 1, 2],
      memory: { totalBytes: 3, freeBytes: 2, rssBytes: 1 },
      startedAt: started?.startedAt,
    });
    const { labels: _labels, ...again } = { ...node, epoch: 4 };
    expect(await one.nodes.register(again)).toMatchObject({ epoch: 4 });
    expect(await one.nodes.get(node.id)).toMatchObject({
      epoch: 4,
      active: 0,
      status: "online",
      labels: { zone: "a" },
    });
  });

  it("refuses a node of which a later start is known", async () => {
    const node = newNode({ epoch: 7 });
    await one.nodes.register(node);

    expect(await other.nodes.register({ ...node, epoch: 6, pid: 99 })).toBeUndefined();
    expect(await other.nodes.heartbeat({ id: node.id, epoch: 6, active: 50 })).toEqual({ outcome: "stale" });
    expect(await other.nodes.heartbeat({ id: node.id, epoch: 8, active: 50 })).toEqual({
      outcome: "unknown",
    });
    expect(await other.nodes.heartbeat({ id: "nobody", epoch: 1, active: 0 })).toEqual({
      outcome: "unknown",
    });

    expect(await one.nodes.get(node.id)).toMatchObject({ epoch: 7, pid: 1, active: 0 });
  });

  it("marks silent nodes offline, telling one of those who look at once of each", async () => {
    const node = newNode();
    await one.nodes.register(node);
    expect((await one.nodes.markOffline(60_000)).map(({ id }) => id)).not.toContain(node.id);

    const found = (
      await Promise.all([one.nodes.markOffline(-60_000), other.nodes.markOffline(-60_000)])
    ).flat();

    expect(found.filter(({ id }) => id === node.id)).toMatchObject([{ status: "offline", active: 0 }]);
    expect(await one.nodes.markOffline(-60_000)).toEqual([]);
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 1 })).toEqual({ outcome: "returned" });
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 1 })).toEqual({ outcome: "noted" });
    expect(await one.nodes.get(node.id)).toMatchObject({ status: "online", active: 1 });
  });

  it("marks silent nodes as suspect once, until they are heard of again", async () => {
    const node = newNode();
    await one.nodes.register(node);
    expect((await one.nodes.markSuspect(60_000)).map(({ id }) => id)).not.toContain(node.id);

    const found = (
      await Promise.all([one.nodes.markSuspect(-60_000), other.nodes.markSuspect(-60_000)])
    ).flat();

    expect(found.filter(({ id }) => id === node.id)).toMatchObject([{ status: "online" }]);
    expect((await one.nodes.markSuspect(-60_000)).map(({ id }) => id)).not.toContain(node.id);
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 1 })).toEqual({ outcome: "returned" });
    expect((await one.nodes.markSuspect(-60_000)).map(({ id }) => id)).toContain(node.id);
  });

  it("tells who of the suspects has been silent for how long, and gives up only those who are named", async () => {
    const [quiet, mute] = [newNode(), newNode()];
    for (const node of [quiet, mute]) await one.nodes.register(node);
    await one.nodes.markSuspect(-60_000);

    const silent = (await other.nodes.silent(-60_000)).filter(({ id }) => [quiet.id, mute.id].includes(id));
    expect(silent).toEqual([
      { id: quiet.id, epoch: 3, silentMs: expect.any(Number) },
      { id: mute.id, epoch: 3, silentMs: expect.any(Number) },
    ]);
    expect(await other.nodes.silent(60_000)).toEqual([]);
    expect(await other.nodes.get(quiet.id)).toMatchObject({ status: "online", suspect: true });

    expect((await one.nodes.markOffline(-60_000, [quiet.id])).map(({ id }) => id)).toEqual([quiet.id]);
    expect(await other.nodes.get(quiet.id)).toMatchObject({ status: "offline", suspect: false });
    expect(await other.nodes.get(mute.id)).toMatchObject({ status: "online", suspect: true });
  });

  it("notes that a node left, once, and not of an earlier start", async () => {
    const node = newNode({ epoch: 5 });
    await one.nodes.register(node);

    expect(await one.nodes.leave(node.id, 4)).toBe(false);
    expect(await one.nodes.leave(node.id, 5)).toBe(true);
    expect(await other.nodes.leave(node.id, 5)).toBe(false);
  });

  it("keeps what is wanted of a node while it is away, through its restarts, and until it is taken back", async () => {
    const node = newNode();
    await one.nodes.register(node);
    expect(await one.nodes.wanted(node.id)).toBeUndefined();
    await one.nodes.leave(node.id, 3);

    expect(await one.nodes.want(node.id, { concurrency: 2, logLevel: "debug" })).toEqual({
      revision: 1,
      concurrency: 2,
      logLevel: "debug",
    });
    expect(await other.nodes.want(node.id, { concurrency: 2 })).toMatchObject({ revision: 1 });
    const wanted = { revision: 2, concurrency: 2, logLevel: "debug", paused: true };
    expect(await other.nodes.want(node.id, { paused: true })).toEqual(wanted);
    expect(await one.nodes.register({ ...node, epoch: 4 })).toMatchObject({ concurrency: 8, wanted });
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 4, active: 0 })).toEqual({
      outcome: "noted",
      wanted,
    });
    expect(await one.nodes.want(node.id, { concurrency: null, paused: null })).toEqual({
      revision: 3,
      logLevel: "debug",
    });
    expect(await one.nodes.want("nobody", { paused: true })).toBeUndefined();
  });

  it("adds up what the nodes online can do at once", async () => {
    await one.nodes.markOffline(-60_000);
    const [busy, paused, gone] = [newNode({ concurrency: 5 }), newNode(), newNode()];
    for (const node of [busy, paused, gone]) await one.nodes.register(node);
    await one.nodes.heartbeat({ id: paused.id, epoch: 3, active: 0, status: "paused" });
    await one.nodes.leave(gone.id, 3);

    const takers = await one.nodes.takers();
    expect(takers.reduce((tasks, { concurrency }) => tasks + concurrency, 0)).toBe(5);
    expect((await one.nodes.statuses()).get("paused")).toBe(1);
    expect((await one.nodes.list({ status: "online" })).items.map(({ id }) => id)).toEqual([busy.id]);
  });

  it("lists nodes by id, page by page, and changes their labels", async () => {
    const node = newNode();
    await one.nodes.register(node);
    const ids = [];
    let cursor: string | undefined;
    do {
      const page = await one.nodes.list({ limit: 2, ...(cursor !== undefined && { cursor }) });
      ids.push(...page.items.map(({ id }) => id));
      cursor = page.next ?? undefined;
    } while (cursor !== undefined);

    expect(ids).toEqual([...ids].sort());
    expect(new Set(ids).size).toBe(nodes);
    expect(await one.nodes.describe(node.id, { gpu: "no" })).toMatchObject({ labels: { gpu: "no" } });
    expect(await one.nodes.describe("nobody", {})).toBeUndefined();
  });
});
