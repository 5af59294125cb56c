import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import { TrapGuard } from "../../../src/crawl/urls/trap-guard.js";
import type { TrapOptions } from "../../../src/crawl/urls/trap-options.js";
import { canonicalUrl } from "../../../src/crawl/urls/url.js";
import { fieldErrorsOf } from "../../../src/lib/field-errors.js";

const NOW = Date.UTC(2026, 10, 21);

function setup(limits: TrapOptions = {}, ignoresSessions = false) {
  const guard = new TrapGuard({ limits, ignoresSessions, now: () => NOW });
  const kindOf = (href: string, foundOn = "http://h/") => {
    const url = canonicalUrl(href, foundOn);
    if (url === undefined) throw new Error(`no URL: ${href}`);
    return guard.trapOf(url, foundOn)?.kind;
  };
  return { guard, kindOf };
}

describe("a path", () => {
  it.each<[string, string | undefined]>([
    ["/a/b/a/b/a/b", "repeating-path"],
    ["/a/b/a/b", undefined],
    ["/x/a/b/a/b/a/b/y", "repeating-path"],
    ["/a/b/c/a/b/c/a/b/c/", "repeating-path"],
    ["/a/b/c/a/b/c/a/b", undefined],
    ["/tiles/1/1/1.png", undefined],
    ["/tiles/1/1/1/", undefined],
    ["/a/a/a/a", "repeating-path"],
    ["/a/a/a", undefined],
    ["/a/////b", "repeating-path"],
    ["/a//b//c", undefined],
    ["/a/x/a/y/a/z/a/u/a/v/a", "repeating-path"],
    ["/a/x/a/y/a/z/a/u/a", undefined],
    ["/2026/05/12/05/12/a", undefined],
    ["/en/about/team/en/about/team/contact", undefined],
    [`/${"s/".repeat(3)}${Array.from({ length: 47 }, (_, n) => n).join("/")}`, undefined],
    [`/${Array.from({ length: 51 }, (_, n) => n).join("/")}`, "long-path"],
    ["/", undefined],
    ["/a?x=/b/c/b/c/b/c", undefined],
  ])("%s: %s", (path, expected) => {
    expect(setup().kindOf(path)).toBe(expected);
  });

  it("is judged by the crawl's own numbers", () => {
    expect(setup({ repeats: 2 }).kindOf("/a/b/a/b")).toBe("repeating-path");
    expect(setup({ repeats: 5 }).kindOf("/a/b/a/b/a/b/a/b")).toBeUndefined();
    expect(setup({ segments: 2 }).kindOf("/a/b/c")).toBe("long-path");
    expect(setup({ parameters: 2 }).kindOf("/?a&b&c")).toBe("many-parameters");
  });

  it("says which run of segments repeats, and which number says so", () => {
    const url = canonicalUrl("http://h/x/b/a/b/a/b/a");
    expect(url && setup().guard.trapOf(url, "http://h/")).toEqual({
      kind: "repeating-path",
      rule: '"b/a" 3 times in a row in the path (repeats: 3)',
    });
  });

  it("has the same said of it whatever was asked before, and whatever it is", () => {
    const { guard } = setup();
    const segment = fc.constantFrom("a", "b", "c", "", "%", "2026", "é");
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 60 }), (segments) => {
        const url = canonicalUrl(`http://h/x${segments.join("/")}`);
        if (url === undefined) return;
        expect(guard.trapOf(url, "http://h/")).toEqual(setup().guard.trapOf(url, "http://h/"));
      }),
    );
  });
});

