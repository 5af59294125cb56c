import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import { compileScope } from "../../../src/crawl/urls/scope.js";
import type { Scope, ScopeRules } from "../../../src/crawl/urls/scope-options.js";
import { canonicalUrl } from "../../../src/crawl/urls/url.js";
import { fieldErrorsOf } from "../../../src/lib/field-errors.js";

function includes(scope: Scope, seeds: readonly string[], href: string): boolean {
  const url = canonicalUrl(href);
  if (url === undefined) throw new Error(`no URL: ${href}`);
  return compileScope(scope, seeds).includes(url);
}

describe("scope host", () => {
  const seeds = ["http://Example.com/start", "https://127.0.0.1:8080/"];

  it.each([
    ["http://example.com/", true],
    ["https://example.com:8443/a?b", true],
    ["http://127.0.0.1:9999/", true],
    ["http://www.example.com/", false],
    ["http://example.com.evil.example/", false],
    ["http://127.0.0.2/", false],
  ])("%s: %j", (href, expected) => {
    expect(includes("host", seeds, href)).toBe(expected);
  });

  it("includes nothing when no seed is a URL", () => {
    expect(includes("host", ["nonsense"], "http://example.com/")).toBe(false);
  });
});

describe("scope domain", () => {
  it.each([
    ["http://example.co.uk/", "https://a.b.example.co.uk:81/", true],
    ["http://www.example.co.uk/", "http://example.co.uk/", true],
    ["http://example.co.uk/", "http://other.co.uk/", false],
    ["http://one.github.io/", "http://sub.one.github.io/", true],
    ["http://one.github.io/", "http://two.github.io/", false],
    ["http://github.io/", "http://two.github.io/", false],
    ["http://127.0.0.1/", "http://127.0.0.1:8080/", true],
    ["http://127.0.0.1/", "http://127.0.0.2/", false],
    ["http://[::1]/", "http://[::1]:81/", true],
    ["http://[::1]/", "http://[::2]/", false],
    ["http://localhost/", "http://localhost:81/", true],
    ["http://localhost/", "http://other/", false],
    ["http://bücher.example/", "http://www.xn--bcher-kva.example/", true],
  ])("of %s: %s is %j", (seed, href, expected) => {
    expect(includes("domain", [seed], href)).toBe(expected);
  });
});

describe("scope any", () => {
  it("includes every URL", () => {
    expect(includes("any", [], "http://anything.example/")).toBe(true);
  });
});

