import { type AnyNode, type Document, isTag } from "domhandler";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { buildTree, selectorOver, TREE_DEFAULTS } from "../../../src/crawl/pages/page-tree.js";
import { PageBudget } from "../../../src/spiders/declarative/page-budget.js";
import { below, type Scope, Selector } from "../../../src/spiders/declarative/selector.js";
import { TreeIndex } from "../../../src/spiders/declarative/tree-index.js";

function searched(tree: Document, css: string, scope: Scope = tree, budget = new PageBudget()) {
  return [...new Selector(css).matches(scope, new TreeIndex(tree, budget), budget)];
}

/** The ids of what matches, in its order. */
function idsOf(html: string, css: string, from?: string): string[] {
  const tree = buildTree(html, TREE_DEFAULTS);
  const [scope = tree] = from === undefined ? [] : searched(tree, from);
  return searched(tree, css, scope).map(({ attribs }) => attribs.id ?? "?");
}

const HTML = `<ul id=u class="a b"><li id=1>x<li id=2 class=b lang=de-AT>y<b id=b>z</b><li id=3 title="q r">
  <li id=4></ul><p id=p data-x="A">t</p><!-- c --><p id=q></p>`;

describe("a selector", () => {
  it.each([
    ["*", "u 1 2 b 3 4 p q"],
    ["LI", "1 2 3 4"],
    ["#b, p", "b p q"],
    [".b", "u 2"],
    [".a.b", "u"],
    ["[title]", "3"],
    ['[title="q r"]', "3"],
    ["[title~=r]", "3"],
    ["[lang|=de]", "2"],
    ["[id^='b'], [id$=\"p\"]", "b p"],
    ["[title*=' ']", "3"],
    ["[title*='']", ""],
    ["[data-x=a]", ""],
    ["[data-x=a i]", "p"],
    ["[DATA-X]", "p"],
    ["ul b", "b"],
    ["ul > b", ""],
    ["li > b", "b"],
    ["#2 ~ li", "3 4"],
    ["#2 + li", "3"],
    ["ul~p", "p q"],
    ["p + p", "q"],
    [":first-child", "u 1 b"],
    ["li:last-child", "4"],
    ["b:only-child", "b"],
    ["li:nth-child(2)", "2"],
    ["li:nth-child(odd)", "1 3"],
    ["li:nth-child( 2n + 1 )", "1 3"],
    ["li:nth-child(-n+2)", "1 2"],
    ["li:nth-last-child(1)", "4"],
    ["p:nth-of-type(2)", "q"],
    ["p:first-of-type", "p"],
    ["p:last-of-type", "q"],
    ["li:not(.b)", "1 3 4"],
    ["li:not(.b, #1)", "3 4"],
    [":is(ul, li):not(ul > *)", "u"],
    ["li:has(b)", "2"],
    ["ul:has(b)", "u"],
    ["ul:has(> b)", ""],
    ["li:has(+ #3)", "2"],
    ["li:has(~ #3)", "1 2"],
    ["ul:has(li > b)", "u"],
    ["li:contains('z')", "2"],
    ["ul:contains(xyz)", "u"],
    [":empty", "4 q"],
    [":root", "u p q"],
    ["#\\31, #\\000032 ", "1 2"],
    [".\\62", "u 2"],
  ])("%s", (css, expected) => {
    expect(idsOf(HTML, css).join(" ")).toBe(expected);
  });

  it.each([
    ["> b", "#2", "b"],
    ["b", "#2", "b"],
    ["ul b", "#2", ""],
    ["li b", "ul", "b"],
    ["li b", "#2", "b"],
    [":scope > b", "#2", "b"],
    ["> b", "ul", ""],
    ["+ li", "#2", "3"],
    ["~ li", "#2", "3 4"],
    ["~ li, b", "#2", "b 3 4"],
    ["+ p", "ul", "p"],
    ["> *", "ul", "1 2 3 4"],
  ])("%s, searched from %s", (css, from, expected) => {
    expect(idsOf(HTML, css, from).join(" ")).toBe(expected);
  });

  it.each([
    ["", "ends where a selector must follow, at character 1"],
    ["a,", "ends where a selector must follow, at character 3"],
    ["a > > b", '">" begins no selector, at character 5'],
    ["a[", "a name is missing"],
    ["a[x", '"]" is missing'],
    ["a[x='b]", "' is not closed"],
    ["a:nth-child(x)", '"x" is no place such as'],
    ["a:nth-child", '":nth-child" needs "("'],
    ["a:eq(1)", '":eq" is not known here'],
    ["a::text", "pseudo-elements are not known here"],
    ["svg|a", "namespaces are not known here"],
    ["a:not(> b)", 'must not begin with ">"'],
    [`${":not(".repeat(9)}a${")".repeat(9)}`, "is nested deeper than 4"],
    ["a".concat(".b".repeat(200)), "has more than 100 parts"],
    ["a\\", "ends in a backslash"],
    ["a { color: red }", '"{" begins no selector'],
    ["a)", '")" is not expected'],
    ["<script>", '"<" begins no selector'],
  ])("is refused as %j, with a reason", (css, message) => {
    expect(() => new Selector(css)).toThrow(message);
  });

  const name = fc.constantFrom("a", "b", "i");
  const html: fc.Arbitrary<string> = fc.letrec<{ node: string; list: string }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 4, depthSize: "small" },
      fc.constantFrom("t", "u", " ", "<!--c-->"),
      fc
        .tuple(name, fc.constantFrom("", " class=x", " class='x y'", " id=k", " title='x-y'"), tie("list"))
        .map(([tag, attributes, inner]) => `<${tag}${attributes}>${inner}</${tag}>`),
    ),
    list: fc.array(tie("node"), { maxLength: 4 }).map((nodes) => nodes.join("")),
  })).list;
  const SIMPLE =
    "a b i * .x #k [title] [title|=x] [class~=y] :first-child :last-of-type :only-child :nth-child(2n)"
      .concat(" :nth-last-of-type(2) :has(b) :contains(t) :not(.x)")
      .split(" ");
  const NESTED = [":not(a > b)", ":is(a b, i)", ":has(> i)", ":has(+ a)", ":has(a b)", ":root"];

  function selectors(simple: readonly string[]): fc.Arbitrary<string> {
    const compound = fc
      .tuple(fc.constantFrom(...simple), fc.constantFrom("", ".x", ":not(.y)", ":has(i)"))
      .map(([one, two]) => one + two);
    return fc
      .array(fc.tuple(compound, fc.constantFrom(" ", " > ", " + ", " ~ ")), { minLength: 1, maxLength: 4 })
      .map((parts) => parts.map(([part, join], at) => (at === 0 ? part : join + part)).join(""));
  }

  it("finds what cheerio finds", () => {
    fc.assert(
      fc.property(html, selectors([...SIMPLE, ...NESTED]), (text, css) => {
        const tree = buildTree(text, TREE_DEFAULTS);
        const places = placesIn(tree);
        const expected = selectorOver(tree)(css).get();
        expect(searched(tree, css).map(places)).toEqual(expected.map(places));
      }),
      { numRuns: 1_000 },
    );
  });

  it("finds below an element what cheerio finds there", () => {
    fc.assert(
      // Cheerio takes what is inside `:not()` and `:is()` for something below the element as well.
      fc.property(html, selectors(SIMPLE), (text, css) => {
        const tree = buildTree(text, TREE_DEFAULTS);
        const places = placesIn(tree);
        const $ = selectorOver(tree);
        for (const element of $("* > *").get().filter(isTag)) {
          const expected = $(element).find(css).get();
          expect(searched(tree, css, element).map(places)).toEqual(expected.map(places));
        }
      }),
      { numRuns: 500 },
    );
  });
});

