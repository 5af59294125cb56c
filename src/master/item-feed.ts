import { hash } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { ItemMessage } from "../bus/index.js";
import type { ItemOptions, ItemWebhook } from "../crawl/item-options.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Service } from "../lib/service.js";
import type { WarrenBus } from "../protocol/index.js";
import { type Duty, ITEMS_STORED, type NewDelivery, type Store, type Telling } from "../store/index.js";
import { shown as shownItem } from "./item-export.js";

export type ItemFeedOptions = {
  /** How often it looks for items to be told of, in milliseconds. @default 500 */
  readonly everyMs: number;
  /** How often it looks whether it is its turn to do so, while it is not, in milliseconds. @default 3_000 */
  readonly standbyMs: number;
  /** Items that are told together at most. @default 200 */
  readonly batchItems: number;
  /** Items in one post to a webhook at most. @default 100 */
  readonly postItems: number;
  /** Their JSON together at most, in characters; a single one may be larger. @default 1_048_576 */
  readonly postCharacters: number;
};

const DEFAULTS: ItemFeedOptions = {
  everyMs: 500,
  standbyMs: 3_000,
  batchItems: 200,
  postItems: 100,
  postCharacters: 1_048_576,
};

export type ItemFeedParts = {
  /** Who this is, among masters. */
  readonly masterId: string;
  readonly store: Pick<Store, "crawls" | "deliveries" | "duties" | "itemTellings">;
  readonly bus: Pick<WarrenBus, "connected" | "items">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Something is to be delivered. */
  readonly onDeliveries: () => void;
};

const DUTY = "item-feed";
/** What is begun must be over by the time that another may take over; this much before, in milliseconds. */
const DUTY_MARGIN_MS = 1_000;
/** Longest wait for the broker to take a batch, in milliseconds. */
const PUBLISH_MS = 5_000;
/** A crawl whose items were not taken is tried again after this, in milliseconds; twice as long each further time. */
const FIRST_HOLD_MS = 1_000;
const LONGEST_HOLD_MS = 30_000;
/** An item is told without its data if that is larger, as JSON, in characters: brokers and databases have limits. */
const MAX_ITEM_CHARACTERS = 8 * 1_048_576;

/** An item that is to be told, as it is shown outside. */
type Shown = { readonly telling: Telling; readonly text: string };

/**
 * Tells others of items: publishes them to the exchange of items, and makes deliveries to webhooks of them, as their crawls
 * want it. One master at a time does so. An item is told until it is noted that it was, so whoever dies in between has it
 * told twice, and never not at all; of an item that changes quickly it is the latest that is told.
 */
export class ItemFeed implements Service {
  readonly name = "item feed";
  readonly #parts: ItemFeedParts;
  readonly #options: ItemFeedOptions;
  /** They never change while a crawl is there. */
  readonly #wishes = new LRUCache<string, ItemOptions>({ max: 1_000 });
  readonly #held = new LRUCache<string, { readonly until: number; readonly forMs: number }>({ max: 10_000 });
  #duty: Duty | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  #loop: Loop | undefined;
  #isFailing = false;
  #isStopped = false;

