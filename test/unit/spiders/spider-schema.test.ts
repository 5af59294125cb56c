import { readFileSync } from "node:fs";
import path from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { parse as parseYaml } from "yaml";
import { spiderSchemaFile } from "../../../scripts/write-spider-schema.mjs";
import { compileSpider, declarationSchema } from "../../../src/spiders/declarative/index.js";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const read = (file: string) => readFileSync(path.join(ROOT, file), "utf8");

describe("the JSON Schema of declarations", () => {
  const published = read("docs/reference/spider.schema.json");
  const validate = new Ajv2020({ strict: true, allowUnionTypes: true }).compile(
    JSON.parse(published) as object,
  );

  const isCompiled = (declaration: unknown): boolean => {
    try {
      compileSpider(declaration);
      return true;
    } catch {
      return false;
    }
  };

  it("is the one among the docs", () => {
    expect(published).toBe(spiderSchemaFile(declarationSchema()));
  });

  it.each<[string, unknown]>([
    ["the least of all", { name: "s" }],
    ["the example", parseYaml(read("examples/spiders/declarative/spider.yaml"))],
    [
      "every member of the first shape",
      {
        name: "s",
        start: ["http://h/"],
        follow: [{ css: "a", attr: "href", pattern: "*" }],
        items: [
          {
            css: "li",
            fields: {
              a: { css: "b", attr: "x", all: true, regex: "a", type: "number" },
              n: { css: "c", fields: { d: { css: "e" } } },
            },
          },
        ],
        files: [{ css: "a", attr: "href", pattern: "*.pdf" }],
      },
    ],
    ["its own name", { $schema: "https://example.com/spider.schema.json", name: "s" }],
    [
      "steps",
      {
        name: "s",
        items: [
          {
            fields: {
              a: { css: "b", transform: ["trim", { split: "," }, { replace: { regex: "a", with: "b" } }] },
            },
          },
        ],
      },
    ],
  ])("takes %s, and so does the compiler", (_what, declaration) => {
    expect(validate(declaration), JSON.stringify(validate.errors)).toBe(true);
    expect(isCompiled(declaration)).toBe(true);
  });

  it.each<[string, unknown]>([
    ["no name", {}],
    ["an unknown member", { name: "s", itmes: [] }],
    ["a rule that is none", { name: "s", follow: ["a"] }],
    ["an unknown type", { name: "s", items: [{ fields: { a: { css: "b", type: "int" } } }] }],
    ["an unknown step", { name: "s", items: [{ fields: { a: { css: "b", transform: ["shout"] } } }] }],
    [
      "an unknown member of a nested field",
      { name: "s", items: [{ fields: { a: { css: "b", fields: { c: { cs: "d" } } } } }] },
    ],
    ["a name of a field that is none", { name: "s", items: [{ fields: { "a.b": "c" } }] }],
    ["a priority that is none", { name: "s", follow: [{ css: "a", priority: 10 }] }],
  ])("refuses %s, and so does the compiler", (_what, declaration) => {
    expect(validate(declaration)).toBe(false);
    expect(isCompiled(declaration)).toBe(false);
  });
});
