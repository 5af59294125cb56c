import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalUrl, MAX_URL_LENGTH } from "../../../src/crawl/urls/url.js";

/** As it is written; the URL that is fetched, if it is one; its canonical form where that is another. */
type Row = readonly [href: string, url?: string, key?: string];

function check([href = "", url, key]: readonly (string | undefined)[], base?: string): void {
  const found = canonicalUrl(href, base);
  expect(found?.url).toBe(url);
  expect(found?.key).toBe(key ?? url);
}

describe("the examples of RFC 3986, 5.4", () => {
  const base = "http://a/b/c/d;p?q";

  // Two of them end as the URL standard has it: no other scheme than http is a crawl's, and `http:g` is relative.
  it.each<Row>([
    ["g", "http://a/b/c/g"],
    ["./g", "http://a/b/c/g"],
    ["g/", "http://a/b/c/g/"],
    ["/g", "http://a/g"],
    ["//g", "http://g/"],
    ["?y", "http://a/b/c/d;p?y"],
    ["g?y", "http://a/b/c/g?y"],
    ["#s", "http://a/b/c/d;p?q"],
    ["g#s", "http://a/b/c/g"],
    ["g?y#s", "http://a/b/c/g?y"],
    [";x", "http://a/b/c/;x"],
    ["g;x", "http://a/b/c/g;x"],
    ["g;x?y#s", "http://a/b/c/g;x?y"],
    ["", "http://a/b/c/d;p?q"],
    [".", "http://a/b/c/"],
    ["./", "http://a/b/c/"],
    ["..", "http://a/b/"],
    ["../", "http://a/b/"],
    ["../g", "http://a/b/g"],
    ["../..", "http://a/"],
    ["../../", "http://a/"],
    ["../../g", "http://a/g"],
    ["../../../g", "http://a/g"],
    ["../../../../g", "http://a/g"],
    ["/./g", "http://a/g"],
    ["/../g", "http://a/g"],
    ["g.", "http://a/b/c/g."],
    [".g", "http://a/b/c/.g"],
    ["g..", "http://a/b/c/g.."],
    ["..g", "http://a/b/c/..g"],
    ["./../g", "http://a/b/g"],
    ["./g/.", "http://a/b/c/g/"],
    ["g/./h", "http://a/b/c/g/h"],
    ["g/../h", "http://a/b/c/h"],
    ["g;x=1/./y", "http://a/b/c/g;x=1/y"],
    ["g;x=1/../y", "http://a/b/c/y"],
    ["g?y/./x", "http://a/b/c/g?y/./x"],
    ["g?y/../x", "http://a/b/c/g?y/../x"],
    ["g#s/./x", "http://a/b/c/g"],
    ["g#s/../x", "http://a/b/c/g"],
    ["http:g", "http://a/b/c/g"],
    ["g:h"],
  ])("%j is %j", (...row) => check(row, base));
});

