import { stringify } from "csv-stringify/sync";
import type { ItemRecord } from "../crawl/records.js";

const ROWS_AT_ONCE = 200;

/**
 * What spreadsheets take for the beginning of a formula: `=`, `+`, `-` and `@`, also in their wide forms and the minus
 * sign proper, and whatever white space or invisible character they overlook before one; and a tab or a line break.
 */
const FORMULA = /^(?:[\t\r\n]|[\s\p{Cc}\p{Cf}]*[=+\-@＝＋－＠−])/u;

type Cell = string | number | undefined;

/**
 * Items as CSV (RFC 4180, lines end with LF): `url`, `at`, and one column for each field that any item has, in the order
 * in which they first come. Text that a spreadsheet would run as a formula begins with an apostrophe.
 * @param fields the fields of all items; see `fieldsOf`
 */
export async function* csvOf(
  items: AsyncIterable<ItemRecord>,
  fields: readonly string[],
  { hasHeader = true } = {},
): AsyncIterable<string> {
  let batch: Cell[][] = hasHeader ? [["url", "at", ...fields].map(defused)] : [];
  for await (const { url, at, data } of items) {
    batch.push([defused(url), new Date(at).toISOString(), ...fields.map((field) => cell(data[field]))]);
    if (batch.length < ROWS_AT_ONCE) continue;
    yield stringify(batch);
    batch = [];
  }
  if (batch.length > 0) yield stringify(batch);
}

/** A look through all items: a table's columns stand in its first line. */
export async function fieldsOf(items: AsyncIterable<ItemRecord>): Promise<readonly string[]> {
  const fields = new Set<string>();
  for await (const { data } of items) for (const field of Object.keys(data)) fields.add(field);
  return [...fields];
}

/** Text that no spreadsheet runs. What spiders bring home is not to be trusted with that. */
export function defused(text: string): string {
  return FORMULA.test(text) ? `'${text}` : text;
}

function cell(value: unknown): Cell {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return defused(value);
  // A negative number is one, and not a formula.
  if (typeof value === "number") return value;
  return defused(value instanceof Date ? value.toISOString() : (JSON.stringify(value) ?? ""));
}
