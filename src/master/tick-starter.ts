import type { BusEvent } from "../bus/index.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenBus } from "../protocol/index.js";
import {
  ConflictError,
  KeyReusedError,
  NotFoundError,
  type ScheduleRecord,
  type Store,
  type TickRecord,
  type TickSkipReason,
} from "../store/index.js";
import type { CrawlService } from "./crawl-service.js";
import { asRequestError, RequestError, type RequestErrorCode } from "./errors.js";

export type TickStarterParts = {
  readonly store: Pick<Store, "schedules" | "ticks" | "crawls">;
  readonly crawls: Pick<CrawlService, "create" | "close">;
  readonly bus: Pick<WarrenBus, "events">;
  readonly clock: Clock;
  readonly logger: Logger;
};

export type TickStarterOptions = {
  /** How long a crawl that cannot be made just now is tried to be made, in milliseconds. @default 600_000 */
  readonly tryForMs: number;
};

/** What a little time may mend. */
const MAY_PASS: ReadonlySet<RequestErrorCode> = new Set(["unavailable", "timeout", "internal", "cancelled"]);

/**
 * Makes the crawls of ticks, as the overlap policy of their schedule has it. Any number of masters may be at the same
 * schedule, and each may die at any moment:
 *
 * 1. That a tick starts is decided by compare and set on the schedule, from where its last crawl was looked at.
 * 2. Its crawl is made under an idempotency key that follows from the tick, so it is the same one whoever makes it.
 * 3. The tick takes down the crawl; then the schedule does, and is free for its next tick.
 *
 * Whoever finds a schedule between these steps goes on with the next.
 */
export class TickStarter {
  readonly #parts: TickStarterParts;
  readonly #options: TickStarterOptions;
  readonly #under = new Map<string, { again: boolean; done: Promise<void> }>();

  constructor(parts: TickStarterParts, options: Partial<TickStarterOptions> = {}) {
    this.#parts = parts;
    this.#options = { tryForMs: 600_000, ...options };
  }

  /** Does what there is to do about a schedule's ticks; asked again meanwhile, it looks once more. */
  advance(schedule: string): Promise<void> {
    const under = this.#under.get(schedule);
    if (under !== undefined) {
      under.again = true;
      return under.done;
    }
    const state = { again: false, done: Promise.resolve() };
    this.#under.set(schedule, state);
    state.done = (async () => {
      try {
        do {
          state.again = false;
          await this.#advance(schedule);
        } while (state.again);
      } catch (error) {
        this.#parts.logger.warn({ schedule, error: messageOf(error) }, "could not see to a schedule's ticks");
      } finally {
        this.#under.delete(schedule);
      }
    })();
    return state.done;
  }

  /** Resolves when nothing is under way. */
  async settled(): Promise<void> {
    await Promise.all([...this.#under.values()].map(({ done }) => done));
  }

  async #advance(id: string): Promise<void> {
    const { schedules, ticks, crawls } = this.#parts.store;
    for (;;) {
      const schedule = await schedules.get(id);
      if (schedule === undefined) return ticks.drop(id);
      if (schedule.starting !== undefined) {
        if (!(await this.#start(schedule, schedule.starting))) return;
        continue;
      }
      const open = await this.#wanted(schedule, await ticks.open(id));
      const [first] = open;
      if (first === undefined) return;
      const last = schedule.lastCrawl === undefined ? undefined : await crawls.get(schedule.lastCrawl);
      if (last?.status !== "running" && last?.status !== "paused") {
        if (await schedules.begin(schedule, first.id)) await ticks.starting(first.id);
        continue;
      }
      if (schedule.overlap === "queue") return this.#queue(schedule, open);
      if (schedule.overlap === "skip") {
        for (const tick of open) await this.#skip(tick, "overlap");
        return;
      }
      await this.#close(last.id);
    }
  }

  /** Those that may start, and skips the others. */
  async #wanted(schedule: ScheduleRecord, open: readonly TickRecord[]): Promise<readonly TickRecord[]> {
    let wanted = open;
    if (schedule.paused) {
      // What someone asks for starts all the same.
      for (const tick of open) if (tick.cause !== "run") await this.#skip(tick, "paused");
      wanted = open.filter(({ cause }) => cause === "run");
    }
    if (schedule.overlap !== "replace") return wanted;
    // Each would be replaced by the next at once.
    for (const tick of wanted.slice(0, -1)) await this.#skip(tick, "replaced");
    return wanted.slice(-1);
  }

  async #queue(schedule: ScheduleRecord, open: readonly TickRecord[]): Promise<void> {
    const due = open.filter(({ state }) => state === "due");
    const room = Math.max(0, schedule.maxQueued - (open.length - due.length));
    for (const tick of due.slice(0, room)) await this.#parts.store.ticks.queue(tick.id);
    for (const tick of due.slice(room)) await this.#skip(tick, "waiting");
  }

  async #close(crawl: string): Promise<void> {
    try {
      await this.#parts.crawls.close(crawl);
    } catch (error) {
      // It has ended meanwhile, which is what was wanted.
      if (
        !(error instanceof ConflictError || error instanceof NotFoundError || error instanceof RequestError)
      )
        throw error;
    }
  }

