import { parquetMetadata, parquetReadObjects } from "hyparquet";
import { describe, expect, it } from "vitest";
import type { ItemRecord } from "../../../src/crawl/records.js";
import { csvOf, defused, fieldsOf } from "../../../src/master/csv-export.js";
import { parquetOf, parquetSchemaOf } from "../../../src/master/parquet-export.js";

function item(n: number, data: ItemRecord["data"]): ItemRecord {
  return {
    id: `c:${String(n).padStart(6, "0")}.0.0`,
    crawl: "c",
    url: `http://items.test/${n}`,
    at: 1_700_000_000_000 + n,
    spider: "shop",
    version: "2",
    node: "n1",
    data,
  };
}

async function* each(items: Iterable<ItemRecord>): AsyncIterable<ItemRecord> {
  yield* items;
}

async function csv(...data: ItemRecord["data"][]): Promise<string> {
  const items = data.map((one, n) => item(n, one));
  let text = "";
  for await (const piece of csvOf(each(items), await fieldsOf(each(items)))) text += piece;
  return text;
}

/** @param later what the items are by the time that they are written */
async function parquet(items: readonly ItemRecord[], later = items): Promise<ArrayBuffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of parquetOf(each(later), await parquetSchemaOf(each(items)))) pieces.push(piece);
  const whole = Buffer.concat(pieces);
  return whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.length) as ArrayBuffer;
}

function rowsOf(file: ArrayBuffer): Promise<Record<string, unknown>[]> {
  return parquetReadObjects({ file });
}

describe("CSV", () => {
  it.each([
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\rx",
    "\nx",
    " =1+1",
    "\u00a0=1",
    "\u200b=1",
    "\ufeff=1",
    "\u0000=1",
    "＝1+1",
    "＋1",
    "－1",
    "＠x",
    "−1+1",
    '=cmd|"/C calc"!A0',
  ])("has nothing that a spreadsheet would run: %j", (text) => {
    expect(defused(text)).toBe(`'${text}`);
  });

  it.each(["", "a=b", "1-1", "'=1", "mail@items.test", " plain", "ü", "#1", "a\n=1"])(
    "leaves alone what is none: %j",
    (text) => {
      expect(defused(text)).toBe(text);
    },
  );

  it("has nothing of the kind in its first line, nor inside of lists, and leaves numbers what they are", async () => {
    const text = await csv({ "=HYPERLINK(1)": -1, "@x": ["=1"], "-y": "-2" });

    expect(text).toBe(
      `url,at,'=HYPERLINK(1),'@x,'-y\nhttp://items.test/0,2023-11-14T22:13:20.000Z,-1,"[""=1""]",'-2\n`,
    );
  });

  it("has only its first line where there is nothing", async () => {
    expect(await csv()).toBe("url,at\n");
  });
});

describe("Parquet", () => {
  it("has a column of its type for each field, and what every item has besides", async () => {
    const file = await parquet([
      item(0, { title: "größe 🦊", price: 3, sold: true, tags: ["a", { b: null }], mixed: "1", gone: null }),
      item(1, { title: "", price: -0.5, sold: false, mixed: 1 }),
      item(2, { price: null, when: new Date(0) }),
    ]);

    expect(await rowsOf(file)).toEqual([
      {
        _id: "c:000000.0.0",
        _url: "http://items.test/0",
        _at: new Date(1_700_000_000_000),
        _spider: "shop",
        _version: "2",
        _node: "n1",
        _more: null,
        title: "größe 🦊",
        price: 3,
        sold: true,
        tags: ["a", { b: null }],
        mixed: "1",
        gone: null,
        when: null,
      },
      expect.objectContaining({ title: "", price: -0.5, sold: false, tags: null, mixed: 1, when: null }),
      expect.objectContaining({ title: null, price: null, sold: null, when: "1970-01-01T00:00:00.000Z" }),
    ]);
    const { schema } = parquetMetadata(file);
    expect(
      Object.fromEntries(schema.map(({ name, type, converted_type }) => [name, converted_type ?? type])),
    ).toMatchObject({
      _at: "TIMESTAMP_MILLIS",
      title: "UTF8",
      price: "DOUBLE",
      sold: "BOOLEAN",
      tags: "JSON",
      mixed: "JSON",
    });
  });

  it("is a table without rows where there is nothing", async () => {
    expect(await rowsOf(await parquet([]))).toEqual([]);
  });

  it("keeps apart fields that go by the names of what every item has", async () => {
    const [row] = await rowsOf(
      await parquet([item(0, { _id: "mine", _id_: "also", _more: "x", "a.b": 1, "": 2 })]),
    );

    expect(row).toMatchObject({ _id: "c:000000.0.0", _id_: "mine", _id__: "also", _more_: "x", _more: null });
    expect(Object.values(row ?? {})).toEqual(expect.arrayContaining([1, 2]));
  });

  it("loses nothing of items that came or became others while it was written", async () => {
    const before = [item(0, { price: 1, title: "a" })];
    const after = [item(0, { price: "on request", title: "a" }), item(1, { price: 2, colour: "red" })];

    expect(await rowsOf(await parquet(before, after))).toEqual([
      expect.objectContaining({ price: null, title: "a", _more: { price: "on request" } }),
      expect.objectContaining({ price: 2, title: null, _more: { colour: "red" } }),
    ]);
  });

  it("has a thousand columns for fields, and the others in one", async () => {
    const data = Object.fromEntries(Array.from({ length: 1_200 }, (_, n) => [`field${n}`, n]));

    const [row] = await rowsOf(await parquet([item(0, data)]));

    expect(Object.keys(row ?? {})).toHaveLength(1_007);
    expect(Object.keys((row?._more ?? {}) as object)).toHaveLength(200);
  });

  it("is written in groups of rows, of which no more than one is in memory", async () => {
    const items = Array.from({ length: 12_345 }, (_, n) => item(n, { n, text: `text ${n}` }));
    const sizes: number[] = [];
    const pieces: Uint8Array[] = [];
    for await (const piece of parquetOf(each(items), await parquetSchemaOf(each(items)))) {
      sizes.push(piece.length);
      pieces.push(piece);
    }
    const whole = Buffer.concat(pieces);
    const file = whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.length) as ArrayBuffer;

    const rows = await rowsOf(file);
    expect(rows.map(({ n }) => n)).toEqual(items.map(({ data }) => data.n));
    expect(parquetMetadata(file).row_groups.map(({ num_rows }) => Number(num_rows))).toEqual([
      5_000, 5_000, 2_345,
    ]);
    expect(sizes).toHaveLength(4);
  });
});
