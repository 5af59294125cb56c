import type { Channel } from "amqplib";
import { ConfigError, messageOf } from "../lib/errors.js";

export type TopologyOptions = {
  /** Times a task may be given out without being acknowledged before it is a dead letter. @default 10 */
  readonly deliveryLimit: number;
  /** Messages in the task queue at most; beyond that the broker refuses more. @default 1_000_000 */
  readonly maxTasks: number;
  /** Messages kept in the queue of dead letters at most; the oldest go first. @default 10_000 */
  readonly maxDeadLetters: number;
};

export const TOPOLOGY_DEFAULTS: TopologyOptions = {
  deliveryLimit: 10,
  maxTasks: 1_000_000,
  maxDeadLetters: 10_000,
};

/** The names of everything on the broker, all under one prefix. */
export class Names {
  readonly #namespace: string;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  /** The durable work queue; reached through the default exchange. */
  readonly tasks = () => `${this.#namespace}.tasks`;
  /** The durable work queue of one spider's tasks, for workers that are not Warren's. */
  readonly tasksOf = (spider: string) => `${this.#namespace}.tasks.${spider}`;
  /** The work queue of tasks for nodes that crawls have selected, by a name for the selection. */
  readonly placed = (place: string) => `${this.#namespace}.placed.${place}`;
  /** Exchange and queue of what the broker itself gave up, on its way to the dead letters. */
  readonly rejected = () => `${this.#namespace}.rejected`;
  /** Exchange and queue of dead letters. */
  readonly dead = () => `${this.#namespace}.dead`;
  /** Exchange of events. */
  readonly events = () => `${this.#namespace}.events`;
  /** Exchange of items, for whoever binds a queue of theirs. */
  readonly items = () => `${this.#namespace}.items`;
  /** Exchange of commands to every node. */
  readonly broadcast = () => `${this.#namespace}.broadcast`;
  /** Exchange on which it is told that the caller of a master has given up. */
  readonly cancels = () => `${this.#namespace}.cancels`;
  /** Queue of calls that any master may answer. */
  readonly master = () => `${this.#namespace}.master`;
  /** Exchange of commands to one node; and the queue that exists while a process goes by that node's id. */
  readonly node = (id: string) => `${this.#namespace}.node.${id}`;
}

/**
 * Deliveries after which a message that is only kept for someone to look at would be given up: never, as far as
 * that can be said. 4.x would otherwise drop it when it has been looked at and put back twenty times.
 */
const NO_DELIVERY_LIMIT = 1_000_000_000;

/**
 * A queue of one channel, named by the broker. It goes with its consumer, not only with the connection: those of
 * channels that were closed would otherwise stay bound, and fill up with what nobody takes.
 */
export const OWN_QUEUE = { exclusive: true, durable: false, autoDelete: true } as const;

/** Key under which a node's exchange leads to its queue. */
export const COMMAND_KEY = "command";

/**
 * Everything that lasts on the broker, declared on every connect by masters, and by workers that may: declaring again
 * what is there is harmless, and a broker that lost it gets it back. The arguments are those that RabbitMQ
 * 3.10 and 4.x both take; a queue's arguments can never change, so neither may these without a new name.
 */
export async function declareTopology(
  channel: Channel,
  names: Names,
  options: TopologyOptions,
): Promise<void> {
  await channel.assertExchange(names.events(), "topic", { durable: true });
  await channel.assertExchange(names.items(), "topic", { durable: true });
  await channel.assertExchange(names.broadcast(), "fanout", { durable: true });
  await channel.assertExchange(names.cancels(), "fanout", { durable: true });
  await channel.assertExchange(names.dead(), "fanout", { durable: true });
  await channel.assertExchange(names.rejected(), "fanout", { durable: true });
  await declareTaskQueue(channel, names.tasks(), names, options);
  await channel.assertQueue(names.rejected(), {
    durable: true,
    arguments: { "x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT },
  });
  await channel.bindQueue(names.rejected(), names.rejected(), "");
  await channel.assertQueue(names.dead(), {
    durable: true,
    arguments: {
      "x-queue-type": "quorum",
      "x-delivery-limit": NO_DELIVERY_LIMIT,
      "x-max-length": options.maxDeadLetters,
    },
  });
  await channel.bindQueue(names.dead(), names.dead(), "");
  await declareHomed(channel, names.master());
}

/**
 * A durable classic queue lives on one member of a cluster. While that is away the broker refuses to declare it, and
 * closes the channel, hence the last place: all else works meanwhile, and the queue is there again with its member.
 */
async function declareHomed(channel: Channel, queue: string): Promise<void> {
  try {
    await channel.assertQueue(queue, { durable: true });
  } catch (error) {
    if (!/NOT[_-]FOUND.*is down or inaccessible/.test(messageOf(error))) throw error;
  }
}

/** A queue of tasks; see `declareTopology`. */
export async function declareTaskQueue(
  channel: Channel,
  queue: string,
  names: Names,
  options: TopologyOptions,
  expiresMs?: number,
): Promise<void> {
  await channel.assertQueue(queue, {
    durable: true,
    arguments: {
      "x-queue-type": "quorum",
      // 4.x would drop after 20 deliveries, 3.10 never: neither is what we want.
      "x-delivery-limit": options.deliveryLimit,
      "x-dead-letter-exchange": names.rejected(),
      // At least once needs an overflow that refuses rather than drops.
      "x-dead-letter-strategy": "at-least-once",
      "x-overflow": "reject-publish",
      "x-max-length": options.maxTasks,
      ...(expiresMs !== undefined && { "x-expires": expiresMs }),
    },
  });
}

/** Whether the broker said that the user has no right to do something. */
export function isRefused(error: unknown): boolean {
  return /ACCESS[_-]REFUSED/.test(messageOf(error));
}

/** The error for a declaration that the broker refused, as something that only its owner can mend. */
export function topologyError(error: unknown): ConfigError | undefined {
  const message = messageOf(error);
  if (isRefused(error)) {
    return new ConfigError(`AMQP_URL: the user may not declare Warren's queues and exchanges: ${message}`, {
      cause: error,
    });
  }
  if (!/PRECONDITION[_-]FAILED/.test(message)) return undefined;
  const setting = SETTING_OF_ARGUMENT.find(({ pattern }) => pattern.test(message))?.setting;
  if (setting !== undefined) {
    return new ConfigError(
      `${setting}: the queue is there with another value, which cannot be changed: ${message}. ` +
        "Set the current one, or remove the queue with what is in it, or use another WARREN_NAMESPACE",
      { cause: error },
    );
  }
  return new ConfigError(
    `a queue or exchange exists on the broker with other arguments than Warren's: ${message}. ` +
      "Remove it there, or use another WARREN_NAMESPACE",
    { cause: error },
  );
}

/** Which setting an argument of a queue comes from, told by how the broker complains of it. */
const SETTING_OF_ARGUMENT = [
  { pattern: /arg 'x-max-length' for queue '[^']*\.(tasks|placed)(\.[^']*)?'/, setting: "WARREN_MAX_TASKS" },
  {
    pattern: /arg 'x-delivery-limit' for queue '[^']*\.(tasks|placed)(\.[^']*)?'/,
    setting: "WARREN_DELIVERY_LIMIT",
  },
  { pattern: /arg 'x-max-length' for queue '[^']*\.dead'/, setting: "WARREN_MAX_DEAD_LETTERS" },
] as const;
