import { randomBytes } from "node:crypto";
import { fetchOptions, withoutSecrets } from "../crawl/fetch/fetch-options.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type {
  EndStatus,
  ListOptions,
  ScheduleRecord,
  ScheduleSpec,
  Store,
  TickRecord,
  TickState,
} from "../store/index.js";
import type { CrawlService } from "./crawl-service.js";
import { CronPattern } from "./cron.js";
import { invalid, notFound, RequestError } from "./errors.js";
import { parseScheduleChanges, parseScheduleRequest, type ScheduleRequest } from "./schedule-request.js";
import { crawlRequestOf, type TickStarter } from "./tick-starter.js";

/** A schedule as it is shown outside. Instants are ISO 8601; what is not there is null. */
export type ScheduleView = {
  readonly id: string;
  readonly name: string | null;
  readonly cron: string | null;
  readonly timezone: string;
  readonly after: {
    readonly schedule?: string;
    readonly spider?: string;
    readonly crawl?: string;
    readonly status: readonly EndStatus[];
  } | null;
  readonly overlap: ScheduleSpec["overlap"];
  readonly maxQueued: number;
  readonly missed: ScheduleSpec["missed"];
  readonly maxMissed: number;
  readonly paused: boolean;
  /** The request for its crawls, without secrets. */
  readonly crawl: Readonly<Record<string, unknown>>;
  /** Its next five ticks; none when it is paused or follows other crawls. */
  readonly nextRuns: readonly string[];
  /** The crawl that it made last. */
  readonly lastCrawl: string | null;
  readonly revision: number;
  readonly createdAt: string;
  readonly updatedAt: string;
};

/** A tick as it is shown outside. */
export type TickView = {
  readonly tick: string;
  readonly scheduledAt: string;
  readonly cause: TickRecord["cause"];
  readonly state: TickState;
  readonly reason: string | null;
  readonly error: string | null;
  readonly crawl: string | null;
  readonly after: string | null;
  readonly recordedAt: string;
  readonly endedAt: string | null;
};

export type ScheduleServiceParts = {
  readonly store: Pick<Store, "schedules" | "ticks">;
  readonly crawls: Pick<CrawlService, "check">;
  readonly starter: Pick<TickStarter, "advance">;
  readonly clock: Clock;
};

export type ScheduleServiceOptions = {
  /** Two ticks of a schedule are never closer to each other, in milliseconds. @default 1_000 */
  readonly minIntervalMs: number;
};

const NEXT_RUNS = 5;
/** How often a change is tried that others keep getting in the way of. */
const CHANGE_TRIES = 10;

/** All that can be asked of schedules. It keeps nothing between requests. */
export class ScheduleService {
  readonly #parts: ScheduleServiceParts;
  readonly #options: ScheduleServiceOptions;

  constructor(parts: ScheduleServiceParts, options: Partial<ScheduleServiceOptions> = {}) {
    this.#parts = parts;
    this.#options = { minIntervalMs: 1_000, ...options };
  }

