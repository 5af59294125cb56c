import { load } from "cheerio";
import { describe, expect, it } from "vitest";
import { BROWSER_TREE_DEFAULTS, buildBrowserTree } from "../../../src/crawl/pages/browser-tree.js";
import { LinkScanner } from "../../../src/crawl/pages/link-scanner.js";
import {
  buildTree,
  buildTreeInSlices,
  selectorOver,
  TREE_DEFAULTS,
} from "../../../src/crawl/pages/page-tree.js";
import { parseHtml } from "../../../src/crawl/pages/parser.js";
import { SLICE_CHARACTERS, TimeSlices } from "../../../src/crawl/pages/time-slices.js";

const MIB = 1_048_576;

/** Everything that a parser has to put right. */
const MESS = [
  "<p>one<p>two",
  "<table>stray<tr><td>cell</table>",
  "<b><i>crossed</b> over</i>",
  "<ul><li>one<li>two</ul>",
  "<select><option>a<option>b</select>",
  "<a href=1>open<a href=2>again</a>",
  "<svg><title>drawing</title><path/></svg>",
  "<template><td>kept</td></template>",
  "<noscript><img src=x></noscript>",
  "<!-- comment --><script>if (a < b) {}</script>",
  "&amp;&eacute;&#x1F600;&nosuch;",
];

const LIMITS = { maxDepth: 512, maxNodes: 100_000 };
const trees = {
  "the page's own": async (text: string) => buildTree(text, LIMITS),
  "the page's own, in slices": (text: string) => buildTreeInSlices(text, LIMITS, new TimeSlices()),
  "a browser's": (text: string) => buildBrowserTree(text, LIMITS),
};

describe.each(Object.entries(trees))("a tree, %s,", (_kind, build) => {
  it.each([
    ["elements in each other", "<div>".repeat(100_000)],
    ["lists in each other", "<ul><li>".repeat(50_000)],
    ["formatting in each other", "<b>".repeat(100_000)],
    ["formatting, each another", Array.from({ length: 20_000 }, (_, n) => `<font size=${n}><p>`).join("")],
    ["tables in each other", "<table><tr><td>".repeat(30_000)],
    ["what is closed and never opened", "</div></p></b>".repeat(50_000)],
    ["links in each other", "<a href=1><div>".repeat(10_000)],
    ["templates in each other", "<template>".repeat(20_000)],
    ["drawings in each other", "<svg><g>".repeat(20_000)],
    [
      "a tag with attributes without end",
      `<p ${Array.from({ length: 20_000 }, (_, n) => `a${n}=1`).join(" ")}>`,
    ],
    ["a tag that does not end", `<p ${"a".repeat(MIB)}`],
    ["a comment that does not end", `<!--${"-".repeat(MIB)}`],
    ["text that belongs elsewhere", `<table>${"<i>x</i>".repeat(30_000)}`],
  ])("is no deeper than its limit, and can be read, when a page is made of %s", async (_what, text) => {
    const tree = await build(`<body>${text}end`);
    let depth = 0;
    const open: { readonly node: object; readonly depth: number }[] = [{ node: tree, depth: 0 }];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      depth = Math.max(depth, next.depth);
      if (!("children" in next.node)) continue;
      for (const child of next.node.children as object[]) open.push({ node: child, depth: next.depth + 1 });
    }
    expect(depth).toBeLessThanOrEqual(LIMITS.maxDepth + 3);
    const $ = selectorOver(tree);
    expect(typeof $("body").text()).toBe("string");
    expect($.html().length).toBeGreaterThan(0);
    expect($("p b i").length).toBeGreaterThanOrEqual(0);
  });

  it("holds no more nodes than its limit of a page of 10 MB", async () => {
    const tree = await build("<p>a<i>b</i></p>".repeat((10 * MIB) / 16));
    let nodes = 0;
    const open: object[] = [tree];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      nodes += 1;
      if ("children" in next) for (const child of next.children as object[]) open.push(child);
    }
    expect(nodes).toBeLessThanOrEqual(LIMITS.maxNodes + 5);
    expect(nodes).toBeGreaterThan(LIMITS.maxNodes - 5);
  });
});

describe("a browser's tree", () => {
  it.each(MESS)("is the one that the standard says: %s", async (text) => {
    const tree = await buildBrowserTree(text, BROWSER_TREE_DEFAULTS);
    expect(load(tree)("html").html()).toBe(load(text, { scriptingEnabled: false })("html").html());
  });

  it("is what `$` is over once it was prepared, and its links stay", async () => {
    const body = Buffer.from("<table><tr><td><a href=/x>x</a></table>");
    const page = parseHtml(body, { url: "http://example.com/" });
    await page.prepare({ tree: "browser" });
    expect(page.$("html > body > table > tbody > tr > td").text()).toBe("x");
    expect(page.links()).toEqual(["http://example.com/x"]);
  });
});

describe("a page that is looked at in slices", () => {
  const filler = `<p class="a">${"text &amp; more ".repeat(8)}<a href="/x?a=1&amp;b=2" rel=nofollow>x</a></p>`;
  const kinds = new Set(["anchor", "image"] as const);

  it.each([
    ["in a title", "<title>", "The title of &amp; the page", "</title>"],
    ["in a tag's name", "", "<area href='/between/slices'>", ""],
    ["in an entity", "<a href='/x?", "a=1&amp;b=2&eacute;", "'>x</a>"],
    ["in a comment", "<!--", "<a href=/never>", "-->"],
    ["in a script", "<script>", "'<a href=/never>'", "</script>"],
    ["in a base", "", "<base href='/base/'>", ""],
  ])("has the same scan and the same tree when the cut is %s", async (_where, before, cut, after) => {
    // The cut falls on each of its characters in turn.
    for (let shift = 0; shift <= cut.length; shift += 1) {
      const start = SLICE_CHARACTERS - shift - before.length;
      const lead = filler.repeat(Math.floor(start / filler.length) - 1).padEnd(start, " ");
      const text = `${lead}${before}${cut}${after}${filler.repeat(3)}`;
      const whole = new LinkScanner(text, 10_000, kinds).scan();
      expect(await new LinkScanner(text, 10_000, kinds).scanInSlices(new TimeSlices())).toEqual(whole);
      const sliced = await buildTreeInSlices(text, TREE_DEFAULTS, new TimeSlices());
      expect(selectorOver(sliced).html()).toBe(selectorOver(buildTree(text, TREE_DEFAULTS)).html());
    }
  });

  it("lets others have their turns", async () => {
    const page = parseHtml(Buffer.from(filler.repeat((8 * MIB) / filler.length)), { url: "http://a/" });
    let turns = 0;
    let isOver = false;
    const count = () => {
      turns += 1;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    await page.prepare({ kinds, tree: "page" });
    isOver = true;
    expect(turns).toBeGreaterThan(3);
  });
});
