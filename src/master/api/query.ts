import { z } from "zod";
import { parse } from "../crawl-request.js";

/** Ids as this project makes them; what else is asked for cannot be there, and never reaches the database. */
export const crawlId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/, "must be a crawl's id");
export const nodeId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, "must be a node's id");
export const fileId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,299}$/, "must be a file's id");
export const itemId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,299}$/, "must be an item's id");
export const deliveryId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,299}$/, "must be a delivery's id");
export const scheduleId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/, "must be a schedule's id");
export const ruleId = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/, "must be a notification rule's id");
export const deadLetterId = z.string().regex(/^[0-9a-f]{24}$/, "must be a dead letter's id");

/** The body of routes that take none. */
export const noBody = z.union([z.undefined(), z.null(), z.strictObject({})], {
  error: "this route takes no body",
});

const limit = z
  .string()
  .regex(/^\d{1,6}$/, "must be a whole number from 1 to 1000")
  .transform(Number)
  .refine((value) => value >= 1 && value <= 1_000, "must be a whole number from 1 to 1000");

/** Where a list goes on: what an answer's `next` gave. */
const cursor = z.string().regex(/^[A-Za-z0-9_-]{1,600}$/, "must be what `next` of an answer gave");

const INSTANT = "must be an instant: ISO 8601 with a time zone, or milliseconds since the epoch";

/** An instant, in milliseconds since the epoch. */
export const instant = z
  .string()
  .max(40, INSTANT)
  .transform((text) => {
    if (/^\d{1,15}$/.test(text)) return Number(text);
    const isWhole = /^\d{4}-\d{2}-\d{2}T[\d:.]+(?:Z|[+-]\d{2}:?\d{2})$/.test(text);
    return isWhole ? Date.parse(text) : Number.NaN;
  })
  .refine((value) => !Number.isNaN(value), INSTANT);

/** The members of a query that every list takes. */
export const listQuery = { limit: limit.default(100), cursor: cursor.exactOptional() };

/** A cursor for the outside: opaque, since what is in it may change. */
export function cursorOf(position: string): string {
  return Buffer.from(position).toString("base64url");
}

export function positionOf(given: string): string {
  return Buffer.from(given, "base64url").toString();
}

/** The id in a route's path. @throws RequestError `invalid` */
export function idOf(params: unknown, schema: z.ZodType<string>): string {
  return parse(z.object({ id: schema }), params).id;
}
