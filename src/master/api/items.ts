import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { parse } from "../crawl-request.js";
import { invalid, notFound } from "../errors.js";
import { EXPORT_FORMATS, type ExportFormat, ItemExport, linesOf, shown } from "../item-export.js";
import type { ApiParts } from "./parts.js";
import { crawlId, instant, itemId, listQuery } from "./query.js";

const range = { after: itemId.exactOptional(), since: instant.exactOptional() };
const MOST_EXPORTED = 100_000_000;
const exportLimit = z
  .string()
  .regex(/^\d{1,9}$/, `must be a whole number from 1 to ${MOST_EXPORTED}`)
  .transform(Number)
  .refine(
    (value) => value >= 1 && value <= MOST_EXPORTED,
    `must be a whole number from 1 to ${MOST_EXPORTED}`,
  );

const paged = z.strictObject({ ...listQuery, ...range });
/** The whole of it, unless a limit is given. */
const exported = z.strictObject({
  format: z.enum(EXPORT_FORMATS),
  limit: exportLimit.exactOptional(),
  ...range,
});
const invalidExported = z.strictObject({ format: z.literal("ndjson").exactOptional() });
const versions = z.strictObject(listQuery);
const itemParams = z.object({ id: crawlId, item: itemId });

const MEDIA_TYPES: Readonly<Record<ExportFormat, string>> = {
  ndjson: "application/x-ndjson; charset=utf-8",
  json: "application/json; charset=utf-8",
  csv: "text/csv; charset=utf-8; header=present",
  parquet: "application/vnd.apache.parquet",
};
const HEADLESS_CSV = "text/csv; charset=utf-8; header=absent";

/** Trailer of an export: the id of its last item, for `after`. */
const LAST_ID = "x-last-id";

/**
 * What spiders extracted. With `format`, or an Accept header that names NDJSON, CSV or Parquet, all of it as one stream
 * that goes as fast as its reader and holds no more than a few pieces; else page by page, as any list.
 */
export function itemRoutes(
  api: FastifyInstance,
  { crawls, store }: Pick<ApiParts, "crawls" | "store">,
): void {
  api.get("/crawls/:id/items", async (request, reply) => {
    const { id } = parse(z.object({ id: crawlId }), request.params);
    const given = (request.query as { format?: unknown }).format;
    const format = given === undefined ? acceptedFormat(request.headers.accept) : given;
    if (format === undefined) {
      const query = parse(paged, request.query);
      checkAfter(id, query.after);
      await crawls.get(id);
      const { items, next } = await store.items.list(id, query);
      return { items: items.map(shown), next };
    }
    const { format: wanted, ...options } = parse(exported, { ...(request.query as object), format });
    checkAfter(id, options.after);
    await crawls.get(id);
    const isHeadless = wanted === "csv" && options.after !== undefined;
    reply.type(isHeadless ? HEADLESS_CSV : MEDIA_TYPES[wanted]);
    if (request.method === "HEAD") return reply.send();
    const whole = new ItemExport(store.items, id, options);
    const pieces = Readable.from(await whole.as(wanted), { highWaterMark: 2, objectMode: true });
    reply.trailer(LAST_ID, async () => whole.lastId ?? "");
    return reply.send(pieces);
  });

  api.get("/crawls/:id/items/invalid", async (request, reply) => {
    const { id } = parse(z.object({ id: crawlId }), request.params);
    if (acceptedFormat(request.headers.accept) === "ndjson" || isAskedFor(request.query, "ndjson")) {
      parse(invalidExported, request.query);
      await crawls.get(id);
      reply.type(MEDIA_TYPES.ndjson);
      if (request.method === "HEAD") return reply.send();
      return reply.send(Readable.from(linesOf(store.invalidItems.stream(id)), { highWaterMark: 2 }));
    }
    const query = parse(z.strictObject(listQuery), request.query);
    await crawls.get(id);
    const { items, next } = await store.invalidItems.list(id, query);
    return { items: items.map(shown), next };
  });

  api.get("/crawls/:id/items/:item", async (request) => {
    const { id, item } = parse(itemParams, request.params);
    return shown(await found(id, item));
  });

  api.get("/crawls/:id/items/:item/history", async (request) => {
    const { id, item } = parse(itemParams, request.params);
    const query = parse(versions, request.query);
    const { items, next } = await store.items.history(await found(id, item), query);
    return { items: items.map(shown), next };
  });

  async function found(crawl: string, id: string) {
    await crawls.get(crawl);
    const item = id.startsWith(`${crawl}:`) ? await store.items.get(id) : undefined;
    if (item === undefined) throw notFound("item", id);
    return item;
  }
}

function isAskedFor(query: unknown, format: ExportFormat): boolean {
  return (query as { format?: unknown }).format === format;
}

function checkAfter(crawl: string, after: string | undefined): void {
  if (after === undefined || after.startsWith(`${crawl}:`)) return;
  throw invalid("after", `must be the id of an item of crawl "${crawl}"`);
}

function acceptedFormat(accept = ""): ExportFormat | undefined {
  if (/application\/(x-)?(ndjson|jsonl)|application\/jsonlines/.test(accept)) return "ndjson";
  if (/application\/vnd\.apache\.parquet/.test(accept)) return "parquet";
  return /text\/csv/.test(accept) ? "csv" : undefined;
}
