import { type Channel, type ChannelModel, type ConsumeMessage, connect } from "amqplib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BrokerUsers } from "../support/broker-users.js";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const PAGES = 40;

describe("a cluster in which everyone has the rights of their role alone", () => {
  let cluster: Cluster;
  let users: BrokerUsers;
  let site: GraphSite;
  let master: Master;
  let worker: Member;
  const connections: ChannelModel[] = [];

  beforeAll(async () => {
    const { namespace } = new Cluster();
    users = await BrokerUsers.open(namespace);
    cluster = new Cluster({ amqpUrl: users.brokerUrl, namespace });
    await users.make();
    await users.make("--role", "worker", "--node", "w1");
    site = await GraphSite.start({ pages: PAGES, hosts: 2, links: 5 });
    // The worker comes first, and finds nothing on the broker.
    const starting = cluster.worker("w1", [], { AMQP_URL: users.urlFor("worker-w1") });
    await until("the worker waits", async () => {
      return cluster.members[0]?.output().includes("waiting for a master") === true;
    });
    master = await cluster.master({ AMQP_URL: users.urlFor("master") });
    worker = await starting;
  });

  afterAll(async () => {
    await Promise.all(connections.map((connection) => connection.close()));
    await cluster?.stop();
    await users?.dispose();
    await site?.stop();
  });

  async function channelOf(
    user: string,
  ): Promise<{ channel: Channel; queue: string; messages: ConsumeMessage[] }> {
    const connection = await connect(users.urlFor(user));
    connections.push(connection);
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const messages: ConsumeMessage[] = [];
    await channel.consume(queue, (message) => void (message !== null && messages.push(message)), {
      noAck: true,
    });
    return { channel, queue, messages };
  }

  it("crawls, commands its nodes, answers publishers and tells observers", async () => {
    const observer = await channelOf("observer");
    await observer.channel.bindQueue(observer.queue, `${cluster.namespace}.events`, "#");
    const client = api(master);
    const { id } = await client.createCrawl({
      spider: "links",
      scope: "any",
      seeds: [site.seed],
      politeness: { obeyRobots: false },
    });
    const publisher = await channelOf("publisher");
    const task = { replyTo: publisher.queue, correlationId: "a task" };
    publisher.channel.sendToQueue(`${cluster.namespace}.tasks`, Buffer.from(`${site.seed}?outside`), task);
    publisher.channel.sendToQueue(`${cluster.namespace}.tasks`, Buffer.from("no URL"), task);
    await until("the crawl is finished", async () => (await client.crawl(id)).status === "finished", worker);
    await until("the publisher has its answers", async () => publisher.messages.length === 2, worker);
    await until("the observer was told", async () => {
      return observer.messages.some(({ fields }) => fields.routingKey === "crawl.finished");
    });
    const response = await fetch(`${master.url}/api/v1/nodes/w1/pause`, { method: "POST" });
    expect([response.status, await response.text()]).toEqual([200, expect.stringContaining("w1")]);
    expect(await worker.end()).toBe(0);
    for (const member of cluster.members) expect(member.output()).not.toMatch(/REFUSED|a channel was closed/);
  });
});
