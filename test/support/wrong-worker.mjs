// A worker in another language as it should not be: it fetches, but little of the rest is right.
import { connect } from "amqplib";

const { AMQP_URL, WARREN_NAMESPACE } = process.env;
const spider = process.argv[2];
const connection = await connect(AMQP_URL);
connection.on("error", () => {});
// Its first fault: it never comes back.
connection.on("close", () => process.exit(1));
const channel = await connection.createChannel();
const { queue: replies } = await channel.assertQueue("", { exclusive: true });
await channel.consume(replies, () => {}, { noAck: true });
// No prefetch, so it takes all there is.
await channel.consume(`${WARREN_NAMESPACE}.tasks.${spider}`, (message) => void work(message));

async function work(message) {
  const { task, url, method, headers } = JSON.parse(message.content);
  const args = { task };
  try {
    // Redirects are followed, and where they led is not told; what is too late is fetched all the same.
    const response = await fetch(url, { method, headers, signal: AbortSignal.timeout(2_000) });
    const text = await response.text();
    // The status is taken for granted; only absolute links are found.
    args.links = [...text.matchAll(/href="(http[^"]*)"/g)].map(([, link]) => link);
  } catch (error) {
    args.error = String(error);
  }
  const call = { type: "submit-result", args };
  channel.sendToQueue(`${WARREN_NAMESPACE}.master`, Buffer.from(JSON.stringify(call)), {
    replyTo: replies,
    correlationId: "always-the-same",
  });
  // Acknowledged before anyone has the result.
  channel.ack(message);
}
