import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Service } from "../lib/service.js";
import type { RuleRecord, Store } from "../store/index.js";
import { type Notice, noticeOfNode, noticeOfTick } from "./notices.js";
import { isAbout, type Notifier } from "./notifier.js";
import { crossingsOf, deadLettersCrossed } from "./thresholds.js";

export type NotificationWatchOptions = {
  /** How often it looks, in milliseconds. @default 5_000 */
  readonly everyMs: number;
};

export type NotificationWatchParts = {
  readonly store: Pick<Store, "notificationRules" | "crawls" | "nodes" | "ticks" | "deadLetters">;
  readonly notifier: Pick<Notifier, "tell">;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** Nodes that went longer ago are not looked at: whoever wanted to know of them does. */
const OFFLINE_WITHIN_MS = 86_400_000;
/** Notices that this process remembers to have told, so as not to ask the database about each at every look. */
const REMEMBERED = 10_000;

/**
 * Looks for what rules ask to be told of, other than ends of crawls: nodes that have gone, ticks that failed,
 * thresholds. Every master does; what several find is told once. While there are no rules it asks for nothing else.
 */
export class NotificationWatch implements Service {
  readonly name = "notification watch";
  readonly #parts: NotificationWatchParts;
  readonly #everyMs: number;
  readonly #told = new Set<string>();
  #loop: Loop | undefined;

  constructor(parts: NotificationWatchParts, { everyMs = 5_000 }: Partial<NotificationWatchOptions> = {}) {
    this.#parts = parts;
    this.#everyMs = everyMs;
  }

  async start(): Promise<void> {
    const { clock, logger } = this.#parts;
    this.#loop = new Loop(this.#everyMs, clock, async () => {
      try {
        await this.look();
      } catch (error) {
        logger.warn({ error: messageOf(error) }, "could not look for what is to be told");
      }
    });
  }

  async stop(): Promise<void> {
    await this.#loop?.stop();
  }

  /** Looks now. */
  async look(): Promise<void> {
    const rules = await this.#parts.store.notificationRules.about([
      "node.offline",
      "schedule.failed",
      "threshold",
    ]);
    await this.#lookAtTicks(rules.filter(({ on }) => on.includes("schedule.failed")));
    if (rules.length === 0) return;
    await this.#lookAtNodes(rules.filter(({ on }) => on.includes("node.offline")));
    const thresholds = rules.filter(({ on }) => on.includes("threshold"));
    await this.#lookAtCrawls(thresholds);
    for (const rule of thresholds) await this.#lookAtDeadLetters(rule);
  }

  async #lookAtTicks(rules: readonly RuleRecord[]): Promise<void> {
    const { store } = this.#parts;
    for (const tick of await store.ticks.untold()) {
      const notice = noticeOfTick(tick);
      for (const rule of rules) {
        const { schedule, ...others } = rule.filter ?? {};
        const isMeant = schedule === undefined || schedule === tick.schedule;
        if (isMeant && Object.keys(others).length === 0) await this.#tell(rule, notice);
      }
      await store.ticks.told(tick.id);
    }
  }

  async #lookAtNodes(rules: readonly RuleRecord[]): Promise<void> {
    if (rules.length === 0) return;
    for (const node of await this.#parts.store.nodes.gone(OFFLINE_WITHIN_MS)) {
      const notice = noticeOfNode(node);
      for (const rule of rules) {
        const { node: id, ...others } = rule.filter ?? {};
        const isMeant = id === undefined || id === node.id;
        if (!isMeant || Object.keys(others).length > 0 || node.offlineAt < rule.createdAt) continue;
        await this.#tell(rule, notice);
      }
    }
  }

  async #lookAtCrawls(rules: readonly RuleRecord[]): Promise<void> {
    const watching = rules.filter(
      ({ thresholds = {} }) => thresholds.failedPercent !== undefined || thresholds.durationMs !== undefined,
    );
    if (watching.length === 0) return;
    const { store, clock } = this.#parts;
    for (const crawl of await store.crawls.running()) {
      for (const rule of watching) {
        if (!isAbout(rule, crawl)) continue;
        for (const notice of crossingsOf(rule, crawl, clock.now())) await this.#tell(rule, notice);
      }
    }
  }

  /** Told before it is noted: who dies in between leaves it to be found again, under the same key. */
  async #lookAtDeadLetters(rule: RuleRecord): Promise<void> {
    const { store, notifier, clock } = this.#parts;
    const most = rule.thresholds?.deadLetters;
    if (most === undefined) return;
    const { crawl } = rule.filter ?? {};
    const isAbove = await store.deadLetters.areMoreThan(most, crawl);
    const { crossings, isAbove: wasAbove } = rule.deadLetters ?? { crossings: 0, isAbove: false };
    if (isAbove === wasAbove) return;
    if (isAbove) await notifier.tell(rule, deadLettersCrossed(rule, most, crossings + 1, clock.now()));
    await store.notificationRules.crossed(rule, isAbove);
  }

  async #tell(rule: RuleRecord, notice: Notice): Promise<void> {
    const key = `${rule.id} ${notice.key}`;
    if (this.#told.has(key)) return;
    await this.#parts.notifier.tell(rule, notice);
    this.#told.add(key);
    const [oldest] = this.#told;
    if (this.#told.size > REMEMBERED && oldest !== undefined) this.#told.delete(oldest);
  }
}
