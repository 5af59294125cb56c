import { describe, expect, it } from "vitest";
import { canonicalUrl, fingerprint, MAX_URL_LENGTH, shardOf, urlId } from "../../../src/crawl/urls/url.js";

const key = (href: string, base?: string) => canonicalUrl(href, base)?.key;

describe("the canonical form", () => {
  it.each([
    // WHATWG parsing.
    ["HTTP://Example.COM/Path", "http://example.com/Path"],
    ["http://example.com", "http://example.com/"],
    ["http:\\\\example.com\\a", "http://example.com/a"],
    ["  http://example.com/a b\n", "http://example.com/a%20b"],
    ["http://exa\tmple.com/a\nb", "http://example.com/ab"],
    ["http://example.com:80/", "http://example.com/"],
    ["https://example.com:443/", "https://example.com/"],
    ["http://example.com:443/", "http://example.com:443/"],
    ["http://example.com/a/./b/../c", "http://example.com/a/c"],
    ["http://example.com/../../a", "http://example.com/a"],
    ["http://example.com/a/%2e%2E/b", "http://example.com/b"],
    ["http://example.com/a/.%2e", "http://example.com/"],
    ["http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC"],
    ["http://EXAMPLE.com./", "http://example.com./"],
    ["http://2130706433/", "http://127.0.0.1/"],
    ["http://0x7f.1/", "http://127.0.0.1/"],
    ["http://[0:0:0:0:0:0:0:1]:8080/", "http://[::1]:8080/"],
    // Fragments.
    ["http://example.com/a#b", "http://example.com/a"],
    ["http://example.com/a#b?c", "http://example.com/a"],
    ["http://example.com/#", "http://example.com/"],
    // Percent-encoding: RFC 3986, 6.2.2.1 and 6.2.2.2.
    ["http://example.com/%7euser", "http://example.com/~user"],
    ["http://example.com/%41%2d%5f%2E%7E%30", "http://example.com/A-_.~0"],
    ["http://example.com/%3a%2f%c3%bc", "http://example.com/%3A%2F%C3%BC"],
    ["http://example.com/?q=%3d%61", "http://example.com/?q=%3Da"],
    ["http://example.com/100%", "http://example.com/100%"],
    ["http://example.com/%zz%2", "http://example.com/%zz%2"],
    ["http://example.com/%2541", "http://example.com/%2541"],
    // Empty queries.
    ["http://example.com/a?", "http://example.com/a"],
    ["http://example.com/a?#b", "http://example.com/a"],
    ["http://example.com/a??", "http://example.com/a??"],
    ["http://example.com/a?b?", "http://example.com/a?b?"],
  ])("of %j is %j", (href, expected) => {
    expect(key(href)).toBe(expected);
  });

  it.each([
    ["http://example.com/", "https://example.com/"],
    ["http://example.com/", "http://www.example.com/"],
    ["http://example.com/a", "http://example.com/a/"],
    ["http://example.com/a", "http://example.com/A"],
    ["http://example.com/?a=1&b=2", "http://example.com/?b=2&a=1"],
    ["http://example.com/?utm_source=x", "http://example.com/"],
    ["http://example.com/a//b", "http://example.com/a/b"],
    ["http://example.com/a%2Fb", "http://example.com/a/b"],
    ["http://example.com/index.html", "http://example.com/"],
    ["http://example.com/a=%26", "http://example.com/a=&"],
    ["http://example.com/a+b", "http://example.com/a%20b"],
  ])("keeps %s and %s apart", (one, other) => {
    expect(key(one)).not.toBe(key(other));
  });

  it("is its own canonical form", () => {
    for (const href of [
      "http://example.com/%7e%3a?",
      "http://bücher.example/ü?ä#ö",
      "http://h/a%2e%2f..%2fb",
    ]) {
      const once = key(href);
      expect(once).toBeDefined();
      expect(key(once ?? "")).toBe(once);
    }
  });
});

describe("a canonical URL", () => {
  it("is fetched as it was given, and compared as it is meant", () => {
    expect(canonicalUrl("http://example.com:8080/%7e?#x")).toEqual({
      url: "http://example.com:8080/%7e?",
      key: "http://example.com:8080/~",
      host: "example.com:8080",
      hostname: "example.com",
    });
  });

  it.each([
    ["/a", "http://example.com/b/c", "http://example.com/a"],
    ["a", "http://example.com/b/c", "http://example.com/b/a"],
    ["../a", "http://example.com/b/c/d", "http://example.com/b/a"],
    ["?q", "http://example.com/b?r", "http://example.com/b?q"],
    ["#f", "http://example.com/b?r", "http://example.com/b?r"],
    ["", "http://example.com/b?r#f", "http://example.com/b?r"],
    ["//other.example/a", "https://example.com/b", "https://other.example/a"],
    ["http:a", "http://example.com/b/c", "http://example.com/b/a"],
    ["https:a", "http://example.com/b/c", "https://a/"],
    ["/\\other.example/a", "http://example.com/b", "http://other.example/a"],
    ["///other.example/a", "http://example.com/b", "http://other.example/a"],
  ])("resolves %j on %s to %s", (href, base, expected) => {
    expect(canonicalUrl(href, base)?.url).toBe(expected);
  });

  it.each([
    "mailto:a@example.com",
    "javascript:void(0)",
    "data:text/html,x",
    "ftp://example.com/",
    "file:///etc/passwd",
    "about:blank",
    "/relative",
    "relative",
    "",
    "http://",
    "http://a b/",
    "http://example.com:99999/",
    "http://[::1/",
    "http://exa%00mple.com/",
    "http://user@example.com/",
    "http://user:password@example.com/",
    "http://:password@example.com/",
    "http://example.com%40evil.example/",
  ])("is not made of %j", (href) => {
    expect(canonicalUrl(href)).toBeUndefined();
  });

  it("has a bounded length, as written and as resolved", () => {
    const origin = "http://example.com/";
    const longest = origin + "a".repeat(MAX_URL_LENGTH - origin.length);
    expect(canonicalUrl(longest)?.url).toBe(longest);
    expect(canonicalUrl(`${longest}a`)).toBeUndefined();
    expect(canonicalUrl("/".concat("ü".repeat(MAX_URL_LENGTH / 4)), origin)).toBeUndefined();
    expect(canonicalUrl("/".concat("a".repeat(MAX_URL_LENGTH - 1)), origin)).toBeUndefined();
  });
});