describe("links as pages have them", () => {
  const base = "http://example.com/a/b?c#d";

  it.each<Row>([
    ["\\x\\y", "http://example.com/x/y"],
    ["/\\other.example\\z", "http://other.example/z"],
    ["\\\\other.example", "http://other.example/"],
    ["a\\..\\b", "http://example.com/a/b"],
    [" \t/trim\r\n", "http://example.com/trim"],
    ["/in\tne\nr\r", "http://example.com/inner"],
    ["ht\ntp://h/x", "http://h/x"],
    ["//h:80/", "http://h/"],
    ["https:/x", "https://x/"],
    ["https:x", "https://x/"],
    ["http:/x", "http://example.com/x"],
    ["http:///h/x", "http://h/x"],
    ["https://///h/x", "https://h/x"],
    ["%2e%2e/x", "http://example.com/x"],
    ["%2E./x", "http://example.com/x"],
    [".%2e", "http://example.com/"],
    ["..%2f..", "http://example.com/a/..%2f..", "http://example.com/a/..%2F.."],
    ["a%5cb", "http://example.com/a/a%5cb", "http://example.com/a/a%5Cb"],
    ["/a b", "http://example.com/a%20b"],
    ["/a%20b", "http://example.com/a%20b"],
    ["/ü?ü#ü", "http://example.com/%C3%BC?%C3%BC"],
    ["/\u0000", "http://example.com/"],
    ["/\u007f", "http://example.com/%7F"],
    ["?a b", "http://example.com/a/b?a%20b"],
    ["?\u0000\u007f", "http://example.com/a/b?%00%7F"],
    ["/a;b;c=d", "http://example.com/a;b;c=d"],
    ["/.well-known", "http://example.com/.well-known"],
    ["/...", "http://example.com/..."],
    ["/a/.../b", "http://example.com/a/.../b"],
    ["//"],
    ["///"],
    ["////x", "http://x/"],
    ["/\ud800", "http://example.com/%EF%BF%BD"],
    ["/\udc00x?\ud800", "http://example.com/%EF%BF%BDx?%EF%BF%BD"],
    ["/\ud83d\ude00", "http://example.com/%F0%9F%98%80"],
    ["?q=\ud83d\ude00", "http://example.com/a/b?q=%F0%9F%98%80"],
    ["/e\u0301", "http://example.com/e%CC%81"],
    ["/é", "http://example.com/%C3%A9"],
    ["/\u202e", "http://example.com/%E2%80%AE"],
    ["/\ufeff", "http://example.com/%EF%BB%BF"],
    ["\ufeff/x", "http://example.com/a/%EF%BB%BF/x"],
    ["http://"],
    ["http:///"],
    ["http:", "http://example.com/a/b?c"],
    ["https://"],
    ["?", "http://example.com/a/b?", "http://example.com/a/b"],
    ["#", "http://example.com/a/b?c"],
    ["&", "http://example.com/a/&"],
    ["=", "http://example.com/a/="],
    ["http", "http://example.com/a/http"],
    ["http:?x", "http://example.com/a/b?x"],
    ["//h?x", "http://h/?x"],
    ["//h#x", "http://h/"],
    ["//h\\x", "http://h/x"],
    ["/http://b/", "http://example.com/http://b/"],
    ["mailto:a@b"],
    ["JavaScript:void(0)"],
    ["data:,x"],
    ["tel:+1"],
    ["ftp://h/"],
    ["file:///x"],
    ["blob:http://h/1"],
    ["ws://h/"],
    ["about:blank"],
    ["view-source:http://h/"],
    ["http+x://h/"],
    ["feed://h/"],
    ["urn:isbn:1"],
    ["x:"],
  ])("%j is %j", (...row) => check(row, base));
});

