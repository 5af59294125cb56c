import { randomUUID } from "node:crypto";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { connect } from "amqplib";
import {
  ARGS,
  CALL_TIMEOUT_MS,
  COMMAND,
  checkResult,
  MASTER_PREFETCH,
  NODE,
  RESULT,
  TASK,
  TASK_PREFETCH,
} from "./bus-load.mjs";

const JSON_TYPE = "application/json";
const DIRECT_REPLY_TO = "amq.rabbitmq.reply-to";

/**
 * The bare loop: amqplib and nothing else. One connection for each party, on it one confirm channel that
 * publishes and one channel for each queue that is consumed; no reconnecting, time-outs, schemas, bounds,
 * metrics or returned messages. Queues and exchanges are declared by the bus's own code, so that their arguments
 * are the same.
 */
class Program {
  #connections = [];

  constructor({ dist, url, namespace }) {
    this.dist = dist;
    this.url = url;
    this.namespace = namespace;
  }

  async declare() {
    const file = path.join(this.dist, "bus", "topology.js");
    const { declareTopology, Names, TOPOLOGY_DEFAULTS } = await import(pathToFileURL(file).href);
    this.names = new Names(this.namespace);
    const connection = await this.connect();
    await declareTopology(await connection.createChannel(), this.names, TOPOLOGY_DEFAULTS);
  }

  async connect() {
    const connection = await connect(this.url, { noDelay: true });
    this.#connections.push(connection);
    return connection;
  }

  async close() {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }
}

export class Server extends Program {
  #taken = 0;
  #wanted = 0;
  #onTaken = () => {};

  async open({ nodes }) {
    await this.declare();
    for (let index = 0; index < nodes; index += 1) {
      const node = `node-${index}`;
      const connection = await this.connect();
      await this.#serveNode(connection, node);
      if (node === NODE) await this.#consumeTasks(connection);
    }
    await this.#serveMaster(await this.connect());
  }

  /** Resolves with the instant at which so many tasks more were taken and acknowledged. */
  take(count) {
    this.#taken = 0;
    this.#wanted = count;
    return new Promise((resolve) => {
      this.#onTaken = resolve;
    });
  }

  async #serveNode(connection, node) {
    const channel = await connection.createChannel();
    const answering = await connection.createConfirmChannel();
    await channel.assertExchange(this.names.node(node), "direct", { durable: true });
    const { queue } = await channel.assertQueue("", { exclusive: true, durable: false });
    await channel.bindQueue(queue, this.names.node(node), "command");
    await channel.bindQueue(queue, this.names.broadcast(), "");
    await channel.consume(queue, (message) => answer(answering, message, { "x-node": node }), {
      noAck: true,
    });
  }

  async #serveMaster(connection) {
    const channel = await connection.createChannel();
    const answering = await connection.createConfirmChannel();
    await channel.prefetch(MASTER_PREFETCH);
    await channel.consume(this.names.master(), (message) => {
      answer(answering, message, { "x-master": "master" }, () => channel.ack(message));
    });
  }

  async #consumeTasks(connection) {
    const channel = await connection.createChannel();
    await channel.prefetch(TASK_PREFETCH);
    await channel.consume(this.names.tasks(), (message) => {
      channel.ack(message);
      this.#taken += 1;
      if (this.#taken === this.#wanted) this.#onTaken(process.hrtime.bigint());
    });
  }
}

function answer(channel, message, headers, onConfirmed = () => {}) {
  const { type } = JSON.parse(message.content.toString());
  if (type !== COMMAND) throw new Error(`a strange command: ${type}`);
  const { replyTo, correlationId } = message.properties;
  const body = Buffer.from(JSON.stringify({ ok: true, result: RESULT }));
  const properties = { contentType: JSON_TYPE, correlationId, headers };
  channel.publish("", replyTo, body, properties, (error) => {
    if (error) throw error;
    onConfirmed();
  });
}

export class Caller extends Program {
  #publishing;
  #replyQueue;
  /** By correlation id: called with each answer. */
  #waiting = new Map();
  #nodes = 0;

  async open({ nodes }) {
    this.#nodes = nodes;
    await this.declare();
    const connection = await this.connect();
    const replies = await connection.createChannel();
    ({ queue: this.#replyQueue } = await replies.assertQueue("", { exclusive: true, durable: false }));
    const take = (message) => this.#waiting.get(message.properties.correlationId)(message);
    await replies.consume(this.#replyQueue, take, { noAck: true });
    this.#publishing = await connection.createConfirmChannel();
    // A direct reply comes back on the channel on which its request went out.
    await this.#publishing.consume(DIRECT_REPLY_TO, take, { noAck: true });
  }

  operations = {
    call: () => this.#call(this.names.node(NODE), "command", this.#replyQueue),
    directCall: () => this.#call(this.names.node(NODE), "command", DIRECT_REPLY_TO),
    masterCall: () => this.#call("", this.names.master(), this.#replyQueue),
    broadcast: () => this.#call(this.names.broadcast(), "", this.#replyQueue, this.#nodes),
    task: () => {
      const properties = { persistent: true, mandatory: true, contentType: JSON_TYPE };
      return new Promise((resolve, reject) => {
        this.#publishing.publish("", this.names.tasks(), Buffer.from(TASK), properties, (error) =>
          error ? reject(error) : resolve(),
        );
      });
    },
  };

  /** Resolves when so many answers have come. */
  #call(exchange, routingKey, replyTo, answers = 1) {
    return new Promise((resolve) => {
      const correlationId = randomUUID();
      let missing = answers;
      this.#waiting.set(correlationId, (message) => {
        const { result } = JSON.parse(message.content.toString());
        checkResult(result);
        missing -= 1;
        if (missing > 0) return;
        this.#waiting.delete(correlationId);
        resolve();
      });
      const body = Buffer.from(JSON.stringify({ type: COMMAND, args: ARGS }));
      const properties = {
        ...{ contentType: JSON_TYPE, correlationId, replyTo },
        ...{ expiration: String(CALL_TIMEOUT_MS), mandatory: answers === 1 },
      };
      this.#publishing.publish(exchange, routingKey, body, properties, (error) => {
        if (error) throw error;
      });
    });
  }
}