describe("scope by globs", () => {
  const matches = (glob: string, href: string) => includes({ allow: [glob], deny: [] }, [], href);

  it.each([
    ["http://example.com/a", "http://example.com/a", true],
    ["http://example.com/a", "http://example.com/ab", false],
    ["http://example.com/a", "http://example.com/", false],
    ["http://example.com/*", "http://example.com/", true],
    ["http://example.com/*", "http://example.com/a/b?c", true],
    ["http://example.com/*", "https://example.com/a", false],
    ["*.pdf", "http://example.com/a.pdf", true],
    ["*.pdf", "http://example.com/a.pdf?b", false],
    ["*/docs/*", "http://example.com/docs/a", true],
    ["*/docs/*", "http://example.com/docs", false],
    ["http*://*.example.com/*", "https://a.example.com/b", true],
    ["http*://*.example.com/*", "https://example.com/b", false],
    ["*a*b*c*", "http://h/xaxbxcx", true],
    ["*a*b*c*", "http://h/xcxbxax", false],
    ["http://h/ab*ba", "http://h/aba", false],
    ["http://h/ab*ba", "http://h/abba", true],
    ["http://h/*aa*a", "http://h/aa", false],
    ["http://h/*aa*a", "http://h/aaa", true],
    ["*", "http://h/", true],
    ["**", "http://h/", true],
    ["", "http://h/", false],
    ["HTTP://Example.COM/Path*", "http://example.com/Path/x", true],
    ["http://example.com/path*", "http://example.com/Path/x", false],
    ["http://h/a.b", "http://h/aXb", false],
    ["http://h/?q=[x]", "http://h/?q=[x]", true],
  ])("%j on %s: %j", (glob, href, expected) => {
    expect(matches(glob, href)).toBe(expected);
  });

  it("allows all that is not denied when nothing is allowed by name", () => {
    const scope = { allow: [], deny: ["*logout*"] };
    expect(includes(scope, [], "http://h/a")).toBe(true);
    expect(includes(scope, [], "http://h/logout?now")).toBe(false);
  });

  it("lets deny win", () => {
    const scope = { allow: ["http://h/*"], deny: ["http://h/private/*"] };
    expect(includes(scope, [], "http://h/a")).toBe(true);
    expect(includes(scope, [], "http://h/private/a")).toBe(false);
    expect(includes(scope, [], "http://other/a")).toBe(false);
  });

  it("agrees with a regular expression on 20,000 random pairs", () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    let matched = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const glob = `http://h/${Array.from({ length: random(6) }, () => "ab*"[random(3)]).join("")}`;
      const href = `http://h/${Array.from({ length: random(7) }, () => "ab"[random(2)]).join("")}`;
      const expected = new RegExp(`^${glob.replaceAll("*", ".*")}$`).test(href);
      if (expected) matched += 1;
      expect(matches(glob, href), `${glob} on ${href}`).toBe(expected);
    }
    expect(matched).toBeGreaterThan(1_000);
  });

  it("ends on a glob and a URL that would keep a backtracking matcher busy for ever", () => {
    const glob = `${"*a".repeat(1_000)}*b`;
    expect(matches(glob, `http://h/${"a".repeat(8_000)}`)).toBe(false);
    expect(matches(glob, `http://h/${"a".repeat(8_000)}b`)).toBe(true);
  });

  it("takes time that grows with the length of glob and URL, not with their product's powers", () => {
    // Every glob of this alphabet on every URL of it: a matcher that goes back would not end.
    const glob = fc.stringMatching(/^[ab*]{0,400}$/);
    const tail = fc.stringMatching(/^[ab]{0,4000}$/);
    fc.assert(
      fc.property(glob, tail, (one, other) => {
        const expected = new RegExp(`^http://h/${one.replaceAll(/\*+/g, "[^]*")}$`);
        const stars = one.split("*").length - 1;
        // The expression that it is compared with does go back.
        if (stars <= 3)
          expect(matches(`http://h/${one}`, `http://h/${other}`)).toBe(expected.test(`http://h/${other}`));
        else matches(`http://h/${one}`, `http://h/${other}`);
      }),
    );
  });
});

