// Hands URLs to Warren and says which the broker has taken.
import { connect } from "amqplib";

const { AMQP_URL = "amqp://guest:guest@127.0.0.1:5672", WARREN_NAMESPACE = "warren" } = process.env;
const TASKS = `${WARREN_NAMESPACE}.tasks`;

async function publish(urls) {
  const connection = await connect(AMQP_URL);
  try {
    const channel = await connection.createConfirmChannel();
    let isReturned = false;
    channel.on("return", () => {
      isReturned = true;
    });
    for (const url of urls) {
      channel.sendToQueue(TASKS, Buffer.from(url), {
        contentType: "text/plain",
        persistent: true,
        mandatory: true,
      });
      await channel.waitForConfirms().catch((error) => {
        throw new Error(`${url}: the queue ${TASKS} did not take it; is it full?`, { cause: error });
      });
      // It comes back before its confirmation, which a message that nobody takes gets as well.
      if (isReturned) {
        throw new Error(
          `${url}: there is no queue ${TASKS}; does Warren run on this broker, in this namespace?`,
        );
      }
      console.log("taken", url);
    }
  } finally {
    await connection.close();
  }
}

const urls = process.argv.slice(2);
if (urls.length === 0) {
  console.error("usage: node publish.js URL...");
  process.exit(2);
}
publish(urls).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
