import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, listen, startApiMaster } from "./api-master.js";

let one: ApiMaster;
let other: ApiMaster;
const told: { command: string; args: unknown }[] = [];

beforeAll(async () => {
  const nodeMonitor = { suspectMs: 400, offlineMs: 1_200, closedMs: 1_000, refreshMs: 50, graceMs: 0 };
  one = await startApiMaster("api_nodes", { nodeMonitor });
  other = await startApiMaster("api_nodes", { namespace: one.namespace, nodeMonitor });
  const answer = (command: string) => async (args: unknown) => {
    told.push({ command, args });
    return { did: command, status: "paused", active: 0, concurrency: 9, logLevel: "debug" };
  };
  await one.serveNode(
    "worker-1",
    Object.fromEntries(
      ["system-info", "pause", "resume", "drain", "shutdown", "set-config"].map((name) => [
        name,
        answer(name),
      ]),
    ),
  );
  await one.callMaster("register-node", { id: "worker-1", epoch: 1, version: "1.0", capacity: 4 });
  await one.callMaster("register-node", { id: "nobody", epoch: 1, version: "1.0", capacity: 4 });
});

afterAll(async () => {
  await other.dispose();
  await one.dispose();
});

describe("commands to a node", () => {
  it("reach it through any master, and bring back what it answers", async () => {
    const system = await other.get("/api/v1/nodes/worker-1/system");
    const paused = await one.send("POST", "/api/v1/nodes/worker-1/pause");
    const drained = await other.send("POST", "/api/v1/nodes/worker-1/drain");

    expect(system).toMatchObject({ status: 200, body: { did: "system-info" } });
    expect(paused).toMatchObject({ status: 200, body: { node: "worker-1", result: { did: "pause" } } });
    expect(drained.status).toBe(200);
    expect(told.map(({ command }) => command)).toEqual(["system-info", "pause", "drain"]);
  });

  it("change its settings and labels", async () => {
    const patched = await one.send("PATCH", "/api/v1/nodes/worker-1", {
      body: JSON.stringify({ concurrency: 9, logLevel: "debug", labels: { zone: "a" } }),
      headers: { "content-type": "application/json" },
    });

    expect(patched).toMatchObject({
      status: 200,
      body: { id: "worker-1", concurrency: 9, labels: { zone: "a" } },
    });
    expect(told.at(-1)).toEqual({ command: "set-config", args: { concurrency: 9, logLevel: "debug" } });
  });

  it.each([
    ["nothing", {}, ""],
    ["no concurrency", { concurrency: 0 }, "concurrency"],
    ["an unknown level", { logLevel: "loud" }, "logLevel"],
    ["a label that is no text", { labels: { zone: 1 } }, "labels.zone"],
    ["another id", { id: "x", concurrency: 3 }, "id"],
  ])("refuse to change %s, naming the member", async (_what, body, field) => {
    const answer = await one.send("PATCH", "/api/v1/nodes/worker-1", {
      body: JSON.stringify(body),
      headers: { "content-type": "application/json" },
    });

    expect(answer).toMatchObject({ status: 400, body: { code: "invalid", errors: [{ field }] } });
  });

  it("say at once that a node is away", async () => {
    expect(await one.get("/api/v1/nodes/nobody/system")).toMatchObject({
      status: 503,
      body: { code: "unavailable" },
    });
    expect(await one.send("POST", "/api/v1/nodes/nobody/pause")).toMatchObject({ status: 503 });
  });
});

