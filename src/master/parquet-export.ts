import type { ByteWriter } from "hyparquet-writer";
import type { ItemRecord } from "../crawl/records.js";

type ColumnType = "STRING" | "DOUBLE" | "BOOLEAN" | "JSON" | "TIMESTAMP";

/** A column of a field of the items. */
type FieldColumn = { readonly field: string; readonly name: string; readonly type: ColumnType };

export type ParquetSchema = { readonly columns: readonly FieldColumn[] };

/** Rows that are encoded together; and their text, about, in characters. What is held in memory is a few of these. */
const GROUP_ROWS = 5_000;
const GROUP_CHARACTERS = 4 * 1_048_576;
/** Fields with a column of their own; the others go into `_more`. */
const MAX_COLUMNS = 1_000;

/** What every item has, beside the fields of its data. */
const COMMON = [
  { name: "_id", type: "STRING" },
  { name: "_url", type: "STRING" },
  { name: "_at", type: "TIMESTAMP" },
  { name: "_spider", type: "STRING" },
  { name: "_version", type: "STRING" },
  { name: "_node", type: "STRING" },
] as const;
/** Fields that have no column, and values that are not of their column's type. */
const MORE = { name: "_more", type: "JSON" } as const;

/**
 * A look through all items: the columns of a table and their types. A field whose values are all text, all numbers or all
 * true and false is a column of those; any other is one of JSON.
 */
export async function parquetSchemaOf(items: AsyncIterable<ItemRecord>): Promise<ParquetSchema> {
  const types = new Map<string, ColumnType | undefined>();
  for await (const { data } of items) {
    for (const [field, value] of Object.entries(data)) {
      const type = typeOf(value);
      const known = types.get(field);
      if (type === undefined || known === "JSON") {
        if (!types.has(field)) types.set(field, undefined);
      } else types.set(field, known === undefined || known === type ? type : "JSON");
    }
  }
  const taken = new Set<string>([...COMMON, MORE].map(({ name }) => name));
  const columns = [...types].slice(0, MAX_COLUMNS).map(([field, type = "JSON"]): FieldColumn => {
    let name = field;
    while (taken.has(name)) name += "_";
    taken.add(name);
    return { field, name, type };
  });
  return { columns };
}

/**
 * Items as a Parquet file, one group of rows after the other. Items that came, or became others, since the columns were
 * made are not cut to fit: what has no place in a column is in `_more`.
 */
export async function* parquetOf(
  items: AsyncIterable<ItemRecord>,
  { columns }: ParquetSchema,
): AsyncIterable<Uint8Array> {
  // A library that only this needs.
  const { ByteWriter, ParquetWriter, schemaFromColumnData } = await import("hyparquet-writer");
  const described = [...COMMON, ...columns, MORE].map(({ name, type }) => ({
    name,
    type,
    data: [],
    nullable: true,
  }));
  const bytes = new ByteWriter();
  const writer = new ParquetWriter({
    writer: bytes,
    schema: schemaFromColumnData({ columnData: described }),
    createdBy: "warren",
  });
  let group: unknown[][] = described.map(() => []);
  let characters = 0;
  let rows = 0;
  const encode = (): Uint8Array => {
    void writer.write({
      columnData: described.map(({ name }, index) => ({
        name,
        data: group[index] ?? [],
        offsetIndex: false,
      })),
      rowGroupSize: rows,
    });
    group = described.map(() => []);
    characters = 0;
    rows = 0;
    return takenFrom(bytes);
  };
  for await (const item of items) {
    const row = rowOf(item, columns);
    for (const [index, value] of row.entries()) {
      group[index]?.push(value);
      characters += sizeOf(value);
    }
    rows += 1;
    if (rows >= GROUP_ROWS || characters >= GROUP_CHARACTERS) yield encode();
  }
  if (rows > 0) yield encode();
  void writer.finish();
  yield takenFrom(bytes);
}

/** What was written so far, which makes room for more. */
function takenFrom(bytes: ByteWriter): Uint8Array {
  const taken = bytes.getBytes().slice();
  bytes.index = 0;
  return taken;
}

function rowOf(item: ItemRecord, columns: readonly FieldColumn[]): readonly unknown[] {
  const { id, url, at, spider, version, node, data } = item;
  const left = new Map(Object.entries(data));
  const cells = columns.map(({ field, type }) => {
    const value = left.get(field);
    const actual = typeOf(value);
    if (actual !== undefined && actual !== type && type !== "JSON") return undefined;
    left.delete(field);
    if (actual === undefined) return undefined;
    return type === "JSON" ? plain(value) : value instanceof Date ? value.toISOString() : value;
  });
  const more = left.size === 0 ? undefined : plain(Object.fromEntries(left));
  return [id, url, new Date(at), spider, version, node, ...cells, more];
}

/** Undefined of what no column need hold. */
function typeOf(value: unknown): ColumnType | undefined {
  switch (typeof value) {
    case "string":
      return "STRING";
    case "number":
      // JSON has no others.
      return Number.isFinite(value) ? "DOUBLE" : undefined;
    case "boolean":
      return "BOOLEAN";
    case "undefined":
      return undefined;
    default:
      if (value === null) return undefined;
      return value instanceof Date ? "STRING" : "JSON";
  }
}

/** As JSON has it: dates are text, and so on. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value) ?? "null") as unknown;
}

/** About how much a value takes, in characters. */
function sizeOf(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null || value instanceof Date) return 8;
  return JSON.stringify(value).length;
}
