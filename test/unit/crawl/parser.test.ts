import { load } from "cheerio";
import { describe, expect, it } from "vitest";
import { type ParsedPage, type ParseOptions, parseHtml } from "../../../src/crawl/pages/parser.js";
import { CHARSETS, charsetPage } from "../../support/wild-site.js";

const URL_OF_PAGE = "http://example.com/dir/page?q";

function page(html: string | Buffer, options: Partial<ParseOptions> = {}): ParsedPage {
  const body = typeof html === "string" ? Buffer.from(html) : html;
  return parseHtml(body, { url: URL_OF_PAGE, contentType: "text/html; charset=utf-8", ...options });
}

const links = (html: string) => page(html).links();

describe("text", () => {
  for (const [charset, { text }] of Object.entries(CHARSETS)) {
    it.each(["header", "meta"] as const)(`in ${charset} is read as its %s says`, (named) => {
      const { body, headers } = charsetPage(charset, named);
      const contentType = String(headers?.["content-type"]);
      expect(parseHtml(Buffer.from(body), { url: URL_OF_PAGE, contentType }).scan().title).toBe(text);
    });
  }

  it.each(["utf-8", "windows-1252"])("in %s is read although nothing says so", (charset) => {
    const { body } = charsetPage(charset, "nowhere");
    const parsed = parseHtml(Buffer.from(body), { url: URL_OF_PAGE, contentType: "text/html" });
    expect(parsed.scan().title).toBe(CHARSETS[charset]?.text);
  });

  const russian = CHARSETS["windows-1251"]?.bytes ?? Buffer.alloc(0);
  const inRussian = (before: string) => Buffer.concat([Buffer.from(before), russian]);

  it.each([
    ["the header before the page", "text/html; charset=windows-1251", "<meta charset=utf-8>"],
    ["a header in any form", 'text/html;a=b; CHARSET = "Windows-1251" ; c=d', ""],
    [
      "the page when the header names no encoding",
      "text/html; charset=banana",
      "<meta charset=windows-1251>",
    ],
    [
      "an older meta element",
      "text/html",
      '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
    ],
    [
      "one the other way round",
      "text/html",
      "<META content='text/html;charset=cp1251' HTTP-EQUIV=content-type />",
    ],
    [
      "the first meta element that names an encoding",
      "text/html",
      "<meta charset=banana><meta charset=windows-1251>",
    ],
    ["no meta element in a comment", "text/html", "<!-- <meta charset=utf-8> --><meta charset=windows-1251>"],
    [
      "no description that speaks of charsets",
      "text/html",
      '<meta name=d content="charset=utf-8"><meta charset=windows-1251>',
    ],
    ["an XML declaration", "application/xhtml+xml", '<?xml version="1.0" encoding="windows-1251"?>'],
    ["a label with white space", "text/html", '<meta charset=" windows-1251 ">'],
  ])("is decoded by %s", (_by, contentType, before) => {
    const text = parseHtml(inRussian(before), { url: URL_OF_PAGE, contentType }).text;
    expect(text.slice(before.length)).toBe("Привет");
  });

  it("is not decoded by a meta element after the first 1,024 bytes", () => {
    const text = parseHtml(inRussian(`${" ".repeat(1_024)}<meta charset=koi8-r>`), { url: URL_OF_PAGE }).text;
    expect(text).toContain("Привет");
  });

  it.each([
    ["utf-8", Buffer.from("\uFEFFü")],
    ["utf-16le", Buffer.from("\uFEFFü", "utf16le")],
    ["utf-16be", Buffer.from("\uFEFFü", "utf16le").swap16()],
  ])("has its byte order mark believed and taken off: %s", (_encoding, body) => {
    expect(parseHtml(body, { url: URL_OF_PAGE, contentType: "text/html; charset=iso-8859-1" }).text).toBe(
      "ü",
    );
  });

  it("that claims to be 16 bits wide, in 8 bits, is UTF-8", () => {
    expect(page('<meta charset="utf-16">ü', { contentType: "text/html" }).text).toContain("ü");
  });

  it("has marks where bytes mean nothing", () => {
    expect(page(Buffer.from([0x61, 0xff, 0x62])).text).toBe("a\uFFFDb");
  });

  it("may be empty", () => {
    expect(page("").text).toBe("");
    expect(page("").scan()).toEqual({ title: "", links: [], robotsMeta: [], isCut: false });
    expect(page("").$("a")).toHaveLength(0);
  });
});

