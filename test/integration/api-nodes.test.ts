import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, listen, startApiMaster } from "./api-master.js";

let one: ApiMaster;
let other: ApiMaster;
const told: { command: string; args: unknown }[] = [];

beforeAll(async () => {
  const nodeMonitor = { suspectMs: 300, offlineMs: 900, refreshMs: 50 };
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

describe("a node that falls silent", () => {
  it("is suspected, then offline, then online when it is heard again: each told once, by whichever master", async () => {
    const stream = await listen(one, "?type=node.*,notification.*");
    const types: string[] = [];
    const until = async (last: string) => {
      for (;;) {
        const { event } = await stream.next();
        if (event.node !== "quiet" && !event.type.startsWith("notification.")) continue;
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
