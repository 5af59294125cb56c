import { createHash } from "node:crypto";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenBus } from "../protocol/index.js";
import type { CrawlEnd, CrawlRecord, RuleRecord, Store } from "../store/index.js";
import type { EndListener } from "./crawl-ends.js";
import { type Notice, noticeOfEnd } from "./notices.js";
import { crossingsOf } from "./thresholds.js";

/** Something to be posted to a webhook. The same id again is the same delivery. */
export type WebhookDelivery = {
  readonly id: string;
  readonly target: { readonly kind: "webhook"; readonly url: string; readonly secret?: string };
  readonly type: string;
  /** In milliseconds since the epoch. */
  readonly at: number;
  readonly crawl?: string;
  readonly body: Readonly<Record<string, unknown>>;
};

/** What sees to it that they are posted. */
export type Deliveries = { add(deliveries: readonly WebhookDelivery[]): Promise<unknown> };

export type NotifierParts = {
  readonly store: Pick<Store, "notificationRules" | "notifications" | "mails">;
  /** Undefined: nothing here posts to webhooks. */
  readonly deliveries: Deliveries | undefined;
  readonly bus: Pick<WarrenBus, "events">;
  readonly clock: Clock;
  readonly logger: Logger;
};

const MAX_TITLE = 200;
/** By how much the clocks of a database and of who ended a crawl may differ, in milliseconds. */
const CLOCKS_DIFFER_MS = 5_000;

/**
 * Tells people what their rules ask for. What a rule tells of something has an id made of the two. Its mails and
 * deliveries are put down under that id, then the notification itself: so who finds the notification knows that all
 * is on its way, and who does not may put everything down once more, and nothing is told twice.
 */
export class Notifier implements EndListener {
  readonly #parts: NotifierParts;

  constructor(parts: NotifierParts) {
    this.#parts = parts;
  }

  async ended(crawl: CrawlRecord, end: CrawlEnd): Promise<void> {
    const event = `crawl.${end.status}` as const;
    for (const rule of await this.#parts.store.notificationRules.about([event, "threshold"])) {
      // Of what ended before there was the rule, nobody wants to hear.
      if (rule.createdAt > end.at + CLOCKS_DIFFER_MS || !isAbout(rule, crawl)) continue;
      if (rule.on.includes(event)) await this.tell(rule, noticeOfEnd(crawl, end));
      if (end.status !== "finished" || !rule.on.includes("threshold")) continue;
      for (const notice of crossingsOf(rule, crawl, end.at)) await this.tell(rule, notice);
    }
  }

  /** Tells by all channels of a rule, once. @returns false when that was done before */
  async tell(rule: RuleRecord, notice: Notice): Promise<boolean> {
    const { store, deliveries, bus, clock, logger } = this.#parts;
    const id = noticeIdOf(rule.id, notice.key);
    if (await store.notifications.has(id)) return false;
    const { level, text, crawl, node, schedule, at, event, data } = notice;
    const title = oneLine(notice.title);
    const about = {
      ...(crawl !== undefined && { crawl }),
      ...(node !== undefined && { node }),
      ...(schedule !== undefined && { schedule }),
    };
    for (const [index, channel] of rule.channels.entries()) {
      const channelId = `${id}.${index}`;
      if (channel.kind === "email") {
        await store.mails.add({ id: channelId, to: channel.to, subject: `[Warren] ${title}`, text });
        continue;
      }
      if (deliveries === undefined) {
        logger.warn({ rule: rule.id, notification: id }, "there is nothing here that posts to webhooks");
        continue;
      }
      const body = {
        ...{ notification: id, rule: rule.id, ruleName: rule.name ?? null, level, title, text },
        ...{ ...about, data },
      };
      const target = {
        kind: "webhook",
        url: channel.url,
        ...(channel.secret !== undefined && { secret: channel.secret }),
      } as const;
      await deliveries.add([
        { id: channelId, target, type: event, at, ...(crawl !== undefined && { crawl }), body },
      ]);
    }
    const isNew = await store.notifications.add({
      ...{ id, level, title, text, at },
      ...(crawl !== undefined && { crawl }),
      rule: rule.id,
    });
    if (!isNew) return false;
    const type = `notification.${level}`;
    bus.events.publish(type, [
      {
        type,
        at: new Date(clock.now()).toISOString(),
        ...(crawl !== undefined && { crawl }),
        ...(node !== undefined && { node }),
        data: { id, level, title, text, rule: rule.id },
      },
    ]);
    return true;
  }
}

/** Whether a rule is for this crawl. */
export function isAbout(
  { filter = {} }: Pick<RuleRecord, "filter">,
  crawl: Pick<CrawlRecord, "id" | "spider" | "origin">,
): boolean {
  return (
    filter.node === undefined &&
    (filter.crawl === undefined || filter.crawl === crawl.id) &&
    (filter.spider === undefined || filter.spider === crawl.spider) &&
    (filter.schedule === undefined || filter.schedule === crawl.origin?.schedule)
  );
}

/** The id of what a rule tells of something that happened: safe in a header, and the same whoever makes it. */
export function noticeIdOf(rule: string, key: string): string {
  return `notice-${createHash("sha256").update(`${rule} ${key}`).digest("hex").slice(0, 32)}`;
}

/** Names are what users make of them; a title is one line, also where it becomes a header. */
function oneLine(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").trim();
  return line.length <= MAX_TITLE ? line : `${line.slice(0, MAX_TITLE - 1)}…`;
}
