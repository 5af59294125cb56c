import { describe, expect, it } from "vitest";
import { jsonSchemaItem } from "../../../src/crawl/json-schema-item.js";

const BOOK = {
  type: "object",
  required: ["title", "price"],
  additionalProperties: false,
  properties: {
    title: { type: "string", pattern: "^[A-Z]" },
    price: { type: "number", minimum: 0, default: 1 },
    at: { type: "string", format: "date-time" },
    tags: { type: "array", items: { type: "string" } },
  },
};

function judged(schema: Record<string, unknown>, value: unknown) {
  const result = jsonSchemaItem(schema)["~standard"].validate(value);
  if (result instanceof Promise) throw new Error("it must not take a promise");
  if (result.issues !== undefined) {
    return result.issues.map(({ path, message }) => `${path?.map(String).join(".")}: ${message}`);
  }
  return result.value;
}

describe("a JSON Schema for items", () => {
  it("passes an item as it is", () => {
    const item = { title: "A", price: 2, at: "2026-01-01T00:00:00Z", tags: ["b"] };
    expect(judged(BOOK, item)).toBe(item);
  });

  it("tells all that is wrong with one, and where", () => {
    expect(judged(BOOK, { title: "a", at: "now", tags: ["x", 5], "a/b": 1 })).toEqual([
      ": must have required property 'price'",
      ': must NOT have additional properties: "a/b"',
      'title: must match pattern "^[A-Z]"',
      'at: must match format "date-time"',
      "tags.1: must be string",
    ]);
  });

  it("tells the first thing that is wrong with a large one", () => {
    const item = { title: "A", price: 1, tags: Array.from({ length: 100_000 }, (_, index) => index) };
    expect(judged(BOOK, item)).toEqual(["tags.0: must be string"]);
  });

  it("keeps its patterns apart", () => {
    const schema = { properties: { a: { pattern: "^x" }, b: { pattern: "^y" } } };
    expect(judged(schema, { a: "x", b: "x" })).toEqual(['b: must match pattern "^y"']);
  });

  it.each([
    ["http://json-schema.org/draft-06/schema#"],
    ["http://json-schema.org/draft-07/schema#"],
    ["https://json-schema.org/draft/2020-12/schema"],
  ])("may be of %s", ($schema) => {
    expect(judged({ ...BOOK, $schema }, { title: "A", price: 2 })).toEqual({ title: "A", price: 2 });
  });

  it("matches patterns in linear time", () => {
    const schema = { properties: { a: { pattern: "^(a+)+$" } } };
    expect(judged(schema, { a: `${"a".repeat(1_000)}!` })).toEqual(['a: must match pattern "^(a+)+$"']);
  });

  it.each([
    [{ type: "objekt" }, "itemSchema: schema is invalid"],
    [{ $ref: "https://example.com/other.json" }, "itemSchema: can't resolve reference"],
    [{ properties: { a: { pattern: "(?<!x)a" } } }, "itemSchema: "],
    [
      { $schema: "https://example.com/none" },
      'itemSchema: no schema with key or ref "https://example.com/none"',
    ],
    [{ $async: true }, "itemSchema: $async is not known"],
  ])("that is none is refused: %j", (schema, why) => {
    expect(() => jsonSchemaItem(schema)).toThrow(why);
  });
});
