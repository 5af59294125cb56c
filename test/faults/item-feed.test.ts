import { connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";
import { WebhookReceiver } from "../support/webhook-receiver.js";

const PAGES = 500;
const MASTERS = 3;
/** So that what a killed master held is free soon. */
const QUICK = { WARREN_LEASE_MS: "2000", WARREN_DELIVERY_TIMEOUT_MS: "2000" };
const LIVES_MS = [1_500, 900, 2_500, 1_200];

describe("items that are told while masters are killed", () => {
  const cluster = new Cluster();
  let site: GraphSite;
  let receiver: WebhookReceiver;
  let masters: Master[];

  beforeAll(async () => {
    site = await GraphSite.start({ pages: PAGES, hosts: 10, links: 20, delayMs: 60 });
    receiver = await WebhookReceiver.start();
    const started = Array.from({ length: MASTERS }, () => cluster.master(QUICK));
    masters = await Promise.all(started);
    await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
  });

  afterAll(async () => {
    await cluster.stop();
    await receiver.stop();
    await site.stop();
  });

  it("each arrive, at the queue and at a webhook that fails now and then, and none is missing", async () => {
    const connection = await connect(cluster.amqpUrl);
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, `${cluster.namespace}.items`, "#");
    const heard: string[] = [];
    await channel.consume(queue, (message) => void heard.push(String(message?.properties.messageId)), {
      noAck: true,
    });
    // What it answers with an error it has not taken.
    const taken: string[] = [];
    receiver.answer("/hook", ({ body }, before, response) => {
      if (before % 5 === 3) {
        if (before % 2 === 0) response.writeHead(503).end();
        else response.destroy();
        return;
      }
      taken.push(...body.data.items.map(({ id }: { id: string }) => id));
      response.writeHead(204).end();
    });
    const [first] = masters;
    if (first === undefined) throw new Error("there is no master");
    const { id } = await api(first).createCrawl({
      spider: "links",
      scope: "any",
      seeds: [site.seed],
      politeness: { obeyRobots: false },
      items: { publish: true, webhooks: [{ url: receiver.url("/hook"), secret: "a secret of mine" }] },
    });

    // One after the other, so that whoever is on duty is among them again and again.
    for (const [index, lifeMs] of LIVES_MS.entries()) {
      await new Promise((resolve) => setTimeout(resolve, lifeMs));
      await masters[index % MASTERS]?.end("SIGKILL");
      masters[index % MASTERS] = await cluster.master(QUICK);
    }
    const last = masters.at(-1);
    if (last === undefined) throw new Error("there is no master");
    await api(last).crawlOnce(id, "finished", 200_000);
    const ids = (await api(last).items(id)).map((item) => String(item.id));
    const missing = (got: readonly string[]) => ids.filter((one) => !new Set(got).has(one)).length;
    await until("all came to the queue", async () => missing(heard) === 0, last, 60_000);
    await until("all came to the webhook", async () => missing(taken) === 0, last, 120_000);
    await connection.close();

    expect(ids).toHaveLength(PAGES);
    expect(receiver.to("/hook").every(({ headers }) => headers["webhook-signature"] !== undefined)).toBe(
      true,
    );
    await until(
      "nothing waits any more",
      async () => (await api(last).list(`/api/v1/deliveries?state=waiting&crawl=${id}`)).length === 0,
      last,
    );
    // Repeats are few: no more than what was under way when somebody died.
    expect(heard.length).toBeLessThan(PAGES + LIVES_MS.length * 400);
  });
});
