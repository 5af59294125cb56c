import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Names } from "../../src/bus/topology.js";
import { declarationSchema } from "../../src/spiders/declarative/index.js";
import { openChannel } from "../support/stranger.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("spiders");
});
afterAll(() => master.dispose());

const JSON_BODY = { "content-type": "application/json" };
const put = (name: string, body: unknown, headers: Record<string, string> = JSON_BODY) =>
  master.send("PUT", `/api/v1/spiders/${name}`, {
    headers,
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

describe("external spiders", () => {
  it("are declared once, listed beside the bundled ones, and may be named by crawls", async () => {
    const refused = await master.post("/api/v1/crawls", { spider: "theirs", seeds: ["http://a.test/"] });
    const first = await put("theirs", { external: true });
    const again = await put("theirs", { external: true });
    const crawl = await master.post("/api/v1/crawls", { spider: "theirs", seeds: ["http://a.test/"] });

    expect(refused).toMatchObject({ status: 400, body: { errors: [{ field: "spider" }] } });
    expect([first.status, again.status, crawl.status]).toEqual([201, 200, 201]);
    const row = { name: "theirs", kind: "external", version: "1", seeds: [], runs: false, external: true };
    expect(first.body).toEqual(row);
    expect((await master.get("/api/v1/spiders/theirs")).body).toEqual(row);
    const names = (await master.get("/api/v1/spiders")).body.items.map(({ name }: { name: string }) => name);
    expect(names).toEqual(["links", "pdf", "seeded", "theirs"]);
    expect((await master.get("/api/v1/spiders/links")).body).toMatchObject({ external: false });
  });

  it("have a durable quorum queue of their own from then on, which goes with them", async () => {
    const queue = new Names(master.namespace).tasksOf("queued");
    const { channel, close } = await openChannel();
    try {
      await put("queued", { external: true });
      await expect(channel.checkQueue(queue)).resolves.toMatchObject({ messageCount: 0 });

      const removed = await master.send("DELETE", "/api/v1/spiders/queued");

      expect(removed.status).toBe(204);
      await expect(channel.checkQueue(queue)).rejects.toThrow(/NOT_FOUND/);
      expect((await master.send("DELETE", "/api/v1/spiders/queued")).status).toBe(404);
    } finally {
      await close();
    }
  });

  it("stay while a crawl of them may go on", async () => {
    await put("busy", { external: true });
    const { body } = await master.post("/api/v1/crawls", { spider: "busy", seeds: ["http://b.test/"] });

    const kept = await master.send("DELETE", "/api/v1/spiders/busy");
    await master.post(`/api/v1/crawls/${body.id}/close`, {});
    const removed = await master.send("DELETE", "/api/v1/spiders/busy");

    expect(kept).toMatchObject({ status: 409, body: { code: "conflict" } });
    expect(kept.body.detail).toContain(body.id);
    expect(removed.status).toBe(204);
  });

  it.each([
    ["another value", { external: false }, 400, "external"],
    ["an unknown member", { external: true, more: 1 }, 400, "more"],
    ["nothing", {}, 400, "items"],
  ])("are refused with %s, naming the member", async (_what, body, status, field) => {
    const answer = await put("wrong", body);

    expect(answer.status).toBe(status);
    expect(answer.body.errors.map((each: { field: string }) => each.field)).toContain(field);
    expect((await master.get("/api/v1/spiders/wrong")).status).toBe(404);
  });

  it("cannot take the name of a bundled one, nor a name that is none", async () => {
    expect(await put("links", { external: true })).toMatchObject({ status: 409 });
    expect(await master.send("DELETE", "/api/v1/spiders/links")).toMatchObject({ status: 409 });
    expect(await put("a%20b", { external: true })).toMatchObject({ status: 400 });
  });

  it("are an administrator's to declare and remove", async () => {
    const guarded = await startApiMaster("spider-roles", {
      tokens: [
        { role: "operator", token: "op" },
        { role: "admin", token: "ad" },
      ],
    });
    try {
      const send = (method: string, token: string) =>
        guarded.send(method, "/api/v1/spiders/theirs", {
          headers: { authorization: `Bearer ${token}`, ...(method === "PUT" && JSON_BODY) },
          ...(method === "PUT" && { body: '{"external":true}' }),
        });
      expect((await send("PUT", "op")).status).toBe(403);
      expect((await send("PUT", "ad")).status).toBe(201);
      expect((await send("GET", "op")).status).toBe(200);
      expect((await send("DELETE", "op")).status).toBe(403);
      expect((await send("DELETE", "ad")).status).toBe(204);
    } finally {
      await guarded.dispose();
    }
  });
});

it("a master serves the schema of declarative spiders", async () => {
  const { status, body } = await master.get("/spider.schema.json");
  expect(status).toBe(200);
  expect(body).toEqual(JSON.parse(JSON.stringify(declarationSchema())));
});
