import { Fifo } from "./fifo.js";

/**
 * Tasks that wait for a free place in a worker: crawls take turns, and those of one crawl leave in the order in which they
 * came. So the first task of a crawl is not behind all that another has sent ahead.
 */
export class TaskRound<Waiting extends { readonly task: { readonly crawl: string } }> {
  /** By crawl, the one whose turn is next first. */
  readonly #byCrawl = new Map<string, Fifo<Waiting>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(waiting: Waiting): void {
    const { crawl } = waiting.task;
    let queue = this.#byCrawl.get(crawl);
    if (queue === undefined) {
      queue = new Fifo();
      this.#byCrawl.set(crawl, queue);
    }
    queue.push(waiting);
    this.#size += 1;
  }

  shift(): Waiting | undefined {
    for (const [crawl, queue] of this.#byCrawl) {
      const next = queue.shift();
      if (this.#byCrawl.size > 1 || queue.size === 0) this.#byCrawl.delete(crawl);
      if (queue.size > 0) this.#byCrawl.set(crawl, queue);
      if (next === undefined) continue;
      this.#size -= 1;
      return next;
    }
    return undefined;
  }

  /** Takes out all that are meant. */
  remove(isMeant: (waiting: Waiting) => boolean): readonly Waiting[] {
    const removed: Waiting[] = [];
    for (const [crawl, queue] of this.#byCrawl) {
      for (let left = queue.size; left > 0; left -= 1) {
        const waiting = queue.shift();
        if (waiting === undefined) break;
        if (isMeant(waiting)) removed.push(waiting);
        else queue.push(waiting);
      }
      if (queue.size === 0) this.#byCrawl.delete(crawl);
    }
    this.#size -= removed.length;
    return removed;
  }
}
