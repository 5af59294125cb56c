import type { z } from "zod";
import { CursorError } from "./errors.js";

/** One page of a list. */
export type ListPage<Row> = {
  readonly items: readonly Row[];
  /** Where the next page begins; null at the end. Opaque: only the list that gave it out can read it. */
  readonly next: string | null;
};

export type ListOptions = {
  /** Rows at most. @default 100 */
  readonly limit?: number;
  readonly cursor?: string;
};

export const DEFAULT_LIST_LIMIT = 100;

/** A page from one row more than was asked for: whether there is that one tells whether there is a next page. */
export function pageOf<Document, Row>(
  documents: readonly Document[],
  limit: number,
  toRow: (document: Document) => Row,
  toCursor: (last: Document) => string,
): ListPage<Row> {
  const shown = documents.slice(0, limit);
  const last = shown.at(-1);
  return {
    items: shown.map(toRow),
    next: documents.length > limit && last !== undefined ? toCursor(last) : null,
  };
}

export function encodeCursor(position: unknown): string {
  return Buffer.from(JSON.stringify(position)).toString("base64url");
}

/** @throws CursorError */
export function decodeCursor<Position>(cursor: string, schema: z.ZodType<Position>): Position {
  let position: unknown;
  try {
    position = JSON.parse(Buffer.from(cursor, "base64url").toString());
  } catch {
    throw new CursorError();
  }
  const parsed = schema.safeParse(position);
  if (!parsed.success) throw new CursorError();
  return parsed.data;
}

/** The `_id`s of everything that belongs to a crawl: they all begin with its id and a colon. */
export function idsOf(crawl: string): { $gte: string; $lt: string } {
  return { $gte: `${crawl}:`, $lt: `${crawl};` };
}
