import { type Channel, connect } from "amqplib";

/** A channel of some program that is not Warren, on the broker of the test run. */
export async function openChannel(): Promise<{
  readonly channel: Channel;
  readonly close: () => Promise<void>;
}> {
  const { AMQP_URL } = process.env;
  if (AMQP_URL === undefined) throw new Error("AMQP_URL is not set: run these tests with `npm test`");
  const connection = await connect(AMQP_URL, { noDelay: true });
  const channel = await connection.createChannel();
  channel.on("error", () => {});
  return { channel, close: () => connection.close() };
}
