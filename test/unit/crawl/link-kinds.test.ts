import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Crawl, DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import { MemoryCrawlStates } from "../../../src/crawl/memory-crawl-state.js";
import { Documents } from "../../../src/crawl/pages/documents.js";
import { LINK_KINDS, type LinkKind, type LinkOptions } from "../../../src/crawl/pages/link-options.js";
import { LinkScanner } from "../../../src/crawl/pages/link-scanner.js";
import { PageView } from "../../../src/crawl/pages/page-view.js";
import type { Task } from "../../../src/crawl/task.js";
import { createLogger } from "../../../src/lib/logger.js";

type Given = { readonly links?: LinkOptions; readonly header?: string; readonly contentType?: string };

function pageOf(html: string, { links, header, contentType = "text/html" }: Given = {}): PageView {
  const crawl: Crawl = {
    ...{ id: "c", status: "running", generation: 1, startedAt: 0, spider: "links", seeds: [], scope: "any" },
    ...{ limits: {}, politeness: DEFAULT_POLITENESS, priority: 5, params: {} },
    ...(links !== undefined && { links }),
  };
  const task: Task = {
    ...{ id: "c:1", crawl: "c", generation: 1, url: "http://h/dir/p", host: "h", kind: "page", depth: 0 },
    ...{ attempts: 0, round: 0, token: "t", shard: 0, epoch: 1, dispatchedAt: 0, notAfter: 0, delayMs: 0 },
  };
  return new PageView({
    ...{ task, crawl, url: "http://h/dir/p", status: 200, contentType, body: Buffer.from(html) },
    headers: { "content-type": contentType, ...(header !== undefined && { link: header }) },
    documents: new Documents(),
    state: new MemoryCrawlStates().of("c"),
    log: () => createLogger({ level: "error", destination: { write: () => {} } }),
    signal: new AbortController().signal,
  });
}

const PAGE = `<base href="/base/">
  <link rel=canonical href=canonical><link rel=next href=next><link rel=alternate href=feed>
  <link rel=alternate hreflang=de href=de><link rel="stylesheet" href=style.css>
  <link rel="alternate stylesheet" href=other.css><link rel="shortcut icon" href=icon>
  <link rel=preload as=font href=font><link rel=dns-prefetch href=//other>
  <meta http-equiv=refresh content="5;url=refresh">
  <a href=a>a</a><map><area href=area></map><iframe src=iframe></iframe><frame src=frame>
  <form action=search><input name=q><input type=image src=button.png></form>
  <form action=get method=" GET "></form><form action=odd method=put></form>
  <form action=post method=post></form><form method=dialog action=dialog></form><form></form>
  <img src=one.png srcset="one.png 1x, two.png 2x"><img src=" " alt=none>
  <picture><source srcset="three.webp 100w,four.webp 200w"><img src=three.png></picture>
  <video src=v.mp4 poster=poster.png><source src=v.webm><track src=v.vtt></video>
  <audio src=a.ogg></audio><script src=s.js></script><script>"<a href=no>"</script>
  <object data=o.swf></object><embed src=e.svg><input type=text src=no.png>
  <a href=nofollow rel=nofollow>n</a>`;

/** What each kind has on the page above, below its base. */
const BY_KIND: Readonly<Record<LinkKind, string>> = {
  anchor: "a area",
  frame: "iframe frame",
  refresh: "refresh",
  next: "next",
  alternate: "feed",
  hreflang: "de",
  canonical: "canonical",
  form: "search get odd",
  image: "button.png one.png two.png three.webp four.webp three.png poster.png",
  embed: "style.css other.css icon font v.mp4 v.webm v.vtt a.ogg s.js o.swf e.svg",
};
const under = (names: string) => names.split(" ").map((name) => `http://h/base/${name}`);

describe("links of a kind", () => {
  it.each(LINK_KINDS)("%s are those of the page, in their order", (kind) => {
    expect(pageOf(PAGE).links({ kinds: [kind] })).toEqual(under(BY_KIND[kind]));
  });

  it("can be had one after the other, and change nothing of what the crawl follows", () => {
    const page = pageOf(PAGE);
    const before = page.links();
    expect(page.links({ kinds: ["image"] })).toHaveLength(7);
    expect(page.links({ kinds: ["anchor", "form"] })).toEqual(under("a area search get odd"));
    expect(page.links({ kinds: [] })).toEqual([]);
    expect(page.links()).toBe(before);
    expect(page.resolved("http://h/base/a")).toMatchObject({ host: "h" });
  });
});