describe("the title", () => {
  it.each([
    ["<title>One</title>", "One"],
    ["<TITLE lang=en>\n  One\t two \n</TITLE>", "One two"],
    ["<title>A &amp; B &lt;c&gt; &eacute; &#x41; &bogus;</title>", "A & B <c> é A &bogus;"],
    ["<title><b>not bold</b></title>", "<b>not bold</b>"],
    ["<title>first</title><title>second</title>", "first"],
    ["<title></title><title>second</title>", "second"],
    ["<!-- <title>no</title> --><title>yes</title>", "yes"],
    ["<script>'<title>no</title>'</script><title>yes</title>", "yes"],
    ["<svg><title>icon</title></svg><title>page</title>", "page"],
    ["<svg/><title>page</title>", "page"],
    ["<title>never ends", "never ends"],
    ["<p>none", ""],
    [`<title>${"x".repeat(50_000)}</title>`, "x".repeat(10_000)],
  ])("of %j is %j", (html, expected) => {
    expect(page(html).scan().title).toBe(expected);
  });
});

describe("links", () => {
  it.each([
    ['<a href="/a">', "http://example.com/a"],
    ["<a href='b'>", "http://example.com/dir/b"],
    ["<A HREF=c>", "http://example.com/dir/c"],
    ["<a href=c/>", "http://example.com/dir/c/"],
    ["<a\n class=x\n href = \n'/d' >", "http://example.com/d"],
    ['<a href="?x=1&amp;y=2">', "http://example.com/dir/page?x=1&y=2"],
    ['<a href="/a&#x2F;b">', "http://example.com/a/b"],
    ["<a href='/it&quot;s \"q\"'>", "http://example.com/it%22s%20%22q%22"],
    ['<a href="/a?copy=1&amp;lt=2&lt=3">', "http://example.com/a?copy=1&lt=2&lt=3"],
    ['<a href=" \n/trim\t ">', "http://example.com/trim"],
    ['<a href="//other.example/x#y">', "http://other.example/x"],
    ['<a href="">', "http://example.com/dir/page?q"],
    ["<a href>", "http://example.com/dir/page?q"],
    ['<a href="/first" href="/second">', "http://example.com/first"],
    ['<area href="/area">', "http://example.com/area"],
    ['<iframe src="/iframe">', "http://example.com/iframe"],
    ['<frameset><frame src="/frame"></frameset>', "http://example.com/frame"],
    ['<link rel="next" href="/next">', "http://example.com/next"],
    ['<link rel="ALTERNATE" hreflang=de href="/de">', "http://example.com/de"],
    ['<meta http-equiv="refresh" content="5; url=/refresh">', "http://example.com/refresh"],
    ["<meta http-equiv=Refresh content=\"0;URL='/quoted'\">", "http://example.com/quoted"],
    ['<meta http-equiv="refresh" content="0 /bare">', "http://example.com/bare"],
    ['<meta http-equiv="refresh" content="1.5,url = /comma">', "http://example.com/comma"],
    ["<svg><a href=/svg></svg>", "http://example.com/svg"],
    ["<noscript><a href=/plain></noscript>", "http://example.com/plain"],
    ["<table><a href=/in-table>", "http://example.com/in-table"],
    ["<p <a href=/odd>", undefined],
    ["<div><<a href=/twice>", "http://example.com/twice"],
    ["<a href=/unclosed", undefined],
    ["<a name=x>", undefined],
    ['<a data-href="/data">', undefined],
    ["<abbr href=/abbr>", undefined],
    ['<link rel="stylesheet" href="/style.css">', undefined],
    ['<link rel="alternate stylesheet" href="/style.css">', undefined],
    ['<link rel="icon" href="/icon">', undefined],
    ['<link href="/no-rel">', undefined],
    ['<meta http-equiv="refresh" content="30">', undefined],
    ['<meta name="refresh" content="0;url=/x">', undefined],
    ['<img src="/image">', undefined],
    ['<form action="/form">', undefined],
    ["<!-- <a href=/comment> -->", undefined],
    ["<script>'<a href=/script>'</script>", undefined],
    ["<style>/* <a href=/style> */</style>", undefined],
    ["<textarea><a href=/textarea></textarea>", undefined],
    ["<title><a href=/title></title>", undefined],
    ["</a href=/closing>", undefined],
    ["<a href='mailto:a@b.example'>", undefined],
    ["<a href='javascript:void(0)'>", undefined],
    ["<a href='http://'>", undefined],
    ["<a href='http://user:pass@example.com/'>", undefined],
  ])("of %j: %s", (html, expected) => {
    expect(links(html)).toEqual(expected === undefined ? [] : [expected]);
  });

  it("come in their order, each once", () => {
    expect(links("<a href=/b><a href=/a><a href=/b#x><a href=/c><a href='/a'>")).toEqual([
      "http://example.com/b",
      "http://example.com/a",
      "http://example.com/c",
    ]);
  });

  it.each([
    ["http://other.example/x/", "http://other.example/x/a"],
    ["/root/", "http://example.com/root/a"],
    ["sub/page", "http://example.com/dir/sub/a"],
    ["", "http://example.com/dir/a"],
    ["mailto:x", "http://example.com/dir/a"],
  ])("are relative to the base %j", (base, expected) => {
    expect(links(`<base href="${base}"><a href=a><base href="/second/">`)).toEqual([expected]);
  });

  it("that come before the base are relative to it too", () => {
    expect(links("<a href=a><base href=/x/>")).toEqual(["http://example.com/x/a"]);
  });

  it.each(["nofollow", "NoFollow", "external nofollow noopener", "a,nofollow"])(
    "with rel %j are left out",
    (rel) => {
      expect(links(`<a href=/a rel="${rel}"><a href=/b>`)).toEqual(["http://example.com/b"]);
      expect(page(`<a rel="${rel}" href=/a>`).scan().links).toEqual([
        { href: "/a", kind: "anchor", nofollow: true },
      ]);
    },
  );

  it.each(["nofollow", "noindex,nofollow", "NONE", "noindex NoFollow"])(
    "are left out of a page that says %j",
    (content) => {
      const html = `<a href=/a><meta name="Robots" content="${content}"><a href=/b>`;
      expect(links(html)).toEqual([]);
      expect(
        page(html)
          .scan()
          .links.every(({ nofollow }) => nofollow),
      ).toBe(true);
    },
  );

  it("stay when a page says other things to robots", () => {
    const html =
      "<meta name=robots content='noindex, max-snippet:5'><meta name=x content=nofollow><a href=/a>";
    expect(page(html).scan().robotsMeta).toEqual(["noindex", "max-snippet:5"]);
    expect(links(html)).toEqual(["http://example.com/a"]);
  });

  it("are taken up to a number", () => {
    const html = "<a href=/a>".repeat(5) + "<a href=/b>".repeat(5);
    expect(page(html, { maxLinks: 6 }).scan()).toMatchObject({ isCut: true });
    expect(page(html, { maxLinks: 6 }).scan().links).toHaveLength(6);
    expect(page(html, { maxLinks: 10 }).scan()).toMatchObject({ isCut: false });
  });

  it("are those that cheerio finds, on a page of ordinary mess", () => {
    const html = `<!DOCTYPE html><html><head><title>T</title></head><body class='a'>
      <ul><li><a href="one.html" title='x>y'>1<li><a href='two.html?a=1&amp;b=2'>2</a></ul>
      <p>a < b && c > d <a href=three.html>3</a><br/><img src=x alt="<a href=no>">
      <script type="text/x">if (a<b) document.write("<a href='no'>");</script>
      <div><a class=l href="four.html"><b>4</a></b></div><A NAME=top></A></body></html>`;
    const $ = load(html);
    const expected = $("a[href]")
      .map((_, a) => new URL($(a).attr("href") ?? "", URL_OF_PAGE).href)
      .get();
    expect(links(html)).toEqual(expected);
    expect(expected).toHaveLength(4);
  });
});