describe("a calendar", () => {
  it.each<[foundOn: string, href: string, expected: string | undefined]>([
    ["/cal/2026/11", "/cal/2026/12", undefined],
    ["/cal/2028/11", "/cal/2028/12", "calendar"],
    ["/cal/2028-11-21", "/cal/2028-11-22", "calendar"],
    ["/cal?month=11&year=2028", "/cal?year=2028&month=12", "calendar"],
    ["/cal?view=day&d=2028-11-21", "/cal?view=week&d=2028-11-22", "calendar"],
    ["/cal?t=1858377600", "/cal?t=1858464000", "calendar"],
    ["/cal/1976/02", "/cal/1976/01", undefined],
    ["/cal/1976/01", "/cal/1975/12", "calendar"],
    // Entered from elsewhere it is no step of a walk.
    ["/", "/cal/2099/01", undefined],
    ["/archive", "/1851/05/12", undefined],
    ["/cal/2026/11", "/plans/2050-01", undefined],
    ["/2026/11/climate", "/2050/01/targets", undefined],
    // Far in the future it still does not go on; old archives may.
    ["/cal/2099-01", "/cal/2099-02", "calendar"],
    ["/cal?year=2099", "/cal?year=2100", "calendar"],
    ["/1851/05/12", "/1851/05/11", undefined],
    ["/1851/05/12", "/1851/05/13", undefined],
    ["/cal/2099-02", "/cal/2099-01", undefined],
    // Numbers that are no dates.
    ["/t/3012/2", "/t/3012/3", undefined],
    ["/post/4711", "/post/4712", undefined],
    ["/t/2077/2", "/t/2077/3", undefined],
    ["http://other/cal/2028/11", "/cal/2028/12", undefined],
  ])("on %s a link to %s: %s", (foundOn, href, expected) => {
    const page = canonicalUrl(foundOn, "http://h/")?.url ?? "";
    expect(setup().kindOf(new URL(href, "http://h/").href, page)).toBe(expected);
  });

  it("ends where the crawl says", () => {
    const walk = (limits: TrapOptions, step: number) => {
      const { kindOf } = setup(limits);
      const at = (month: number) =>
        `http://h/cal/${Math.floor(month / 12)}-${String((month % 12) + 1).padStart(2, "0")}`;
      let month = 2026 * 12 + 10;
      while (kindOf(at(month + step), at(month)) === undefined) month += step;
      return Math.abs(month - (2026 * 12 + 10));
    };
    expect(walk({}, 1)).toBe(24);
    expect(walk({ futureYears: 5 }, 1)).toBe(60);
    expect(walk({}, -1)).toBe(50 * 12 + 10);
    expect(walk({ pastYears: 1 }, -1)).toBe(22);
  });
});

describe("session ids", () => {
  it("pass a few times in each URL, in paths and in queries", () => {
    const { kindOf } = setup();
    for (const page of ["/a", "/b"]) {
      const spelt = (n: number) => `${page};jsessionid=${n}?x=1`;
      expect([1, 2, 3, 1, 2, 4, 5, 3].map((n) => kindOf(spelt(n)))).toEqual([
        ...[undefined, undefined, undefined, undefined, undefined],
        ...["session-ids", "session-ids", undefined],
      ]);
    }
    const inQuery = (n: number) => kindOf(`/c?PHPSESSID=${n}&x=1`);
    expect([1, 2, 3, 4].map(inQuery)).toEqual([undefined, undefined, undefined, "session-ids"]);
    expect([1, 2, 3, 4, 5].map((n) => kindOf(`/d?id=${n}&sid=${n}`))).toEqual(Array(5).fill(undefined));
  });

  it("are no concern where they do not tell URLs apart", () => {
    const { kindOf } = setup({}, true);
    for (let n = 0; n < 20; n += 1) expect(kindOf(`/a;jsessionid=${n}`)).toBeUndefined();
  });
});