describe("a crawl follows", () => {
  const followed = (links?: LinkOptions) =>
    pageOf(PAGE, links === undefined ? {} : { links })
      .links()
      .map((url) => url.replace("http://h/base/", ""));
  const standard = "next feed de refresh a area iframe frame".split(" ");
  const also = (names: string) => [...standard, ...names.split(" ")].sort();

  it("anchors, areas, frames, next, alternates and refreshes when nothing else is said", () => {
    expect(followed()).toEqual(standard);
    expect(followed({})).toEqual(standard);
  });

  it.each<[LinkOptions, string]>([
    [{ forms: true }, BY_KIND.form],
    [{ images: true }, BY_KIND.image],
    [{ embeds: true }, BY_KIND.embed],
    [{ canonical: "follow" }, "canonical"],
    [{ followNofollow: true }, "nofollow"],
  ])("with %j these too: %s", (links, names) => {
    expect(followed(links).sort()).toEqual(also(names));
  });

  it.each<[LinkOptions, string]>([
    [{ alternates: false }, "feed"],
    [{ hreflang: false }, "de"],
  ])("with %j all but %s", (links, name) => {
    expect(followed(links)).toEqual(standard.filter((one) => one !== name));
  });

  it.each<LinkOptions>([{ canonical: "ignore" }, { canonical: "duplicate" }])("with %j no more", (links) => {
    expect(followed(links)).toEqual(standard);
  });

  it("nofollow links of a whole page only when it is told to", () => {
    const html = "<meta name=robots content=nofollow><a href=/x>";
    expect(pageOf(html).links()).toEqual([]);
    expect(pageOf(html, { links: { followNofollow: true } }).links()).toEqual(["http://h/x"]);
  });
});

describe("Link headers", () => {
  const header =
    '<next>; rel=next, </feed>; rel="alternate", </de>; rel=alternate; hreflang=de, </s.css>; rel=preload, </no>; rel="next nofollow", </prev>; rel=prev';
  const all = ["http://h/dir/next", "http://h/feed", "http://h/de"];

  it("are links when they are asked for, relative to the page and not to its base", () => {
    expect(pageOf("<base href=/b/><a href=a>", { header }).links()).toEqual(["http://h/b/a"]);
    expect(pageOf("<base href=/b/><a href=a>", { header, links: { headers: true } }).links()).toEqual([
      ...all,
      "http://h/b/a",
    ]);
  });

  it("are links of what is no HTML too", () => {
    const given = { header, contentType: "application/json" };
    expect(pageOf("{}", { ...given, links: { headers: true } }).links()).toEqual(all);
    expect(pageOf("{}", { ...given, links: { headers: true, alternates: false } }).links()).toEqual([
      "http://h/dir/next",
      "http://h/de",
    ]);
    expect(pageOf("{}", given).links({ kinds: ["embed"] })).toEqual(["http://h/s.css"]);
  });
});

describe("the canonical URL of a page", () => {
  it.each<[string, string | undefined, string | undefined]>([
    ["<link rel=canonical href=/c>", undefined, "http://h/c"],
    ["<base href=/b/><link rel=canonical href=c>", "<c>; rel=other", "http://h/b/c"],
    ["", "</c>; rel=canonical", "http://h/c"],
    ["<link rel=canonical href=/c>", "</c#x>; rel=canonical", "http://h/c"],
    ["<link rel=canonical href=/c><link rel=canonical href=/d>", undefined, undefined],
    ["<link rel=canonical href=mailto:x>", undefined, undefined],
    ["<meta name=robots content=nofollow><link rel=canonical href=/c>", undefined, "http://h/c"],
    ["<a rel=canonical href=/c>", undefined, undefined],
  ])("of %j with the header %j is %j", (html, header, expected) => {
    const given = header === undefined ? {} : { header };
    expect(pageOf(html, given).canonical()?.url).toBe(expected);
  });
});

describe("of whatever page", () => {
  it("links of a kind are the same, whatever else is looked for", () => {
    const piece = fc.constantFrom(
      ...[
        "<a",
        "<img",
        "<link",
        "<form",
        "<meta",
        "<source",
        "<script",
        "<base",
        "<video",
        "</script>",
        "<title>",
      ],
      ...[
        " href=",
        " src=",
        " srcset=",
        " rel=",
        " action=",
        " http-equiv=refresh",
        " content=",
        " hreflang=de",
      ],
      ...[
        "x",
        "/y",
        '"z 1x, w 2x"',
        "'",
        '"',
        ">",
        "/>",
        "next",
        "canonical",
        "alternate",
        "nofollow",
        "&amp;",
        "<!--",
      ],
      ...["-->", " ", "\0", "\ud800", "0;url=r", "</title>"],
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), fc.constantFrom(...LINK_KINDS), (pieces, kind) => {
        const html = pieces.join("");
        const alone = new LinkScanner(html, 100, new Set([kind])).scan().links;
        const all = new LinkScanner(html, 100, new Set(LINK_KINDS)).scan().links;
        // What could be of several kinds is of the first that is wanted.
        const isElsewhere = (href: string) => all.some((link) => link.href === href);
        expect(alone.every(({ href }) => isElsewhere(href))).toBe(true);
        const ofKind = all.filter((link) => link.kind === kind);
        expect(ofKind.every((link) => alone.some(({ href }) => href === link.href))).toBe(true);
        expect(alone.every((link) => link.kind === kind)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});