describe("$", () => {
  const html = `<!doctype html><html><head><title>Books</title></head><body>
    <ul id="list"><li class="book" data-id="1"><b>Ä &amp; B</b> <i>3</i></li><li class="book" data-id="2"><b>C</b> <i>5</i></li></ul>
    <p id="end">End</p></body></html>`;

  it("selects in the page, as cheerio.load would have it", () => {
    const { $ } = page(html);
    const $loaded = load(html);
    for (const selector of [
      "li",
      ".book > b",
      "#end",
      "li:nth-child(2) i",
      "[data-id='1']",
      "li:has(b)",
      "nothing",
      "*",
    ]) {
      const text = (api: typeof $) =>
        api(selector)
          .map((_, node) => api(node).text())
          .get();
      expect(text($), selector).toEqual(text($loaded));
    }
    expect($("li").eq(1).attr("data-id")).toBe("2");
    expect($("li").first().find("b").text()).toBe("Ä & B");
    expect($("b", "#list").length).toBe(2);
    expect($("b", $("li").first()).length).toBe(1);
    expect($("b").closest("li").data("id")).toBe(1);
    expect($("li").filter("[data-id='2']").index()).toBe(1);
    expect($("#end").prevAll("ul").children().length).toBe(2);
    expect([...$("i")].map((node) => $(node).text())).toEqual(["3", "5"]);
  });

  it("looks selectors up in its page when they are given to a method", () => {
    const { $ } = page(html);
    expect($("#end").add("li").length).toBe(3);
    expect($("#list li").last().index("li")).toBe(1);
    expect($("b").add("i").end().length).toBe(2);
    $("<em>new</em>").appendTo("#end");
    expect($("#end em").text()).toBe("new");
    expect($("li").is("#list > li")).toBe(true);
    expect($("body").has("#end").length).toBe(1);
  });

  it("writes and extracts", () => {
    const { $ } = page(html);
    expect($.root().find("title").text()).toBe("Books");
    expect($.text()).toContain("End");
    expect($.html("#end")).toBe('<p id="end">End</p>');
    expect($.html($("li b").first())).toBe("<b>Ä &amp; B</b>");
    expect($.html()).toContain('<li class="book" data-id="2">');
    expect($("li").first().html()).toBe("<b>Ä &amp; B</b> <i>3</i>");
    expect($("#end").prop("outerHTML")).toBe('<p id="end">End</p>');
    expect($("<br>").toString()).toBe("<br>");
    expect($.contains($("ul")[0] as never, $("b")[0] as never)).toBe(true);
    expect($.parseHTML("<u>x</u>")).toHaveLength(1);
    expect(
      $.extract({ titles: ["b"], price: { selector: "i", value: (el) => Number($(el).text()) } }),
    ).toEqual({
      titles: ["Ä & B", "C"],
      price: 3,
    });
  });

  it("changes its own page and no other", () => {
    const one = page(html);
    const two = page(html);
    one.$("li").remove();
    one.$("#end").text("changed").addClass("x").wrap("<div class=w></div>");
    expect(one.$("li")).toHaveLength(0);
    expect(one.$(".w > #end.x").text()).toBe("changed");
    expect(two.$("li")).toHaveLength(2);
    expect(two.$("#end").text()).toBe("End");
    expect(two.$(".w")).toHaveLength(0);
    expect(two.$("li").add("#end").length).toBe(3);
    expect(one.$("#end").add("li").length).toBe(1);
    expect(page("<p>").$("li").length).toBe(0);
  });

  it("is the same each time it is asked for", () => {
    const parsed = page(html);
    parsed.$("#end").remove();
    expect(parsed.$("#end")).toHaveLength(0);
    expect(parsed.$).toBe(parsed.$);
  });
});

