import type { NotificationLevel } from "../protocol/index.js";
import type { CrawlEnd, CrawlRecord, GoneNode, RuleEvent, TickRecord } from "../store/index.js";

/** Something that happened, as people are told. */
export type Notice = {
  /** Of what happened: the same again is the same. */
  readonly key: string;
  readonly event: RuleEvent;
  readonly level: NotificationLevel;
  readonly title: string;
  readonly text: string;
  /** In milliseconds since the epoch. */
  readonly at: number;
  readonly crawl?: string;
  readonly node?: string;
  readonly schedule?: string;
  /** For programs. */
  readonly data: Readonly<Record<string, unknown>>;
};

export function noticeOfTick(tick: TickRecord): Notice {
  const { id, schedule, at, reason = "", error = "" } = tick;
  return {
    key: `tick:${id}`,
    event: "schedule.failed",
    level: "error",
    title: `Schedule ${schedule} could not make its crawl`,
    text: linesOf({ schedule, tick: id, scheduled: isoOf(at), reason, error }),
    at: tick.endedAt ?? at,
    schedule,
    data: { schedule, tick: id, scheduledAt: isoOf(at), reason, error },
  };
}

export function noticeOfNode({ id, offlineAt, hasLeft }: GoneNode): Notice {
  return {
    key: `node:${id}:${offlineAt}`,
    event: "node.offline",
    level: hasLeft ? "info" : "warn",
    title: hasLeft ? `Node ${id} has left` : `Node ${id} is offline`,
    text: linesOf({ node: id, since: isoOf(offlineAt), left: hasLeft ? "yes" : "no: it was not heard of" }),
    at: offlineAt,
    node: id,
    data: { node: id, offlineAt: isoOf(offlineAt), left: hasLeft },
  };
}

const LEVELS = { finished: "info", closed: "warn", failed: "error" } as const;
const HAS_ENDED = { finished: "has finished", closed: "was closed", failed: "has failed" } as const;

export function noticeOfEnd(crawl: CrawlRecord, end: CrawlEnd): Notice {
  const { status } = end;
  return {
    key: `crawl:${crawl.id}:${end.id}`,
    event: `crawl.${status}`,
    level: LEVELS[status],
    title: `Crawl ${nameOf(crawl)} ${HAS_ENDED[status]}`,
    ...aboutCrawl(crawl, status, end.at),
  };
}

/** What is told of any crawl. */
export function aboutCrawl(crawl: CrawlRecord, status: string, at: number) {
  const { id, name, spider, counts, startedAt, finishReason, error, origin } = crawl;
  return {
    text: linesOf({
      ...{ crawl: id, name, spider, status, reason: finishReason, error },
      ...{ schedule: origin?.schedule, started: isoOf(startedAt), at: isoOf(at) },
      ...counts,
    }),
    at,
    crawl: id,
    ...(origin !== undefined && { schedule: origin.schedule }),
    data: {
      ...{ crawl: id, name: name ?? null, spider, status, finishReason: finishReason ?? null },
      ...{ error: error ?? null, schedule: origin?.schedule ?? null, startedAt: isoOf(startedAt) },
      ...{ at: isoOf(at), counts },
    },
  };
}

export function nameOf({ id, name }: Pick<CrawlRecord, "id" | "name">): string {
  return name === undefined ? id : `"${name}" (${id})`;
}

function linesOf(members: Readonly<Record<string, string | number | undefined>>): string {
  return Object.entries(members)
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([name, value]) => `${name}: ${value}`)
    .join("\n");
}

function isoOf(instant: number): string {
  return new Date(instant).toISOString();
}
