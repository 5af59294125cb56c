import type { Consumer, TaskDelivery, TaskQueues, WorkQueue } from "../bus/index.js";
import { type NodeSelection, placeOf, takesPart } from "../crawl/node-selection.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";

export type TaskIntakeDeps = {
  /** This node's id. */
  readonly node: string;
  readonly tasks: WorkQueue;
  readonly placedQueues: Pick<TaskQueues, "at">;
  readonly crawls: { selections(): Promise<readonly NodeSelection[]> };
  readonly nodes: { labelsOf(id: string): Promise<Readonly<Record<string, string>>> };
  readonly clock: Clock;
  readonly logger: Logger;
};

/** How often it is looked for which crawls have selected this node, in milliseconds. */
const LOOK_MS = 1_000;

/** What is wanted of all consumers, those to come included. */
type Wanted = { prefetch: number; isPaused: boolean; handle: (delivery: TaskDelivery) => void };

/**
 * All queues from which this node takes tasks: the one for any node, and one for each selection of nodes that it is part of,
 * while a crawl with that selection runs. Together they are one consumer.
 */
export class TaskIntake implements Pick<WorkQueue, "consume"> {
  readonly #deps: TaskIntakeDeps;
  readonly #placed = new Map<string, Consumer>();
  #own: Consumer | undefined;
  #wanted: Wanted | undefined;
  #loop: Loop | undefined;

  constructor(deps: TaskIntakeDeps) {
    this.#deps = deps;
  }

  /** Takes messages of all of them from now on. To be called once. */
  async consume(options: { prefetch: number }, handle: (delivery: TaskDelivery) => void): Promise<Consumer> {
    const { tasks, clock, logger } = this.#deps;
    this.#wanted = { prefetch: options.prefetch, isPaused: false, handle };
    this.#own = await tasks.consume(options, handle);
    this.#loop = new Loop(LOOK_MS, clock, async () => {
      try {
        await this.#look();
      } catch (error) {
        logger.debug({ error: messageOf(error) }, "cannot tell which crawls have selected this node");
      }
    });
    void this.#loop.runNow();
    return this.#together(this.#wanted, this.#loop);
  }

  #together(wanted: Wanted, loop: Loop): Consumer {
    const each = async (change: (consumer: Consumer) => Promise<void>): Promise<void> => {
      const all = [...(this.#own === undefined ? [] : [this.#own]), ...this.#placed.values()];
      await Promise.all(all.map(change));
    };
    return {
      setPrefetch: (prefetch) => {
        wanted.prefetch = prefetch;
        return each((consumer) => consumer.setPrefetch(prefetch));
      },
      pause: () => {
        wanted.isPaused = true;
        return each((consumer) => consumer.pause());
      },
      resume: () => {
        wanted.isPaused = false;
        return each((consumer) => consumer.resume());
      },
      stop: async () => {
        await loop.stop();
        await each((consumer) => consumer.stop());
      },
    };
  }

  async #look(): Promise<void> {
    const { crawls, nodes, node } = this.#deps;
    const selections = await crawls.selections();
    const labels = selections.some((each) => each.labels !== undefined) ? await nodes.labelsOf(node) : {};
    const places = new Set<string>();
    for (const selection of selections) {
      const place = placeOf(selection);
      if (place !== undefined && takesPart(selection, { id: node, labels })) places.add(place);
    }
    for (const [place, consumer] of this.#placed) {
      if (places.has(place)) continue;
      this.#placed.delete(place);
      await consumer.stop();
    }
    for (const place of places) if (!this.#placed.has(place)) await this.#begin(place);
  }

  async #begin(place: string): Promise<void> {
    const { placedQueues, logger } = this.#deps;
    const wanted = this.#wanted;
    if (wanted === undefined) return;
    const queue = placedQueues.at(place);
    try {
      await queue.check();
    } catch {
      // A master declares it when it sees the crawl.
      return;
    }
    const consumer = await queue.consume({ prefetch: wanted.prefetch }, wanted.handle);
    this.#placed.set(place, consumer);
    // What was wanted meanwhile of all.
    await consumer.setPrefetch(wanted.prefetch);
    if (wanted.isPaused) await consumer.pause();
    logger.info({ place }, "takes tasks of crawls that have selected this node");
  }
}
