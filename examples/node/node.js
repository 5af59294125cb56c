// Calls a node and prints its answer. One that is not there is told at once.
import { connect } from "amqplib";

const {
  AMQP_URL = "amqp://guest:guest@127.0.0.1:5672",
  WARREN_NAMESPACE = "warren",
  TIMEOUT_S = "60",
} = process.env;
const TIMEOUT_MS = Number(TIMEOUT_S) * 1000;
const NOT_FOUND = 404;

async function call(node, type, args) {
  const connection = await connect(AMQP_URL);
  try {
    const channel = await connection.createChannel();
    const { queue: replies } = await channel.assertQueue("", { exclusive: true });
    const answer = new Promise((resolve, reject) => {
      // The only one: the queue is new, and one call is made.
      channel.consume(replies, ({ content }) => resolve(JSON.parse(content)), { noAck: true }).catch(reject);
      channel.on("return", () => reject(new Error(`node ${node} is not there`)));
      channel.on("error", (error) => {
        // A node that has been has an exchange; publishing to one that is missing costs the channel.
        reject(error.code === NOT_FOUND ? new Error(`there has never been a node ${node}`) : error);
      });
      setTimeout(
        () => reject(new Error(`node ${node} did not answer within ${TIMEOUT_S} s`)),
        TIMEOUT_MS,
      ).unref();
    });
    const body = Buffer.from(JSON.stringify({ type, args }));
    channel.publish(`${WARREN_NAMESPACE}.node.${node}`, "command", body, {
      contentType: "application/json",
      replyTo: replies,
      correlationId: "1",
      expiration: TIMEOUT_MS,
      mandatory: true,
    });
    const { ok, result, error } = await answer;
    if (!ok) throw new Error(`${error.code}: ${error.message}`);
    console.log(JSON.stringify(result));
  } finally {
    await connection.close();
  }
}

const [node, type, args = "{}"] = process.argv.slice(2);
if (type === undefined) {
  console.error(
    `usage: node node.js ID CALL [ARGS], for example: node node.js worker-1 set-config '{"concurrency": 4}'`,
  );
  process.exit(2);
}
call(node, type, JSON.parse(args)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
