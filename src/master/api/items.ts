import { Readable } from "node:stream";
import { stringify } from "csv-stringify/sync";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { ItemRecord } from "../../crawl/records.js";
import { parse } from "../crawl-request.js";
import type { ApiParts } from "./parts.js";
import { crawlId, idOf, listQuery } from "./query.js";

const FORMATS = ["ndjson", "json", "csv"] as const;
type Format = (typeof FORMATS)[number];

const paged = z.strictObject(listQuery);
/** The whole of it, unless a limit is given. */
const exported = z.strictObject({ format: z.enum(FORMATS), limit: listQuery.limit.unwrap().exactOptional() });

const MEDIA_TYPES: Readonly<Record<Format, string>> = {
  ndjson: "application/x-ndjson; charset=utf-8",
  json: "application/json; charset=utf-8",
  csv: "text/csv; charset=utf-8; header=present",
};

/** Text is sent in pieces of about so many characters: a write for each item would cost more than the item. */
const PIECE_CHARACTERS = 65_536;
const ROWS_AT_ONCE = 200;

/**
 * What spiders extracted. With `format`, or an Accept header that names NDJSON or CSV, all of it as one stream
 * that goes as fast as its reader and holds no more than a few pieces; else page by page, as any list.
 */
export function itemRoutes(
  api: FastifyInstance,
  { crawls, store }: Pick<ApiParts, "crawls" | "store">,
): void {
  api.get("/crawls/:id/items", async (request, reply) => {
    const id = idOf(request.params, crawlId);
    const given = (request.query as { format?: unknown }).format;
    const format = given === undefined ? acceptedFormat(request.headers.accept) : given;
    if (format === undefined) {
      const query = parse(paged, request.query);
      await crawls.get(id);
      const { items, next } = await store.items.list(id, query);
      return { items: items.map(viewOf), next };
    }
    const options = parse(exported, { ...(request.query as object), format });
    await crawls.get(id);
    reply.type(MEDIA_TYPES[options.format]);
    if (request.method === "HEAD") return reply.send();
    const items = () => firstOf(store.items.stream(id), options.limit ?? Number.POSITIVE_INFINITY);
    return reply.send(Readable.from(await writtenAs(options.format, items), { highWaterMark: 2 }));
  });
}

function acceptedFormat(accept = ""): Format | undefined {
  if (/application\/(x-)?(ndjson|jsonl)|application\/jsonlines/.test(accept)) return "ndjson";
  return /text\/csv/.test(accept) ? "csv" : undefined;
}

function viewOf(item: ItemRecord) {
  return { ...item, at: new Date(item.at).toISOString() };
}

async function writtenAs(
  format: Format,
  items: () => AsyncIterable<ItemRecord>,
): Promise<AsyncIterable<string>> {
  switch (format) {
    case "ndjson":
      return inPieces(lines(items()));
    case "json":
      return inPieces(arrayOf(items()));
    case "csv":
      return inPieces(rows(items(), await fieldsOf(items())));
    default:
      return format satisfies never;
  }
}

async function* lines(items: AsyncIterable<ItemRecord>): AsyncIterable<string> {
  for await (const item of items) yield `${JSON.stringify(viewOf(item))}\n`;
}

async function* arrayOf(items: AsyncIterable<ItemRecord>): AsyncIterable<string> {
  let separator = "[\n";
  for await (const item of items) {
    yield separator + JSON.stringify(viewOf(item));
    separator = ",\n";
  }
  yield separator === "[\n" ? "[]\n" : "\n]\n";
}

/** One column for each field that any item has, in the order in which they first come. */
async function* rows(items: AsyncIterable<ItemRecord>, fields: readonly string[]): AsyncIterable<string> {
  let batch: Cell[][] = [["url", "at", ...fields]];
  for await (const { url, at, data } of items) {
    batch.push([url, new Date(at).toISOString(), ...fields.map((field) => cell(data[field]))]);
    if (batch.length < ROWS_AT_ONCE) continue;
    yield csv(batch);
    batch = [];
  }
  yield csv(batch);
}

/** Spreadsheets run what looks like a formula; what spiders bring home is not to be trusted with that. */
function csv(batch: Cell[][]): string {
  return stringify(batch, { escape_formulas: true });
}

type Cell = string | number | undefined;

function cell(value: unknown): Cell {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string" || typeof value === "number") return value;
  return JSON.stringify(value);
}

/** A look through all items beforehand: a table's columns stand in its first line. */
async function fieldsOf(items: AsyncIterable<ItemRecord>): Promise<readonly string[]> {
  const fields = new Set<string>();
  for await (const { data } of items) for (const field of Object.keys(data)) fields.add(field);
  return [...fields];
}

async function* firstOf<T>(source: AsyncIterable<T>, limit: number): AsyncIterable<T> {
  let given = 0;
  for await (const one of source) {
    yield one;
    given += 1;
    if (given >= limit) return;
  }
}

async function* inPieces(texts: AsyncIterable<string>): AsyncIterable<string> {
  let piece = "";
  for await (const text of texts) {
    piece += text;
    if (piece.length < PIECE_CHARACTERS) continue;
    yield piece;
    piece = "";
  }
  if (piece !== "") yield piece;
}
