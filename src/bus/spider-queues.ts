import type { Channel } from "amqplib";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import type { Publisher } from "./publisher.js";
import { declareTaskQueue, type Names, type TopologyOptions } from "./topology.js";
import { WorkQueue } from "./work-queue.js";

/**
 * The queues of tasks whose pages are not read by Warren's own workers, one for each such spider. Masters
 * declare them; who takes from them only consumes. A queue that was opened here is declared with everything
 * else whenever the connection comes back, until it is dropped.
 */
export class SpiderQueues {
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #consuming: SupervisedConnection;
  readonly #topology: TopologyOptions;
  readonly #inspecting: SupervisedChannel;
  readonly #queues = new Map<string, WorkQueue>();

  constructor(parts: {
    readonly names: Names;
    readonly publisher: Publisher;
    readonly consuming: SupervisedConnection;
    readonly topology: TopologyOptions;
  }) {
    this.#names = parts.names;
    this.#publisher = parts.publisher;
    this.#consuming = parts.consuming;
    this.#topology = parts.topology;
    this.#inspecting = parts.consuming.channel("spiders' queues", async () => {});
  }

  /** The queue of a spider, if it was opened here. */
  get(spider: string): WorkQueue | undefined {
    return this.#queues.get(spider);
  }

  /** Declares the queue of a spider. @throws when RabbitMQ is away: it is declared when that comes back */
  async open(spider: string): Promise<WorkQueue> {
    const known = this.#queues.get(spider);
    if (known !== undefined) return known;
    const name = this.#names.tasksOf(spider);
    const queue = new WorkQueue(name, this.#publisher, this.#consuming, this.#inspecting);
    this.#queues.set(spider, queue);
    await declareTaskQueue(this.#channel(), name, this.#names, this.#topology);
    return queue;
  }

  /** Removes the queue of a spider, with what waits in it. @throws when RabbitMQ is away */
  async drop(spider: string): Promise<void> {
    this.#queues.delete(spider);
    await this.#channel().deleteQueue(this.#names.tasksOf(spider));
  }

  /** Forgets the queue of a spider that another process dropped. */
  forget(spider: string): void {
    this.#queues.delete(spider);
  }

  /** Declares all that were opened here. */
  async declareOn(channel: Channel): Promise<void> {
    for (const spider of this.#queues.keys()) {
      await declareTaskQueue(channel, this.#names.tasksOf(spider), this.#names, this.#topology);
    }
  }

  #channel(): Channel {
    const open = this.#inspecting.current;
    if (open === undefined) throw new Error("RabbitMQ is away");
    return open.channel;
  }
}