describe("scope by rules", () => {
  const seeds = ["http://www.example.com/"];

  it.each<[ScopeRules, string, boolean]>([
    [{}, "http://anything/", true],
    [{ hosts: [], allow: [], pathPrefixes: [], denyPatterns: [] }, "http://anything/", true],
    [{ within: "host" }, "http://www.example.com:81/", true],
    [{ within: "host" }, "http://example.com/", false],
    [{ within: "domain" }, "http://a.example.com/", true],
    [{ within: "any" }, "http://other/", true],
    [{ hosts: ["example.com"] }, "https://example.com:8443/", true],
    [{ hosts: ["example.com"] }, "http://www.example.com/", false],
    [{ hosts: ["*.example.com"] }, "http://www.example.com/", true],
    [{ hosts: ["*.example.com"] }, "http://a.b.example.com/", true],
    [{ hosts: ["*.example.com"] }, "http://example.com/", false],
    [{ hosts: ["*.example.com"] }, "http://badexample.com/", false],
    [{ hosts: ["*.example.com", "example.com"] }, "http://example.com/", true],
    [{ hosts: ["EXAMPLE.com", "b\u00fccher.example", "[0::1]", "0x7f.1"] }, "http://example.com/", true],
    [{ hosts: ["b\u00fccher.example"] }, "http://xn--bcher-kva.example/", true],
    [{ hosts: ["[0::1]"] }, "http://[::1]/", true],
    [{ hosts: ["0x7f.1"] }, "http://127.0.0.1/", true],
    [{ domains: ["example.co.uk"] }, "http://a.b.example.co.uk/", true],
    [{ domains: ["example.co.uk"] }, "http://other.co.uk/", false],
    [{ domains: ["one.github.io"] }, "http://two.github.io/", false],
    [{ domains: ["127.0.0.1"] }, "http://127.0.0.1:81/", true],
    [{ pathPrefixes: ["/docs"] }, "http://h/docs", true],
    [{ pathPrefixes: ["/docs"] }, "http://h/docs?x", true],
    [{ pathPrefixes: ["/docs"] }, "http://h/docs/a", true],
    [{ pathPrefixes: ["/docs"] }, "http://h/docsets", false],
    [{ pathPrefixes: ["/docs/"] }, "http://h/docs", false],
    [{ pathPrefixes: ["/docs/"] }, "http://h/docs/", true],
    [{ pathPrefixes: ["/"] }, "http://h/anything", true],
    [{ pathPrefixes: ["/a", "/b"] }, "http://h/b/c", true],
    [{ pathPrefixes: ["/~user/%c3%bc"] }, "http://h/%7Euser/\u00fc", true],
    [{ pathPrefixes: ["/docs"] }, "http://h/x/docs/a", false],
    [{ pathPrefixes: ["/docs"] }, "http://h/x?/docs", false],
    [{ pathPrefixes: ["/Docs"] }, "http://h/docs", false],
    [{ allowPatterns: ["^https?://[^/]+/\\d{4}/"] }, "http://h/2026/x", true],
    [{ allowPatterns: ["^https?://[^/]+/\\d{4}/"] }, "http://h/x/2026/", false],
    [{ allowPatterns: ["(?i)README"] }, "http://h/readme.txt", true],
    [{ allowPatterns: ["a", "b"] }, "http://h/xbx", true],
    [{ denyPatterns: ["[?&]sort="] }, "http://h/?sort=up", false],
    [{ denyPatterns: ["[?&]sort="] }, "http://h/?q", true],
    // Deny wins, and all members must be met.
    [{ allow: ["*"], denyPatterns: ["secret"] }, "http://h/secret", false],
    [{ allowPatterns: ["secret"], deny: ["*secret*"] }, "http://h/secret", false],
    [{ hosts: ["h"], pathPrefixes: ["/a"], allow: ["*.html"] }, "http://h/a/b.html", true],
    [{ hosts: ["h"], pathPrefixes: ["/a"], allow: ["*.html"] }, "http://i/a/b.html", false],
    [{ hosts: ["h"], pathPrefixes: ["/a"], allow: ["*.html"] }, "http://h/c/b.html", false],
    [{ hosts: ["h"], pathPrefixes: ["/a"], allow: ["*.html"] }, "http://h/a/b.pdf", false],
    [{ within: "host", pathPrefixes: ["/a"] }, "http://www.example.com/a", true],
    [{ within: "host", pathPrefixes: ["/a"] }, "http://example.com/a", false],
    [{ hosts: ["h"], domains: ["example.com"] }, "http://h/", false],
  ])("%j on %s: %j", (rules, href, expected) => {
    expect(includes(rules, seeds, href)).toBe(expected);
  });

  it.each<[ScopeRules, string, string | undefined]>([
    [{ deny: ["*x*", "*logout*"] }, "http://h/logout", 'deny: "*logout*"'],
    [{ denyPatterns: ["b+"] }, "http://h/abb", 'denyPatterns: "b+"'],
    [{ allow: ["*a"] }, "http://h/b", "not in allow"],
    [{ within: "host" }, "http://h/b", "not the host of a seed"],
    [{ hosts: ["h"], deny: ["*"] }, "http://i/", "not in hosts"],
    [{ hosts: ["h"] }, "http://h/", undefined],
  ])("of %j on %s: %j", (rules, href, expected) => {
    const url = canonicalUrl(href);
    expect(url && compileScope(rules, seeds).objection(url)).toBe(expected);
  });

  it.each<[string[], string | undefined, boolean]>([
    [[], "anything/at-all", true],
    [["text/html"], "text/html", true],
    [["text/html"], "text/plain", false],
    [["TEXT/HTML"], "text/html", true],
    [["application/*"], "application/pdf", true],
    [["application/*"], "text/html", false],
    [["*/*"], "x/y", true],
    [["text/html"], undefined, true],
    [["text/html"], "nonsense", false],
  ])("contentTypes %j takes %j: %j", (contentTypes, type, expected) => {
    expect(compileScope({ contentTypes }, []).acceptsType(type)).toBe(expected);
  });

  it.each<[string, unknown, string, RegExp]>([
    ["a host with a port", { hosts: ["h", "h:80"] }, "scope.hosts.1", /host name/],
    ["a host that is a URL", { hosts: ["http://h/"] }, "scope.hosts.0", /host name/],
    ["a star elsewhere in a host", { hosts: ["a.*.b"] }, "scope.hosts.0", /host name/],
    ["all hosts", { hosts: ["*"] }, "scope.hosts.0", /host name/],
    ["a name below a domain", { domains: ["www.example.co.uk"] }, "scope.domains.0", /"example\.co\.uk"/],
    ["a path without a slash", { pathPrefixes: ["docs"] }, "scope.pathPrefixes.0", /begins with/],
    ["a path with a query", { pathPrefixes: ["/docs?x"] }, "scope.pathPrefixes.0", /query/],
    ["look-ahead", { allowPatterns: ["a", "(?=b)c"] }, "scope.allowPatterns.1", /RE2.*\(\?=/],
    ["a back-reference", { denyPatterns: ["(a)\\1"] }, "scope.denyPatterns.0", /RE2.*\\1/],
    ["a broken expression", { denyPatterns: ["("] }, "scope.denyPatterns.0", /RE2.*missing/],
    ["too many states", { denyPatterns: ["((a{100}){100}){100}"] }, "scope.denyPatterns.0", /RE2.*repeat/],
    ["an expression too long", { denyPatterns: ["a".repeat(1_001)] }, "scope.denyPatterns.0", /1000/],
    [
      "expressions of too many steps",
      { denyPatterns: ["a{900}", "b{900}", "c{900}"] },
      "scope.denyPatterns",
      /2000/,
    ],
    ["a type with parameters", { contentTypes: ["text/html; charset=x"] }, "scope.contentTypes.0", /MIME/],
    ["half a type", { contentTypes: ["html"] }, "scope.contentTypes.0", /MIME/],
    ["an empty glob", { allow: [""] }, "scope.allow.0", /empty/],
    ["another member", { paths: ["/a"] }, "scope.paths", /not known/],
    ["another word", "hosts", "scope", /"host", "domain", "any"/],
  ])("refuses %s by name", (_what, scope, field, message) => {
    const { error } = crawlRequest.safeParse({ scope });
    const faults = error === undefined ? [] : fieldErrorsOf(error);
    expect(faults).toEqual([{ field, message: expect.stringMatching(message) }]);
  });

  it("ends on expressions and URLs that would keep a backtracking matcher busy for ever", () => {
    const href = `http://h/${"a".repeat(8_000)}!`;
    for (const pattern of [
      "(a+)+$",
      "(a|a)*c$",
      "(.*a){20}b",
      "(?:a?){400}a{400}!b",
      "(.*)(.*)(.*)(.*)[^!]$",
    ]) {
      expect(includes({ allowPatterns: [pattern] }, [], href), pattern).toBe(false);
    }
  });
});
