import { describe, expect, it } from "vitest";
import { DirectiveReader } from "../../../src/crawl/robots/robots-directives.js";
import { namedMetasOf } from "../../../src/crawl/robots/robots-meta.js";

const NOW = Date.parse("2026-06-01T00:00:00Z");

function said(tell: (reader: DirectiveReader) => void): string {
  const reader = new DirectiveReader("Warren/0.1", NOW);
  tell(reader);
  const { noindex, nofollow } = reader.directives;
  return [noindex && "noindex", nofollow && "nofollow"].filter(Boolean).join(" ");
}

it.each([
  ["noindex", "noindex"],
  ["NOFOLLOW", "nofollow"],
  ["none", "noindex nofollow"],
  ["all", ""],
  ["index, follow", ""],
  ["noindex,nofollow", "noindex nofollow"],
  [" noindex , noarchive ", "noindex"],
  ["noindexing", ""],
  ["warren: noindex", "noindex"],
  ["Warren: noindex, nofollow", "noindex nofollow"],
  ["badger: noindex", ""],
  ["badger: noindex, nofollow", ""],
  ["badger: noindex, warren: nofollow", "nofollow"],
  ["warren: nofollow, badger: noindex", "nofollow"],
  ["nofollow, badger: noindex", "nofollow"],
  ["robots: noindex", "noindex"],
  ["*: noindex", "noindex"],
  ["max-snippet: 5, noindex", "noindex"],
  ["badger: max-snippet: 5, noindex", ""],
  ["unavailable_after: 2026-05-31", "noindex"],
  ["unavailable_after: 2026-06-02", ""],
  ["unavailable_after: 25 Jun 2010 15:00:00 PST", "noindex"],
  ["unavailable_after: Friday, 25-Jun-10 15:00:00 GMT, nofollow", "noindex nofollow"],
  ["unavailable_after: Fri, 25 Jun 2032 15:00:00 GMT", ""],
  ["warren: unavailable_after: 25 Jun 2010 15:00:00 GMT", "noindex"],
  ["badger: unavailable_after: 25 Jun 2010 15:00:00 GMT", ""],
  ["unavailable_after: never", ""],
  ["", ""],
  [",,,:,:: ,", ""],
])("X-Robots-Tag: %s means %j", (value, expected) => {
  expect(said((reader) => reader.header(value))).toBe(expected);
});

describe("meta elements", () => {
  it.each([
    ['<meta name="robots" content="noindex">', "noindex"],
    ["<META NAME=ROBOTS CONTENT=NOFOLLOW>", "nofollow"],
    ['<meta content="none" name="robots" />', "noindex nofollow"],
    ['<meta name=" Robots " content="noindex nofollow">', "noindex nofollow"],
    ['<meta name="warren" content="noindex">', "noindex"],
    ['<meta name="badger" content="noindex">', ""],
    ['<meta name="robots" content="nofollow"><meta name="warren" content="noindex">', "noindex nofollow"],
    ['<meta name="robots" content="unavailable_after: 25 Jun 2010 15:00:00 GMT">', "noindex"],
    [
      '<meta name="robots" content="nofollow, unavailable_after: Friday, 25-Jun-10 15:00:00 GMT">',
      "noindex nofollow",
    ],
    ['<meta property="robots" content="noindex">', ""],
    ['<meta name="robots">', ""],
    ['<meta name="description" content="noindex">', ""],
    ['<!-- <meta name="robots" content="noindex"> -->', ""],
    ['<script>const a = \'<meta name="robots" content="noindex">\'</script>', ""],
    ['<p title=\'<meta name="robots" content="noindex">\'>', ""],
    ['<meta name="robots" name="x" content="noindex" content="all">', "noindex"],
    ["", ""],
  ])("%s means %j", (html, expected) => {
    const found = said((reader) => {
      for (const { name, content } of namedMetasOf(html)) reader.meta(name, content);
    });
    expect(found).toBe(expected);
  });

  it("are read in any depth and number", () => {
    const html = `${"<div>".repeat(100_000)}${'<meta name="a" content="b">'.repeat(10_000)}`;
    expect(namedMetasOf(html)).toHaveLength(500);
  });
});