  constructor(parts: ItemFeedParts, options: Partial<ItemFeedOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    this.#loop = new Loop(this.#options.everyMs, this.#parts.clock, () => this.#look());
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#loop?.stop();
    if (this.#duty === undefined) return;
    // Another need not wait for it to expire; if this cannot be told, it will.
    await this.#parts.store.duties.release(DUTY, this.#parts.masterId).catch(() => {});
  }

  async #look(): Promise<void> {
    const { store, logger } = this.#parts;
    try {
      for (let more = true; more && !this.#isStopped; ) {
        if (!(await this.#isOnDuty())) return;
        this.#isFailing = false;
        more = false;
        for (const crawl of await store.itemTellings.crawls()) {
          if (this.#isStopped || !(await this.#isOnDuty())) return;
          if (this.#isHeld(crawl)) continue;
          // One batch of each, so that a crawl of millions does not keep the others waiting.
          if (await this.#tellSome(crawl)) more = true;
        }
      }
    } catch (error) {
      // Told once, not each time, while the database is away.
      logger[this.#isFailing ? "debug" : "warn"]({ error: messageOf(error) }, "could not tell of items");
      this.#isFailing = true;
    }
  }

  async #isOnDuty(): Promise<boolean> {
    const { store, clock, masterId } = this.#parts;
    const now = clock.monotonic();
    const leftMs = (this.#duty?.validUntil ?? now) - now;
    if (this.#duty === undefined && now - this.#askedAt < this.#options.standbyMs) return false;
    if (this.#duty !== undefined && leftMs > PUBLISH_MS + DUTY_MARGIN_MS) return true;
    this.#askedAt = now;
    this.#duty = undefined;
    this.#duty = await store.duties.take(DUTY, masterId);
    return this.#duty !== undefined;
  }

  /** @returns whether there may be more to tell of this crawl */
  async #tellSome(crawl: string): Promise<boolean> {
    const { store, clock, logger } = this.#parts;
    const wishes = await this.#wishesOf(crawl);
    if (wishes === undefined) {
      await store.itemTellings.forget(crawl);
      return false;
    }
    const tellings = await store.itemTellings.next(crawl, this.#options.batchItems);
    try {
      const shown = tellings.map(shownAs);
      if (wishes.publish) await this.#publish(shown);
      const deliveries = wishes.webhooks.flatMap((webhook) => this.#deliveriesTo(webhook, crawl, shown));
      if (deliveries.length > 0) {
        await store.deliveries.add(deliveries);
        this.#parts.onDeliveries();
      }
    } catch (error) {
      const forMs = Math.min(2 * (this.#held.peek(crawl)?.forMs ?? FIRST_HOLD_MS / 2), LONGEST_HOLD_MS);
      this.#held.set(crawl, { until: clock.monotonic() + forMs, forMs });
      logger.warn(
        { crawl, items: tellings.length, error: messageOf(error), againMs: forMs },
        "could not tell of items yet",
      );
      return false;
    }
    this.#held.delete(crawl);
    await store.itemTellings.told(tellings.map(({ item }) => item));
    return tellings.length === this.#options.batchItems;
  }

  /** Undefined when nobody wants to hear of its items. */
  async #wishesOf(crawl: string): Promise<ItemOptions | undefined> {
    const known = this.#wishes.get(crawl);
    if (known !== undefined) return known;
    const items = (await this.#parts.store.crawls.get(crawl))?.items;
    if (items === undefined || (!items.publish && items.webhooks.length === 0)) return undefined;
    this.#wishes.set(crawl, items);
    return items;
  }

  #isHeld(crawl: string): boolean {
    const held = this.#held.get(crawl);
    return held !== undefined && held.until > this.#parts.clock.monotonic();
  }

  /** @throws Error when not all of them were taken */
  async #publish(shown: readonly Shown[]): Promise<void> {
    const { bus } = this.#parts;
    if (!bus.connected) throw new Error("RabbitMQ is away");
    const messages = shown.map(
      ({ telling: { item, change }, text }): ItemMessage => ({
        id: item.revision === undefined ? item.id : `${item.id}.${item.revision}`,
        type: `item.${change}`,
        crawl: item.crawl,
        spider: item.spider,
        at: item.at,
        body: Buffer.from(text),
      }),
    );
    const outcomes = await bus.items.publish(messages, AbortSignal.timeout(PUBLISH_MS));
    for (const outcome of outcomes) if (!outcome.ok) throw outcome.error;
  }

  #deliveriesTo(webhook: ItemWebhook, crawl: string, shown: readonly Shown[]): readonly NewDelivery[] {
    const { url, secret, events } = webhook;
    const wanted = shown.filter(({ telling }) => events === undefined || events.includes(telling.change));
    return inPosts(wanted, this.#options).map((some): NewDelivery => {
      const ids = some.map(({ telling: { item } }) => [item.id, item.revision ?? 0]);
      return {
        // The same items once more are the same delivery.
        id: `${crawl}.${hash("sha256", JSON.stringify([url, ids]), "base64url").slice(0, 27)}`,
        target: { kind: "webhook", url, ...(secret !== undefined && { secret }) },
        type: ITEMS_STORED,
        at: this.#parts.clock.now(),
        crawl,
        body: {
          crawl,
          items: some.map(({ telling: { change }, text }) => ({
            change,
            ...(JSON.parse(text) as Record<string, unknown>),
          })),
        },
      };
    });
  }
}

function shownAs(telling: Telling): Shown {
  const text = JSON.stringify(shownItem(telling.item));
  if (text.length <= MAX_ITEM_CHARACTERS) return { telling, text };
  const { data: _data, ...rest } = shownItem(telling.item);
  return { telling, text: JSON.stringify({ ...rest, data: {}, isWithoutData: true }) };
}

/** In order, each of bounded size. */
function inPosts(
  shown: readonly Shown[],
  { postItems, postCharacters }: ItemFeedOptions,
): readonly (readonly Shown[])[] {
  const posts: Shown[][] = [];
  let characters = 0;
  for (const one of shown) {
    const last = posts.at(-1);
    characters += one.text.length;
    if (last === undefined || last.length >= postItems || characters > postCharacters) {
      posts.push([one]);
      characters = one.text.length;
    } else last.push(one);
  }
  return posts;
}
