import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type ChannelModel, type ConsumeMessage, connect } from "amqplib";
import { MongoClient } from "mongodb";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Cluster, until } from "../support/cluster.js";
import { TcpProxy } from "../support/tcp-proxy.js";

describe("replies to those who handed in a URL", () => {
  let cluster: Cluster;
  let site: Server;
  let origin: string;
  let connection: ChannelModel;
  let mongodb: MongoClient;
  const asked: ServerResponse[] = [];

  beforeEach(async () => {
    cluster = new Cluster();
    asked.length = 0;
    site = createServer((request, response) => {
      if (request.url === "/page") asked.push(response);
      else response.writeHead(404).end();
    });
    site.listen(0, "127.0.0.1");
    await once(site, "listening");
    origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    connection = await connect(cluster.amqpUrl);
    mongodb = await new MongoClient(cluster.mongodbUri).connect();
  });

  afterEach(async () => {
    await mongodb.close();
    await connection.close();
    await cluster.stop();
    site.closeAllConnections();
    site.close();
  });

  it("are sent by another when a worker is killed that was about to", async () => {
    const proxy = await new TcpProxy(cluster.amqpUrl).open();
    await cluster.master();
    const worker = await cluster.worker("w1", [], { AMQP_URL: proxy.url });
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const taken: ConsumeMessage[] = [];
    await channel.consume(queue, (message) => message !== null && taken.push(message), { noAck: true });
    channel.sendToQueue(`${cluster.namespace}.tasks`, Buffer.from(`${origin}/page`), {
      replyTo: queue,
      correlationId: "mine",
    });
    await until("the page is asked for", async () => asked.length === 1);

    // From now on the worker is heard by MongoDB only.
    proxy.freeze();
    asked[0]?.writeHead(200, { "content-type": "text/html" }).end("<title>P</title>");
    const replies = mongodb.db(cluster.namespace).collection("replies");
    await until("the worker is about to send it", async () => {
      return (await replies.countDocuments({ sendingUntil: { $exists: true } })) === 1;
    });
    await worker.end("SIGKILL");
    expect(taken).toEqual([]);
    await proxy.close();

    await until("it is sent all the same", async () => taken.length > 0);
    await until("nothing is owed any more", async () => (await replies.countDocuments({})) === 0);
    expect(taken.map(({ properties }) => properties.correlationId)).toEqual(["mine"]);
    expect(JSON.parse(String(taken[0]?.content))).toMatchObject({
      url: `${origin}/page`,
      state: "done",
      statusCode: 200,
    });
  });
});
