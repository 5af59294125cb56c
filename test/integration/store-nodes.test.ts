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

    expect(await one.nodes.register(node)).toBe(true);

    expect(await other.nodes.get(node.id)).toEqual({
      ...node,
      status: "online",
      active: 0,
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
      await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 5, status: "paused", concurrency: 9 }),
    ).toBe("noted");

    expect(await one.nodes.get(node.id)).toMatchObject({
      active: 5,
      status: "paused",
      concurrency: 9,
      startedAt: started?.startedAt,
    });
    const { labels: _labels, ...again } = { ...node, epoch: 4 };
    expect(await one.nodes.register(again)).toBe(true);
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

    expect(await other.nodes.register({ ...node, epoch: 6, pid: 99 })).toBe(false);
    expect(await other.nodes.heartbeat({ id: node.id, epoch: 6, active: 50 })).toBe("stale");
    expect(await other.nodes.heartbeat({ id: node.id, epoch: 8, active: 50 })).toBe("unknown");
    expect(await other.nodes.heartbeat({ id: "nobody", epoch: 1, active: 0 })).toBe("unknown");

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
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 1 })).toBe("returned");
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 1 })).toBe("noted");
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
    expect(await one.nodes.heartbeat({ id: node.id, epoch: 3, active: 1 })).toBe("returned");
    expect((await one.nodes.markSuspect(-60_000)).map(({ id }) => id)).toContain(node.id);
  });

  it("adds up what the nodes online can do at once", async () => {
    await one.nodes.markOffline(-60_000);
    const [busy, paused, gone] = [newNode({ concurrency: 5 }), newNode(), newNode()];
    for (const node of [busy, paused, gone]) await one.nodes.register(node);
    await one.nodes.heartbeat({ id: paused.id, epoch: 3, active: 0, status: "paused" });
    await one.nodes.leave(gone.id, 3);

    expect(await one.nodes.capacity()).toBe(5);
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
