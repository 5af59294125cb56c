import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { InvalidItemRecord } from "../../src/crawl/records.js";
import type { NewDelivery } from "../../src/store/index.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("api_deliveries", {
    tokens: [
      { role: "viewer", token: "looks" },
      { role: "operator", token: "acts" },
    ],
  });
});

afterAll(async () => {
  await master.dispose();
});

const viewer = { authorization: "Bearer looks" };
const operator = { authorization: "Bearer acts" };
const look = (path: string) => master.send("GET", `/api/v1${path}`, { headers: viewer });
const act = (method: string, path: string, body?: unknown) =>
  master.send(method, `/api/v1${path}`, {
    headers: { ...operator, ...(body !== undefined && { "content-type": "application/json" }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });

let added = 0;

async function delivery(crawl: string): Promise<string> {
  added += 1;
  const one: NewDelivery = {
    id: `${crawl}.delivery-${added}`,
    target: {
      kind: "webhook",
      url: "https://hooks.test/?key=1",
      secret: "a secret of mine",
      headers: { authorization: "also secret" },
    },
    type: "items.stored",
    at: 1_700_000_000_000,
    crawl,
    body: { n: added },
  };
  await master.store.deliveries.add([one]);
  return one.id;
}

describe("deliveries", () => {
  it("are listed and shown with what they tell, and never with what they are signed with", async () => {
    const first = await delivery("c1");
    const second = await delivery("c1");
    await master.store.deliveries.postpone(
      second,
      { error: "the receiver answered 500", statusCode: 500 },
      60_000,
    );

    const list = await look("/deliveries?crawl=c1");
    const one = await look(`/deliveries/${second}`);

    expect(list.body.items.map(({ id }: { id: string }) => id)).toEqual([second, first]);
    expect(one.body).toEqual({
      id: second,
      state: "waiting",
      url: "https://hooks.test/?key=1",
      type: "items.stored",
      crawl: "c1",
      at: "2023-11-14T22:13:20.000Z",
      attempts: 1,
      statusCode: 500,
      error: "the receiver answered 500",
      nextAt: expect.stringMatching(/Z$/),
      body: { type: "items.stored", timestamp: "2023-11-14T22:13:20.000Z", data: { n: 2 } },
    });
    expect(JSON.stringify([list.body, one.body])).not.toContain("secret");
  });

  it("that failed are replayed, one or all of a crawl, by operators alone", async () => {
    const ids = [await delivery("c2"), await delivery("c2"), await delivery("c3")];
    for (const id of ids) await master.store.deliveries.fail(id, { error: "gone" });

    const forbidden = await master.send("POST", `/api/v1/deliveries/${ids[0]}/replay`, { headers: viewer });
    const one = await act("POST", `/deliveries/${ids[0]}/replay`);
    const again = await act("POST", `/deliveries/${ids[0]}/replay`);
    const ofCrawl = await act("POST", "/deliveries/replay", { crawl: "c2" });
    const forgotten = await act("POST", "/deliveries/replay", {});
    const all = await act("POST", "/deliveries/replay", { all: true });

    expect(forbidden.status).toBe(403);
    expect([one.status, one.body.state, one.body.attempts]).toEqual([200, "waiting", 0]);
    expect(again.status).toBe(409);
    expect([ofCrawl.body, all.body]).toEqual([{ replayed: 1 }, { replayed: 1 }]);
    expect([forgotten.status, forgotten.body.errors[0].field]).toEqual([400, "all"]);
    expect((await look("/deliveries?state=failed")).body.items).toEqual([]);
  });

  it("are given up when they are deleted", async () => {
    const id = await delivery("c4");

    expect((await act("DELETE", `/deliveries/${id}`)).status).toBe(204);
    expect((await look(`/deliveries/${id}`)).status).toBe(404);
    expect((await act("DELETE", `/deliveries/${id}`)).status).toBe(404);
  });

  it.each([["state=lost"], ["crawl=%00"], ["sate=failed"]])("refuse %s by name", async (query) => {
    expect((await look(`/deliveries?${query}`)).body.errors[0].field).toBe(query.split("=")[0]);
  });
});

describe("items that are not as they should be", () => {
  it("are listed with reasons, and come as NDJSON", async () => {
    const { body: crawl } = await act("POST", "/crawls", { seeds: ["http://items.test/"] });
    const records = [0, 1, 2].map(
      (n): InvalidItemRecord => ({
        id: `${crawl.id}:page.0.${n}`,
        crawl: crawl.id,
        url: "http://items.test/",
        at: 1_700_000_000_000,
        spider: "shop",
        version: "1",
        node: "n",
        data: { price: "?" },
        reasons: ["price: must be a number"],
      }),
    );
    await master.store.invalidItems.store(records);

    const list = await look(`/crawls/${crawl.id}/items/invalid?limit=2`);
    const rest = await look(`/crawls/${crawl.id}/items/invalid?cursor=${list.body.next}`);
    const lines = await fetch(`${master.url}/api/v1/crawls/${crawl.id}/items/invalid?format=ndjson`, {
      headers: viewer,
    });
    const none = await look("/crawls/none/items/invalid");

    expect(list.body.items[0]).toEqual({ ...records[0], at: "2023-11-14T22:13:20.000Z" });
    expect([list.body.items.length, rest.body.items.length, rest.body.next]).toEqual([2, 1, null]);
    expect(lines.headers.get("content-type")).toContain("ndjson");
    expect(
      (await lines.text())
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).id),
    ).toEqual(records.map(({ id }) => id));
    expect(none.status).toBe(404);
  });
});
