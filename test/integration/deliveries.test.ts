import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { Metrics } from "../../src/lib/metrics.js";
import { DeliveryService, type DeliveryServiceOptions } from "../../src/master/delivery-service.js";
import { WebhookSender, type WebhookSenderOptions } from "../../src/master/webhook-sender.js";
import { webhookSignature } from "../../src/master/webhook-signature.js";
import type { NewDelivery, Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";
import { WebhookReceiver } from "../support/webhook-receiver.js";

const stores = new StoresUnderTest();
let store: Store;
let receiver: WebhookReceiver;
let services: DeliveryService[];

beforeAll(async () => {
  store = await stores.open();
});

afterAll(() => stores.dispose());

beforeEach(async () => {
  receiver = await WebhookReceiver.start();
  services = [];
});

afterEach(async () => {
  await Promise.all(services.map((service) => service.stop()));
  await receiver.stop();
  await store.collection("deliveries").deleteMany({});
  await store.collection("deliveryLanes").deleteMany({});
});

async function sending(
  options: Partial<DeliveryServiceOptions> = {},
  { timeoutMs = 500, ...sender }: Partial<WebhookSenderOptions> = {},
): Promise<DeliveryService> {
  const service = new DeliveryService(
    {
      store,
      sender: new WebhookSender(
        {
          userAgent: "warren-test",
          allowedNetworks: ["127.0.0.0/8"],
          timeoutMs,
          maxConnections: 64,
          ...sender,
        },
        systemClock,
      ),
      metrics: new Metrics(),
      clock: systemClock,
      logger: silentLogger,
      random: () => 0.5,
    },
    { everyMs: 20, timeoutMs, firstRetryMs: 20, ...options },
  );
  services.push(service);
  await service.start();
  return service;
}

let added = 0;

function delivery(path: string, more: Partial<NewDelivery> = {}): NewDelivery {
  added += 1;
  return {
    id: `delivery-${String(added).padStart(6, "0")}`,
    target: { kind: "webhook", url: receiver.url(path) },
    type: "test.happened",
    at: 1_700_000_000_000,
    body: { n: added },
    ...more,
  };
}

async function stateOf({ id }: NewDelivery): Promise<string | undefined> {
  return (await store.deliveries.get(id))?.state;
}

async function untilState(one: NewDelivery, state: string): Promise<void> {
  const deadline = Date.now() + 20_000;
  while ((await stateOf(one)) !== state) {
    if (Date.now() > deadline) throw new Error(`${one.id} is ${await stateOf(one)}, not ${state}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe("a delivery", () => {
  it("is posted as Standard Webhooks has it, signed, with the headers that were asked for and are not ours", async () => {
    const one = delivery("/hook", {
      target: {
        kind: "webhook",
        url: receiver.url("/hook"),
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: {
          authorization: "Bearer x",
          "webhook-id": "forged",
          host: "forged.test",
          "content-length": "1",
        },
      },
    });
    await store.deliveries.add([one]);
    await sending();
    await untilState(one, "delivered");

    const [post] = receiver.posts;
    expect(receiver.posts).toHaveLength(1);
    expect(post?.body).toEqual({
      type: "test.happened",
      timestamp: "2023-11-14T22:13:20.000Z",
      data: one.body,
    });
    const timestamp = Number(post?.headers["webhook-timestamp"]);
    expect(Math.abs(timestamp - Date.now() / 1_000)).toBeLessThan(60);
    expect(post?.headers).toMatchObject({
      "webhook-id": one.id,
      "webhook-signature": webhookSignature(one.target.secret ?? "", one.id, timestamp, post?.text ?? ""),
      "content-type": "application/json",
      authorization: "Bearer x",
      host: new URL(receiver.url()).host,
    });
    expect(await store.deliveries.get(one.id)).toMatchObject({ attempts: 1, statusCode: 200 + 4 });
  });

  it("is made once, however often it is added", async () => {
    const one = delivery("/hook");
    await Promise.all([store.deliveries.add([one]), store.deliveries.add([one])]);
    await sending();
    await untilState(one, "delivered");
    await store.deliveries.add([one]);
    const last = delivery("/hook");
    await store.deliveries.add([last]);
    await untilState(last, "delivered");

    expect(receiver.posts.map(({ id }) => id)).toEqual([one.id, last.id]);
  });

  it("keeps what it tells no longer than it must", async () => {
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    expect(await store.deliveries.textOf(one.id)).toContain("test.happened");
    await sending();
    await untilState(one, "delivered");

    expect(await store.deliveries.textOf(one.id)).toBeUndefined();
    const lanes = () => store.collection("deliveryLanes").countDocuments();
    await expect.poll(lanes, { timeout: 10_000 }).toBe(0);
  });

  it.each([
    ["an error", 500],
    ["too many requests", 429],
    ["a refusal", 403],
  ])("is tried again after %s, with the same id and body", async (_, statusCode) => {
    receiver.answer("/hook", (_, before, response) =>
      response.writeHead(before < 2 ? statusCode : 200).end(),
    );
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending();
    await untilState(one, "delivered");

    expect(receiver.posts).toHaveLength(3);
    expect(new Set(receiver.posts.map(({ id, text }) => id + text)).size).toBe(1);
    expect(await store.deliveries.get(one.id)).toMatchObject({ attempts: 3, statusCode: 200 });
  });

  it("is tried again when nobody answers, or the connection breaks off", async () => {
    receiver.answer("/hook", (_, before, response) => {
      if (before === 0) return;
      if (before === 1) response.destroy();
      else response.writeHead(200).end();
    });
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending({}, { timeoutMs: 200 });
    await untilState(one, "delivered");

    expect(receiver.posts).toHaveLength(3);
  });

  it("is given up after so many attempts, and can be replayed", async () => {
    let isBroken = true;
    receiver.answer("/hook", (_, __, response) => response.writeHead(isBroken ? 500 : 200).end());
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending({ maxAttempts: 3, firstRetryMs: 5 });
    await untilState(one, "failed");

    expect(receiver.posts).toHaveLength(3);
    expect(await store.deliveries.get(one.id)).toMatchObject({
      attempts: 3,
      statusCode: 500,
      error: "the receiver answered 500",
      endedAt: expect.any(Number),
    });
    isBroken = false;
    expect(await store.deliveries.replay(one.id)).toMatchObject({ state: "waiting", attempts: 0 });
    await untilState(one, "delivered");
    await expect(store.deliveries.replay(one.id)).rejects.toThrow("has not failed");
  });

  it("is given up when it is too old", async () => {
    receiver.answer("/hook", (_, __, response) => response.writeHead(503).end());
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending({ maxAgeMs: 1 });
    await untilState(one, "failed");

    expect(receiver.posts).toHaveLength(1);
  });

  it("is not tried again before the receiver said that it may be", async () => {
    receiver.answer("/hook", (_, __, response) => response.writeHead(429, { "retry-after": "3600" }).end());
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending();
    await receiver.until(() => receiver.posts.length === 1);
    const other = delivery("/other");
    const sameLane = delivery("/hook");
    await store.deliveries.add([sameLane, other]);
    await untilState(other, "delivered");

    const { nextAt = 0 } = (await store.deliveries.get(one.id)) ?? {};
    expect(nextAt - Date.now()).toBeGreaterThan(3_500_000);
    expect(receiver.to("/hook")).toHaveLength(1);
  });

  it("and all others to a receiver that is gone are given up", async () => {
    receiver.answer("/hook", (_, __, response) => response.writeHead(410).end());
    const all = [delivery("/hook"), delivery("/hook"), delivery("/hook")];
    await store.deliveries.add(all);
    await sending();
    for (const one of all) await untilState(one, "failed");

    expect(receiver.posts).toHaveLength(1);
    expect(await store.deliveries.get(all[2]?.id ?? "")).toMatchObject({
      error: "the receiver is gone (410)",
    });
  });

  it("follows no redirect", async () => {
    receiver.answer("/hook", (_, __, response) =>
      response.writeHead(307, { location: receiver.url("/elsewhere") }).end(),
    );
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending({ maxAttempts: 1 });
    await untilState(one, "failed");

    expect(receiver.to("/elsewhere")).toEqual([]);
    expect(await store.deliveries.get(one.id)).toMatchObject({ statusCode: 307 });
  });

  it.each([
    ["an address", (url: string) => url],
    ["a name", (url: string) => url.replace("127.0.0.1", "localhost")],
    ["another spelling", (url: string) => url.replace("127.0.0.1", "2130706433")],
    ["IPv6 with IPv4 in it", (url: string) => url.replace("127.0.0.1", "[::ffff:127.0.0.1]")],
  ])("goes to no private network that is not allowed: by %s", async (_, spelt) => {
    const one = delivery("/hook");
    await store.deliveries.add([{ ...one, target: { kind: "webhook", url: spelt(one.target.url) } }]);
    await sending({ maxAttempts: 1 }, { allowedNetworks: [] });
    await untilState(one, "failed");

    expect(receiver.posts).toEqual([]);
    expect((await store.deliveries.get(one.id))?.error).toMatch(/not public|refused|address/i);
  });

  it("is delivered though its answer never ends", async () => {
    let isClosed = false;
    receiver.answer("/hook", (_, __, response) => {
      response.writeHead(200);
      response.on("close", () => {
        isClosed = true;
      });
      const flood = () => {
        while (!isClosed && response.write(Buffer.alloc(65_536))) {}
        if (!isClosed) response.once("drain", flood);
      };
      flood();
    });
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await sending();
    await untilState(one, "delivered");

    expect(receiver.posts).toHaveLength(1);
  });

  it("goes with its crawl", async () => {
    await store.deliveries.add([delivery("/hook", { crawl: "c1" }), delivery("/hook", { crawl: "c2" })]);

    await store.deliveries.drop("c1", "test.happened");

    expect((await store.deliveries.list({})).items.map(({ crawl }) => crawl)).toEqual(["c2"]);
  });
});

describe("deliveries", () => {
  it("to one receiver go in order and one after the other, whoever sends them", async () => {
    receiver.answer("/hook", (_, __, response) => void setTimeout(() => response.writeHead(200).end(), 1));
    const all = Array.from({ length: 120 }, () => delivery("/hook"));
    await store.deliveries.add(all.slice(0, 60));
    await sending();
    await sending();
    await sending();
    await store.deliveries.add(all.slice(60));
    await receiver.until(() => receiver.posts.length >= all.length);

    expect(receiver.posts.map(({ id }) => id)).toEqual(all.map(({ id }) => id));
    expect(receiver.mostAtOnce).toBe(1);
  });

  it("stay in order over a receiver's short absence", async () => {
    receiver.answer("/hook", (_, before, response) => response.writeHead(before === 2 ? 502 : 200).end());
    const all = Array.from({ length: 6 }, () => delivery("/hook"));
    await store.deliveries.add(all);
    await sending();
    await receiver.until(() => receiver.posts.length === 7);

    const ids = all.map(({ id }) => id);
    expect(receiver.posts.map(({ id }) => id)).toEqual([...ids.slice(0, 3), ...ids.slice(2)]);
  });

  it("are not held up by one that is refused, or that its receiver cannot stomach", async () => {
    const refused = delivery("/hook");
    const poison = delivery("/hook");
    const others = Array.from({ length: 5 }, () => delivery("/hook"));
    receiver.answer("/hook", ({ id }, _, response) =>
      response.writeHead(id === refused.id ? 422 : id === poison.id ? 500 : 200).end(),
    );
    await store.deliveries.add([refused, poison, ...others]);
    await sending({ firstRetryMs: 30 });
    for (const one of others) await untilState(one, "delivered");

    expect(await stateOf(refused)).toBe("waiting");
    expect(await stateOf(poison)).toBe("waiting");
  });

  it("to others are not held up by receivers that hang", async () => {
    for (let n = 0; n < 10; n += 1) receiver.answer(`/hangs/${n}`, () => {});
    await store.deliveries.add(Array.from({ length: 10 }, (_, n) => delivery(`/hangs/${n}`)));
    await sending({}, { timeoutMs: 10_000 });
    await receiver.until(() => receiver.posts.length === 10);
    const one = delivery("/quick");
    await store.deliveries.add([one]);
    await untilState(one, "delivered");

    expect(receiver.posts).toHaveLength(11);
  });

  it("of one that died are taken over when its lease is over, and are made at least once", async () => {
    const all = [delivery("/hook"), delivery("/hook")];
    await store.deliveries.add(all);
    // Someone who takes the lane, and is never heard of again.
    const lane = await store.deliveryLanes.claim(300);
    expect(await store.deliveryLanes.claim(300)).toBeUndefined();
    await sending();
    for (const one of all) await untilState(one, "delivered");

    expect(lane === undefined ? lane : await store.deliveryLanes.renew(lane, 1_000)).toBeUndefined();
  });

  it("are looked for on and on, also where a look takes longer than the time between two", async () => {
    const claim = store.deliveryLanes.claim.bind(store.deliveryLanes);
    store.deliveryLanes.claim = async (leaseMs) => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      return claim(leaseMs);
    };
    try {
      receiver.answer("/hook", (_, before, response) => response.writeHead(before < 3 ? 429 : 200).end());
      const one = delivery("/hook");
      await sending({ everyMs: 10 });
      await store.deliveries.add([one]);
      await untilState(one, "delivered");
    } finally {
      store.deliveryLanes.claim = claim;
    }

    expect(receiver.posts).toHaveLength(4);
  });

  it("are found though who added them did not live to tell", async () => {
    const one = delivery("/hook");
    await store.deliveries.add([one]);
    await store.collection("deliveryLanes").deleteMany({});
    await sending({ forgottenEveryMs: 20 });

    await untilState(one, "delivered");
  });

  it("are listed newest first, by state and by crawl, without what they are signed with", async () => {
    const all = Array.from({ length: 5 }, (_, n) =>
      delivery("/hook", {
        target: { kind: "webhook", url: receiver.url("/hook"), secret: "a secret of mine" },
        crawl: `c${n % 2}`,
      }),
    );
    await store.deliveries.add(all);
    await store.deliveries.fail(all[1]?.id ?? "", { error: "$boom" });

    const first = await store.deliveries.list({}, { limit: 3 });
    const second = await store.deliveries.list(
      {},
      { limit: 3, ...(first.next !== null && { cursor: first.next }) },
    );

    expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(all.map(({ id }) => id).reverse());
    expect(JSON.stringify(first)).not.toContain("secret");
    expect((await store.deliveries.list({ state: "failed" })).items).toMatchObject([
      { id: all[1]?.id, error: "$boom" },
    ]);
    expect((await store.deliveries.list({ crawl: "c0" })).items).toHaveLength(3);
    expect(await store.deliveries.replayAll({ crawl: "c0" })).toBe(0);
    expect(await store.deliveries.replayAll({ crawl: "c1" })).toBe(1);
  });
});
