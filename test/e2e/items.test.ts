import { connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";
import { WebhookReceiver } from "../support/webhook-receiver.js";

const PAGES = 40;

const crawl = { spider: "links", scope: "any", politeness: { obeyRobots: false } };

describe("the items of a crawl", () => {
  const cluster = new Cluster();
  let site: GraphSite;
  let receiver: WebhookReceiver;
  let master: Master;
  let keyed: string;

  beforeAll(async () => {
    site = await GraphSite.start({ pages: PAGES, hosts: 2, links: 5 });
    receiver = await WebhookReceiver.start();
    [master] = await Promise.all([cluster.master(), cluster.worker("w1")]);
    // Its items need some seconds to come of age, in which the other crawl runs.
    const items = { key: "status", history: true, retentionMs: 1_000 };
    keyed = (await api(master).createCrawl({ ...crawl, seeds: [site.seed], items })).id;
  });

  afterAll(async () => {
    await cluster.stop();
    await receiver.stop();
    await site.stop();
  });

  it("come to a queue and to a webhook, each of them, as the API shows them", async () => {
    const connection = await connect(cluster.amqpUrl);
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, `${cluster.namespace}.items`, "#");
    const heard = new Map<string, Record<string, unknown>>();
    await channel.consume(queue, (message) => {
      if (message === null) return;
      heard.set(message.properties.messageId, JSON.parse(message.content.toString()));
      channel.ack(message);
    });
    const client = api(master);
    const created = await client.createCrawl({
      ...crawl,
      seeds: [site.seed],
      items: { publish: true, webhooks: [{ url: receiver.url("/hook"), secret: "a secret of mine" }] },
    });
    const { counts } = await client.crawlOnce(created.id, "finished");
    const items = await client.items(created.id);
    await until("all came to the queue", async () => heard.size === items.length, master);
    const posted = () => receiver.to("/hook").flatMap(({ body }) => body.data.items);
    await until("all came to the webhook", async () => posted().length >= items.length, master);
    await connection.close();

    expect(counts.items).toBe(PAGES);
    const byId = (one: Record<string, unknown>, other: Record<string, unknown>) =>
      String(one.id) < String(other.id) ? -1 : 1;
    expect([...heard.values()].sort(byId)).toEqual(items);
    expect(posted().sort(byId)).toEqual(items.map((item) => ({ ...item, change: "added" })));
    expect(JSON.stringify(created)).not.toContain("secret of mine");
  });

  it("with the same key are one, counted as one, and gone when their time has come", async () => {
    const client = api(master);
    const { counts } = await client.crawlOnce(keyed, "finished");
    await until("it is gone", async () => (await client.items(keyed)).length === 0, master);

    expect(counts.items).toBeLessThanOrEqual(1);
    expect(counts.done).toBe(PAGES);
  });
});
