import { describe, expect, it } from "vitest";
import { MAX_SITEMAPS, parseRobots, productTokenOf } from "../../../src/crawl/robots/robots-txt.js";

const ORIGIN = "http://shop.example";
const US = "Warren/0.1 (+https://warren.example/)";

type Case = readonly [claim: string, body: string, path: string, allowed: boolean, userAgent?: string];

function check([, body, path, allowed, userAgent = US]: Case): void {
  expect(parseRobots(ORIGIN, body).rulesFor(userAgent).allows(path)).toBe(allowed);
}

function table(title: string, cases: readonly Case[]): void {
  describe(title, () => {
    it.each(cases.map((each) => [each[0], each[2], each[3], each] as const))(
      "%s: %s %j",
      (_, __, ___, each) => check(each),
    );
  });
}

/** Rules for everyone. */
const all = (...rules: string[]) => `User-agent: *\n${rules.join("\n")}\n`;
const lines = (...each: string[]) => `${each.join("\n")}\n`;

table("groups", [
  ["a file without any is for nobody", "", "/x", true],
  ["one for all", all("Disallow: /x"), "/x", false],
  ["one for all leaves the rest", all("Disallow: /x"), "/y", true],
  ["one of our own", lines("User-agent: Warren", "Disallow: /x"), "/x", false],
  ["one of somebody else's", lines("User-agent: Badger", "Disallow: /x"), "/x", true],
  [
    "our own goes before that for all",
    lines("User-agent: *", "Disallow: /x", "User-agent: Warren", "Disallow: /y"),
    "/x",
    true,
  ],
  [
    "our own goes before that for all, wherever it stands",
    lines("User-agent: Warren", "Disallow: /y", "User-agent: *", "Disallow: /x"),
    "/x",
    true,
  ],
  [
    "our own is obeyed beside one for all",
    lines("User-agent: *", "Disallow: /x", "User-agent: Warren", "Disallow: /y"),
    "/y",
    false,
  ],
  [
    "our own that forbids nothing beats one for all",
    lines("User-agent: Warren", "Disallow:", "User-agent: *", "Disallow: /"),
    "/x",
    true,
  ],
  [
    "our own without any rule beats one for all",
    lines("User-agent: *", "Disallow: /", "User-agent: Warren"),
    "/x",
    true,
  ],
  [
    "our own with nothing but unknown lines beats one for all",
    lines("User-agent: Warren", "Noindex: /z", "Allow: /q", "User-agent: *", "Disallow: /"),
    "/x",
    true,
  ],
  [
    "that for all is not added to our own",
    lines("User-agent: *", "Disallow: /a", "User-agent: Warren", "Disallow: /b"),
    "/a",
    true,
  ],
  [
    "two of our own are one: the first",
    lines(
      "User-agent: Warren",
      "Disallow: /a",
      "User-agent: Badger",
      "Disallow: /b",
      "User-agent: Warren",
      "Disallow: /c",
    ),
    "/a",
    false,
  ],
  [
    "two of our own are one: the second",
    lines(
      "User-agent: Warren",
      "Disallow: /a",
      "User-agent: Badger",
      "Disallow: /b",
      "User-agent: Warren",
      "Disallow: /c",
    ),
    "/c",
    false,
  ],
  [
    "two of our own are one: not what stands between",
    lines(
      "User-agent: Warren",
      "Disallow: /a",
      "User-agent: Badger",
      "Disallow: /b",
      "User-agent: Warren",
      "Disallow: /c",
    ),
    "/b",
    true,
  ],
  [
    "two for all are one: the first",
    lines("User-agent: *", "Disallow: /a", "User-agent: Badger", "Allow: /", "User-agent: *", "Disallow: /c"),
    "/a",
    false,
  ],
  [
    "two for all are one: the second",
    lines("User-agent: *", "Disallow: /a", "User-agent: Badger", "Allow: /", "User-agent: *", "Disallow: /c"),
    "/c",
    false,
  ],
  [
    "merged in different letter cases",
    lines("User-agent: WARREN", "Disallow: /a", "User-agent: warren", "Disallow: /b"),
    "/a",
    false,
  ],
  [
    "the longest match counts over merged ones",
    lines("User-agent: warren", "Disallow: /a/b", "User-agent: warren", "Allow: /a"),
    "/a/b",
    false,
  ],
  [
    "two names in a row: the first",
    lines("User-agent: Warren", "User-agent: Badger", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "two names in a row: the last",
    lines("User-agent: Badger", "User-agent: Warren", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "five names in a row: one in the middle",
    lines(
      "User-agent: a",
      "User-agent: b",
      "User-agent: Warren",
      "User-agent: c",
      "User-agent: d",
      "Disallow: /x",
    ),
    "/x",
    false,
  ],
  ["a name and all", lines("User-agent: Badger", "User-agent: *", "Disallow: /x"), "/x", false],
  [
    "a name after a rule begins another",
    lines("User-agent: Warren", "Disallow: /x", "User-agent: Badger", "Disallow: /y"),
    "/y",
    true,
  ],
  [
    "a name after an empty rule begins another",
    lines("User-agent: Warren", "Disallow:", "User-agent: Badger", "Disallow: /"),
    "/y",
    true,
  ],
  [
    "the same name twice in a row",
    lines("User-agent: Warren", "User-agent: Warren", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "names in a row, then again: the first keeps its own",
    lines("User-agent: Warren", "User-agent: Badger", "Disallow: /x", "User-agent: Badger", "Disallow: /y"),
    "/y",
    true,
  ],
  [
    "names in a row, then again: the second has both",
    lines("User-agent: Warren", "User-agent: Badger", "Disallow: /x", "User-agent: Badger", "Disallow: /y"),
    "/x",
    false,
    "Badger/1",
  ],
  [
    "rules before any name are for nobody",
    lines("Disallow: /", "User-agent: Warren", "Disallow: /x"),
    "/y",
    true,
  ],
  ["rules without any name are for nobody", lines("Disallow: /", "Allow: /x"), "/y", true],
  [
    "blank lines part nothing: names",
    lines("User-agent: Warren", "", "User-agent: Badger", "", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "blank lines part nothing: rules",
    lines("User-agent: Warren", "Disallow: /x", "", "", "Disallow: /y"),
    "/y",
    false,
  ],
  [
    "comments part nothing",
    lines("User-agent: Warren", "# next", "Disallow: /x", "# next", "Disallow: /y"),
    "/y",
    false,
  ],
  [
    "a sitemap among names parts nothing",
    lines("User-agent: Warren", "Sitemap: http://shop.example/s.xml", "User-agent: Badger", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "a sitemap among rules parts nothing",
    lines("User-agent: Warren", "Disallow: /x", "Sitemap: http://shop.example/s.xml", "Disallow: /y"),
    "/y",
    false,
  ],
  [
    "a delay among names parts nothing",
    lines("User-agent: Warren", "Crawl-delay: 3", "User-agent: Badger", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "a delay among rules parts nothing",
    lines("User-agent: Warren", "Disallow: /x", "Crawl-delay: 3", "Disallow: /y"),
    "/y",
    false,
  ],
  [
    "a host line parts nothing",
    lines("User-agent: Warren", "Host: shop.example", "User-agent: Badger", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "an unknown line parts nothing",
    lines("User-agent: Warren", "Request-rate: 1/5", "Visit-time: 0600-0845", "Disallow: /x"),
    "/x",
    false,
  ],
  [
    "a sitemap between two of them does not join them",
    lines("User-agent: Warren", "Disallow: /x", "Sitemap: /s", "User-agent: Badger", "Disallow: /y"),
    "/y",
    true,
  ],
  [
    "a last one without rules and without an end of line",
    "User-agent: Badger\nDisallow: /\nUser-agent: Warren",
    "/x",
    true,
  ],
]);

table("names", [
  ["in upper case", lines("User-agent: WARREN", "Disallow: /x"), "/x", false],
  ["in mixed case", lines("User-agent: wArReN", "Disallow: /x"), "/x", false],
  ["ours in upper case", lines("User-agent: warren", "Disallow: /x"), "/x", false, "WARREN/1"],
  ["with a version", lines("User-agent: Warren/2.1", "Disallow: /x"), "/x", false],
  ["with a version that is a word", lines("User-agent: Warren/beta", "Disallow: /x"), "/x", false],
  ["with a word after it", lines("User-agent: Warren the crawler", "Disallow: /x"), "/x", false],
  ["with a comment after it", lines("User-agent: Warren # ours", "Disallow: /x"), "/x", false],
  [
    "with an address after it",
    lines("User-agent: Warren (+https://warren.example/)", "Disallow: /x"),
    "/x",
    false,
  ],
  ["with figures after it", lines("User-agent: Warren2", "Disallow: /x"), "/x", false],
  ["a beginning of ours is another", lines("User-agent: War", "Disallow: /x"), "/x", true],
  ["a longer one than ours is another", lines("User-agent: Warren-Images", "Disallow: /x"), "/x", true],
  ["one that has ours in it is another", lines("User-agent: xWarren", "Disallow: /x"), "/x", true],
  ["a word before ours makes it another", lines("User-agent: The Warren", "Disallow: /x"), "/x", true],
  ["with a hyphen, whole", lines("User-agent: Foo-Bar", "Disallow: /x"), "/x", false, "foo-bar/1"],
  ["with a hyphen is not its first part", lines("User-agent: Foo-Bar", "Disallow: /x"), "/x", true, "foo/1"],
  ["with an underscore", lines("User-agent: foo_bar", "Disallow: /x"), "/x", false, "Foo_Bar/1"],
  ["`Foo/1.0` is Foo", lines("User-agent: Foo/1.0", "Disallow: /x"), "/x", false, "foo"],
  ["`Foo Bar` is Foo", lines("User-agent: Foo Bar", "Disallow: /x"), "/x", false, "Foo/1.0"],
  ["`Foo Bar` is not Bar", lines("User-agent: Foo Bar", "Disallow: /x"), "/x", true, "Bar/1.0"],
  ["none at all", lines("User-agent:", "Disallow: /x"), "/x", true],
  ["* with a word after it is for all", lines("User-agent: * everyone", "Disallow: /x"), "/x", false],
  ["* with a comment after it is for all", lines("User-agent: *# everyone", "Disallow: /x"), "/x", false],
  ["* within a name is nothing special", lines("User-agent: War*", "Disallow: /x"), "/x", true],
  ["* before a name is nothing special", lines("User-agent: *Warren", "Disallow: /x"), "/x", true],
  [
    "a crawler called by an old browser's name is the one in brackets",
    lines("User-agent: Warren", "Disallow: /x"),
    "/x",
    false,
    "Mozilla/5.0 (compatible; Warren/0.1; +https://warren.example/)",
  ],
  [
    "a crawler called by an old browser's name is not that browser",
    lines("User-agent: Mozilla", "Disallow: /x"),
    "/x",
    true,
    "Mozilla/5.0 (compatible; Warren/0.1)",
  ],
  [
    "a browser is itself",
    lines("User-agent: Mozilla", "Disallow: /x"),
    "/x",
    false,
    "Mozilla/5.0 (X11; Linux x86_64)",
  ],
  [
    "a member of every object is no name",
    lines("User-agent: constructor", "Disallow: /x"),
    "/x",
    false,
    "constructor/1",
  ],
]);

table("matching", [
  ["an empty rule forbids nothing", all("Disallow:"), "/x", true],
  ["an empty rule allows nothing", all("Allow:", "Disallow: /"), "/x", false],
  ["a slash is everything", all("Disallow: /"), "/x/y?z", false],
  ["a slash is the front page", all("Disallow: /"), "/", false],
  ["a path is what begins with it", all("Disallow: /tmp"), "/tmpfile", false],
  ["a path is itself", all("Disallow: /tmp"), "/tmp", false],
  ["a path is not what has it inside", all("Disallow: /tmp"), "/a/tmp", true],
  ["a folder is not the file of its name", all("Disallow: /tmp/"), "/tmp", true],
  ["a folder is what is in it", all("Disallow: /tmp/"), "/tmp/a", false],
  ["letter case counts", all("Disallow: /Tmp"), "/tmp", true],
  ["a rule without a slash at its beginning matches nothing", all("Disallow: tmp"), "/tmp", true],
  ["a whole URL matches nothing", all("Disallow: http://shop.example/tmp"), "/tmp", true],
  ["longest: allow within disallow", all("Disallow: /a", "Allow: /a/b"), "/a/b/c", true],
  ["longest: disallow within allow", all("Allow: /a", "Disallow: /a/b"), "/a/b/c", false],
  ["longest: order is nothing", all("Allow: /a/b", "Disallow: /a"), "/a/b/c", true],
  ["longest: what only the shorter matches", all("Disallow: /a", "Allow: /a/b"), "/a/c", false],
  [
    "longest: three steps",
    all("Disallow: /", "Allow: /a", "Disallow: /a/b", "Allow: /a/b/c"),
    "/a/b/c",
    true,
  ],
  [
    "longest: three steps, one less",
    all("Disallow: /", "Allow: /a", "Disallow: /a/b", "Allow: /a/b/c"),
    "/a/b/d",
    false,
  ],
  ["equally long: allow", all("Disallow: /a", "Allow: /a"), "/a", true],
  ["equally long: allow, the other way round", all("Allow: /a", "Disallow: /a"), "/a", true],
  ["equally long, different: allow", all("Disallow: /*b", "Allow: /ab"), "/ab", true],
  ["equally long, different, the other way round", all("Allow: /*b", "Disallow: /ab"), "/ab", true],
  ["equally long with an end", all("Disallow: /ab$", "Allow: /abc"), "/abc", true],
  ["a wildcard counts in the length", all("Allow: /ab", "Disallow: /ab*"), "/ab", false],
  ["an end counts in the length", all("Allow: /ab", "Disallow: /ab$"), "/ab", false],
  ["an encoded character counts as its three", all("Disallow: /é", "Allow: /*c3"), "/%C3%A9", false],
  ["the front page only", all("Disallow: /$"), "/", false],
  ["the front page only: not what is below", all("Disallow: /$"), "/a", true],
  ["all but the front page", all("Disallow: /", "Allow: /$"), "/", true],
  [
    "many rules: one among a thousand",
    all(...Array.from({ length: 1_000 }, (_, n) => `Disallow: /page${n}/`)),
    "/page777/x",
    false,
  ],
  [
    "many rules: none of a thousand",
    all(...Array.from({ length: 1_000 }, (_, n) => `Disallow: /page${n}/`)),
    "/page1000/x",
    true,
  ],
  [
    "many rules: an exception of a thousand",
    all(...Array.from({ length: 1_000 }, (_, n) => `Disallow: /page${n}/`), "Allow: /page777/x"),
    "/page777/x",
    true,
  ],
  [
    "many rules of one length: allow wins",
    all(...Array.from({ length: 90 }, (_, n) => `Disallow: /p${n + 10}`), "Allow: /p55"),
    "/p55",
    true,
  ],
  [
    "many rules of one length: a wildcard that allows wins",
    all(...Array.from({ length: 90 }, (_, n) => `Disallow: /p${n + 10}`), "Allow: /*55"),
    "/p55",
    true,
  ],
]);

table("wildcards", [
  ["at the end is nothing", all("Disallow: /a*"), "/a", false],
  ["at the end is anything", all("Disallow: /a*"), "/abc/d?e", false],
  ["at the beginning", all("Disallow: *.gif"), "/a/b.gif", false],
  ["at the beginning, without an end", all("Disallow: *.gif"), "/a.gif?b", false],
  ["in the middle: nothing", all("Disallow: /a*b"), "/ab", false],
  ["in the middle: a slash", all("Disallow: /a*b"), "/a/b", false],
  ["in the middle: a query", all("Disallow: /a*b"), "/a?b", false],
  ["in the middle: not there", all("Disallow: /a*b"), "/a", true],
  ["two of them", all("Disallow: /*/private*/"), "/a/private2/", false],
  ["two of them, the second missing", all("Disallow: /*/private*/"), "/a/private2", true],
  ["several in a row are one", all("Disallow: /a***b"), "/axb", false],
  ["alone is everything", all("Disallow: *"), "/", false],
  ["alone with an end is everything", all("Disallow: *$"), "/x", false],
  ["and an end", all("Disallow: /*.pdf$"), "/a.pdf", false],
  ["and an end: more after it", all("Disallow: /*.pdf$"), "/a.pdf?x", true],
  ["and an end: the last of several places", all("Disallow: /*.pdf$"), "/a.pdf.pdf", false],
  ["and an end: pieces do not overlap", all("Disallow: /*aa*a$"), "/aa", true],
  ["and an end: pieces fit exactly", all("Disallow: /*aa*a$"), "/aaa", false],
  ["the beginning and the end do not overlap", all("Disallow: /aba*aba$"), "/ababa", true],
  ["the beginning and the end meet", all("Disallow: /aba*aba$"), "/abaaba", false],
  ["before an end is anything", all("Disallow: /a*$"), "/a/b/c", false],
  ["need order", all("Disallow: /*b*a"), "/ab", true],
  ["a query", all("Disallow: /*?"), "/a?b", false],
  ["a query: none", all("Disallow: /*?"), "/a", true],
  ["a parameter", all("Disallow: /*?*sid="), "/a?b=c&sid=1", false],
  ["a question mark stands for itself", all("Disallow: /a?c"), "/abc", true],
  ["a dot stands for itself", all("Disallow: /a.c"), "/abc", true],
  ["brackets stand for themselves", all("Disallow: /a[bc]"), "/ab", true],
  ["brackets stand for themselves, and match", all("Disallow: /a[bc]"), "/a[bc]", false],
  ["an end in the middle is itself", all("Disallow: /a$b"), "/a$b", false],
  ["an end in the middle ends nothing", all("Disallow: /a$b"), "/a", true],
  ["two ends: the first is itself", all("Disallow: /a$$"), "/a$", false],
  ["two ends: nothing after", all("Disallow: /a$$"), "/a$b", true],
  ["an end at the beginning", all("Disallow: $"), "/", true],
  ["encoded is itself", all("Disallow: /a%2A"), "/a*", false],
  ["encoded is no wildcard", all("Disallow: /a%2Ab"), "/axb", true],
  ["an encoded end is itself", all("Disallow: /a%24"), "/a$b", false],
  ["an encoded end ends nothing", all("Disallow: /a%24"), "/a", true],
  ["in lower-case hexadecimal", all("Disallow: /a%2a"), "/a*", false],
]);

table("percent-encoding", [
  ["upper case in the rule, lower in the URL", all("Disallow: /%C3%A9"), "/%c3%a9", false],
  ["lower case in the rule, upper in the URL", all("Disallow: /%c3%a9"), "/%C3%A9", false],
  ["raw in the rule, encoded in the URL", all("Disallow: /é"), "/%C3%A9", false],
  ["encoded in the rule, raw in the URL", all("Disallow: /%C3%A9"), "/é", false],
  ["raw in both", all("Disallow: /é"), "/é", false],
  ["beyond the basic plane", all("Disallow: /🦊"), "/%F0%9F%A6%8A", false],
  ["half of a character", all("Disallow: /%F0%9F"), "/🦊", false],
  ["composed and decomposed are two", all("Disallow: /é"), "/e%CC%81", true],
  ["unreserved, encoded in the rule", all("Disallow: /%61b"), "/ab", false],
  ["unreserved, encoded in the URL", all("Disallow: /ab"), "/%61b", false],
  ["a tilde", all("Disallow: /%7Ejoe"), "/~joe", false],
  ["a hyphen, a dot and an underscore", all("Disallow: /a%2Db%2Ec%5Fd"), "/a-b.c_d", false],
  ["a slash encoded is no slash", all("Disallow: /a/b"), "/a%2Fb", true],
  ["a slash encoded in the rule is no slash", all("Disallow: /a%2Fb"), "/a/b", true],
  [
    "reserved characters in a query, encoded in the rule",
    all("Disallow: /foo/bar?baz=https%3A%2F%2Ffoo.bar"),
    "/foo/bar?baz=https://foo.bar",
    false,
  ],
  [
    "reserved characters in a query, encoded in the URL",
    all("Disallow: /foo/bar?baz=https://foo.bar"),
    "/foo/bar?baz=https%3a%2f%2Ffoo.bar",
    false,
  ],
  ["reserved characters in a path, encoded in the rule", all("Disallow: /a%3Ab%40c"), "/a:b@c", false],
  ["reserved characters in a path, encoded in the URL", all("Disallow: /a(b)'c'"), "/a%28b%29%27c%27", false],
  ["a slash in a query, after a wildcard", all("Disallow: /*to=/x"), "/go?to=/x", false],
  [
    "a slash in a query, after a wildcard, encoded in the URL",
    all("Disallow: /*to=/x"),
    "/go?to=%2Fx",
    false,
  ],
  ["a slash in a query, after a wildcard, encoded in both", all("Disallow: /*to=%2Fx"), "/go?to=%2Fx", false],
  [
    "a slash in a query, after a wildcard, encoded in the rule",
    all("Disallow: /*to=%2fx"),
    "/go?to=/x",
    false,
  ],
  ["a slash in a path, after a wildcard, encoded in both", all("Disallow: /*to%2fx"), "/go-to%2Fx", false],
  ["an ampersand in a query, after a wildcard, encoded in both", all("Disallow: /*a%26b"), "/?a%26b", false],
  ["an equals sign encoded in a query is none", all("Disallow: /?a=b"), "/?a%3Db", true],
  ["a plus sign encoded in a query is none", all("Disallow: /?a+b"), "/?a%2Bb", true],
  [
    "a query within a query",
    all("Disallow: /a?b=http://c.example?d"),
    "/a?b=http%3A%2F%2Fc.example%3Fd",
    false,
  ],
  ["a slash encoded in both", all("Disallow: /a%2fb"), "/a%2Fb", false],
  ["a question mark encoded is none", all("Disallow: /a?b"), "/a%3Fb", true],
  ["an ampersand encoded is none", all("Disallow: /a?b&c"), "/a?b%26c", true],
  ["a percent sign, encoded", all("Disallow: /100%25"), "/100%25", false],
  ["a percent sign, bare, in both", all("Disallow: /100%"), "/100%", false],
  ["no digits after a percent sign", all("Disallow: /%zz"), "/%zz", false],
  ["decoded once, not twice", all("Disallow: /%2561"), "/a", true],
  ["a blank", all("Disallow: /a b"), "/a%20b", false],
  ["a blank is no plus sign", all("Disallow: /a b"), "/a+b", true],
  ["quotation marks", all('Disallow: /a"b'), "/a%22b", false],
  ["a bar", all("Disallow: /a|b"), "/a%7Cb", false],
  ["a hash, encoded", all("Disallow: /a%23b"), "/a%23b", false],
  ["a NUL, encoded", all("Disallow: /a%00b"), "/a%00b", false],
]);

table("queries", [
  ["count", all("Disallow: /a?b=1"), "/a?b=1", false],
  ["are part of what begins so", all("Disallow: /a?b=1"), "/a?b=12", false],
  ["differ", all("Disallow: /a?b=1"), "/a?c=1", true],
  ["are covered by the path", all("Disallow: /a"), "/a?b=1", false],
  ["end a path", all("Disallow: /a$"), "/a?b=1", true],
  ["with a slash in them", all("Disallow: /a/"), "/a?x=/a/", true],
  ["with a URL in them", all("Disallow: /go?to=http://"), "/go?to=http://x.example/", false],
]);

table("/robots.txt itself", [
  ["may be read when nothing may", all("Disallow: /"), "/robots.txt", true],
  ["may be read when it is forbidden by name", all("Disallow: /robots.txt"), "/robots.txt", true],
  ["may be read, however it is spelt", all("Disallow: /"), "/robots%2Etxt", true],
  ["with a query is another", all("Disallow: /"), "/robots.txt?x", false],
  ["in a folder is another", all("Disallow: /"), "/a/robots.txt", false],
]);

table("the way it is written", [
  ["line feeds", "User-agent: *\nDisallow: /x\nDisallow: /y\n", "/y", false],
  ["carriage returns", "User-agent: *\rDisallow: /x\rDisallow: /y\r", "/y", false],
  ["both", "User-agent: *\r\nDisallow: /x\r\nDisallow: /y\r\n", "/y", false],
  ["all kinds at once", "User-agent: *\rDisallow: /x\r\nDisallow: /z\n\n\r\rDisallow: /y", "/y", false],
  ["no end of line", "User-agent: *\nDisallow: /y", "/y", false],
  ["other line breaks are none", "User-agent: *\nDisallow: /x\u2028Disallow: /y", "/y", true],
  ["a byte order mark", "\uFEFFUser-agent: *\nDisallow: /x", "/x", false],
  [
    "a part of one",
    Buffer.from([0xef, 0xbb, ...Buffer.from("User-agent: *\nDisallow: /x")]).toString(),
    "/x",
    false,
  ],
  [
    "a byte order mark in the middle spoils its line",
    "User-agent: *\n\uFEFF\uFEFFx Disallow: /x\nDisallow: /y",
    "/x",
    true,
  ],
  ["NULs spoil their line", "User-agent: *\nDis\0allow: /x\nDisallow: /y", "/x", true],
  ["NULs spoil no other line", "User-agent: *\nDis\0allow: /x\nDisallow: /y", "/y", false],
  [
    "binary",
    `${Buffer.from(Array.from({ length: 256 }, (_, n) => n)).toString("latin1")}\nUser-agent: *\nDisallow: /x`,
    "/x",
    false,
  ],
  ["blanks at the beginning", "  User-agent: *\n\t Disallow: /x", "/x", false],
  ["blanks at the end", "User-agent: *  \t\nDisallow: /x \t ", "/xy", false],
  ["blanks before the colon", "User-agent \t: *\nDisallow : /x", "/x", false],
  ["no blank after the colon", "User-agent:*\nDisallow:/x", "/x", false],
  ["no-break spaces around", "User-agent:\u00A0*\nDisallow:\u00A0/x\u00A0", "/x", false],
  ["a comment after a rule", "User-agent: * # a\nDisallow: /x # b", "/x", false],
  ["a comment right after a rule", "User-agent: *\nDisallow: /x#b", "/xc", false],
  ["a comment instead of a path", "User-agent: *\nDisallow: # /x", "/x", true],
  ["a comment before a rule", "User-agent: *\n# Disallow: /x", "/x", true],
  ["names of lines in upper case", "USER-AGENT: *\nDISALLOW: /x", "/x", false],
  ["a missing colon", "User-agent *\nDisallow /x", "/x", false],
  ["a missing colon, with tabs", "User-agent\t*\nDisallow\t\t/x", "/x", false],
  ["a missing colon and one word too many", "User-agent: *\nDisallow /x y", "/x", true],
  ["a missing colon and path", "User-agent: *\nDisallow", "/x", true],
  ["a second colon belongs to the path", "User-agent: *\nDisallow: /x:y", "/x:y", false],
  ["a colon before the name", "User-agent: *\n: Disallow: /x", "/x", true],
  ["misspelt: dissallow", "User-agent: *\nDissallow: /x", "/x", false],
  ["misspelt: disalow", "User-agent: *\nDisalow: /x", "/x", false],
  ["misspelt: useragent", "Useragent: *\nDisallow: /x", "/x", false],
  ["misspelt: user agent", "User agent: *\nDisallow: /x", "/x", false],
  ["misspelt beyond doubt: another line", "User-agent: *\nDisallows: /x", "/x", true],
  [
    "named like a member of every object",
    "constructor: x\n__proto__: y\nUser-agent: *\nDisallow: /x",
    "/x",
    false,
  ],
  [
    "HTML",
    "<!doctype html>\n<title>Not found</title>\n<p>User-agent: none here</p>\n<a href='/'>Disallow</a>",
    "/x",
    true,
  ],
  ["HTML around it", "<pre>\nUser-agent: *\nDisallow: /x\n</pre>", "/x", false],
  ["JSON", '{"User-agent": "*",\n"Disallow": "/"}', "/x", true],
  ["a very long line before", `# ${"x".repeat(400_000)}\nUser-agent: *\nDisallow: /x`, "/x", false],
  ["a very long path", `User-agent: *\nDisallow: /${"x".repeat(20_000)}\nDisallow: /y`, "/y", false],
  ["a very long path forbids no shorter one", `User-agent: *\nDisallow: /${"x".repeat(20_000)}`, "/x", true],
  ["a very long name of a line", `User-agent: *\n${"Disallow".repeat(10_000)}: /x`, "/x", true],
  ["a hundred thousand blank lines", `User-agent: *\n${"\n".repeat(100_000)}Disallow: /x`, "/x", false],
]);

describe("Crawl-delay", () => {
  it.each([
    ["in seconds", "User-agent: *\nCrawl-delay: 7", 7_000],
    ["in parts of seconds", "User-agent: *\nCrawl-delay: .25", 250],
    ["with a unit behind it", "User-agent: *\nCrawl-delay: 5s", 5_000],
    ["60 s at most", "User-agent: *\nCrawl-delay: 61", 60_000],
    ["60 s exactly", "User-agent: *\nCrawl-delay: 60", 60_000],
    ["not below nothing", "User-agent: *\nCrawl-delay: -1", 0],
    ["not a number", "User-agent: *\nCrawl-delay: NaN", 0],
    ["of our own group", "User-agent: *\nCrawl-delay: 9\nUser-agent: Warren\nCrawl-delay: 2", 2_000],
    [
      "not of all when there is one of our own",
      "User-agent: *\nCrawl-delay: 9\nUser-agent: Warren\nAllow: /",
      0,
    ],
    [
      "the longest of merged groups",
      "User-agent: Warren\nCrawl-delay: 2\nUser-agent: x\nAllow: /\nUser-agent: Warren\nCrawl-delay: 4",
      4_000,
    ],
    ["of names in a row", "User-agent: Warren\nUser-agent: x\nCrawl-delay: 2", 2_000],
    ["not of the name after it", "User-agent: x\nCrawl-delay: 2\nUser-agent: Warren\nDisallow: /x", 0],
    ["of nobody", "Crawl-delay: 2\nUser-agent: *\nDisallow: /x", 0],
    ["with rules after it", "User-agent: *\nCrawl-delay: 2\nDisallow: /x", 2_000],
  ])("%s", (_claim, body, expected) => {
    expect(parseRobots(ORIGIN, body).rulesFor(US).crawlDelayMs).toBe(expected);
  });
});

describe("Sitemap", () => {
  it.each([
    ["one", "Sitemap: http://shop.example/s.xml", ["http://shop.example/s.xml"]],
    ["in any letter case", "SITEMAP:http://shop.example/s.xml", ["http://shop.example/s.xml"]],
    ["of another host", "Sitemap: https://cdn.example/s.xml", ["https://cdn.example/s.xml"]],
    ["relative", "Sitemap: /s.xml", ["http://shop.example/s.xml"]],
    ["the same twice", "Sitemap: /s.xml\nSitemap: http://shop.example/s.xml", ["http://shop.example/s.xml"]],
    ["misspelt", "Site-map: /s.xml", ["http://shop.example/s.xml"]],
    ["with a comment", "Sitemap: /s.xml # new", ["http://shop.example/s.xml"]],
    ["none", "Sitemap:", []],
    ["of no scheme that is fetched", "Sitemap: ftp://shop.example/s.xml", []],
    ["with a password", "Sitemap: http://a:b@shop.example/s.xml", []],
  ])("%s", (_claim, body, expected) => {
    expect(parseRobots(ORIGIN, body).sitemaps).toEqual(expected);
  });

  it("names a bounded number", () => {
    const body = Array.from({ length: MAX_SITEMAPS + 5 }, (_, n) => `Sitemap: /${n}.xml`).join("\n");
    expect(parseRobots(ORIGIN, body).sitemaps).toHaveLength(MAX_SITEMAPS);
  });
});

it.each([
  ["Warren/0.1", "warren"],
  ["Warren", "warren"],
  ["my-bot_x/1", "my-bot_x"],
  ["Mozilla/5.0 (compatible; Foo/2.1; +http://foo.example/)", "foo"],
  ["Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Foo/2.1)", "mozilla"],
  ["Mozilla/5.0 (Windows NT 10.0)", "mozilla"],
])("%s goes by the name %s", (userAgent, token) => {
  expect(productTokenOf(userAgent)).toBe(token);
});

/** Each body is as long as is read of one, and made to be expensive. */
describe("a file made to be expensive is read and asked in the same way", () => {
  const fill = (line: (n: number) => string) => {
    let body = "User-agent: *\n";
    for (let n = 0; body.length < 500_000; n += 1) body += `${line(n)}\n`;
    return body;
  };
  const long = `/${"a".repeat(8_000)}`;
  it.each([
    ["stars", fill((n) => `Disallow: /${"*a".repeat(4_000)}*b${n}`), long, true],
    ["long pieces", fill((n) => `Disallow: /*${"a".repeat(4_000)}b${n}`), long, true],
    ["prefixes of every length", fill((n) => `Disallow: /${"a".repeat(n)}z`), long, true],
    ["names times rules", fill((n) => (n < 15_000 ? `User-agent: a${n}` : `Disallow: /${n}`)), long, true],
    ["wildcards for a short URL", fill((n) => `Disallow: *az${n}`), "/aaaaaaaa", true],
    [
      "wildcards for a long URL: rather forbidden than thought about",
      fill((n) => `Disallow: *az${n}`),
      long,
      false,
    ],
  ])("%s", (_claim, body, path, allowed) => {
    const rules = parseRobots(ORIGIN, body).rulesFor(US);
    for (let n = 0; n < 20; n += 1) expect(rules.allows(path)).toBe(allowed);
    expect(rules.size).toBeLessThan(16 * 1_048_576);
  });
});
