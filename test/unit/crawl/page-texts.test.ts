import { describe, expect, it } from "vitest";
import { readMetadata } from "../../../src/crawl/pages/page-metadata.js";
import { VisibleText } from "../../../src/crawl/pages/visible-text.js";

const visible = (html: string) => new VisibleText(html).read();
const metadata = (text: string, language?: string) => readMetadata({ text, url: "http://h/dir/p", language });

describe("the visible text of a page", () => {
  it.each([
    [
      "blocks are lines",
      "<h1>Head</h1><p>one <b>bold</b>,<br>two<ul><li>three<li>four</ul>",
      "Head\none bold,\ntwo\nthree\nfour",
    ],
    ["cells are parted", "<table><tr><td>a</td><td>b</td></tr><tr><th>c<th>d</table>", "a b\nc d"],
    ["white space is folded", "<p>\n  a \t b&nbsp; c\n</p>\n\n\n<p> </p>d", "a b c\nd"],
    ["references are characters", "<p>&lt;b&gt; &eacute;&#x1F600;</p>", "<b> é😀"],
    [
      "scripts and styles are none",
      "a<script>if (a<b) '</p>'</script><style>p{}</style>b<!-- c --><noscript>d</noscript>",
      "ab",
    ],
    ["the head is none", "<html><head><title>t</title><meta name=a content=b>x</head><body>y</body>", "y"],
    ["a head that does not end ends all the same", "<head><title>t</title><body><p>y", "y"],
    ["a head without a body ends at the first of one", "<head><title>t</title><p>y", "y"],
    [
      "drawings and templates are none",
      "a<svg><title>t</title><text>u</text></svg><template><p>v</template>b",
      "ab",
    ],
    ["an empty drawing is nothing", "a<svg/>b", "ab"],
    ["hidden parts are none", "a<div hidden>b<div>c</div>d</div>e<p hidden=''>", "a\ne"],
    ["forms of old pages", "<CENTER>A</CENTER><FONT>B</FONT>", "A\nB"],
    ["an empty page has none", "", ""],
  ])("%s", (_claim, html, expected) => {
    expect(visible(html)).toBe(expected);
  });

  it.each([
    ["deep", "<div>".repeat(100_000), 0],
    ["big", "<p>some text</p>".repeat(600_000), 9 * 600_000 + 599_999],
    ["unclosed", `<svg>${"<g>".repeat(100_000)}`, 0],
    ["full of references", "&amp;".repeat(1_000_000), 1_000_000],
  ])("comes of a page that is %s", (_what, html, length) => {
    expect(visible(html)).toHaveLength(length);
  });
});

describe("what a page says of itself", () => {
  it("is read from everywhere it may stand", () => {
    const found = metadata(`<!doctype html><html lang="pt-BR"><head><title> A &amp; B\n </title>
      <meta name=Description content="What it is"><link rel="CANONICAL shortlink" href="../c">
      <meta property="og:title" content="OG &quot;title&quot;"><meta property=og:image content=1.png>
      <meta property=og:image content=2.png><meta name=twitter:card content=summary>
      <meta property=article:published_time content=2026-01-02><meta name=author content="Ann">
      </head><body><script type="application/ld+json">{"@graph":[{"@type":"Article","dateModified":"2026-02-03",
      "author":{"name":"Bob"},"headline":"</b>"}]}</script></body>`);
    expect(found).toEqual({
      title: "A & B",
      description: "What it is",
      canonical: "http://h/c",
      language: "pt-BR",
      author: "Ann",
      published: "2026-01-02",
      modified: "2026-02-03",
      openGraph: { title: 'OG "title"', image: "1.png" },
      twitter: { card: "summary" },
      jsonLd: [
        {
          "@graph": [
            { "@type": "Article", dateModified: "2026-02-03", author: { name: "Bob" }, headline: "</b>" },
          ],
        },
      ],
    });
  });

  it("is nothing when it says nothing", () => {
    expect(metadata("<p>hello")).toEqual({ openGraph: {}, twitter: {}, jsonLd: [] });
  });

  it.each([
    ["the page before the header", "<html lang=de>", "en", "de"],
    ["a meta element", "<meta http-equiv=content-language content='fr, en'>", "en", "fr"],
    ["the header", "<html lang=''>", "en-GB, de", "en-GB"],
    ["an underscore", "<html lang=en_US>", undefined, "en-US"],
    ["nothing that is no language", "<html lang='not a tag'>", "<x>", undefined],
  ])("has its language by %s", (_by, html, header, expected) => {
    expect(metadata(html, header).language).toBe(expected);
  });

  it.each([
    ["an author by name", '{"author":"Ann"}', "Ann"],
    ["several authors", '[{"author":[{"name":"Ann"},{"name":"Bob"}]}]', "Ann"],
    ["an author in a comment of old", '<!--{"author":"Ann"}-->', "Ann"],
    ["an author that is none", '{"author":{"name":{"a":1}}}', undefined],
    ["no JSON", '{"author":"Ann"', undefined],
  ])("takes from JSON-LD %s", (_what, json, expected) => {
    expect(metadata(`<script type="application/ld+json">${json}</script>`).author).toBe(expected);
  });

  it.each([
    ["JSON-LD without end", `<script type="application/ld+json">${"[".repeat(200_000)}</script>`],
    [
      "JSON-LD that is deep",
      `<script type="application/ld+json">${"[".repeat(100)}${"]".repeat(100)}</script>`,
    ],
    ["JSON-LD that is too much", `<script type="application/ld+json">"${"a".repeat(300_000)}"</script>`],
  ])("leaves out %s", (_what, html) => {
    expect(metadata(html).jsonLd).toEqual([]);
  });

  it("has bounds in number and length", () => {
    const many = Array.from(
      { length: 1_000 },
      (_, n) => `<meta property="og:p${n}" content="${"x".repeat(20_000)}">`,
    );
    const scripts = '<script type="application/ld+json">{}</script>'.repeat(500);
    const found = metadata(
      `${many.join("")}<meta property="og:__proto__" content="x">${scripts}${"<b>".repeat(100_000)}`,
    );
    expect(Object.keys(found.openGraph)).toHaveLength(200);
    expect(found.openGraph.p0).toHaveLength(10_000);
    expect(found.jsonLd).toHaveLength(100);
  });
});
