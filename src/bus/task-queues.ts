import type { Channel } from "amqplib";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import type { Publisher } from "./publisher.js";
import { declareTaskQueue, type Names, type TopologyOptions } from "./topology.js";
import { type Unsettled, WorkQueue } from "./work-queue.js";

export type TaskQueuesParts = {
  readonly names: Names;
  /** The queue of a key. */
  readonly nameOf: (key: string) => string;
  /** Time after which a queue goes that nobody takes from and no master declares, in milliseconds. @default never */
  readonly expiresMs?: number;
  readonly publisher: Publisher;
  readonly consuming: SupervisedConnection;
  readonly topology: TopologyOptions;
  /** What was taken of any queue and is not settled. */
  readonly unsettled: WeakMap<AbortSignal, Unsettled>;
};

/**
 * Queues of tasks that are not for any worker, by some key: for spiders whose pages are not read by Warren's own
 * workers, or for nodes that crawls have selected. Masters declare them; who takes from them only consumes. A queue that
 * was opened here is declared with everything else whenever the connection comes back, until it is dropped.
 */
export class TaskQueues {
  readonly #parts: TaskQueuesParts;
  readonly #inspecting: SupervisedChannel;
  readonly #queues = new Map<string, WorkQueue>();

  constructor(parts: TaskQueuesParts) {
    this.#parts = parts;
    this.#inspecting = parts.consuming.channel("task queues", async () => {});
  }

  /** The queue of a key, if it was opened here. */
  get(key: string): WorkQueue | undefined {
    return this.#queues.get(key);
  }

  /** The queue of a key, which a master declares. */
  at(key: string): WorkQueue {
    const { nameOf, publisher, consuming, unsettled } = this.#parts;
    return new WorkQueue(nameOf(key), { publisher, consuming, inspecting: this.#inspecting, unsettled });
  }

  /** Declares the queue of a key. @throws when RabbitMQ is away: it is declared when that comes back */
  async open(key: string): Promise<WorkQueue> {
    const known = this.#queues.get(key);
    if (known !== undefined) return known;
    const queue = this.at(key);
    this.#queues.set(key, queue);
    await this.#declare(this.#channel(), key);
    return queue;
  }

  /** Removes the queue of a key, with what waits in it. @throws when RabbitMQ is away */
  async drop(key: string): Promise<void> {
    this.#queues.delete(key);
    await this.#channel().deleteQueue(this.#parts.nameOf(key));
  }

  /** Forgets the queue of a key that another process dropped, or that is not needed here. */
  forget(key: string): void {
    this.#queues.delete(key);
  }

  /** Declares all that were opened here. */
  async declareOn(channel: Channel): Promise<void> {
    for (const key of this.#queues.keys()) await this.#declare(channel, key);
  }

  async #declare(channel: Channel, key: string): Promise<void> {
    const { nameOf, names, topology, expiresMs } = this.#parts;
    await declareTaskQueue(channel, nameOf(key), names, topology, expiresMs);
  }

  #channel(): Channel {
    const open = this.#inspecting.current;
    if (open === undefined) throw new Error("RabbitMQ is away");
    return open.channel;
  }
}
