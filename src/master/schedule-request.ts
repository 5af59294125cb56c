import { z } from "zod";
import { spiderName, whole } from "../crawl/crawl-request.js";
import { END_STATUSES, type Follows, MISSED_POLICIES, OVERLAPS, type ScheduleSpec } from "../store/index.js";
import { parse } from "./crawl-request.js";
import { isTimezone } from "./cron.js";

const id = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/, "must be an id");

const follows = z
  .strictObject({
    schedule: id.exactOptional(),
    spider: spiderName.exactOptional(),
    crawl: id.exactOptional(),
    status: z
      .array(z.enum(END_STATUSES))
      .min(1, "must hold at least one status")
      .transform((statuses) => [...new Set(statuses)])
      .default(["finished"]),
  })
  .refine(({ schedule, spider, crawl }) => schedule ?? spider ?? crawl, {
    message: 'must have "schedule", "spider" or "crawl"',
  });

const members = {
  name: z.string().trim().min(1, "must not be empty").max(200, "must have at most 200 characters"),
  cron: z.string().min(1, "must not be empty").max(200, "must have at most 200 characters"),
  timezone: z.string().refine(isTimezone, "must be the name of a time zone, such as Europe/Berlin"),
  after: follows,
  overlap: z.enum(OVERLAPS),
  maxQueued: whole(1, 100),
  missed: z.enum(MISSED_POLICIES),
  maxMissed: whole(1, 1_000),
  paused: z.boolean(),
  crawl: z.record(z.string(), z.unknown()),
};

const scheduleRequest = z
  .strictObject({
    name: members.name.exactOptional(),
    cron: members.cron.exactOptional(),
    timezone: members.timezone.default("UTC"),
    after: members.after.exactOptional(),
    overlap: members.overlap.default("skip"),
    maxQueued: members.maxQueued.default(1),
    missed: members.missed.default("last"),
    maxMissed: members.maxMissed.default(10),
    paused: members.paused.default(false),
    crawl: members.crawl,
  })
  .refine(({ cron, after }) => (cron === undefined) !== (after === undefined), {
    message: 'must have either "cron" or "after"',
  });

const scheduleChanges = z
  .strictObject({
    name: members.name.nullable().exactOptional(),
    cron: members.cron.exactOptional(),
    timezone: members.timezone.exactOptional(),
    after: members.after.exactOptional(),
    overlap: members.overlap.exactOptional(),
    maxQueued: members.maxQueued.exactOptional(),
    missed: members.missed.exactOptional(),
    maxMissed: members.maxMissed.exactOptional(),
    paused: members.paused.exactOptional(),
    crawl: members.crawl.exactOptional(),
  })
  .refine(({ cron, after }) => cron === undefined || after === undefined, {
    message: 'must not have both "cron" and "after"',
  });

export type ScheduleRequest = ScheduleSpec & { readonly paused: boolean };

/** What is to be changed. `name: null` takes the name away; `cron` takes the place of `after`, and the other way round. */
export type ScheduleChanges = {
  readonly name?: string | null;
  readonly cron?: string;
  readonly timezone?: string;
  readonly after?: Follows;
  readonly overlap?: ScheduleSpec["overlap"];
  readonly maxQueued?: number;
  readonly missed?: ScheduleSpec["missed"];
  readonly maxMissed?: number;
  readonly paused?: boolean;
  readonly crawl?: Readonly<Record<string, unknown>>;
};

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseScheduleRequest(input: unknown): ScheduleRequest {
  return parse(scheduleRequest, input);
}

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseScheduleChanges(input: unknown): ScheduleChanges {
  return parse(scheduleChanges, input);
}
