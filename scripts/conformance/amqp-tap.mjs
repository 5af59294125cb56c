// A way to the broker on which it can be seen what a client does: AMQP 0-9-1 frames are read as they pass.
import { EventEmitter, once } from "node:events";
import { connect, createServer } from "node:net";

const METHOD = 1;
const BODY = 3;
const FRAME_OVERHEAD_BYTES = 8;
const PROTOCOL_HEADER_BYTES = 8;
/** Class `basic` (60), by the numbers of its methods. */
const BASIC = 60;
const SETTLING = { 80: "ack", 90: "reject", 120: "nack" };
const QOS = 10;
const CONSUME = 20;
const DELIVER = 60;

/**
 * Emits `delivered {body}` once a message has reached the client, `settled {how, body}` when the client acknowledges
 * or refuses one, and `consuming {queue, prefetch}`.
 */
export class AmqpTap extends EventEmitter {
  #server;
  #broker;
  #pairs = new Set();

  /** @param {string} amqpUrl of the broker, without TLS */
  constructor(amqpUrl) {
    super();
    this.#broker = new URL(amqpUrl);
  }

  /** @returns {Promise<string>} the URL for the client */
  async open() {
    this.#server = createServer((client) => this.#join(client));
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const url = new URL(this.#broker);
    url.hostname = "127.0.0.1";
    url.port = String(this.#server.address().port);
    return url.href;
  }

  /** Cuts all connections, as a broker that dies does. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  async close() {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #join(client) {
    const broker = connect(Number(this.#broker.port || 5672), this.#broker.hostname);
    const pair = [client, broker];
    this.#pairs.add(pair);
    /** What is going on, by channel. */
    const channels = new Map();
    const channelOf = (number) => {
      if (!channels.has(number))
        channels.set(number, { unsettled: new Map(), prefetch: 0, incoming: undefined });
      return channels.get(number);
    };
    const asked = frameReader(PROTOCOL_HEADER_BYTES, (frame) => this.#sent(frame, channelOf(frame.channel)));
    const told = frameReader(0, (frame) => this.#received(frame, channelOf(frame.channel)));
    client.on("data", asked).pipe(broker);
    broker.on("data", told).pipe(client);
    for (const socket of pair) {
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#pairs.delete(pair);
        for (const other of pair) other.destroy();
      });
    }
  }

  /** The client's side. */
  #sent({ type, payload }, channel) {
    if (type !== METHOD || payload.readUInt16BE(0) !== BASIC) return;
    const method = payload.readUInt16BE(2);
    if (method === QOS) channel.prefetch = payload.readUInt16BE(8);
    if (method === CONSUME) {
      const queue = payload.toString("utf8", 7, 7 + payload[6]);
      this.emit("consuming", { queue, prefetch: channel.prefetch });
    }
    const how = SETTLING[method];
    if (how === undefined) return;
    const tag = payload.readBigUInt64BE(4);
    const isMultiple = how !== "reject" && (payload[12] & 1) === 1;
    for (const [known, body] of channel.unsettled) {
      if (known !== tag && !(isMultiple && (tag === 0n || known < tag))) continue;
      channel.unsettled.delete(known);
      this.emit("settled", { how, body });
    }
  }

  /** The broker's side. */
  #received({ type, payload }, channel) {
    if (type === METHOD) {
      channel.incoming = undefined;
      if (payload.readUInt16BE(0) !== BASIC || payload.readUInt16BE(2) !== DELIVER) return;
      const tag = payload.readBigUInt64BE(5 + payload[4]);
      channel.incoming = { tag, parts: [] };
    } else if (type === BODY && channel.incoming !== undefined) {
      const { tag, parts } = channel.incoming;
      parts.push(payload);
      const body = Buffer.concat(parts).toString("utf8");
      channel.unsettled.set(tag, body);
      this.emit("delivered", { body });
    }
  }
}

/** Calls back for each whole frame of a stream that begins with so many bytes that are none. */
function frameReader(skipped, onFrame) {
  let rest = Buffer.alloc(0);
  let toSkip = skipped;
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    if (toSkip > 0) {
      const now = Math.min(toSkip, rest.length);
      rest = rest.subarray(now);
      toSkip -= now;
    }
    while (rest.length >= FRAME_OVERHEAD_BYTES) {
      const size = rest.readUInt32BE(3);
      if (rest.length < size + FRAME_OVERHEAD_BYTES) return;
      onFrame({ type: rest[0], channel: rest.readUInt16BE(1), payload: rest.subarray(7, 7 + size) });
      rest = rest.subarray(size + FRAME_OVERHEAD_BYTES);
    }
  };
}
