import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseLinkHeader } from "../../../src/crawl/pages/link-header.js";

const link = (href: string, ...rel: string[]) => ({ href, rel, hasLanguage: false });

describe("a Link header", () => {
  it.each<[string, ReturnType<typeof parseLinkHeader>]>([
    ['<http://h/2>; rel="next"', [link("http://h/2", "next")]],
    ["</2>;rel=next", [link("/2", "next")]],
    [
      '</a>; rel="next", </b>; rel=alternate; hreflang=de',
      [link("/a", "next"), { ...link("/b", "alternate"), hasLanguage: true }],
    ],
    ['</a>; rel="NEXT  nofollow"', [link("/a", "next", "nofollow")]],
    ["< /a >; REL = next", [link("/a", "next")]],
    ["</a>", [link("/a")]],
    ["</a>; rel=next; rel=prev", [link("/a", "next")]],
    ['</a,b;c>; title="x, <y>; rel=z \\"q\\""; rel=next', [link("/a,b;c", "next")]],
    ["</a>; crossorigin; rel=preload; as=style", [link("/a", "preload")]],
    ['</a>; rel=next; anchor="#part", </b>; rel=next', [link("/b", "next")]],
    ["<>; rel=next", [link("", "next")]],
    ["</a>; rel=next </b>; rel=next", [link("/a", "next"), link("/b", "next")]],
    ['</a>; rel="next', [link("/a", "next")]],
    ["</a>; =; ;; rel=next,,, </b>", [link("/a", "next"), link("/b")]],
    ["http://h/; rel=next", []],
    ["<http://h/", []],
    ["", []],
  ])("%j", (header, expected) => {
    expect(parseLinkHeader(header)).toEqual(expected);
  });

  it("is read to its end whatever it holds", () => {
    const text = fc
      .array(fc.constantFrom(...'<>;,="\\ ab', "rel=next"), { maxLength: 40 })
      .map((all) => all.join(""));
    fc.assert(fc.property(text, (header) => parseLinkHeader(header).length <= header.length));
    expect(parseLinkHeader("<a>,".repeat(20_000))).toHaveLength(1_000);
    expect(parseLinkHeader(`<a>${";".repeat(500_000)}`)).toHaveLength(1);
    expect(parseLinkHeader(`<a>;rel="${"\\".repeat(500_000)}`)).toHaveLength(1);
  });
});
