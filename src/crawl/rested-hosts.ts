import { LRUCache } from "lru-cache";
import type { Clock } from "../lib/clock.js";
import type { Outcome } from "./outcome.js";
import type { Task } from "./task.js";

/** Hosts that asked to be left alone of which is known until when. */
const MAX_HOSTS = 10_000;

/** Hosts that asked to be left alone: what was dispatched before that was known is not begun. */
export class RestedHosts {
  readonly #clock: Pick<Clock, "now">;
  readonly #restUntil = new LRUCache<string, number>({ max: MAX_HOSTS });

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  /** No fetch of the host is begun before an instant, in ms since the epoch. */
  leaveAlone(host: string, until: number): void {
    this.#restUntil.set(host, Math.max(until, this.#restUntil.get(host) ?? until));
  }

  /** What becomes of a task whose host is not to be asked, or not now; undefined of any other. */
  reprieveOf({ givenUp, host }: Pick<Task, "givenUp" | "host">): Outcome | undefined {
    const now = this.#clock.now();
    const untried = { endedAt: now, untouched: true, counts: false } as const;
    if (givenUp !== undefined) return { ...untried, state: "failed", reason: "network", error: givenUp };
    const until = this.#restUntil.get(host);
    if (until === undefined) return undefined;
    if (until > now)
      return { ...untried, state: "queued", reason: "its host asked to be left alone", readyAt: until };
    this.#restUntil.delete(host);
    return undefined;
  }
}
