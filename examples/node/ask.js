// Hands URLs to Warren and prints, for each, the answer that tells how it ended.
import { randomUUID } from "node:crypto";
import { PassThrough } from "node:stream";
import { connect } from "amqplib";

const {
  AMQP_URL = "amqp://guest:guest@127.0.0.1:5672",
  WARREN_NAMESPACE = "warren",
  TIMEOUT_S = "60",
} = process.env;
const TASKS = `${WARREN_NAMESPACE}.tasks`;

async function ask(urls) {
  const connection = await connect(AMQP_URL);
  try {
    const channel = await connection.createConfirmChannel();
    const { queue: replies } = await channel.assertQueue("", { exclusive: true });
    const answers = new PassThrough({ objectMode: true });
    await channel.consume(replies, (answer) => answers.write(answer), { noAck: true });
    channel.on("return", ({ content }) => {
      const problem = `there is no queue ${TASKS}; does Warren run on this broker, in this namespace?`;
      answers.destroy(new Error(`${content}: ${problem}`));
    });

    const waiting = new Map(urls.map((url) => [randomUUID(), url]));
    for (const [correlationId, url] of waiting) {
      const options = { contentType: "text/plain", persistent: true, mandatory: true };
      const addressed = { ...options, replyTo: replies, correlationId };
      channel.sendToQueue(TASKS, Buffer.from(url), addressed, (error) => {
        if (error) answers.destroy(new Error(`${url}: the queue ${TASKS} did not take it; is it full?`));
      });
    }

    const silence = setTimeout(() => {
      const urls = [...waiting.values()].join(", ");
      answers.destroy(new Error(`no answer within ${TIMEOUT_S} s for ${urls}`));
    }, Number(TIMEOUT_S) * 1000).unref();
    for await (const { content, properties } of answers) {
      // An answer may come twice; the second is for nothing that waits.
      if (waiting.delete(properties.correlationId)) console.log(content.toString());
      if (waiting.size === 0) return;
      silence.refresh();
    }
  } finally {
    await connection.close();
  }
}

const urls = process.argv.slice(2);
if (urls.length === 0) {
  console.error("usage: node ask.js URL...");
  process.exit(2);
}
ask(urls).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
