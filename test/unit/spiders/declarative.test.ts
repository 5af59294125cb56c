import { describe, expect, it } from "vitest";
import { compileSpider, SpiderDeclarationError } from "../../../src/spiders/declarative/index.js";
import { fieldOn, PAGE_URL, pageOf, yielded } from "../../support/declared.js";

describe("a field", () => {
  it.each<[claim: string, field: unknown, html: string, expected: unknown]>([
    ["is the text of the first element that matches", { css: "p" }, "<p>a</p><p>b</p>", "a"],
    ["may be no more than a selector", "p", "<p>a</p>", "a"],
    ["has its white space folded", "p", "<p>\n a \t b&nbsp;c\n</p>", "a b c"],
    ["keeps blocks and line breaks apart", "div", "<div>a<br>b<p>c</p>d<b>e</b></div>", "a b c de"],
    ["leaves scripts out", "div", "<div>a<script>b</script><style>c</style></div>", "a"],
    ["is of a script if that is meant", { css: "script" }, "<script>let a = 1;</script>", "let a = 1;"],
    ["is what stands in it alone", { css: "p", attr: "ownText" }, "<p>a <b>b</b> c</p>", "a c"],
    ["is the markup inside", { css: "p", attr: "html" }, "<p>a <b>b</b>&amp;é</p>", "a <b>b</b>&amp;é"],
    ["is its own markup", { css: "p", attr: "outerHtml" }, "<p id=x>a</p>", '<p id="x">a</p>'],
    ["is an attribute", { css: "a", attr: "href" }, "<a href='../x?a=1&amp;b'>a</a>", "../x?a=1&b"],
    [
      "is an attribute that goes by the name of text",
      { css: "body", attr: "@text" },
      "<body text=red>a",
      "red",
    ],
    ["has no attribute of every object", { css: "a", attr: "constructor" }, "<a>a</a>", undefined],
    ["is a list", { css: "li", all: true }, "<ul><li>a<li>b<li>a</ul>", ["a", "b", "a"]],
    ["is the first group", { css: "p", regex: "(\\d+) of (\\d+)" }, "<p>page 3 of 9</p>", "3"],
    [
      "is the group that is asked for",
      { css: "p", regex: "(\\d+) of (\\d+)", group: 2 },
      "<p>3 of 9</p>",
      "9",
    ],
    ["is a group by name", { css: "p", regex: "(?P<n>\\d+)x", group: "n" }, "<p>12x</p>", "12"],
    ["is all that matches if there is no group", { css: "p", regex: "\\d+ of" }, "<p>3 of 9</p>", "3 of"],
    [
      "is of the first element that the expression fits",
      { css: "li", regex: "b\\d" },
      "<li>a1<li>b2<li>b3",
      "b2",
    ],
    [
      "is all that expressions find",
      { css: "li", regex: "b(\\d)", all: true },
      "<li>b1<li>a2<li>b3",
      ["1", "3"],
    ],
    ["is not there if nothing matches", { css: "b" }, "<p>a</p>", undefined],
    ["says whether something is there", { css: "b", exists: true }, "<b></b>", true],
    ["has a value of its own", { value: { a: [1] } }, "", { a: [1] }],
    [
      "has a default",
      { css: "p", fields: { a: { css: "b", default: "none" }, b: "i" } },
      "<p><i>x</i></p>",
      { a: "none", b: "x" },
    ],
    ["has a default for what is of no use", { css: "p", type: "number", default: 0 }, "<p>free</p>", 0],
    ["is a number", { css: "p", type: "number" }, "<p>£1,234.50</p>", 1234.5],
    ["is a number with a comma", { css: "p", type: "number", locale: "de" }, "<p>1.234,50 €</p>", 1234.5],
    ["is a whole number", { css: "p", type: "integer" }, "<p>In stock (22 available)</p>", 22],
    ["is a list of numbers", { css: "li", all: true, type: "number" }, "<li>1<li>2.5", [1, 2.5]],
    ["is true for an attribute", { css: "input", attr: "checked", type: "boolean" }, "<input checked>", true],
    ["is false by the word", { css: "p", type: "boolean", default: true }, "<p>No</p>", false],
    ["is a URL", { css: "a", attr: "href", type: "url" }, "<a href='../x y#z'>", "http://h/x%20y"],
    [
      "is a URL by the page's base",
      { css: "a", attr: "href", type: "url" },
      "<base href=/b/><a href=c>",
      "http://h/b/c",
    ],
    [
      "is a date",
      { css: "time", attr: "datetime", type: "date" },
      "<time datetime=2024-03-02>",
      "2024-03-02",
    ],
    ["is a string", { value: 5, type: "string" }, "", "5"],
    [
      "is nested",
      { css: "div", fields: { a: "b", n: { css: "i", type: "number" } } },
      "<div><b>x</b><i>2</i></div>",
      { a: "x", n: 2 },
    ],
    [
      "is a list of what is nested",
      { css: "tr", all: true, fields: { name: "th", value: "td" } },
      "<table><tr><th>a<td>1<tr><th>b<td>2</table>",
      [
        { name: "a", value: "1" },
        { name: "b", value: "2" },
      ],
    ],
    [
      "is nested in what is nested",
      {
        css: "ul",
        all: true,
        fields: { items: { css: "> li", all: true, fields: { to: { css: "a", attr: "href" } } } },
      },
      "<ul><li><a href=1></a><li><a href=2></a></ul><ul><li><a href=3></a></ul>",
      [{ items: [{ to: "1" }, { to: "2" }] }, { items: [{ to: "3" }] }],
    ],
    ["is a fact", "$url", "", PAGE_URL],
    ["is the page's title", "$title", "<title> A  b</title>", "A b"],
    ["is what the page says of itself", "$description", "<meta name=description content=d>", "d"],
    [
      "is from JSON-LD",
      { jsonLd: { type: "Product", path: "offers.price" }, type: "number" },
      '<script type="application/ld+json">{"@graph":[{"@type":"Organization"},{"@type":["Product"],"offers":[{"price":"3.20"}]}]}</script>',
      3.2,
    ],
    [
      "is from JSON in the page",
      { css: "#d", transform: [{ json: "a.1.b" }] },
      '<script id=d>{"a":[0,{"b":"x"}]}</script>',
      "x",
    ],
  ])("%s", async (_claim, field, html, expected) => {
    expect(await fieldOn(field, html)).toEqual(expected);
  });

  it.each<[string, unknown, string, unknown]>([
    ["trim", ["trim"], "a", "a"],
    ["lower", ["lower"], "ÀB", "àb"],
    ["upper", ["upper"], "àb", "ÀB"],
    ["url", ["url"], "x", "http://h/dir/x"],
    ["a text replaced", [{ replace: { text: "a", with: "$&" } }], "aba", "$&b$&"],
    ["a match replaced", [{ replace: { regex: "(\\w)-", with: "$1+" } }], "a-b-c", "a+b+c"],
    ["split", [{ split: "," }], "a, b,,c", ["a", "b", "c"]],
    ["split by an expression", [{ split: { regex: "\\s*[;/]\\s*" } }], "a ; b/c", ["a", "b", "c"]],
    ["split, changed and joined", [{ split: "," }, "upper", { join: "+" }], "a,b", "A+B"],
    ["an expression", [{ regex: "b(.)" }], "abc", "c"],
    ["with something before and after", [{ prefix: "<" }, { suffix: ">" }], "a", "<a>"],
    ["what it stands for", [{ map: { yes: true, no: false } }], "no", false],
    ["what it stands for, or itself", [{ map: { yes: true } }], "constructor", "constructor"],
  ])("is transformed: %s", async (_claim, transform, text, expected) => {
    expect(await fieldOn({ css: "p", transform }, `<p>${text}</p>`)).toEqual(expected);
  });

  it("can be what led here, and a parameter of the crawl", async () => {
    expect(await fieldOn({ meta: "shelf" }, "", { meta: { shelf: "Poetry" } })).toBe("Poetry");
    expect(await fieldOn({ param: "label" }, "", { params: { label: "x" } })).toBe("x");
    expect(await fieldOn({ param: "constructor" }, "")).toBeUndefined();
  });

  it.each<[string, unknown, string, string[]]>([
    ["is no number", { css: "p", type: "number" }, "<p>Free</p>", ['x: "Free" is no number']],
    ["is no whole number", { css: "p", type: "integer" }, "<p>1.5</p>", ["x: 1.5 is no whole number"]],
    ["is no date", { css: "p", type: "date" }, "<p>soon</p>", ['x: "soon" is no date']],
    [
      "is either of two days",
      { css: "p", type: "date" },
      "<p>03/04/2024</p>",
      ['x: "03/04/2024" is no date'],
    ],
    ["is no URL", { css: "p", type: "url" }, "<p>mailto:a@b</p>", ['x: "mailto:a@b" is no http(s) URL']],
    [
      "is neither true nor false",
      { css: "p", type: "boolean" },
      "<p>maybe</p>",
      ['x: "maybe" is neither true nor false'],
    ],
    [
      "is nested and wrong",
      { css: "p", all: true, fields: { n: { css: "b", type: "number" }, m: { css: "i", required: true } } },
      "<p><b>a</b></p>",
      ['x.n: "a" is no number', "x.m: is missing"],
    ],
  ])("makes its item invalid when it %s", async (_claim, field, html, reasons) => {
    expect(await fieldOn(field, html)).toEqual(reasons);
  });
});