  /** @throws RequestError `invalid`, naming members */
  async create(input: unknown): Promise<ScheduleView> {
    const { paused, ...spec } = parseScheduleRequest(input);
    const now = this.#parts.clock.now();
    const nextAt = await this.#checked(spec, now);
    return this.#viewOf(
      await this.#parts.store.schedules.create(spec, {
        at: now,
        nextAt: paused ? undefined : nextAt,
        paused,
      }),
    );
  }

  /** Oldest first. */
  async list(options: ListOptions) {
    const { items, next } = await this.#parts.store.schedules.list(options);
    return { items: items.map((schedule) => this.#viewOf(schedule)), next };
  }

  /** @throws RequestError `not-found` */
  async get(id: string): Promise<ScheduleView> {
    return this.#viewOf(await this.#find(id));
  }

  /** What is due already happens as it was. @throws RequestError `invalid`, `not-found`, `conflict` */
  async update(id: string, input: unknown): Promise<ScheduleView> {
    const { name, paused, ...changes } = parseScheduleChanges(input);
    return this.#change(id, (schedule) => {
      const { cron, after, name: named, ...rest } = { ...specOf(schedule), ...changes };
      const nextName = name === undefined ? named : (name ?? undefined);
      const isCron = changes.after === undefined && cron !== undefined;
      return {
        spec: {
          ...rest,
          ...(nextName !== undefined && { name: nextName }),
          ...(isCron ? { cron } : after !== undefined && { after }),
        },
        paused: paused ?? schedule.paused,
        isOtherTime: changes.cron !== undefined || changes.timezone !== undefined,
      };
    });
  }

  /** It makes no crawls by itself until it is resumed. @throws RequestError `not-found` */
  pause(id: string): Promise<ScheduleView> {
    return this.#change(id, (schedule) => ({ spec: specOf(schedule), paused: true }));
  }

  /** Goes on with its next tick: those of the pause do not come. @throws RequestError `not-found` */
  resume(id: string): Promise<ScheduleView> {
    return this.#change(id, (schedule) => ({ spec: specOf(schedule), paused: false }));
  }

  /** Makes a crawl now, as its overlap policy has it, paused or not. @throws RequestError `not-found` */
  async run(id: string): Promise<TickView> {
    const { store, starter, clock } = this.#parts;
    const schedule = await this.#find(id);
    const now = clock.now();
    const tick = `${schedule.id}:run-${randomBytes(8).toString("hex")}`;
    await store.ticks.record([
      { id: tick, schedule: schedule.id, at: now, cause: "run", chain: 0, recordedAt: now },
    ]);
    await starter.advance(schedule.id);
    const recorded = await store.ticks.get(tick);
    if (recorded === undefined) throw notFound("schedule", id);
    return tickViewOf(recorded);
  }

  /** What became of its ticks, newest first. @throws RequestError `not-found` */
  async runs(id: string, options: ListOptions & { readonly state?: TickState }) {
    await this.#find(id);
    const { items, next } = await this.#parts.store.ticks.list(id, options);
    return { items: items.map(tickViewOf), next };
  }

  /** Removes it with its history. @throws NotFoundError */
  remove(id: string): Promise<void> {
    return this.#parts.store.schedules.remove(id);
  }

  async #find(id: string): Promise<ScheduleRecord> {
    const schedule = await this.#parts.store.schedules.get(id);
    if (schedule === undefined) throw notFound("schedule", id);
    return schedule;
  }

  async #change(
    id: string,
    changed: (schedule: ScheduleRecord) => {
      readonly spec: ScheduleSpec;
      readonly paused: boolean;
      readonly isOtherTime?: boolean;
    },
  ): Promise<ScheduleView> {
    for (let tries = 0; tries < CHANGE_TRIES; tries += 1) {
      const schedule = await this.#find(id);
      const { spec, paused, isOtherTime = false } = changed(schedule);
      const now = this.#parts.clock.now();
      // An instant that has been a tick is not one again, whatever the clock does.
      const computed = await this.#checked(spec, Math.max(now, schedule.firedAt ?? 0));
      const goesOn = !isOtherTime && !schedule.paused && schedule.cron !== undefined;
      const nextAt = paused || spec.cron === undefined ? undefined : goesOn ? schedule.nextAt : computed;
      const record = await this.#parts.store.schedules.change(schedule, {
        spec: { name: undefined, cron: undefined, after: undefined, ...spec },
        paused,
        nextAt,
        at: now,
      });
      if (record !== undefined) return this.#viewOf(record);
    }
    throw new RequestError("conflict", `schedule "${id}" is being changed by others at the same time`);
  }

  /** @returns its first tick after this instant @throws RequestError `invalid`, naming members */
  async #checked(spec: Omit<ScheduleRequest, "paused">, now: number): Promise<number | undefined> {
    await this.#checkCrawl(spec);
    if (spec.cron === undefined) return undefined;
    const cron = cronOf(spec.cron, spec.timezone);
    const first = cron.after(now);
    if (first === undefined) throw invalid("cron", `"${spec.cron}" never comes`);
    const { minIntervalMs } = this.#options;
    const shortest = cron.shortestInterval(now);
    if (shortest !== undefined && shortest < minIntervalMs) {
      throw invalid(
        "cron",
        `comes every ${shortest} ms, and must not come more often than every ${minIntervalMs} ms`,
      );
    }
    return first;
  }

  /** A crawl is looked at as if it were to be made now, so that a mistake is told to who makes it. */
  async #checkCrawl({ crawl, name, after }: Omit<ScheduleRequest, "paused">): Promise<void> {
    const sample = { at: 0, ...(after !== undefined && { after: "0".repeat(16) }) };
    const request = crawlRequestOf(
      { id: "0".repeat(16), ...(name !== undefined && { name }), crawl },
      sample,
    );
    try {
      await this.#parts.crawls.check(request);
    } catch (error) {
      if (!(error instanceof RequestError) || error.code !== "invalid") throw error;
      const fields = error.fields.map(({ field, message }) => ({ field: `crawl.${field}`, message }));
      throw new RequestError("invalid", `crawl: ${error.message}`, { fields });
    }
  }

  #viewOf(schedule: ScheduleRecord): ScheduleView {
    const { id, name, cron, timezone, after, nextAt, crawl, lastCrawl } = schedule;
    const { overlap, maxQueued, missed, maxMissed, paused, revision, createdAt, updatedAt } = schedule;
    const nextRuns =
      cron === undefined || nextAt === undefined
        ? []
        : [nextAt, ...cronOf(cron, timezone).next(NEXT_RUNS - 1, nextAt)];
    return {
      ...{ id, name: name ?? null, cron: cron ?? null, timezone, after: after ?? null },
      ...{ overlap, maxQueued, missed, maxMissed, paused },
      crawl: shown(crawl),
      nextRuns: nextRuns.map(isoOf),
      lastCrawl: lastCrawl ?? null,
      revision,
      ...{ createdAt: isoOf(createdAt), updatedAt: isoOf(updatedAt) },
    };
  }
}

