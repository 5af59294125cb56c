import { describe, expect, it } from "vitest";
import type { Scope } from "../../../src/crawl/crawl.js";
import { compileScope } from "../../../src/crawl/scope.js";
import { canonicalUrl } from "../../../src/crawl/url.js";

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
});
