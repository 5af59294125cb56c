// Makes a crawl and prints what happens in it until it is over.
import { randomUUID } from "node:crypto";
import { PassThrough } from "node:stream";
import { connect } from "amqplib";

const {
  AMQP_URL = "amqp://guest:guest@127.0.0.1:5672",
  WARREN_NAMESPACE = "warren",
  TIMEOUT_S = "60",
} = process.env;
const TIMEOUT_MS = Number(TIMEOUT_S) * 1000;
const MASTERS = `${WARREN_NAMESPACE}.master`;
const EVENTS = `${WARREN_NAMESPACE}.events`;

async function follow(spider, seeds) {
  const connection = await connect(AMQP_URL);
  try {
    const channel = await connection.createChannel();
    channel.on("error", () => {}); // what was asked of the channel rejects as well
    // Bound before there is a crawl, so that its first events wait here until its id is known.
    const { queue } = await channel.assertQueue("", { exclusive: true, maxLength: 10_000 });
    for (const key of ["crawl.*", "task.*"]) await channel.bindQueue(queue, EVENTS, key);

    const { id } = await callMaster(channel, "create-crawl", { spider, seeds });
    console.log("crawl", id);

    const told = new PassThrough({ objectMode: true });
    await channel.consume(queue, ({ content }) => told.write(JSON.parse(content)), { noAck: true });
    const silence = setTimeout(() => {
      told.destroy(new Error(`nothing heard for ${TIMEOUT_S} s`));
    }, TIMEOUT_MS).unref();
    for await (const events of told) {
      silence.refresh();
      for (const { type, crawl, data } of [events].flat()) {
        if (crawl !== id) continue;
        console.log(type, JSON.stringify(data));
        if (type === "crawl.finished" || type === "crawl.closed") return;
      }
    }
  } finally {
    await connection.close();
  }
}

/** Resolves with what a master makes of a call. */
async function callMaster(channel, type, args) {
  const { queue: replies } = await channel.assertQueue("", { exclusive: true });
  const id = randomUUID();
  const answer = new Promise((resolve, reject) => {
    // The only one: the queue is new, and one call is made.
    channel.consume(replies, ({ content }) => resolve(JSON.parse(content)), { noAck: true }).catch(reject);
    channel.on("return", () => {
      reject(new Error(`there is no queue ${MASTERS}; does Warren run on this broker, in this namespace?`));
    });
    setTimeout(() => reject(new Error(`no master answered within ${TIMEOUT_S} s`)), TIMEOUT_MS).unref();
  });
  channel.sendToQueue(MASTERS, Buffer.from(JSON.stringify({ type, args })), {
    contentType: "application/json",
    replyTo: replies,
    correlationId: id,
    messageId: id, // should the call be carried out twice, this makes it one crawl all the same
    expiration: TIMEOUT_MS,
    mandatory: true,
  });
  const { ok, result, error } = await answer;
  if (!ok) throw new Error(`${error.code}: ${error.message}`);
  return result;
}

const [spider, ...seeds] = process.argv.slice(2);
if (seeds.length === 0) {
  console.error("usage: node crawl.js SPIDER URL...");
  process.exit(2);
}
follow(spider, seeds).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