/** Tells elements of a tree apart, which may look the same. */
function placesIn(tree: Document): (element: AnyNode) => number {
  const places = new Map<AnyNode, number>();
  for (const element of below(tree, new PageBudget())) places.set(element, places.size);
  return (element) => places.get(element) ?? -1;
}

describe("a search", () => {
  const deep = buildTree(
    "<div><p>".repeat(250).concat("<i>x</i>").concat("</p></div>".repeat(250)),
    TREE_DEFAULTS,
  );
  const wide = buildTree("<a></a><b></b>".repeat(10_000), TREE_DEFAULTS);
  const bushy = buildTree(`${"<div>".repeat(400)}${"<p><a>t</a></p>".repeat(10_000)}`, TREE_DEFAULTS);

  it.each<[string, Document, number]>([
    ["div p div p div p .x", deep, 0],
    ["div div div div div div i", deep, 1],
    ["a ~ b ~ a ~ b ~ a ~ .x", wide, 0],
    ["a ~ b ~ a ~ b", wide, 9_999],
    [":nth-child(3n):nth-last-child(2n+1)", wide, 3_333],
    ["b:nth-last-of-type(-n+7)", wide, 7],
    ["div:has(i)", bushy, 0],
    ["div:has(a):has(p)", bushy, 400],
    ["div:contains(x)", bushy, 0],
    ["div:contains(tttt)", bushy, 400],
    ["div div div div div a", bushy, 10_000],
    ["*:not(div p a)", bushy, 10_400],
  ])("for %s takes steps in proportion to the page", (css, tree, found) => {
    const size = [...below(tree, new PageBudget())].length;
    // A dozen steps an element, and never an element for an element.
    expect(searched(tree, css, tree, new PageBudget(12 * size + 1_000))).toHaveLength(found);
  });

  it("that would take more than a page may ends, and says which member it was", () => {
    const budget = new PageBudget(1_000_000);
    budget.member = "items.0.css";
    expect(() => searched(bushy, "div:has(p a.none)", bushy, budget)).toThrow(
      "items.0.css: more than 1000000 steps on one page",
    );
  });
});
