import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("api_bus_calls");
});

afterAll(async () => {
  await master.dispose();
});

describe("calls to any master", () => {
  it("do what the HTTP API does, with the same answers", async () => {
    const crawl = (await master.callMaster("create-crawl", { seeds: ["http://a.test/"] })) as { id: string };

    expect(await master.callMaster("get-crawl", { crawl: crawl.id })).toEqual(
      (await master.get(`/api/v1/crawls/${crawl.id}`)).body,
    );
    expect(await master.callMaster("pause-crawl", { crawl: crawl.id })).toMatchObject({ status: "paused" });
    expect(await master.callMaster("resume-crawl", { crawl: crawl.id })).toMatchObject({ status: "running" });
    expect(
      await master.callMaster("add-urls", { crawl: crawl.id, urls: ["http://a.test/", "http://a.test/b"] }),
    ).toEqual({
      accepted: 1,
      known: 1,
    });
    expect(await master.callMaster("close-crawl", { crawl: crawl.id })).toMatchObject({ status: "closed" });
    expect(await master.callMaster("list-crawls", { limit: 1 })).toMatchObject({ items: [{ id: crawl.id }] });
    expect(await master.callMaster("ping")).toMatchObject({ at: expect.any(String) });
  });

  it.each([
    ["an unknown type", "make-coffee", {}, "invalid", "make-coffee"],
    ["a name from the prototype", "constructor", {}, "invalid", "constructor"],
    ["a crawl without seeds", "create-crawl", {}, "invalid", "seeds"],
    ["an unknown member", "create-crawl", { seeds: ["http://a.test/"], colour: 1 }, "invalid", "colour"],
    ["no crawl's id", "get-crawl", {}, "invalid", "crawl"],
    ["a crawl that is not there", "get-crawl", { crawl: "nonesuch" }, "not-found", "nonesuch"],
    ["a node without an epoch", "register-node", { id: "w", capacity: 1 }, "invalid", "epoch"],
    ["a node without a capacity", "register-node", { id: "w", epoch: 1 }, "invalid", "capacity"],
  ])("refuse %s", async (_what, type, args, code, part) => {
    await expect(master.callMaster(type, args)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(part),
    });
  });
});

describe("nodes", () => {
  it("register, are counted while they are heard, and are told which crawls are closed", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: ["http://a.test/"] });
    await master.send("POST", `/api/v1/crawls/${crawl.id}/close`);

    const welcome = await master.callMaster("register-node", {
      id: "worker-1",
      epoch: 1,
      version: "1.0",
      capacity: 7,
    });
    const capacity = await master.until(() => master.nodes.capacity() === 7);
    const beat = await master.callMaster("heartbeat", { id: "worker-1", epoch: 1, active: 3 });

    expect(welcome).toMatchObject({
      closed: expect.arrayContaining([{ id: crawl.id, generation: 2 }]),
      config: { heartbeatMs: 2_000 },
    });
    expect(capacity).toBe(true);
    expect(beat).toEqual({ outcome: "noted" });
    expect((await master.get("/api/v1/nodes/worker-1")).body).toMatchObject({
      id: "worker-1",
      status: "online",
      epoch: 1,
      concurrency: 7,
      active: 3,
      version: "1.0",
      labels: {},
      startedAt: expect.stringMatching(/Z$/),
      heartbeatAt: expect.stringMatching(/Z$/),
    });
    expect((await master.get("/api/v1/nodes")).body.items.map((node: { id: string }) => node.id)).toEqual([
      "worker-1",
    ]);
  });

  it("count for nothing while they are paused or drained", async () => {
    await master.callMaster("register-node", { id: "worker-2", epoch: 1, version: "1.0", capacity: 5 });
    await master.until(() => master.nodes.capacity() === 12);

    await master.callMaster("heartbeat", { id: "worker-2", epoch: 1, active: 0, status: "paused" });

    expect(await master.until(() => master.nodes.capacity() === 7)).toBe(true);
  });

  it("are refused when a later start of theirs is known, and asked to register when they are not", async () => {
    await master.callMaster("register-node", { id: "worker-3", epoch: 5, version: "1.0", capacity: 1 });

    await expect(
      master.callMaster("register-node", { id: "worker-3", epoch: 4, version: "1.0", capacity: 1 }),
    ).rejects.toMatchObject({ code: "conflict" });
    expect(await master.callMaster("heartbeat", { id: "worker-3", epoch: 4, active: 0 })).toEqual({
      outcome: "stale",
    });
    expect(await master.callMaster("heartbeat", { id: "worker-9", epoch: 1, active: 0 })).toEqual({
      outcome: "unknown",
    });
  });
});
