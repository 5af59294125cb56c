/** Values ordered by the instant at which they fall due: a binary heap, so that 100,000 lanes can wait. */
export class DueQueue<T> {
  readonly #heap: { dueAt: number; value: T }[] = [];

  get size(): number {
    return this.#heap.length;
  }

  /** The earliest instant, or undefined when nothing waits. */
  get nextDueAt(): number | undefined {
    return this.#heap[0]?.dueAt;
  }

  push(dueAt: number, value: T): void {
    const heap = this.#heap;
    let index = heap.length;
    const entry = { dueAt, value };
    heap.push(entry);
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = heap[parentIndex];
      if (parent === undefined || parent.dueAt <= dueAt) break;
      heap[index] = parent;
      index = parentIndex;
    }
    heap[index] = entry;
  }

  /** Takes the earliest value if it is due, else returns undefined. */
  takeDue(now: number): T | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.dueAt > now) return undefined;
    const last = heap.pop();
    if (last !== undefined && heap.length > 0) this.#sink(last);
    return first.value;
  }

  #sink(entry: { dueAt: number; value: T }): void {
    const heap = this.#heap;
    let index = 0;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = heap[childIndex];
      if (child === undefined) break;
      const sibling = heap[childIndex + 1];
      if (sibling !== undefined && sibling.dueAt < child.dueAt) {
        child = sibling;
        childIndex += 1;
      }
      if (entry.dueAt <= child.dueAt) break;
      heap[index] = child;
      index = childIndex;
    }
    heap[index] = entry;
  }
}
