import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { SupervisedChannel, SupervisedConnection } from "./connection.js";
import { OWN_QUEUE } from "./topology.js";

/** A fact already true. */
export type BusEvent = {
  /** For example `task.completed`. */
  readonly type: string;
  /** ISO 8601. */
  readonly at: string;
  readonly crawl?: string;
  readonly node?: string;
  readonly data: Readonly<Record<string, unknown>>;
};

export type EventHandler = (events: readonly BusEvent[]) => void;
export type Unsubscribe = () => Promise<void>;

/** Messages that wait for a listener that is slow, at most; the oldest go first. */
const DEFAULT_MAX_LENGTH = 10_000;

/**
 * Events, for whoever listens. They never hold up work: when the bus is away or does not keep up they are
 * dropped and counted, and a slow listener loses the oldest.
 */
export class Events {
  readonly #exchange: string;
  readonly #publishing: SupervisedChannel;
  readonly #consuming: SupervisedConnection;
  readonly #logger: Logger;
  #isFull = false;
  #dropped = 0;
  #unreadable = 0;

  constructor(
    exchange: string,
    publishing: SupervisedConnection,
    consuming: SupervisedConnection,
    logger: Logger,
  ) {
    this.#exchange = exchange;
    this.#consuming = consuming;
    this.#logger = logger;
    this.#publishing = publishing.channel("events", async ({ channel }) => {
      this.#isFull = false;
      channel.on("drain", () => {
        this.#isFull = false;
      });
    });
  }

  /** Events that were not sent because there was no connection or no room, or that cannot be written as JSON. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Messages received that were no events. */
  get unreadable(): number {
    return this.#unreadable;
  }

  /** Tells of events, in one message under one key. */
  publish(key: string, events: readonly BusEvent[]): void {
    const open = this.#publishing.current;
    if (events.length === 0) return;
    if (open === undefined || this.#isFull) {
      this.#dropped += events.length;
      return;
    }
    try {
      const body = Buffer.from(JSON.stringify(events.length === 1 ? events[0] : events));
      this.#isFull = !open.channel.publish(this.#exchange, key, body, { contentType: "application/json" });
    } catch {
      this.#dropped += events.length;
    }
  }

  /**
   * Listens to events under these keys (`*` one word, `#` any number), over reconnects as well.
   * @param options.maxLength messages that wait at most; the oldest are dropped. @default 10_000
   */
  async subscribe(
    patterns: readonly string[],
    handle: EventHandler,
    options: { readonly maxLength?: number } = {},
  ): Promise<Unsubscribe> {
    const { maxLength = DEFAULT_MAX_LENGTH } = options;
    const channel = this.#consuming.channel("event subscription", async (open) => {
      const { queue } = await open.channel.assertQueue("", {
        ...OWN_QUEUE,
        arguments: { "x-max-length": maxLength },
      });
      await open.keep(async () => {
        for (const pattern of patterns) await open.channel.bindQueue(queue, this.#exchange, pattern);
      });
      await open.channel.consume(
        queue,
        (message) => {
          if (message === null) channel.renew();
          else this.#receive(message.content, handle);
        },
        { noAck: true },
      );
    });
    await channel.opened();
    return () => channel.close();
  }

  #receive(body: Buffer, handle: EventHandler): void {
    const events = parseEvents(body);
    if (events === undefined) {
      // Anyone may publish here; what is no event is nobody's business.
      this.#unreadable += 1;
      return;
    }
    try {
      handle(events);
    } catch (error) {
      this.#logger.error({ error: messageOf(error) }, "a listener to events failed");
    }
  }
}

/** The events in a message, one or an array of them; undefined when it holds anything else. */
function parseEvents(body: Buffer): readonly BusEvent[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
  const events: unknown[] = Array.isArray(value) ? value : [value];
  return events.every(isEvent) ? events : undefined;
}

/** By hand, not by a schema: every master does this for every URL. */
function isEvent(value: unknown): value is BusEvent {
  if (typeof value !== "object" || value === null) return false;
  const { type, at, crawl, node, data } = value as Record<keyof BusEvent, unknown>;
  return (
    isText(type) &&
    type !== "" &&
    isText(at) &&
    (crawl === undefined || isText(crawl)) &&
    (node === undefined || isText(node)) &&
    typeof data === "object" &&
    data !== null &&
    !Array.isArray(data)
  );
}

const MAX_TEXT_CHARACTERS = 200;

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_TEXT_CHARACTERS;
}