describe("the short cut for plain links", () => {
  /** What the URL parser alone makes of it. */
  function parsed(href: string, base: string) {
    let url: URL;
    try {
      url = new URL(href, base);
    } catch {
      return undefined;
    }
    if (!/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
      return undefined;
    }
    url.hash = "";
    const text = url.href.replace(/#$/, "");
    return text.length > MAX_URL_LENGTH ? undefined : { url: text, host: url.host, hostname: url.hostname };
  }

  it("resolves 200,000 random links as the URL parser does", () => {
    let seed = 20_260_101;
    const random = (below: number) => {
      // Park and Miller's generator: the same links on every run.
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;
    const pieces = [
      ..."/abzAZ019-_~.:;,+@!$&()*=?#%'\"<>[]{}|\\^` \t\n",
      ...[
        "ü",
        "日",
        "\u0000",
        "\u007f",
        "..",
        "/.",
        "/..",
        "./",
        "//",
        "%2e",
        "%7E",
        "%",
        "page",
        "index.html",
        "?a=b",
        "&c",
      ],
    ];
    const origins = [
      ...[
        "http://example.com",
        "https://example.com",
        "http://127.0.0.1:8080",
        "http://[::1]:81",
        "http://h:80",
      ],
      ...[
        "https://h:443",
        "HTTP://example.com",
        "http://EXAMPLE.com",
        "http://u@h",
        "http://u:p@h",
        "http://h?x",
      ],
      ...[
        "http://0x7f.1",
        "http:/h",
        "http:h",
        "https:///h",
        "http://bücher.example",
        "http://h#x",
        "http://h\\x",
      ],
      ...[
        "http://",
        "http",
        "https",
        "http:",
        "ftp://h",
        "http://a b",
        "httpx://h",
        "http://h:",
        "http://h.",
      ],
    ];
    const bases = [
      ...[
        "http://example.com/",
        "http://example.com/a/b?c=/d",
        "https://127.0.0.1:8443/x/y",
        "http://h:80/a",
      ],
      ...["http://example.com", "http://EXAMPLE.com/a", "http://u@h/a", "http://h?x=/..", "http://[::1]/"],
    ];
    let compared = 0;
    for (let round = 0; round < 200_000; round += 1) {
      const tail = Array.from({ length: random(7) }, () => pick(pieces)).join("");
      const href = random(2) === 0 ? `${pick(origins)}${random(4) === 0 ? "" : "/"}${tail}` : `/${tail}`;
      const base = pick(bases);
      const expected = parsed(href, base);
      const found = canonicalUrl(href, base);
      if (expected === undefined) expect(found, `${href} on ${base}`).toBeUndefined();
      else {
        compared += 1;
        if (
          found?.url !== expected.url ||
          found.host !== expected.host ||
          found.hostname !== expected.hostname
        ) {
          expect(found, `${href} on ${base}`).toMatchObject(expected);
        }
      }
    }
    expect(compared).toBeGreaterThan(50_000);
  });
});

describe("a fingerprint", () => {
  const url = "http://example.com/";

  it("is 20 characters of base64url, the same wherever it is made", () => {
    // The first 120 bits of SHA-256, as any other tool makes them.
    expect(fingerprint(url)).toBe("KhtAJCDvRld0cc3HQJsP");
    expect(urlId("crawl", fingerprint(url))).toBe("crawl:KhtAJCDvRld0cc3HQJsP");
  });

  it("tells apart what is asked for in different ways", () => {
    const all = [
      fingerprint(url),
      fingerprint("https://example.com/"),
      fingerprint(url, { method: "HEAD" }),
      fingerprint(url, { method: "POST" }),
      fingerprint(url, { method: "POST", body: "a" }),
      fingerprint(url, { method: "POST", body: "b" }),
      fingerprint(url, { body: "a" }),
    ];
    expect(new Set(all).size).toBe(all.length);
  });

  it("does not depend on headers or what is kept for the spider", () => {
    const request = { method: "GET", headers: { a: "b" }, meta: { c: 1 } } as const;
    expect(fingerprint(url, request)).toBe(fingerprint(url));
  });
});

describe("shards", () => {
  it("are the same in every process", () => {
    // FNV-1a, 32 bits: the published values of "" and "foobar".
    expect(shardOf("", 2 ** 32)).toBe(0x811c9dc5);
    expect(shardOf("foobar", 2 ** 32)).toBe(0xbf9cf968);
  });

  it("have a fair share of hosts each", () => {
    const sizes = Array.from({ length: 64 }, () => 0);
    for (let n = 0; n < 64_000; n += 1) {
      const shard = shardOf(`host-${n}.example.com`, 64);
      sizes[shard] = (sizes[shard] ?? 0) + 1;
    }
    expect(Math.min(...sizes)).toBeGreaterThan(800);
    expect(Math.max(...sizes)).toBeLessThan(1_200);
  });
});
