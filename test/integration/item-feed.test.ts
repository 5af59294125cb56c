import type { Channel } from "amqplib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Bus } from "../../src/bus/index.js";
import { keptAs } from "../../src/crawl/item-keeping.js";
import { type ItemOptions, itemOptions } from "../../src/crawl/item-options.js";
import type { ItemRecord } from "../../src/crawl/records.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { Metrics } from "../../src/lib/metrics.js";
import { DeliveryService } from "../../src/master/delivery-service.js";
import { ItemFeed, type ItemFeedOptions } from "../../src/master/item-feed.js";
import { WebhookSender } from "../../src/master/webhook-sender.js";
import type { Store } from "../../src/store/index.js";
import { BusUnderTest } from "../support/bus-under-test.js";
import { StoresUnderTest } from "../support/store-under-test.js";
import { WebhookReceiver } from "../support/webhook-receiver.js";

const stores = new StoresUnderTest();
const under = new BusUnderTest();
let store: Store;
let bus: Bus;
let receiver: WebhookReceiver;
let feeds: ItemFeed[];
let delivering: DeliveryService;

beforeAll(async () => {
  store = await stores.open({ leaseTtlMs: 8_000 });
  bus = await under.started();
});

afterAll(async () => {
  await under.dispose();
  await stores.dispose();
});

beforeEach(async () => {
  receiver = await WebhookReceiver.start();
  feeds = [];
  const sender = new WebhookSender(
    { userAgent: "warren-test", allowedNetworks: ["127.0.0.0/8"], timeoutMs: 2_000, maxConnections: 16 },
    systemClock,
  );
  delivering = new DeliveryService(
    { store, sender, metrics: new Metrics(), clock: systemClock, logger: silentLogger },
    { everyMs: 20, firstRetryMs: 20, timeoutMs: 2_000 },
  );
  await delivering.start();
});

afterEach(async () => {
  await Promise.all(feeds.map((feed) => feed.stop()));
  await delivering.stop();
  await receiver.stop();
  await store.collection("items").deleteMany({});
  await store.collection("deliveries").deleteMany({});
  await store.collection("deliveryLanes").deleteMany({});
});

async function feeding(masterId = "master-1", options: Partial<ItemFeedOptions> = {}): Promise<ItemFeed> {
  const feed = new ItemFeed(
    {
      masterId,
      store,
      bus,
      clock: systemClock,
      logger: silentLogger,
      onDeliveries: () => delivering.wake(),
    },
    { everyMs: 20, standbyMs: 50, ...options },
  );
  feeds.push(feed);
  await feed.start();
  return feed;
}

async function crawlWith(given: object): Promise<{ id: string; options: ItemOptions }> {
  const options = itemOptions.parse(given);
  const { crawl } = await store.crawls.create({
    spider: "shop",
    seeds: [],
    scope: "any",
    limits: {},
    politeness: { delayMs: 0, maxConcurrencyPerHost: 1, obeyRobots: true },
    priority: 5,
    params: {},
    items: options,
  });
  return { id: crawl.id, options };
}

type TestCrawl = Awaited<ReturnType<typeof crawlWith>>;

function itemsOf(
  { id, options }: TestCrawl,
  from: number,
  to: number,
  data: object = {},
): readonly ItemRecord[] {
  const items = Array.from(
    { length: to - from },
    (_, index): ItemRecord => ({
      id: `${id}:${String(from + index).padStart(6, "0")}.0.0`,
      crawl: id,
      url: `http://shop.test/${from + index}`,
      at: 1_700_000_000_000 + from + index,
      spider: "shop",
      version: "1",
      node: "n",
      data: { n: from + index, ...data },
    }),
  );
  return keptAs({ items, files: [] }, { items: options }).items;
}

type Heard = { readonly key: string; readonly id: string; readonly type: string; readonly item: ItemRecord };

async function consumer(pattern = "#"): Promise<{ heard: Heard[]; channel: Channel }> {
  const channel = await under.stranger();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, under.names.items(), pattern);
  const heard: Heard[] = [];
  await channel.consume(
    queue,
    (message) => {
      if (message === null) return;
      const { messageId, type, deliveryMode } = message.properties;
      expect(deliveryMode).toBe(2);
      heard.push({
        key: message.fields.routingKey,
        id: String(messageId),
        type: String(type),
        item: JSON.parse(message.content.toString()) as ItemRecord,
      });
    },
    { noAck: true },
  );
  return { heard, channel };
}

