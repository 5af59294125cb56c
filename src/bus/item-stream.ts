import type { Patience, Publisher, PublishOutcome } from "./publisher.js";

/** An item, for whoever wants to have it. */
export type ItemMessage = {
  /** The same for the same data of an item: told twice, it is the same message. */
  readonly id: string;
  /** `item.added` or `item.changed`. */
  readonly type: string;
  readonly crawl: string;
  readonly spider: string;
  /** When it was extracted, in milliseconds since the epoch. */
  readonly at: number;
  /** JSON. */
  readonly body: Buffer;
};

/**
 * Items, to whoever binds a queue: under `<crawl>.<spider>`, each in a message that outlives the broker's end. Who has no
 * queue bound by then does not get them; who has gets them at least once.
 */
export class ItemStream {
  readonly #exchange: string;
  readonly #publisher: Publisher;

  constructor(exchange: string, publisher: Publisher) {
    this.#exchange = exchange;
    this.#publisher = publisher;
  }

  /**
   * Publishes items in this order; resolves with what became of each.
   * @param patience ends the wait for room or a connection
   */
  publish(items: readonly ItemMessage[], patience: Patience): Promise<readonly PublishOutcome[]> {
    return this.#publisher.publish(
      items.map(({ id, type, crawl, spider, at, body }) => ({
        exchange: this.#exchange,
        routingKey: `${crawl}.${spider}`,
        body,
        options: {
          contentType: "application/json",
          persistent: true,
          messageId: id,
          type,
          timestamp: Math.floor(at / 1_000),
        },
      })),
      patience,
    );
  }
}
