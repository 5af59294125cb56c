import type { ServerResponse } from "node:http";
import type { BusEvent } from "../../bus/index.js";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { type EventFeed, matchesType } from "../event-feed.js";

export type EventStreamsOptions = {
  /** Bytes that may wait for one client before it is dropped. */
  readonly maxBufferBytes: number;
  /** A comment goes out this often, in milliseconds, so that proxies keep the connection and the dead are noticed. */
  readonly heartbeatMs: number;
  /** Latest events kept for clients that come back. */
  readonly kept: number;
};

const DEFAULTS: EventStreamsOptions = { maxBufferBytes: 1_048_576, heartbeatMs: 15_000, kept: 1_000 };
const RETRY_MS = 2_000;

/** Which events a client wants; absent means all. */
export type EventFilter = {
  readonly crawl?: string;
  /** Types, exact or `crawl.*`. */
  readonly types?: readonly string[];
};

type Numbered = { readonly number: number; readonly event: BusEvent };

/**
 * Server-sent events to many clients. An event is made into text once, whoever reads it. A client that reads
 * more slowly than events come is dropped when its buffer is full: it comes back by itself, and gets what it
 * missed if it names the last id it saw and that is still among those kept here.
 */
export class EventStreams {
  readonly #feed: EventFeed;
  readonly #clock: Clock;
  readonly #options: EventStreamsOptions;
  /** Ids are of this process; another master's mean nothing here. */
  readonly #boot: string;
  readonly #clients = new Map<ServerResponse, EventFilter>();
  #recent: Numbered[] = [];
  #number = 0;
  #unsubscribe: (() => void) | undefined;
  #stopHeartbeat: StopTimer | undefined;
  #isClosed = false;

  constructor(
    parts: { readonly feed: EventFeed; readonly clock: Clock },
    options: Partial<EventStreamsOptions> = {},
  ) {
    this.#feed = parts.feed;
    this.#clock = parts.clock;
    this.#options = { ...DEFAULTS, ...options };
    this.#boot = parts.clock.now().toString(36);
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** Sends events down this response until its client leaves. */
  add(response: ServerResponse, filter: EventFilter, lastEventId: string | undefined): void {
    if (this.#isClosed) {
      response.end();
      return;
    }
    this.#listen();
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff",
    });
    response.on("close", () => this.#clients.delete(response));
    response.on("error", () => this.#clients.delete(response));
    response.write(`retry: ${RETRY_MS}\n\n`);
    const [boot, number] = lastEventId?.split("-") ?? [];
    if (boot === this.#boot) {
      const missed = this.#recent.filter((one) => one.number > Number(number) && matches(one.event, filter));
      if (missed.length > 0) response.write(missed.map((one) => this.#text(one)).join(""));
    }
    this.#clients.set(response, filter);
  }

  /** Ends every stream. */
  close(): void {
    this.#isClosed = true;
    this.#unsubscribe?.();
    this.#stopHeartbeat?.();
    for (const response of this.#clients.keys()) response.end();
    this.#clients.clear();
  }

  /** Starts with the first client, and goes on so that one that reconnects finds what it missed. */
  #listen(): void {
    if (this.#unsubscribe !== undefined) return;
    this.#unsubscribe = this.#feed.on("#", (events) => this.#publish(events));
    this.#heartbeat();
  }

  #heartbeat(): void {
    this.#stopHeartbeat = this.#clock.after(this.#options.heartbeatMs, () => {
      for (const response of this.#clients.keys()) this.#write(response, ": alive\n\n");
      this.#heartbeat();
    });
  }

  #publish(events: readonly BusEvent[]): void {
    const numbered = events.map((event) => {
      this.#number += 1;
      return { number: this.#number, event };
    });
    this.#recent.push(...numbered);
    if (this.#recent.length > 2 * this.#options.kept) this.#recent = this.#recent.slice(-this.#options.kept);
    if (this.#clients.size === 0) return;
    const texts = numbered.map((one) => this.#text(one));
    for (const [response, filter] of this.#clients) {
      const wanted = texts.filter((_text, index) => {
        const event = events[index];
        return event !== undefined && matches(event, filter);
      });
      if (wanted.length > 0) this.#write(response, wanted.join(""));
    }
  }

  #text({ number, event }: Numbered): string {
    return `id: ${this.#boot}-${number}\ndata: ${JSON.stringify(event)}\n\n`;
  }

  #write(response: ServerResponse, text: string): void {
    if (response.writableLength > this.#options.maxBufferBytes) {
      this.#clients.delete(response);
      response.destroy();
      return;
    }
    response.write(text);
  }
}

function matches(event: BusEvent, filter: EventFilter): boolean {
  if (filter.crawl !== undefined && event.crawl !== filter.crawl) return false;
  return filter.types === undefined || filter.types.some((pattern) => matchesType(pattern, event.type));
}