describe("a page that is made to hurt", () => {
  it("is never deeper than 512 elements, and keeps its text", () => {
    const { $ } = page(`${"<div>".repeat(5_000)}deep${"</div>".repeat(5_000)}<p>after</p>`);
    let depth = 0;
    for (let node = $("div").last()[0]?.parent; node; node = node.parent) depth += 1;
    expect(depth).toBeLessThanOrEqual(513);
    expect($("div")).toHaveLength(5_000);
    expect($.text()).toBe("deepafter");
    expect($("p").parents()).toHaveLength(0);
    expect($.html().length).toBeGreaterThan(5_000);
  });

  it("goes through in one piece when it is 10 MB of opening tags", () => {
    const parsed = page("<div>".repeat(2_000_000));
    expect(parsed.scan().links).toEqual([]);
    expect(parsed.$("div").length).toBeGreaterThan(512);
  });

  it("has no more nodes than the limit", () => {
    const { $ } = page("<i></i>".repeat(1_000), { limits: { maxNodes: 100 } });
    expect($("i")).toHaveLength(100);
  });

  it.each([
    ["attributes", `<a ${Array.from({ length: 100_000 }, (_, n) => `a${n}=b`).join(" ")} href=/x>`, 1],
    ["one attribute", `<a class="${"x".repeat(5_000_000)}" href=/x>`, 1],
    ["an attribute without end", `<a href="${"x".repeat(5_000_000)}`, 0],
    ["comments without end", "<!--".repeat(500_000), 0],
    ["character references", `<a href="/${"&amp;".repeat(1_500)}">`, 1],
    ["closing tags", "</div>".repeat(500_000), 0],
    ["angle brackets", "<".repeat(2_000_000), 0],
    ["tags within tags", "<a <a <a ".repeat(200_000), 0],
    ["null bytes", `${"\0".repeat(1_000_000)}<a href=/x>`, 1],
    ["meta elements", `${"<meta charset=".repeat(200)}<a href=/x>`, 0],
    ["meta elements that never end", `${"<meta ".repeat(100_000)}`, 0],
    [
      "refreshes of digits",
      `<meta http-equiv=refresh content="${"1".repeat(100_000)}${" ".repeat(100_000)}">`,
      0,
    ],
  ])("is read to the end when it is full of %s", (_what, html, expected) => {
    expect(links(html)).toHaveLength(expected);
    expect(page(html, { contentType: "text/html" }).$("a").length).toBeGreaterThanOrEqual(expected);
  });
});