describe("queries", () => {
  it("that combine few values are an explosion", () => {
    const { kindOf } = setup();
    const facets = 8;
    const values = 5;
    let admitted = 0;
    for (let n = 0; n < 30_000; n += 1) {
      const query = Array.from({ length: facets }, (_, f) => `f${f}=${Math.floor(n / values ** f) % values}`);
      if (kindOf(`/shop?${query.join("&")}`) === undefined) admitted += 1;
    }
    expect(admitted).toBeGreaterThan(3_500);
    expect(admitted).toBeLessThan(7_500);
    expect(kindOf("/shop?other=1")).toBe("query-explosion");
    expect(kindOf("/shop2?f0=1")).toBeUndefined();
    expect(kindOf("http://h2/shop?f0=1")).toBeUndefined();
  });

  it.each<[string, (n: number) => string]>([
    ["topics by number", (n) => `/viewtopic.php?t=${n}`],
    ["topics in forums, with pages", (n) => `/viewtopic.php?f=${n % 30}&t=${n >> 2}&start=${(n % 4) * 20}`],
    [
      "200 categories with 40 pages each",
      (n) => `/list?category=${n % 200}&page=${Math.floor(n / 200) % 40}`,
    ],
    [
      "a wiki's pages in ten views",
      (n) => `/index.php?title=Page_${Math.floor(n / 10)}&action=view${n % 10}`,
    ],
    ["words that people looked for", (n) => `/search?q=word-${n}&lang=en`],
  ])("of a big site are none: %s", (_what, hrefOf) => {
    const { kindOf } = setup();
    const refused = Array.from({ length: 60_000 }, (_, n) => hrefOf(n)).filter(
      (href) => kindOf(href) !== undefined,
    );
    expect(refused).toEqual([]);
  });

  it("with ever other parameters, or without end, are one", () => {
    const byNames = setup({ combinations: 50 });
    const byNumber = setup({ queries: 1_000 });
    const count = (hrefOf: (n: number) => string, { kindOf }: ReturnType<typeof setup>) => {
      let admitted = 0;
      for (let n = 0; n < 5_000; n += 1) if (kindOf(hrefOf(n)) === undefined) admitted += 1;
      return admitted;
    };
    const subsets = (n: number) =>
      `/?${[...n.toString(2)].map((bit, at) => (bit === "1" ? `p${at}=1` : `q${at}=1`)).join("&")}`;
    expect(count(subsets, byNames)).toBeLessThan(120);
    const random = count((n) => `/?token=${n}`, byNumber);
    expect(random).toBeGreaterThan(750);
    expect(random).toBeLessThan(1_400);
  });

  it("are counted once each, however often they are met", () => {
    const { kindOf } = setup({ queries: 1_000 });
    const hrefs = Array.from({ length: 20_000 }, (_, n) => `/?page=${n % 500}`);
    expect(hrefs.filter((href) => kindOf(href) !== undefined)).toEqual([]);
  });
});

describe("deep paths", () => {
  it("that combine few segments are an explosion", () => {
    const { kindOf } = setup();
    const names = ["about", "products", "contact", "news", "jobs", "help", "press", "legal", "team", "blog"];
    // All words of these letters without a repetition, as relative links on every page make them.
    let paths = [""];
    let admitted = 0;
    for (let depth = 1; depth <= 6; depth += 1) {
      paths = paths.flatMap((path) =>
        names.filter((name) => !path.includes(name)).map((name) => `${path}/${name}`),
      );
      paths = paths.slice(0, 40_000).filter((path) => kindOf(path) === undefined);
      admitted += paths.length;
    }
    expect(admitted).toBeGreaterThan(16_000);
    expect(admitted).toBeLessThan(30_000);
    expect(kindOf("/about/products/contact/other")).toBe("path-explosion");
    expect(kindOf("/about/products/contact")).toBeUndefined();
    expect(kindOf("http://other/about/products/contact/news")).toBeUndefined();
  });

  it.each<[string, (n: number) => string]>([
    [
      "a newspaper by day",
      (n) => `/archive/${1875 + Math.floor(n / 372)}/${(Math.floor(n / 31) % 12) + 1}/${(n % 31) + 1}/`,
    ],
    ["articles by day", (n) => `/2026/${(n % 12) + 1}/${(n % 31) + 1}/article-${n}`],
    ["products in categories", (n) => `/shop/${n % 20}/${n % 300}/p${n}`],
    ["a repository's files", (n) => `/tree/main/src/${n % 50}/${n % 977}/file-${n % 20_011}.ts`],
  ])("of a big site are none: %s", (_what, pathOf) => {
    const { kindOf } = setup();
    const refused = Array.from({ length: 54_000 }, (_, n) => pathOf(n)).filter(
      (path) => kindOf(path) !== undefined,
    );
    expect(refused).toEqual([]);
  });
});

describe("the options", () => {
  it.each<[unknown, string]>([
    [{ traps: "off" }, "links.traps"],
    [{ traps: { segments: 0 } }, "links.traps.segments"],
    [{ traps: { repeats: 1 } }, "links.traps.repeats"],
    [{ traps: { depth: 1 } }, "links.traps.depth"],
    [{ follow: true }, "links.follow"],
  ])("%j are refused by name", (links, field) => {
    const { error } = crawlRequest.safeParse({ links });
    expect(error && fieldErrorsOf(error).map((fault) => fault.field)).toEqual([field]);
  });

  it.each([true, false, {}, { segments: 10, queries: 5 }])("%j are taken", (traps) => {
    expect(crawlRequest.parse({ links: { traps } }).links).toEqual({ traps });
  });
});
