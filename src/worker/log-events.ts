import type { Events } from "../bus/index.js";
import type { Clock } from "../lib/clock.js";
import type { LogRing } from "../lib/log-ring.js";
import { LOG_EVENT_LEVELS } from "../protocol/index.js";

/** Lines told in a second at most: what logs about events that cannot be sent must not make more of them. */
const MOST_A_SECOND = 50;

const STARTS = LOG_EVENT_LEVELS.map((level) => `{"level":"${level}"`);

/** Tells everyone what this process logs, under `log.<level>`. */
export class LogEvents {
  readonly #log: LogRing;
  readonly #events: Pick<Events, "publish">;
  readonly #node: string;
  readonly #clock: Clock;
  #second = 0;
  #told = 0;
  #dropped = 0;
  #unfollow: () => void = () => {};

  constructor(parts: {
    readonly log: LogRing;
    readonly events: Pick<Events, "publish">;
    readonly node: string;
    readonly clock: Clock;
  }) {
    this.#log = parts.log;
    this.#events = parts.events;
    this.#node = parts.node;
    this.#clock = parts.clock;
  }

  begin(): void {
    this.#unfollow = this.#log.follow((line) => this.#tell(line));
  }

  end(): void {
    this.#unfollow();
  }

  #tell(line: string): void {
    // Most lines that are written are below these levels, and need not be parsed.
    if (!STARTS.some((start) => line.startsWith(start))) return;
    const second = Math.floor(this.#clock.monotonic() / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#told = 0;
    }
    if (this.#told >= MOST_A_SECOND) {
      this.#dropped += 1;
      return;
    }
    this.#told += 1;
    const {
      level,
      time,
      crawl,
      role: _role,
      node: _node,
      ...said
    }: Record<string, unknown> = JSON.parse(line);
    const type = `log.${String(level)}`;
    const data = { ...said, ...(this.#dropped > 0 && { dropped: this.#dropped }) };
    this.#dropped = 0;
    const of = typeof crawl === "string" && crawl.length <= 200 ? { crawl } : {};
    this.#events.publish(type, [{ type, at: String(time), ...of, node: this.#node, data }]);
  }
}
