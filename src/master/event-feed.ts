import type { BusEvent, EventHandler, Events, Unsubscribe } from "../bus/index.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";

type Listener = { readonly pattern: string; readonly handler: EventHandler };

/**
 * All events of the cluster, for everyone in this master who wants some: one subscription and one parsing,
 * however many listen. Listeners are called at once and in turn, so they must only take note.
 */
export class EventFeed implements Service {
  readonly name = "event feed";
  readonly #events: Events;
  readonly #logger: Logger;
  readonly #listeners = new Set<Listener>();
  #unsubscribe: Unsubscribe | undefined;

  constructor(parts: { readonly events: Events; readonly logger: Logger }) {
    this.#events = parts.events;
    this.#logger = parts.logger;
  }

  async start(): Promise<void> {
    this.#unsubscribe = await this.#events.subscribe(["#"], (events) => this.#deliver(events));
  }

  async stop(): Promise<void> {
    const unsubscribe = this.#unsubscribe;
    this.#unsubscribe = undefined;
    await unsubscribe?.();
  }

  /**
   * Listens, until the returned function is called.
   * @param pattern a type; or `task.` (or `task.*`) for all that begin so; or `#` for all
   */
  on(pattern: string, handler: EventHandler): () => void {
    const listener = { pattern, handler };
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #deliver(events: readonly BusEvent[]): void {
    const [first] = events;
    if (first === undefined) return;
    const isUniform = events.every(({ type }) => type === first.type);
    for (const { pattern, handler } of this.#listeners) {
      const wanted = isUniform
        ? matchesType(pattern, first.type)
          ? events
          : []
        : events.filter(({ type }) => matchesType(pattern, type));
      if (wanted.length === 0) continue;
      try {
        handler(wanted);
      } catch (error) {
        this.#logger.error({ err: error, pattern }, "a listener to events failed");
      }
    }
  }
}

/** Whether a type is one of those that a pattern means. */
export function matchesType(pattern: string, type: string): boolean {
  if (pattern === "#" || pattern === type) return true;
  const prefix = pattern.endsWith(".*") ? pattern.slice(0, -1) : pattern;
  return prefix.endsWith(".") && type.startsWith(prefix);
}