const untold = () => store.collection("items").countDocuments({ tellFrom: { $exists: true } });

describe("items that others want to hear of", () => {
  it("are published as they are shown, under their crawl and spider, to whoever bound a queue", async () => {
    const crawl = await crawlWith({ publish: true });
    const other = await crawlWith({ publish: true });
    const { heard } = await consumer(`${crawl.id}.*`);
    await store.items.store([...itemsOf(crawl, 0, 3), ...itemsOf(other, 0, 3)]);
    await feeding();

    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(3);
    await expect.poll(untold, { timeout: 10_000 }).toBe(0);
    expect(heard[0]).toEqual({
      key: `${crawl.id}.shop`,
      id: `${crawl.id}:000000.0.0`,
      type: "item.added",
      item: {
        id: `${crawl.id}:000000.0.0`,
        crawl: crawl.id,
        url: "http://shop.test/0",
        at: "2023-11-14T22:13:20.000Z",
        spider: "shop",
        version: "1",
        node: "n",
        data: { n: 0 },
      },
    });
    expect(heard.map(({ item }) => item.data.n)).toEqual([0, 1, 2]);
  });

  it("are posted to webhooks, many in one post, in order and signed", async () => {
    const crawl = await crawlWith({
      webhooks: [
        { url: receiver.url("/signed"), secret: "a secret of mine" },
        { url: receiver.url("/plain") },
      ],
    });
    await store.items.store(itemsOf(crawl, 0, 250));
    await feeding();
    const received = (path: string) => receiver.to(path).flatMap(({ body }) => body.data.items);
    await receiver.until(() => received("/signed").length === 250 && received("/plain").length === 250);

    for (const path of ["/signed", "/plain"]) {
      expect(received(path).map(({ data }) => data.n)).toEqual(Array.from({ length: 250 }, (_, n) => n));
      expect(receiver.to(path).length).toBeLessThanOrEqual(4);
    }
    const [signed] = receiver.to("/signed");
    expect(signed?.body).toMatchObject({ type: "items.stored", data: { crawl: crawl.id } });
    expect(signed?.body.data.items[0]).toMatchObject({ change: "added", id: `${crawl.id}:000000.0.0` });
    expect(signed?.headers["webhook-signature"]).toMatch(/^v1,/);
    expect(receiver.to("/plain")[0]?.headers["webhook-signature"]).toBeUndefined();
  });

  it("are told again when newer data took the place of theirs, and not when it is the same", async () => {
    const crawl = await crawlWith({
      key: "sku",
      publish: true,
      webhooks: [{ url: receiver.url("/changed"), events: ["changed"] }],
    });
    const { heard } = await consumer(`${crawl.id}.*`);
    await feeding();
    await store.items.store(itemsOf(crawl, 1, 2, { n: 1, sku: "x" }));
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(1);
    await expect.poll(untold, { timeout: 10_000 }).toBe(0);
    await store.items.store(itemsOf(crawl, 2, 3, { n: 1, sku: "x" }));
    expect(await untold()).toBe(0);
    await store.items.store(itemsOf(crawl, 3, 4, { n: 3, sku: "x" }));
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(2);
    await receiver.until(() => receiver.to("/changed").length === 1);

    expect(heard.map(({ type, id }) => [type, id.slice(-2)])).toEqual([
      ["item.added", ".1"],
      ["item.changed", ".2"],
    ]);
    expect(receiver.to("/changed")[0]?.body.data.items).toMatchObject([
      { change: "changed", revision: 2, data: { n: 3 } },
    ]);
  });

  it("are added for whoever has not heard of them, though they changed before anyone was told", async () => {
    const crawl = await crawlWith({
      key: "sku",
      webhooks: [{ url: receiver.url("/added"), events: ["added"] }],
    });
    await store.items.store(itemsOf(crawl, 1, 2, { sku: "x" }));
    await store.items.store(itemsOf(crawl, 2, 3, { sku: "x" }));
    await feeding();
    await receiver.until(() => receiver.to("/added").length === 1);

    expect(receiver.to("/added")[0]?.body.data.items).toMatchObject([{ change: "added", revision: 2 }]);
  });

  it("that change while they are told are told once more", async () => {
    const crawl = await crawlWith({ key: "sku", publish: true });
    await store.items.store(itemsOf(crawl, 1, 2, { sku: "x" }));
    const [before] = await store.itemTellings.next(crawl.id, 10);
    await store.items.store(itemsOf(crawl, 2, 3, { sku: "x" }));

    if (before !== undefined) await store.itemTellings.told([before.item]);

    expect(await store.itemTellings.next(crawl.id, 10)).toMatchObject([
      { change: "changed", item: { revision: 2 } },
    ]);
  });

  it("are told by one master at a time, and by another when that one goes", async () => {
    const crawl = await crawlWith({ publish: true });
    const { heard } = await consumer(`${crawl.id}.*`);
    const first = await feeding("master-1");
    await feeding("master-2");
    await feeding("master-3");
    for (let from = 0; from < 100; from += 10) await store.items.store(itemsOf(crawl, from, from + 10));
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(100);
    await first.stop();
    await store.items.store(itemsOf(crawl, 100, 110));
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(110);

    expect(new Set(heard.map(({ id }) => id)).size).toBe(110);
  });

  it("are told once their crawl is over, or nobody listens any more, and are forgotten where nobody wants them", async () => {
    const crawl = await crawlWith({});
    const published = { ...crawl, options: itemOptions.parse({ publish: true }) };
    await store.items.store(itemsOf(published, 0, 5));
    expect(await untold()).toBe(5);
    await feeding();

    await expect.poll(untold, { timeout: 10_000 }).toBe(0);
  });

  it("are not kept from others by a receiver that takes nothing", async () => {
    const stuck = await crawlWith({ webhooks: [{ url: receiver.url("/stuck") }] });
    const crawl = await crawlWith({ publish: true, webhooks: [{ url: receiver.url("/fine") }] });
    receiver.answer("/stuck", () => {});
    const { heard } = await consumer(`${crawl.id}.*`);
    await store.items.store([...itemsOf(stuck, 0, 300), ...itemsOf(crawl, 0, 300)]);
    await feeding();

    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(300);
    await receiver.until(() => receiver.to("/fine").flatMap(({ body }) => body.data.items).length === 300);
    expect(await untold()).toBe(0);
  });

  it("wait while a queue takes no more, without holding up those of others", async () => {
    const full = await crawlWith({ publish: true });
    const crawl = await crawlWith({ publish: true });
    const channel = await under.stranger();
    const { queue } = await channel.assertQueue("", {
      exclusive: true,
      arguments: { "x-max-length": 5, "x-overflow": "reject-publish" },
    });
    await channel.bindQueue(queue, under.names.items(), `${full.id}.*`);
    const { heard } = await consumer(`${crawl.id}.*`);
    await store.items.store([...itemsOf(full, 0, 20), ...itemsOf(crawl, 0, 20)]);
    await feeding();
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(20);
    expect(await untold()).toBe(20);
    const taken = new Set<string>();
    await channel.consume(queue, (message) => void taken.add(String(message?.properties.messageId)), {
      noAck: true,
    });

    await expect.poll(() => taken.size, { timeout: 20_000 }).toBe(20);
    await expect.poll(untold, { timeout: 10_000 }).toBe(0);
  });

  it("are told without their data when that is larger than what others take", async () => {
    const crawl = await crawlWith({ publish: true, webhooks: [{ url: receiver.url("/hook") }] });
    const { heard } = await consumer(`${crawl.id}.*`);
    await store.items.store(itemsOf(crawl, 0, 1, { text: "x".repeat(9_000_000) }));
    await store.items.store(itemsOf(crawl, 1, 2));
    await feeding();
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(2);
    await receiver.until(() => receiver.to("/hook").flatMap(({ body }) => body.data.items).length === 2);

    expect(heard[0]?.item).toMatchObject({ id: `${crawl.id}:000000.0.0`, data: {}, isWithoutData: true });
  });
});