function cronOf(pattern: string, timezone: string): CronPattern {
  try {
    return new CronPattern(pattern, timezone);
  } catch (error) {
    throw invalid("cron", messageOf(error));
  }
}

function specOf(schedule: ScheduleRecord): ScheduleSpec {
  const { name, cron, timezone, after, overlap, maxQueued, missed, maxMissed, crawl } = schedule;
  return {
    ...(name !== undefined && { name }),
    ...(cron !== undefined && { cron }),
    ...(after !== undefined && { after }),
    ...{ timezone, overlap, maxQueued, missed, maxMissed, crawl },
  };
}

function tickViewOf(tick: TickRecord): TickView {
  const { id, at, cause, state, reason, error, crawl, after, recordedAt, endedAt } = tick;
  return {
    ...{ tick: id, scheduledAt: isoOf(at), cause, state },
    ...{ reason: reason ?? null, error: error ?? null, crawl: crawl ?? null, after: after ?? null },
    ...{ recordedAt: isoOf(recordedAt), endedAt: endedAt === undefined ? null : isoOf(endedAt) },
  };
}

function isoOf(instant: number): string {
  return new Date(instant).toISOString();
}

/** A crawl's request as it may be shown: what a fetch is authorised with, and keys to sign with, stay here. */
function shown(crawl: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { fetch, params, ...rest } = crawl;
  const parsed = fetchOptions.safeParse(fetch);
  return {
    ...(masked(rest) as Record<string, unknown>),
    ...(fetch !== undefined && { fetch: parsed.success ? withoutSecrets(parsed.data) : "***" }),
    ...(params !== undefined && { params }),
  };
}

function masked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(masked);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      name === "secret" && inner !== undefined ? "***" : masked(inner),
    ]),
  );
}
