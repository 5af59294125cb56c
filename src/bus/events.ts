import { randomUUID } from "node:crypto";
import type { ConsumeMessage } from "amqplib";
import { LRUCache } from "lru-cache";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { TraceContext } from "../lib/trace-context.js";
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
} & Partial<TraceContext>;

export type EventHandler = (events: readonly BusEvent[]) => void;
export type Unsubscribe = () => Promise<void>;

/** Messages that wait for a listener that is slow, at most; the oldest go first. */
const DEFAULT_MAX_LENGTH = 10_000;
/** And their bytes. */
const MAX_LENGTH_BYTES = 64 * 1_048_576;

/**
 * Headers of a CloudEvent begin so. The binding of CloudEvents is one to AMQP 1.0, whose application properties
 * are the headers of 0-9-1; its other prefix is `cloudEvents_`, for JMS.
 * @see https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
 */
const CLOUD_EVENTS = "cloudEvents:";
/** Grows when events are no longer what they were; members that are added do not count. */
const SCHEMA = "urn:warren:event:1";

/** Senders whose messages are counted, to know how many were lost. */
const MAX_SENDERS = 10_000;

export type EventsParts = {
  readonly exchange: string;
  /** Who tells: a path that begins with a slash. */
  readonly source: string;
  readonly publishing: SupervisedConnection;
  readonly consuming: SupervisedConnection;
  readonly logger: Logger;
  readonly metrics?: Metrics;
};

/**
 * Events, for whoever listens. They never hold up work: when the bus is away or does not keep up they are
 * dropped and counted, and a slow listener loses the oldest.
 */
export class Events {
  readonly #exchange: string;
  readonly #source: string;
  readonly #publishing: SupervisedChannel;
  readonly #consuming: SupervisedConnection;
  readonly #logger: Logger;
  readonly #metrics: Metrics | undefined;
  /** Ids are unique for a source; this process is one of several that had the same in turn. */
  readonly #idPrefix = randomUUID().slice(0, 13);
  #sent = 0;
  #isFull = false;
  #dropped = 0;
  #unreadable = 0;
  #missed = 0;

  constructor({ exchange, source, publishing, consuming, logger, metrics }: EventsParts) {
    this.#exchange = exchange;
    this.#source = source;
    this.#consuming = consuming;
    this.#logger = logger;
    this.#metrics = metrics;
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

  /** Messages that this process would have received as a listener to everything, had it kept up. */
  get missed(): number {
    return this.#missed;
  }

  /** Tells of events, in one message under one key. */
  publish(key: string, events: readonly BusEvent[]): void {
    const [first] = events;
    if (first === undefined) return;
    const open = this.#publishing.current;
    if (open === undefined || this.#isFull) {
      this.#drop(events.length, open === undefined ? "away" : "full");
      return;
    }
    try {
      const body = Buffer.from(JSON.stringify(events.length === 1 ? first : events));
      this.#isFull = !open.channel.publish(this.#exchange, key, body, {
        contentType: "application/json",
        headers: this.#headersOf(first, events.length),
      });
    } catch {
      this.#drop(events.length, "unwritable");
    }
  }

  #drop(events: number, reason: "away" | "full" | "unwritable"): void {
    this.#dropped += events;
    this.#metrics?.eventsDropped.inc({ reason }, events);
  }

  /** The attributes of a CloudEvent; of a message that holds several, those that they share, and how many they are. */
  #headersOf(first: BusEvent, count: number): Readonly<Record<string, string | number>> {
    const { type, at, crawl, node, traceparent, tracestate } = first;
    this.#sent += 1;
    const subject = crawl ?? node;
    const headers: Record<string, string | number> = {
      [`${CLOUD_EVENTS}specversion`]: "1.0",
      [`${CLOUD_EVENTS}id`]: `${this.#idPrefix}-${this.#sent}`,
      [`${CLOUD_EVENTS}source`]: this.#source,
      [`${CLOUD_EVENTS}type`]: type,
      [`${CLOUD_EVENTS}time`]: at,
      [`${CLOUD_EVENTS}dataschema`]: SCHEMA,
      [`${CLOUD_EVENTS}sequence`]: this.#sent,
    };
    if (count > 1) headers[`${CLOUD_EVENTS}count`] = count;
    else {
      if (subject !== undefined) headers[`${CLOUD_EVENTS}subject`] = subject;
      if (traceparent !== undefined) headers.traceparent = traceparent;
      if (tracestate !== undefined) headers.tracestate = tracestate;
    }
    return headers;
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
    // Only who listens to everything can tell what is missing.
    const sequences = patterns.includes("#") ? new LRUCache<string, number>({ max: MAX_SENDERS }) : undefined;
    const channel = this.#consuming.channel("event subscription", async (open) => {
      const { queue } = await open.channel.assertQueue("", {
        ...OWN_QUEUE,
        arguments: { "x-max-length": maxLength, "x-max-length-bytes": MAX_LENGTH_BYTES },
      });
      await open.keep(async () => {
        for (const pattern of patterns) await open.channel.bindQueue(queue, this.#exchange, pattern);
      });
      await open.channel.consume(
        queue,
        (message) => {
          if (message === null) channel.renew();
          else {
            if (sequences !== undefined) this.#countMissed(message, sequences);
            this.#receive(message.content, handle);
          }
        },
        { noAck: true },
      );
    });
    await channel.opened();
    return () => channel.close();
  }

  /** Each sender numbers its messages; what is between two of them was lost on the way, or dropped for us. */
  #countMissed({ properties }: ConsumeMessage, sequences: LRUCache<string, number>): void {
    const { [`${CLOUD_EVENTS}id`]: id, [`${CLOUD_EVENTS}sequence`]: sequence } = properties.headers ?? {};
    if (typeof id !== "string" || typeof sequence !== "number") return;
    const sender = id.slice(0, id.lastIndexOf("-"));
    const last = sequences.get(sender);
    sequences.set(sender, sequence);
    if (last === undefined || sequence <= last + 1) return;
    this.#missed += sequence - last - 1;
    this.#metrics?.eventsMissed.inc(sequence - last - 1);
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
  const { type, at, crawl, node, data, traceparent, tracestate } = value as Record<keyof BusEvent, unknown>;
  return (
    isText(type) &&
    type !== "" &&
    isText(at) &&
    (crawl === undefined || isText(crawl)) &&
    (node === undefined || isText(node)) &&
    (traceparent === undefined || isText(traceparent)) &&
    (tracestate === undefined || typeof tracestate === "string") &&
    typeof data === "object" &&
    data !== null &&
    !Array.isArray(data)
  );
}

const MAX_TEXT_CHARACTERS = 200;

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_TEXT_CHARACTERS;
}