describe("settings of a node that is away", () => {
  it("are kept, and wait for it in the answers to its registration and heartbeats", async () => {
    const patched = await one.send("PATCH", "/api/v1/nodes/nobody", {
      body: JSON.stringify({ concurrency: 7, logLevel: "warn" }),
      headers: { "content-type": "application/json" },
    });
    const wanted = { revision: 1, concurrency: 7, logLevel: "warn" };
    expect(patched).toMatchObject({ status: 200, body: { wanted } });

    const node = { id: "nobody", epoch: 2, version: "1.0", capacity: 4 };
    expect(await other.callMaster("register-node", node)).toMatchObject({ wanted });
    const beat = { id: "nobody", epoch: 2, active: 0 };
    expect(await other.callMaster("heartbeat", beat)).toMatchObject({ wanted });
    expect(await one.callMaster("heartbeat", { ...beat, revision: 1 })).not.toHaveProperty("wanted");

    await one.send("PATCH", "/api/v1/nodes/nobody", {
      body: JSON.stringify({ concurrency: null }),
      headers: { "content-type": "application/json" },
    });
    expect(await one.callMaster("heartbeat", { ...beat, revision: 1 })).toMatchObject({
      wanted: { revision: 2, logLevel: "warn" },
    });
  });
});

describe("a heartbeat", () => {
  it("is kept with all that it says, and told", async () => {
    const stream = await listen(one, "?type=node.heartbeat");
    const said = {
      active: 3,
      status: "paused",
      concurrency: 6,
      version: "1.1",
      load: [1, 2, 3],
      memory: { totalBytes: 3_000, freeBytes: 2_000, rssBytes: 1_000 },
    };
    await one.callMaster("register-node", { id: "telling", epoch: 1, version: "1.0", capacity: 4 });
    expect(await other.callMaster("heartbeat", { id: "telling", epoch: 1, ...said })).toEqual({
      outcome: "noted",
    });
    let { event } = await stream.next();
    while (event.node !== "telling") ({ event } = await stream.next());
    stream.stop();

    expect(event.data).toEqual({ epoch: 1, ...said });
    expect((await one.get("/api/v1/nodes/telling")).body).toMatchObject(said);
  });
});

describe("a node that is silent", () => {
  it("is suspected for as long as the broker has its queue, and offline when that goes", async () => {
    const id = "stuck";
    const holder = await startApiMaster("api_nodes", { namespace: one.namespace });
    await holder.serveNode(id, {});
    await one.callMaster("register-node", { id, epoch: 1, version: "1.0", capacity: 4 });
    const stream = await listen(one, "?type=node.*");
    const next = async (skipping: string[]) => {
      for (;;) {
        const { event } = await stream.next();
        if (event.node === id && !skipping.includes(event.type)) return event.type;
      }
    };
    expect(await next(["node.online"])).toBe("node.suspect");
    const isSilentMs = async () => {
      const { body } = await other.get(`/api/v1/nodes/${id}`);
      expect(body).toMatchObject({ status: "online", suspect: true });
      return Date.now() - Date.parse(body.heartbeatAt);
    };
    while ((await isSilentMs()) < 2_000) await Promise.all([one.nodes.refresh(), other.nodes.refresh()]);

    await holder.dispose();

    expect(await next([])).toBe("node.offline");
    stream.stop();
  });
});

describe("a node that falls silent", () => {
  it("is suspected, then offline, then online when it is heard again: each told once, by whichever master", async () => {
    const stream = await listen(one, "?type=node.*,notification.*");
    const types: string[] = [];
    const until = async (last: string) => {
      for (;;) {
        const { event } = await stream.next();
        if (event.node !== "quiet" && !event.type.startsWith("notification.")) continue;
        if (event.type === "node.heartbeat") continue;
        types.push(event.type);
        if (event.type === last) return;
      }
    };
    await one.callMaster("register-node", { id: "quiet", epoch: 1, version: "1.0", capacity: 50 });
    await until("node.online");
    await until("node.offline");
    const status = (await other.get("/api/v1/nodes/quiet")).body.status;
    await Promise.all([one.nodes.refresh(), other.nodes.refresh()]);
    await one.callMaster("heartbeat", { id: "quiet", epoch: 1, active: 0 });
    await until("node.online");
    one.publish("notification.info", {});
    await until("notification.info");
    stream.stop();

    expect(status).toBe("offline");
    expect(types.slice(0, 4)).toEqual(["node.online", "node.suspect", "node.offline", "node.online"]);
    expect(types.filter((type) => type === "node.online")).toHaveLength(2);
  });
});