describe("absolute URLs", () => {
  describe("schemes, hosts and ports", () => {
    it.each<Row>([
      ["HTTP://H.EXAMPLE/", "http://h.example/"],
      ["hTTps://h.example:0443/", "https://h.example/"],
      ["http://h.example:080/", "http://h.example/"],
      ["http://h.example:00000000008080/", "http://h.example:8080/"],
      ["http://h.example:/", "http://h.example/"],
      ["http://h.example:0/", "http://h.example:0/"],
      ["http://h.example:65535/", "http://h.example:65535/"],
      ["http://h.example:65536/"],
      ["http://h.example:8 0/"],
      ["http://h.example:-1/"],
      ["http://h.example:http/"],
      ["http://h.example:8080?x", "http://h.example:8080/?x"],
      ["http://h.example:443", "http://h.example:443/"],
      ["https://h.example:80/", "https://h.example:80/"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("IPv4 in all its spellings: decimal, octal, hexadecimal, short, full-width", () => {
    it.each<Row>([
      ["http://127.1/", "http://127.0.0.1/"],
      ["http://127.0.1/", "http://127.0.0.1/"],
      ["http://0x7f.1/", "http://127.0.0.1/"],
      ["http://0X7F.0.0.1/", "http://127.0.0.1/"],
      ["http://0177.0.0.1/", "http://127.0.0.1/"],
      ["http://2130706433/", "http://127.0.0.1/"],
      ["http://017700000001/", "http://127.0.0.1/"],
      ["http://0x7f000001/", "http://127.0.0.1/"],
      ["http://127.0.0.1./", "http://127.0.0.1/"],
      ["http://127.0.0.01/", "http://127.0.0.1/"],
      ["http://256.0.0.1/"],
      ["http://4294967295/", "http://255.255.255.255/"],
      ["http://4294967296/"],
      ["http://1.2.3.4.5/"],
      ["http://1.2.3/", "http://1.2.0.3/"],
      ["http://0/", "http://0.0.0.0/"],
      ["http://0x/", "http://0.0.0.0/"],
      ["http://09.1/"],
      ["http://1.2.3.4a/", "http://1.2.3.4a/"],
      ["http://a.1/"],
      ["http://1..2/"],
      ["http://%31%32%37.0.0.1/", "http://127.0.0.1/"],
      ["http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "http://127.0.0.1/"],
      ["http://0.0.0.0/", "http://0.0.0.0/"],
      ["http://999999999999/"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("IPv6", () => {
    it.each<Row>([
      ["http://[::1]/", "http://[::1]/"],
      ["http://[::]/", "http://[::]/"],
      ["http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"],
      ["http://[2001:DB8::0:1]/", "http://[2001:db8::1]/"],
      ["http://[2001:db8:0:0:1:0:0:1]/", "http://[2001:db8::1:0:0:1]/"],
      ["http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"],
      ["http://[::127.0.0.1]:80/", "http://[::7f00:1]/"],
      ["http://[1::2::3]/"],
      ["http://[::1%25eth0]/"],
      ["http://[::1"],
      ["http://[]/"],
      ["http://[g::]/"],
      ["http://[::1]x/"],
      ["http://[1:2:3:4:5:6:7:8:9]/"],
      ["http://::1/"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("Internationalised names (UTS 46, not transitional) and what a name may hold", () => {
    it.each<Row>([
      ["http://bücher.example/", "http://xn--bcher-kva.example/"],
      ["http://BÜCHER.example/", "http://xn--bcher-kva.example/"],
      ["http://bu\u0308cher.example/", "http://xn--bcher-kva.example/"],
      ["http://faß.example/", "http://xn--fa-hia.example/"],
      ["http://日本語\u3002jp/", "http://xn--wgv71a119e.jp/"],
      ["http://例え.テスト/", "http://xn--r8jz45g.xn--zckzah/"],
      ["http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/"],
      ["http://XN--BCHER-KVA.example/", "http://xn--bcher-kva.example/"],
      ["http://xn--/"],
      ["http://xn--a/"],
      ["http://xn--zz--a.example/"],
      ["http://xn--ls8h.la/", "http://xn--ls8h.la/"],
      ["http://\u2603.net/", "http://xn--n3h.net/"],
      ["http://ex\u00adample.com/", "http://example.com/"],
      ["http://ex\u200bample.com/", "http://example.com/"],
      ["http://a\u200db.example/"],
      ["http://Ｇｏ.com/", "http://go.com/"],
      ["http://\u2100.com/"],
      ["http://a.b\u2024c/"],
      ["http://ǆ.example/", "http://xn--d-toa.example/"],
      ["http://İ.example/", "http://xn--i-9bb.example/"],
      ["http://ς.example/", "http://xn--3xa.example/"],
      ["http://א1.example/", "http://xn--1-zhc.example/"],
      ["http://-a-.example/", "http://-a-.example/"],
      ["http://a--b.example/", "http://a--b.example/"],
      ["http://a_b.example/", "http://a_b.example/"],
      ["http://*.example/", "http://*.example/"],
      ["http://a,b.example/", "http://a,b.example/"],
      ["http://a..b/", "http://a..b/"],
      ["http://.a/", "http://.a/"],
      ["http://a./", "http://a./"],
      ["http://a../", "http://a../"],
      ["http://./", "http://./"],
      ["http://../", "http://../"],
      ["http://%65xample.com/", "http://example.com/"],
      ["http://ex%41mple.com/", "http://example.com/"],
      ["http://a%2eb/", "http://a.b/"],
      ["http://a%00b/"],
      ["http://a%2fb/"],
      ["http://a%b/"],
      ["http://a b/"],
      ["http://a<b/"],
      ["http://a|b/"],
      ["http://a\ud800b/"],
      ["http://a!b$c/", "http://a!b$c/"],
      ["http://a'b/", "http://a'b/"],
      ["http://a;b/", "http://a;b/"],
      ["http://a=b/", "http://a=b/"],
      ["http://a&b/", "http://a&b/"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("user information", () => {
    it.each<Row>([
      ["http://@h/", "http://h/"],
      ["http://:@h/", "http://h/"],
      ["http://u@h/"],
      ["http://u:p@h/"],
      ["http://:p@h/"],
      ["http://u@/"],
      ["http://h@evil.example/"],
      ["http://h%40evil.example/"],
      ["http://h/@x", "http://h/@x"],
      ["http://h/u:p@x", "http://h/u:p@x"],
      ["http://h?u@x", "http://h/?u@x"],
      ["http://h#@x", "http://h/"],
      ["http://good.example\\@evil.example/", "http://good.example/@evil.example/"],
      ["http://good.example#@evil.example/", "http://good.example/"],
      ["http://good.example?@evil.example/", "http://good.example/?@evil.example/"],
      ["http://a@b@c/"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("percent-encodings", () => {
    it.each<Row>([
      ["http://h/%", "http://h/%"],
      ["http://h/%%", "http://h/%%"],
      ["http://h/%4", "http://h/%4"],
      ["http://h/%g0", "http://h/%g0"],
      ["http://h/%%34%31", "http://h/%%34%31"],
      ["http://h/%4%31", "http://h/%4%31"],
      ["http://h/%%32e%%32e/x", "http://h/%%32e%%32e/x"],
      ["http://h/%%7e", "http://h/%%7e", "http://h/%~"],
      ["http://h/%25", "http://h/%25"],
      ["http://h/%2541", "http://h/%2541"],
      ["http://h/%c3%bc", "http://h/%c3%bc", "http://h/%C3%BC"],
      ["http://h/%C3%BC", "http://h/%C3%BC"],
      ["http://h/%ff", "http://h/%ff", "http://h/%FF"],
      ["http://h/%00", "http://h/%00"],
      ["http://h/%0d%0a", "http://h/%0d%0a", "http://h/%0D%0A"],
      ["http://h/%7E%7e~", "http://h/%7E%7e~", "http://h/~~~"],
      ["http://h/%41%5a%61%7a%30%39%2d%2E%5f", "http://h/%41%5a%61%7a%30%39%2d%2E%5f", "http://h/AZaz09-._"],
      [
        "http://h/%21%2a%27%28%29%3b%3a%40%26%3d%2b%24%2c%2f%3f%23%5b%5d",
        "http://h/%21%2a%27%28%29%3b%3a%40%26%3d%2b%24%2c%2f%3f%23%5b%5d",
        "http://h/%21%2A%27%28%29%3B%3A%40%26%3D%2B%24%2C%2F%3F%23%5B%5D",
      ],
      ["http://h/a%2Fb", "http://h/a%2Fb"],
      ["http://h/a%2fb", "http://h/a%2fb", "http://h/a%2Fb"],
      ["http://h/%2e/x", "http://h/x"],
      ["http://h/x/%2e%2e", "http://h/"],
      ["http://h/x/%2e%2e%2e", "http://h/x/%2e%2e%2e", "http://h/x/..."],
      ["http://h/a%3fb", "http://h/a%3fb", "http://h/a%3Fb"],
      ["http://h/a%23b", "http://h/a%23b"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("queries and fragments", () => {
    it.each<Row>([
      ["http://h/?", "http://h/?", "http://h/"],
      ["http://h?", "http://h/?", "http://h/"],
      ["http://h/??", "http://h/??"],
      ["http://h/?#", "http://h/?", "http://h/"],
      ["http://h/x?&", "http://h/x?&"],
      ["http://h/x?=", "http://h/x?="],
      ["http://h/?a=1&a=2", "http://h/?a=1&a=2"],
      ["http://h/?a=%2f%2F", "http://h/?a=%2f%2F", "http://h/?a=%2F%2F"],
      ["http://h/?a=+%20%2B", "http://h/?a=+%20%2B"],
      ["http://h/?%61=%62", "http://h/?%61=%62", "http://h/?a=b"],
      ["http://h/?a=http://b/../c", "http://h/?a=http://b/../c"],
      ["http://h/x;jsessionid=1?y", "http://h/x;jsessionid=1?y"],
      ["http://h/#", "http://h/"],
      ["http://h#a#b", "http://h/"],
      ["http://h/?a#b?c", "http://h/?a"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("paths", () => {
    it.each<Row>([
      ["http://h//", "http://h//"],
      ["http://h//a//b//", "http://h//a//b//"],
      ["http://h/a/", "http://h/a/"],
      ["http://h/a//../b", "http://h/a/b"],
      ["http://h/a/b/../../../../c", "http://h/c"],
      ["http://h/a/./././b", "http://h/a/b"],
      ["http://h/./", "http://h/"],
      ["http://h/..", "http://h/"],
      ["http://h/...", "http://h/..."],
      ["http://h/a/..;/b", "http://h/a/..;/b"],
      ["http://h/C|/x", "http://h/C|/x"],
      ["http://h/~u", "http://h/~u"],
      ["http://h/a:b", "http://h/a:b"],
      ["http://h/*", "http://h/*"],
    ])("%j is %j", (...row) => check(row));
  });

  describe("no absolute URLs", () => {
    it.each<Row>([
      [""],
      [" "],
      ["http"],
      ["//h/"],
      ["h.example/"],
      ["www.example.com"],
      ["1http://h/"],
      ["http//h/"],
      ["http;//h/"],
      ["://h/"],
      ["http:/ /h/"],
      ["http://h /"],
      ["\u0000http://h/x\u001f", "http://h/x"],
      ["\u00a0http://h/"],
      ["http\u200b://h/"],
    ])("%j is %j", (...row) => check(row));
  });
});

describe("the canonical form", () => {
  // Whether the URL parser encodes `^` in paths depends on its age.
  it.each(["http://h/a^b?c^d", "http://h/a%5eb?c%5Ed"])("of %j is the same in every runtime", (href) => {
    expect(canonicalUrl(href)?.key).toBe("http://h/a%5Eb?c%5Ed");
  });

  it.each([
    [`http://h/${"a".repeat(MAX_URL_LENGTH)}`],
    [`http://${"a.".repeat(MAX_URL_LENGTH)}/`],
    ["http://h/".padEnd(1_000_000, "%7e")],
    ["\n".repeat(MAX_URL_LENGTH + 1)],
    [`http://h/${"ü".repeat(3_000)}`],
  ])("of something far too long there is none (%#)", (href) => {
    expect(canonicalUrl(href)).toBeUndefined();
  });
});

/** Text of the pieces that URLs are made of, and of those that break them. */
const pieces = fc.array(
  fc.oneof(
    fc.constantFrom(
      ...[
        "http://",
        "https://",
        "HTTP:",
        "//",
        "/",
        "\\",
        ".",
        "..",
        "/../",
        "?",
        "#",
        "&",
        "=",
        ";",
        ":",
        "@",
      ],
      ...[
        "%",
        "%2",
        "%2e",
        "%2F",
        "%7e",
        "%41",
        "%%34%31",
        "%c3%bc",
        "+",
        " ",
        "\t",
        "\n",
        "^",
        "|",
        "'",
        '"',
      ],
      ...[
        "example.com",
        "EXAMPLE.com.",
        "127.1",
        "0x7f",
        "[::1]",
        "xn--a",
        "ü",
        "日本",
        "\ud800",
        ":80",
        ":8080",
      ],
    ),
    fc.string({ maxLength: 4 }),
    fc.string({ maxLength: 4, unit: "binary" }),
  ),
  { maxLength: 12 },
);
const text = fc.oneof(
  pieces.map((parts) => parts.join("")),
  pieces.map((parts) => `http://example.com/${parts.join("")}`),
  fc.webUrl({ withFragments: true, withQueryParameters: true }),
  fc.string({ maxLength: 60, unit: "binary" }),
);

describe("of whatever text", () => {
  it("a URL is made, or none, without an error", () => {
    fc.assert(
      fc.property(text, fc.option(text, { nil: undefined }), (href, base) => {
        const found = canonicalUrl(href, base);
        if (found === undefined) return;
        expect(found.url).toMatch(/^https?:\/\/[^/?#@\s]+\//);
        expect(found.url).not.toContain("#");
        expect(found.host.startsWith(found.hostname)).toBe(true);
      }),
      { numRuns: 5_000 },
    );
  });

  it("the canonical form is its own canonical form", () => {
    fc.assert(
      fc.property(text, (href) => {
        const key = canonicalUrl(href)?.key;
        if (key === undefined || key.length > MAX_URL_LENGTH) return;
        expect(canonicalUrl(key)?.key).toBe(key);
      }),
      { numRuns: 5_000 },
    );
  });

  it("the URL that is fetched has the canonical form of the text", () => {
    fc.assert(
      fc.property(text, (href) => {
        const found = canonicalUrl(href);
        if (found !== undefined) expect(canonicalUrl(found.url)).toEqual(found);
      }),
      { numRuns: 5_000 },
    );
  });

  it("the short cut for plain links says what the URL parser says", () => {
    const plain = fc.stringMatching(/^[\w\-~./:;,+@!$&()*=?]{0,30}$/);
    const bases = fc.constantFrom("http://example.com/a/b?c", "https://h:8443/", "http://[::1]:81/x/");
    fc.assert(
      fc.property(plain, bases, (tail, base) => {
        const viaShortCut = canonicalUrl(`/${tail}`, base);
        // A leading space is no business of the short cut, and dropped by the parser.
        expect(viaShortCut).toEqual(canonicalUrl(` /${tail}`, base));
        const absolute = `${new URL(base).origin}/${tail}`;
        expect(canonicalUrl(absolute)).toEqual(canonicalUrl(` ${absolute}`));
      }),
      { numRuns: 5_000 },
    );
  });
});
