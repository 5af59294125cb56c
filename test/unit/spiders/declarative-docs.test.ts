import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { compileSpider, parseDeclaration } from "../../../src/spiders/declarative/index.js";
import { pageOf, yielded } from "../../support/declared.js";

const PAGE = readFileSync(
  path.resolve(import.meta.dirname, "../../../docs/reference/declarative-spiders.md"),
  "utf8",
);

/** The first piece of code in this language. */
function code(language: string): string {
  return new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(PAGE)?.[1] ?? "";
}

it("the example among the docs does what is said there", async () => {
  const spider = compileSpider(parseDeclaration(code("yaml")));
  const page = () => pageOf(code("html"), { url: "https://books.example/book/7", meta: { shelf: "Travel" } });
  const expected = [
    { item: JSON.parse(code("json")) as unknown },
    { file: "https://books.example/book/7/sample.pdf" },
  ];
  expect(await yielded(spider, page(), "book")).toEqual(expected);
  expect(await yielded(spider, page())).toEqual(expected);
  const list = pageOf(
    `<h1>Travel</h1><article class=book><h3><a href=/book/7>The long way</a></h3></article><li class=next><a href="?page=2">`,
    { url: "https://books.example/" },
  );
  expect(await yielded(spider, list)).toEqual([
    { request: { url: "https://books.example/?page=2", meta: { $page: 2 } } },
    { request: { url: "https://books.example/book/7", callback: "book", meta: { shelf: "Travel" } } },
  ]);
});