describe("the rules of a declarative spider", () => {
  const on = async (declaration: object, html: string, given = {}, callback?: string) =>
    yielded(compileSpider({ name: "s", ...declaration }), pageOf(html, given), callback);

  it("give one item for each element, with its fields below it", async () => {
    const html = "<li><b>a</b><i>1</i></li><li><b>b</b></li><li></li><b>c</b>";
    expect(await on({ items: [{ css: "li", fields: { name: "b", n: "i", from: "$url" } }] }, html)).toEqual([
      { item: { name: "a", n: "1", from: PAGE_URL } },
      { item: { name: "b", from: PAGE_URL } },
    ]);
  });

  it("give no item of a page that has none of the fields", async () => {
    const items = [{ fields: { price: ".price", title: "$title" } }];
    expect(await on({ items }, "<title>t</title><p>a</p>")).toEqual([]);
    expect(await on({ items: [{ fields: { title: "$title" } }] }, "<title>t</title>")).toEqual([
      { item: { title: "t" } },
    ]);
  });

  it("keep an invalid item aside, with all that was found of it", async () => {
    const items = [{ css: "li", fields: { name: "b", n: { css: "i", type: "number" } } }];
    expect(await on({ items }, "<li><b>a</b><i>x</i></li>")).toEqual([
      { invalidItem: { data: { name: "a" }, reasons: ['n: "x" is no number'] } },
    ]);
  });

  it("take an element for an invalid item if it lacks what it must have, and no page", async () => {
    const fields = { name: { css: "b", required: true } };
    expect(await on({ items: [{ css: "li", fields }] }, "<li>a</li><li><b> </b></li>")).toEqual([
      { invalidItem: { data: {}, reasons: ["name: is missing"] } },
      { invalidItem: { data: { name: "" }, reasons: ["name: is missing"] } },
    ]);
    expect(await on({ items: [{ fields }] }, "<p>a</p>")).toEqual([]);
    expect(await on({ items: [{ fields: { ...fields, other: "p" } }] }, "<p>a</p>")).toEqual([
      { invalidItem: { data: { other: "a" }, reasons: ["name: is missing"] } },
    ]);
  });

  it("give items only where the URL is like the pattern", async () => {
    const items = [{ url: "*/book/*", fields: { a: "p" } }];
    expect(await on({ items }, "<p>a</p>", { url: "http://h/book/1" })).toEqual([{ item: { a: "a" } }]);
    expect(await on({ items }, "<p>a</p>", { url: "http://h/shelf/1" })).toEqual([]);
  });

  it("follow links, each once, by the page's base, and nothing but http(s)", async () => {
    const html = "<base href=/b/><a href=1><a href=1#x><a href=mailto:x><a name=y><a href='//o/2'>";
    expect(await on({ follow: [{ css: "a" }] }, html)).toEqual([
      { request: "http://h/b/1" },
      { request: "http://o/2" },
    ]);
  });

  it("follow all links of a page when no selector is given", async () => {
    const html = "<a href=/a><a href=/b rel=nofollow><area href=/c>";
    expect(await on({ follow: [{ not: "/c" }] }, html)).toEqual([{ request: "http://h/a" }]);
  });

  it("follow other attributes", async () => {
    expect(await on({ follow: [{ css: "div", attr: "data-to" }] }, "<div data-to=x>")).toEqual([
      { request: "http://h/dir/x" },
    ]);
  });

  it.each([
    ["*/book/*", ["http://h/book/1", "http://h/book/1?x=2"]],
    ["/book/*", ["http://h/book/1", "http://h/book/1?x=2"]],
    ["http://h/book/1", ["http://h/book/1"]],
    ["/shelf/", ["http://h/shelf/2"]],
    ["shelf", ["http://h/shelf/2"]],
    ["/book/\\d+$/", ["http://h/book/1"]],
    ["/BOOK/i", ["http://h/book/1", "http://h/book/1?x=2"]],
    ["\\.pdf$", ["http://h/x.pdf"]],
    ["^http://h/(?:shelf|x)", ["http://h/shelf/2", "http://h/x.pdf"]],
    ["book/[0-9]+", ["http://h/book/1", "http://h/book/1?x=2"]],
    ["/shelf/.*", ["http://h/shelf/2"]],
    ["/*/1", ["http://h/book/1"]],
    ["/*/", []],
    ["*.pdf", ["http://h/x.pdf"]],
    [
      ["*.pdf", "*/shelf/*"],
      ["http://h/shelf/2", "http://h/x.pdf"],
    ],
  ])("take the pattern %j as it is meant", async (pattern, expected) => {
    const html = ["/book/1", "/book/1?x=2", "/shelf/2", "/x.pdf"].map((to) => `<a href="${to}">`).join("");
    const found = (await on({ follow: [{ css: "a", pattern }] }, html)) as { request: string }[];
    expect(found.map(({ request }) => request)).toEqual(expected);
  });

  it("store files by href, or else src", async () => {
    const html = "<a href=a.pdf><img src=b.png><a href=c.txt>";
    expect(await on({ files: [{ css: "a, img", not: "*.txt" }] }, html)).toEqual([
      { file: "http://h/dir/a.pdf" },
      { file: "http://h/dir/b.png" },
    ]);
  });

  it("go on to the next page of a list, and no further than is said", async () => {
    const next = { css: "a.next", maxPages: 3 };
    const html = "<a class=next href=/2>next</a><a class=next href=/3>last</a>";
    expect(await on({ next }, html)).toEqual([{ request: { url: "http://h/2", meta: { $page: 2 } } }]);
    expect(await on({ next }, html, { meta: { $page: 2, shelf: "x" } })).toEqual([
      { request: { url: "http://h/2", meta: { $page: 3, shelf: "x" } } },
    ]);
    expect(await on({ next }, html, { meta: { $page: 3 } })).toEqual([]);
  });

  it("tell kinds of pages apart by what led there, or by their URL", async () => {
    const declaration = {
      follow: [{ css: "a.book", page: "book", meta: { shelf: "h1" }, priority: 7 }],
      next: { css: "a.next" },
      items: [{ fields: { list: "h1" } }],
      pages: {
        book: {
          url: "/book/*",
          items: [{ fields: { book: "h1", shelf: { meta: "shelf" } } }],
          next: { css: "a.next" },
        },
      },
    };
    const html = "<h1>T</h1><a class=book href=/book/1>b</a><a class=next href=/2>n</a>";
    expect(await on(declaration, html)).toEqual([
      { item: { list: "T" } },
      { request: { url: "http://h/2", meta: { $page: 2 } } },
      { request: { url: "http://h/book/1", callback: "book", meta: { shelf: "T" }, priority: 7 } },
    ]);
    const book = [
      { item: { book: "T", shelf: "x" } },
      { request: { url: "http://h/2", meta: { shelf: "x", $page: 2 }, callback: "book" } },
    ];
    expect(await on(declaration, html, { meta: { shelf: "x" } }, "book")).toEqual(book);
    expect(await on(declaration, html, { meta: { shelf: "x" }, url: "http://h/book/9" })).toEqual(book);
  });

  it("see nothing in a body that is no markup", async () => {
    const rules = { follow: [{ css: "a" }], items: [{ fields: { a: "a" } }] };
    expect(await on(rules, '"<a href=x>y</a>"', { contentType: "application/json" })).toEqual([]);
  });

  it("take as long as need be for a big page", async () => {
    const rows = 20_000;
    const html = `<ul>${"<li><b>a</b><a href=/x>1</a></li>".repeat(rows)}</ul>`;
    const items = [{ css: "li", fields: { name: "b", to: { css: "a", attr: "href", type: "url" } } }];
    const found = await on({ items }, html);
    expect(found).toHaveLength(rows);
    expect(found.at(-1)).toEqual({ item: { name: "a", to: "http://h/x" } });
  });
});

