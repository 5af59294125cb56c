import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  compileSpider,
  parseDeclaration,
  SpiderDeclarationError,
} from "../../../src/spiders/declarative/index.js";
import { fieldOn, pageOf, yielded } from "../../support/declared.js";

const onePage = (items: unknown[], html: string) =>
  yielded(compileSpider({ name: "s", items }), pageOf(html));

describe("a page that was made for a declaration", () => {
  it.each([
    ["(a+)+$", `${"a".repeat(1_000_000)}!`],
    ["^(a|aa)+$", `${"a".repeat(1_000_000)}!`],
    ["(x+x+)+y", "x".repeat(1_000_000)],
    ["(.*)*(.*)*(.*)*z", "a".repeat(1_000_000)],
  ])("keeps the expression %s busy for no longer than its text", async (regex, text) => {
    expect(await fieldOn({ css: "p", fields: { a: { regex }, b: "b" } }, `<p><b>b</b>${text}</p>`)).toEqual({
      b: "b",
    });
  });

  it("fails when expressions would take long, and the member is named", async () => {
    const regex = "(?:a{1,15}){1,15}$";
    const html = `<p>${"a".repeat(1_000_000)}!</p>`;
    await expect(onePage([{ fields: { a: { css: "p", regex } } }], html)).rejects.toThrow(
      "items.0.fields.a: more than 20000000 steps on one page",
    );
  });

  it("does not grow with the markup of elements inside each other", async () => {
    const html = `${"<div>".repeat(500)}${"x".repeat(1_000_000)}`;
    await expect(onePage([{ fields: { a: { css: "div", attr: "html", all: true } } }], html)).rejects.toThrow(
      "items.0.fields.a: more than",
    );
  });

  it("has no more values in a list than fit", async () => {
    const found = await fieldOn({ css: "b", all: true }, "<b>x</b>".repeat(10_500));
    expect(found).toHaveLength(10_000);
    const split = await fieldOn({ css: "b", transform: [{ split: "," }] }, `<b>${"x,".repeat(10_500)}</b>`);
    expect(split).toHaveLength(10_000);
  });

  it("hands over no more than a URL carries", async () => {
    const spider = compileSpider({ name: "s", follow: [{ css: "a", meta: { all: "p" } }] });
    const html = `<a href=x></a><p>${"é".repeat(8_200)}</p>`;
    await expect(yielded(spider, pageOf(html))).rejects.toThrow("follow.0.meta: 16");
  });

  it("can name nothing that every object has", async () => {
    const html = "<p __proto__=x constructor=y>t</p>";
    expect(await fieldOn({ css: "p", attr: "__proto__" }, html)).toBeUndefined();
    expect(await fieldOn({ css: "p", attr: "constructor" }, html)).toBe("y");
    expect(await fieldOn({ css: "p", attr: "toString" }, html)).toBeUndefined();
    expect(
      await fieldOn({ css: "p", transform: [{ json: "__proto__.polluted" }] }, '<p>{"a":1}</p>'),
    ).toBeUndefined();
    expect(
      await fieldOn({ css: "p", transform: [{ json: "constructor.name" }] }, '<p>{"a":1}</p>'),
    ).toBeUndefined();
  });

  it("can put nothing into a selector, which is the declaration's alone", async () => {
    const html = `<a class="x, script" href="/1">a</a><script>t</script>`;
    expect(await onePage([{ css: "a", fields: { c: { attr: "class" } } }], html)).toEqual([
      { item: { c: "x, script" } },
    ]);
  });

  it("may be anything at all", async () => {
    const spider = compileSpider({
      name: "s",
      follow: [{ css: "a, [href]" }, { pattern: "*" }],
      next: { css: "a + a, a ~ b" },
      files: [{ css: "img, a", meta: { t: "$title" } }],
      items: [
        {
          css: "*:nth-child(odd), p",
          fields: {
            text: { css: "*" },
            own: { attr: "ownText" },
            html: { css: "> *", attr: "outerHtml", all: true },
            number: { type: "number", default: null },
            date: { type: "date", locale: "de", default: "" },
            url: { css: "+ a", attr: "href", type: "url" },
            nested: { css: "a:has(b), :contains(t)", all: true, fields: { in: { css: "b", exists: true } } },
            ld: { jsonLd: { path: "a.0.b" } },
            words: { transform: [{ split: " " }, "upper", { json: "a" }, { join: "," }] },
            status: "$status",
          },
        },
      ],
    });
    const soup = fc
      .array(
        fc.oneof(
          fc.constantFrom(
            ..."<a href=x> <a href='//[::1'> </a> <p> <b>t</b> <table> <tr> <td> </p> <base href=:> <!-- ".split(
              " ",
            ),
          ),
          fc.constantFrom(
            '<script type=\'application/ld+json\'>{"a":[{"b":1}]}</script>',
            "<svg><a/></svg>",
            "\0",
            "&#0;",
          ),
          fc.string({ unit: "binary", maxLength: 20 }),
        ),
        { maxLength: 40 },
      )
      .map((parts) => parts.join(""));
    await fc.assert(
      fc.asyncProperty(soup, async (html) => {
        for (const output of await yielded(spider, pageOf(html)))
          expect(JSON.stringify(output)).toMatch(/^\{"/);
      }),
      { numRuns: 150 },
    );
  });
});

describe("a declaration that was made to hurt", () => {
  const refusal = (make: () => unknown): string => {
    try {
      make();
    } catch (error) {
      expect(error).toBeInstanceOf(SpiderDeclarationError);
      return (error as Error).message;
    }
    return "";
  };

  it.each<[string, string, string]>([
    [
      "aliases of aliases",
      `a: &a [x, x]\n${[..."bcdefghijklmnopqrstuvwxyz"].map((name, at) => `${name}: &${name} [*${String.fromCharCode(97 + at)}, *${String.fromCharCode(97 + at)}]`).join("\n")}`,
      "is no declaration in JSON or YAML: Excessive alias count",
    ],
    ["brackets without end", "[".repeat(50_000), "is nested deeper than 50"],
    ["braces without end", "{a: ".repeat(20_000), "is nested deeper than 50"],
    ["lists without end", "- ".repeat(20_000), "is nested deeper than 50"],
    ["keys without end", "? ".repeat(20_000), "is nested deeper than 50"],
    ["tags without end", "! ".repeat(20_000), "more than one tag and anchor"],
    ["anchors without end", "&a ".repeat(20_000), "more than one tag and anchor"],
    [
      "very many members",
      Array.from({ length: 10_000 }, (_, at) => `k${at}: 1`).join("\n"),
      "is not known here",
    ],
    ["members twice", "name: a\nname: b", "names name twice in one place"],
    ["code", "name: !!js/function 'function () {}'", ""],
    ["too much", "x".repeat(262_145), "has 262145 characters, of 262144 at most"],
    ["nothing", "", "must be an object"],
    [
      "__proto__",
      "name: s\nitems:\n  - fields:\n      __proto__: {css: a}",
      "items.0.fields.__proto__: is no name",
    ],
    ["a merge of __proto__", "name: s\nx: &x {__proto__: {a: 1}}\n<<: *x", "is no name"],
  ])("by %s in YAML is refused, or harmless", (_what, text, message) => {
    expect(refusal(() => compileSpider(parseDeclaration(text)))).toContain(message);
    expect(({} as { a?: unknown }).a).toBeUndefined();
  });

  it("is never more than refused", () => {
    const member = fc.constantFrom(
      ..."name start follow items files pages next fields css attr regex type all transform url page meta".split(
        " ",
      ),
    );
    const leaf = fc.oneof(
      fc.constantFrom<unknown>("a", "$url", "a[", "(", "number", true, null, 0, "book", "*/x", "/(/"),
      fc.string({ unit: "binary", maxLength: 20 }),
    );
    const tree = fc.letrec<{ node: unknown }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 6, depthSize: "medium" },
        leaf,
        fc.array(tie("node"), { maxLength: 4 }),
        fc.dictionary(fc.oneof({ weight: 9, arbitrary: member }, fc.string({ maxLength: 8 })), tie("node"), {
          maxKeys: 5,
        }),
      ),
    })).node;
    fc.assert(
      fc.property(tree, (given) => {
        const declaration =
          typeof given === "object" && given !== null && !Array.isArray(given)
            ? { ...given, name: "s" }
            : given;
        refusal(() => compileSpider(declaration));
      }),
      { numRuns: 1_000 },
    );
  });

  it("is never more than refused as a selector or a pattern", () => {
    const selector = fc.string({
      unit: fc.constantFrom(..."ab*#.[]=\"'():,> +~\\-n0n1i|^$ ", ":not(", ":has(", ":nth-child("),
      maxLength: 20,
    });
    fc.assert(
      fc.property(
        selector,
        fc.string({ unit: fc.constantFrom(..."/*a.\\^$()[]+?|{}1,-"), maxLength: 12 }),
        (css, pattern) => {
          refusal(() => compileSpider({ name: "s", follow: [{ css, pattern }] }));
        },
      ),
      { numRuns: 1_500 },
    );
  });
});