  /** @returns false when it has to be tried again later */
  async #start(schedule: ScheduleRecord, id: string): Promise<boolean> {
    const { schedules, ticks } = this.#parts.store;
    await ticks.starting(id);
    const tick = await ticks.get(id);
    if (tick?.state !== "starting") {
      // Over already; whoever brought it there did not live to tell the schedule, or is about to.
      await schedules.begun(schedule.id, id, tick?.crawl);
      return true;
    }
    const { clock, logger } = this.#parts;
    try {
      const crawl = await this.#crawlOf(schedule, tick);
      if (await ticks.started(id, crawl, clock.now())) {
        logger.info({ schedule: schedule.id, tick: id, crawl }, "a schedule has started a crawl");
        this.#publish("schedule.fired", tick, { cause: tick.cause }, crawl);
      }
      await schedules.begun(schedule.id, id, crawl);
    } catch (error) {
      const { code, message } = asRequestError(error);
      const isHopeless = !MAY_PASS.has(code) || clock.now() - tick.recordedAt > this.#options.tryForMs;
      logger.warn(
        { schedule: schedule.id, tick: id, error: messageOf(error), isHopeless },
        "could not make a schedule's crawl",
      );
      if (!isHopeless) return false;
      if (await ticks.fail(id, code, message, clock.now())) {
        this.#publish("schedule.failed", tick, { reason: code, error: message });
      }
      await schedules.begun(schedule.id, id);
    }
    return true;
  }

  async #crawlOf(schedule: ScheduleRecord, tick: TickRecord): Promise<string> {
    const { crawls } = this.#parts.store;
    const key = crawlKeyOf(tick.id);
    // First of all, since the schedule may have been changed after the crawl was made.
    const made = await crawls.byIdempotencyKey(key);
    if (made !== undefined) return made.id;
    const origin = { schedule: schedule.id, tick: tick.id, chain: tick.chain };
    try {
      const { crawl } = await this.#parts.crawls.create(crawlRequestOf(schedule, tick), key, origin);
      return crawl.id;
    } catch (error) {
      if (!(error instanceof KeyReusedError)) throw error;
      const theirs = await crawls.byIdempotencyKey(key);
      if (theirs === undefined) throw error;
      return theirs.id;
    }
  }

  async #skip(tick: TickRecord, reason: TickSkipReason): Promise<void> {
    if (!(await this.#parts.store.ticks.skip(tick.id, reason, this.#parts.clock.now()))) return;
    this.skipped(tick, reason);
  }

  /** Tells that a tick was skipped. */
  skipped(tick: Pick<TickRecord, "id" | "schedule" | "at">, reason: TickSkipReason): void {
    this.#parts.logger.info(
      { schedule: tick.schedule, tick: tick.id, reason },
      "a tick of a schedule is skipped",
    );
    this.#publish("schedule.skipped", tick, { reason });
  }

  #publish(
    type: string,
    { id, schedule, at }: Pick<TickRecord, "id" | "schedule" | "at">,
    data: Readonly<Record<string, unknown>>,
    crawl?: string,
  ): void {
    const event: BusEvent = {
      type,
      at: new Date(this.#parts.clock.now()).toISOString(),
      ...(crawl !== undefined && { crawl }),
      data: { schedule, tick: id, scheduledAt: new Date(at).toISOString(), ...data },
    };
    this.#parts.bus.events.publish(type, [event]);
  }
}

/** No key from outside has a blank in it, so nobody else can have made the crawl of a tick. */
export function crawlKeyOf(tick: string): string {
  return `schedule ${tick}`;
}

/** The request for a tick's crawl: what the schedule says, with what only the tick knows among its parameters. */
export function crawlRequestOf(
  { id, name, crawl }: Pick<ScheduleRecord, "id" | "name" | "crawl">,
  tick: Pick<TickRecord, "at" | "after">,
): Readonly<Record<string, unknown>> {
  const { params } = crawl;
  // What is no object is left for the schema to refuse.
  const given = params === undefined ? {} : params;
  const isObject = typeof given === "object" && given !== null && !Array.isArray(given);
  const own = {
    schedule: id,
    scheduledAt: new Date(tick.at).toISOString(),
    ...(tick.after !== undefined && { after: tick.after }),
  };
  return {
    ...(name !== undefined && { name }),
    ...crawl,
    params: isObject ? { ...given, ...own } : given,
  };
}
