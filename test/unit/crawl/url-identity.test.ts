import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Crawl } from "../../../src/crawl/crawl.js";
import { DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import { LinkAdmission } from "../../../src/crawl/link-admission.js";
import { canonicalUrl, fingerprint, urlId } from "../../../src/crawl/urls/url.js";
import { UrlIdentity } from "../../../src/crawl/urls/url-identity.js";
import type { UrlOptions } from "../../../src/crawl/urls/url-options.js";

function keyOf(href: string, urls?: UrlOptions): string {
  const url = canonicalUrl(href);
  if (url === undefined) throw new Error(`no URL: ${href}`);
  return new UrlIdentity({ id: "c", ...(urls !== undefined && { urls }) }).keyOf(url);
}

describe("without options", () => {
  it.each(["http://h/?b=2&a=1&utm_source=x&PHPSESSID=0123456789abcdef", "http://h/a;jsessionid=1"])(
    "a URL's id is what it always was: %s",
    (href) => {
      const url = canonicalUrl(href);
      const id = urlId("c", fingerprint(url?.key ?? ""));
      expect(new UrlIdentity({ id: "c" }).idOf({ key: url?.key ?? "" })).toBe(id);
      expect(new UrlIdentity({ id: "c", urls: {} }).idOf({ key: url?.key ?? "" })).toBe(id);
    },
  );
});

describe("sortQuery", () => {
  it.each([
    ["http://h/?b=2&a=1", "http://h/?a=1&b=2"],
    ["http://h/?a=2&b&a=1", "http://h/?a=2&a=1&b"],
    ["http://h/?b&&a", "http://h/?a&b"],
    ["http://h/?&", "http://h/"],
    ["http://h/?ab=1&a=2&a%20=3", "http://h/?a=2&a%20=3&ab=1"],
    ["http://h/?a", "http://h/?a"],
    ["http://h/x", "http://h/x"],
  ])("makes %s of %s", (href, expected) => {
    expect(keyOf(href, { sortQuery: true })).toBe(expected);
  });
});

describe("dropParameters", () => {
  it.each<[string, string[], string]>([
    ["http://h/?a=1&b=2&c=3", ["b"], "http://h/?a=1&c=3"],
    ["http://h/?a=1&a=2", ["a"], "http://h/"],
    ["http://h/?a", ["a"], "http://h/"],
    ["http://h/?ref_src=x&refer=y&r=z", ["ref*"], "http://h/?r=z"],
    ["http://h/?filter[x]=1&filter%5By%5D=2&z", ["filter[*]"], "http://h/?z"],
    ["http://h/?a%20b=1&a+b=2", ["a b"], "http://h/"],
    ["http://h/?A=1", ["a"], "http://h/?A=1"],
    ["http://h/?%zz=1&b", ["%zz"], "http://h/?b"],
    ["http://h/?a=1", ["*"], "http://h/"],
    ["http://h/?x=a", ["a"], "http://h/?x=a"],
    ["http://h/a=1?b", ["a"], "http://h/a=1?b"],
    ["http://h/?b=2&a=1", [], "http://h/?b=2&a=1"],
  ])("of %s, %j: %s", (href, dropParameters, expected) => {
    expect(keyOf(href, { dropParameters })).toBe(expected);
  });
});

describe("dropTracking", () => {
  it.each([
    ["http://h/?utm_source=a&UTM_Medium=b&id=1", "http://h/?id=1"],
    ["http://h/?gclid=1&fbclid=2&msclkid=3&mc_cid=4&_ga=5", "http://h/"],
    ["http://h/?utm=1&source=2&ref=3&campaign=4", "http://h/?utm=1&source=2&ref=3&campaign=4"],
    ["http://h/?pk_campaign=a&mtm_kwd=b", "http://h/"],
  ])("of %s: %s", (href, expected) => {
    expect(keyOf(href, { dropTracking: true })).toBe(expected);
  });
});

describe("dropSessionIds", () => {
  it.each([
    ["http://h/a;jsessionid=0A1B2C?x=1", "http://h/a?x=1"],
    ["http://h/a;JSESSIONID=0A1B2C.node1/b", "http://h/a/b"],
    ["http://h/a%3bjsessionid%3d12", "http://h/a"],
    ["http://h/a;v=1;jsessionid=2", "http://h/a;v=1"],
    ["http://h/a;version=2", "http://h/a;version=2"],
    ["http://h/(S(lit3py55t21z5v55vlm25s55))/orders.aspx", "http://h/orders.aspx"],
    ["http://h/app/(X(1)S(abc)F(def))/p", "http://h/app/p"],
    ["http://h/(nothing)/p", "http://h/(nothing)/p"],
    ["http://h/f(x)", "http://h/f(x)"],
    ["http://h/?PHPSESSID=1&a=2", "http://h/?a=2"],
    ["http://h/?ASPSESSIONIDQQRS=1", "http://h/"],
    ["http://h/?CFID=1&CFTOKEN=2&p", "http://h/?p"],
    ["http://h/?sid=0123456789abcdef0123456789abcdef&t=1", "http://h/?t=1"],
    ["http://h/?sid=42", "http://h/?sid=42"],
    ["http://h/?s=search-words-without-digits", "http://h/?s=search-words-without-digits"],
    ["http://h/?s=two+words+and+2+digits", "http://h/?s=two+words+and+2+digits"],
  ])("of %s: %s", (href, expected) => {
    expect(keyOf(href, { dropSessionIds: true })).toBe(expected);
  });
});

describe("a crawl's options", () => {
  const all: UrlOptions = {
    sortQuery: true,
    dropParameters: ["x*"],
    dropTracking: true,
    dropSessionIds: true,
  };

  it("give a key that is its own key, whatever the URL", () => {
    const piece = fc.constantFrom(
      ...[
        "a",
        "b=1",
        "&",
        "=",
        "?",
        "/",
        ";",
        "%3B",
        "%",
        "jsessionid=1",
        "(S(x))",
        "(S(",
        "))",
        "x1=2",
        "utm_a",
      ],
      ...["sid=0123456789abcdef", "+", "%5B", "%e4", "ü"],
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const url = canonicalUrl(`http://h/${pieces.join("")}`);
        if (url === undefined) return;
        const identity = new UrlIdentity({ id: "c", urls: all });
        const key = identity.keyOf(url);
        expect(identity.keyOf({ key })).toBe(key);
      }),
      { numRuns: 3_000 },
    );
  });

  it("are refused by name when they are wrong", () => {
    const faults = (urls: unknown) => crawlRequest.safeParse({ urls }).error?.issues.map(({ path }) => path);
    expect(faults({ sortQuery: "yes" })).toEqual([["urls", "sortQuery"]]);
    expect(faults({ dropParameters: ["a", ""] })).toEqual([["urls", "dropParameters", 1]]);
    expect(faults({ dropSlash: true })).toEqual([["urls"]]);
    expect(faults({ dropParameters: ["utm_*"] })).toBeUndefined();
    expect(crawlRequest.parse({})).not.toHaveProperty("urls");
  });

  it("make of several spellings one URL, fetched as the first was spelt", () => {
    const crawl: Crawl = {
      ...{ id: "c", status: "running", generation: 1, startedAt: 0, spider: "links", seeds: ["http://h/"] },
      ...{ scope: "host", limits: {}, politeness: DEFAULT_POLITENESS, priority: 5, params: {}, urls: all },
    };
    const admission = new LinkAdmission(crawl, { rememberedUrls: 100, now: Date.now });
    const on = { url: "http://h/", depth: 0 };
    const first = admission.admit("/p?b=1&a=2&utm_source=x", "page", on);
    expect(first?.url).toBe("http://h/p?b=1&a=2&utm_source=x");
    expect(admission.admit("/p?a=2&b=1", "page", on)).toBeUndefined();
    expect(new LinkAdmission(crawl, { now: Date.now }).admit("/p;jsessionid=1?a=2&b=1", "page", on)?.id).toBe(
      first?.id,
    );
    const target = canonicalUrl("http://h/p?a=2&b=1&gclid=1");
    expect(target && admission.targetOf(target, 1, "http://h/").id).toBe(first?.id);
  });
});