describe("a declaration", () => {
  const faultsOf = (declaration: unknown): string[] => {
    try {
      compileSpider(declaration);
    } catch (error) {
      if (error instanceof SpiderDeclarationError) {
        return error.faults.map(({ field, message }) => `${field}: ${message}`);
      }
      throw error;
    }
    return [];
  };
  const field = (given: unknown) => ({ name: "s", items: [{ fields: { price: given } }] });

  it.each<[string, unknown, string]>([
    ["nothing", undefined, ": is missing; must be an object"],
    ["a list", [], ": must be an object"],
    ["no name", {}, "name: is missing"],
    ["a name with a blank", { name: "a b" }, "name: must be a spider's name"],
    ["an unknown member", { name: "s", item: [] }, "item: is not known here"],
    ["a seed that is none", { name: "s", start: ["ftp://x/"] }, "start.0: must be an absolute http(s) URL"],
    ["a selector that is none", { name: "s", follow: [{ css: "a[" }] }, "follow.0.css: a name is missing"],
    [
      "a selector for jQuery",
      { name: "s", follow: [{ css: "a:first" }] },
      'follow.0.css: ":first" is not known here',
    ],
    [
      "an expression that is none",
      field({ css: "p", regex: "(" }),
      "items.0.fields.price.regex: must be an expression",
    ],
    [
      "an expression with a look-ahead",
      field({ css: "p", regex: "a(?=b)" }),
      "items.0.fields.price.regex: must be",
    ],
    [
      "an expression that is huge",
      field({ css: "p", regex: "(a{1,30}){1,30}" }),
      "items.0.fields.price.regex: has",
    ],
    [
      "a pattern that is none",
      { name: "s", files: [{ css: "a", pattern: "/(/" }] },
      "files.0.pattern: must be",
    ],
    [
      "a group that is none",
      field({ css: "p", regex: "a", group: 1 }),
      "items.0.fields.price.group: is not among",
    ],
    ["a language that is none", field({ css: "p", locale: "!" }), "items.0.fields.price.locale: "],
    [
      "two sources",
      field({ css: "p", value: 1 }),
      'items.0.fields.price.value: cannot be given beside "css"',
    ],
    [
      "nested fields with a type",
      field({ css: "p", fields: { a: "b" }, type: "number" }),
      "items.0.fields.price.type: means nothing",
    ],
    [
      "a step that is none",
      field({ css: "p", transform: ["shout"] }),
      "items.0.fields.price.transform.0: must be trim",
    ],
    ["a fact that is none", field("$shoe"), "items.0.fields.price: must be one of $url"],
    ["a field that is none", field(3), "items.0.fields.price: must be a selector, or an object"],
    ["a field's name with a dot", { name: "s", items: [{ fields: { "a.b": "p" } }] }, "items.0.fields.a.b: "],
    [
      "a page that is none",
      { name: "s", follow: [{ css: "a", page: "x" }] },
      'follow.0.page: there is no "x" in "pages"',
    ],
    [
      "items without fields",
      { name: "s", items: [{ css: "li", fields: {} }] },
      "items.0.fields: must have at least",
    ],
    [
      "settings that are none",
      { name: "s", settings: { limits: { maxDepth: "x" } } },
      "settings.limits.maxDepth: ",
    ],
    [
      "a name that is every object's",
      JSON.parse('{"name":"s","items":[{"fields":{"__proto__":"p"}}]}'),
      "items.0.fields.__proto__: is no name",
    ],
  ])("with %s is refused, and the member named", (_what, declaration, expected) => {
    expect(faultsOf(declaration).join("\n")).toContain(expected);
  });

  it("may name fields as every object does, and keeps them to itself", async () => {
    const fields = { constructor: "p", toString: "p", hasOwnProperty: "p" };
    const [output] = await yielded(compileSpider({ name: "s", items: [{ fields }] }), pageOf("<p>a</p>"));
    expect(output).toEqual({ item: { constructor: "a", toString: "a", hasOwnProperty: "a" } });
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  it("with far too much in it is refused at once", () => {
    const many = Object.fromEntries(Array.from({ length: 100_000 }, (_, at) => [`f${at}`, "p"]));
    expect(faultsOf({ name: "s", items: [{ fields: many }] })).toEqual([": has more than 20000 values"]);
    const some = Object.fromEntries(Array.from({ length: 501 }, (_, at) => [`f${at}`, "p"]));
    expect(faultsOf({ name: "s", items: [{ fields: some }] })).toEqual([
      "items.0.fields: must be at most 500 fields",
    ]);
    let deep: unknown = "p";
    for (let level = 0; level < 100_000; level += 1) deep = { css: "p", fields: { a: deep } };
    expect(faultsOf(field(deep)).join()).toContain("is nested deeper than 40");
    const loop: { [key: string]: unknown } = { name: "s" };
    loop.pages = loop;
    expect(faultsOf(loop).join()).toContain("is nested deeper than 40");
  });
});
