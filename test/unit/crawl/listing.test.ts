import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import {
  LISTING_START_BYTES,
  type ListedUrl,
  listingForm,
  readListing,
} from "../../../src/crawl/sitemaps/listing.js";
import { LISTED_EXTRAS, type ListedExtra } from "../../../src/crawl/sitemaps/sitemap-options.js";
import { heapInUse } from "../../support/heap.js";

const XMLNS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"';
const sitemap = (...urls: string[]) =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<urlset ${XMLNS}>${urls.map((url) => `<url><loc>${url}</loc></url>`).join("\n")}</urlset>`;

async function* inPieces(body: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let from = 0; from < body.length; from += size) yield body.subarray(from, from + size);
}

async function read(
  body: string | Buffer,
  options: {
    pieces?: number;
    extras?: readonly ListedExtra[];
    maxUrls?: number;
    maxBytes?: number;
    mayBeText?: boolean;
  } = {},
) {
  const bytes = Buffer.from(body);
  const listed: ListedUrl[] = [];
  const form = listingForm(bytes.subarray(0, LISTING_START_BYTES), options.mayBeText ?? false);
  if (form === undefined) return { form, listed, cut: undefined };
  const summary = await readListing(inPieces(bytes, options.pieces ?? 65_536), {
    form,
    extras: new Set(options.extras),
    maxUrls: options.maxUrls ?? 50_000,
    maxBytes: options.maxBytes ?? 50 * 1_048_576,
    onListed: (each) => listed.push(each),
  });
  return { form, listed, ...summary };
}

const urlsOf = async (...args: Parameters<typeof read>) => (await read(...args)).listed.map(({ url }) => url);

describe("a sitemap", () => {
  it.each([
    ["as it should be", sitemap("http://a.example/1", "http://a.example/2")],
    ["with a byte order mark", `\uFEFF${sitemap("http://a.example/1", "http://a.example/2")}`],
    [
      "with a prefix for its elements",
      `<s:urlset xmlns:s="http://www.sitemaps.org/schemas/sitemap/0.9"><s:url><s:loc>http://a.example/1</s:loc></s:url><s:url><s:loc>http://a.example/2</s:loc></s:url></s:urlset>`,
    ],
    [
      "without a namespace",
      "<urlset><url><loc>http://a.example/1</loc></url><url><loc>http://a.example/2</loc></url></urlset>",
    ],
    [
      "with a misspelt namespace",
      '<urlset xmlns="http://sitemap.example/"><url><loc>http://a.example/1</loc></url><url><loc>http://a.example/2</loc></url></urlset>',
    ],
    [
      "of Google's early days",
      '<urlset xmlns="http://www.google.com/schemas/sitemap/0.84"><url><loc>http://a.example/1</loc></url><url><loc>http://a.example/2</loc></url></urlset>',
    ],
    ["with white space around", sitemap("\n\t http://a.example/1 \n", "http://a.example/2")],
    ["in CDATA", sitemap("<![CDATA[http://a.example/1]]>", "<![CDATA[ http://a.example/2]]>")],
    [
      "with comments and instructions",
      `<?xml version="1.0"?><!-- > <urlset> --><?xml-stylesheet href="a.xsl"?>${sitemap("http://a.example/1<!-- x -->", "http://a.example/2").replace(/^<\?.*\?>/, "")}`,
    ],
    [
      "with a document type",
      `<!DOCTYPE urlset SYSTEM "http://evil.example/a.dtd">${sitemap("http://a.example/1", "http://a.example/2")}`,
    ],
    [
      "without the end of its elements",
      "<urlset><url><loc>http://a.example/1</loc><url><loc>http://a.example/2</loc>",
    ],
    [
      "with elements of other namespaces of the same name",
      `<urlset ${XMLNS} xmlns:n="urn:n"><n:url><n:loc>http://x.example/</n:loc></n:url><url><n:loc>http://x.example/</n:loc><loc>http://a.example/1</loc></url><url><loc>http://a.example/2</loc></url></urlset>`,
    ],
    [
      "with a URL twice in an entry",
      `<urlset ${XMLNS}><url><loc>http://a.example/1</loc><loc>http://x.example/</loc></url><url><loc>http://a.example/2</loc></url></urlset>`,
    ],
    [
      "with empty entries",
      `<urlset ${XMLNS}><url/><url><loc/></url><url><loc>http://a.example/1</loc></url><url><loc> </loc></url><url><loc>http://a.example/2</loc></url></urlset>`,
    ],
  ])("%s", async (_claim, body) => {
    for (const pieces of [65_536, 7, 1]) {
      expect(await urlsOf(body, { pieces })).toEqual(["http://a.example/1", "http://a.example/2"]);
    }
  });

  it.each([
    ["XML's own", "http://a.example/?a=1&amp;b=&quot;&apos;&lt;&gt;", "http://a.example/?a=1&b=\"'<>"],
    ["numbers", "http://a.example/&#233;&#x2603;", "http://a.example/é☃"],
    ["in CDATA are none", "<![CDATA[http://a.example/?a&amp;b]]>", "http://a.example/?a&amp;b"],
    ["unknown ones stay", "http://a.example/?a&b=&nonsense;", "http://a.example/?a&b=&nonsense;"],
  ])("entities: %s", async (_claim, written, url) => {
    expect(await urlsOf(sitemap(written))).toEqual([url]);
    expect(await urlsOf(sitemap(written), { pieces: 3 })).toEqual([url]);
  });

  it("expands no entity of its own, be it a bomb or a file", async () => {
    const bomb = `<?xml version="1.0"?><!DOCTYPE urlset [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]><urlset><url><loc>http://a.example/&b;&f;</loc></url></urlset>`;
    expect(await urlsOf(bomb)).toEqual(["http://a.example/&b;&f;"]);
  });

  it("says when pages changed and how much they matter", async () => {
    const body = `<urlset ${XMLNS}><url><loc>http://a.example/1</loc><lastmod>2026-01-02</lastmod><changefreq>daily</changefreq><priority>0.8</priority></url><url><loc>http://a.example/2</loc><priority>7</priority></url></urlset>`;
    expect((await read(body)).listed).toEqual([
      { url: "http://a.example/1", kind: "page", lastModified: "2026-01-02", priority: 0.8 },
      { url: "http://a.example/2", kind: "page" },
    ]);
  });

  it("lists other sitemaps", async () => {
    const body = `<sitemapindex ${XMLNS}><sitemap><loc>http://a.example/1.xml.gz</loc><lastmod>2026-01-02</lastmod></sitemap><sitemap><loc>http://a.example/2.xml</loc></sitemap></sitemapindex>`;
    expect(await read(body)).toMatchObject({
      form: "index",
      listed: [
        { url: "http://a.example/1.xml.gz", kind: "sitemap", lastModified: "2026-01-02" },
        { url: "http://a.example/2.xml", kind: "sitemap" },
      ],
    });
  });

  const rich = `<urlset ${XMLNS} xmlns:image="http://www.google.com/schemas/sitemap-image/1.1" xmlns:video="http://www.google.com/schemas/sitemap-video/1.1" xmlns:xhtml="http://www.w3.org/1999/xhtml">
    <url><loc>http://a.example/en</loc>
      <xhtml:link rel="alternate" hreflang="de" href="http://a.example/de"/>
      <xhtml:link rel="stylesheet" href="http://a.example/a.css"/>
      <image:image><image:loc>http://a.example/1.png</image:loc><image:caption>one</image:caption></image:image>
      <video:video><video:thumbnail_loc>http://a.example/t.jpg</video:thumbnail_loc><video:content_loc>http://a.example/v.mp4</video:content_loc></video:video>
    </url></urlset>`;
  it.each([
    [[], ["page http://a.example/en"]],
    [["alternates"], ["page http://a.example/en", "page http://a.example/de"]],
    [["images"], ["page http://a.example/en", "file http://a.example/1.png"]],
    [["videos"], ["page http://a.example/en", "file http://a.example/v.mp4"]],
    [
      LISTED_EXTRAS,
      [
        "page http://a.example/en",
        "page http://a.example/de",
        "file http://a.example/1.png",
        "file http://a.example/v.mp4",
      ],
    ],
  ] as [ListedExtra[], string[]][])("gives beside its pages %j", async (extras, expected) => {
    const prefixless = rich.replace(/ xmlns:\w+="[^"]*"/g, "");
    const otherPrefixes = rich
      .replaceAll("image:", "i:")
      .replace("xmlns:image", "xmlns:i")
      .replaceAll("xmlns:i:", "xmlns:i");
    for (const body of [rich, prefixless, otherPrefixes]) {
      const { listed } = await read(body, { extras });
      expect(listed.map(({ kind, url }) => `${kind} ${url}`)).toEqual(expected);
    }
  });

  it("is unpacked by its bytes", async () => {
    const packed = gzipSync(sitemap("http://a.example/1", "http://a.example/2"));
    for (const pieces of [65_536, 2, 1]) {
      expect(await urlsOf(packed, { pieces })).toEqual(["http://a.example/1", "http://a.example/2"]);
    }
  });

  it("is read as far as it goes when what is packed is broken", async () => {
    const urls = Array.from({ length: 5_000 }, (_, n) => `http://a.example/${n}`);
    const packed = gzipSync(sitemap(...urls));
    const cutShort = await read(packed.subarray(0, packed.length - 2_000));
    expect(cutShort.listed.length).toBeGreaterThan(1_000);
    const garbled = Buffer.from(packed);
    garbled.fill(0xaa, packed.length >> 1, (packed.length >> 1) + 500);
    expect((await read(garbled)).cut).toBe("is packed, and broken");
  });

  it.each([
    [
      "iso-8859-1",
      Buffer.from(
        '<?xml version="1.0" encoding="iso-8859-1"?><urlset><url><loc>http://a.example/é</loc></url></urlset>',
        "latin1",
      ),
    ],
    [
      "utf-16",
      Buffer.from(
        '\uFEFF<?xml version="1.0" encoding="utf-16"?><urlset><url><loc>http://a.example/é</loc></url></urlset>',
        "utf16le",
      ),
    ],
    [
      "a false word",
      Buffer.from(
        '<?xml version="1.0" encoding="utf-16"?><urlset><url><loc>http://a.example/é</loc></url></urlset>',
      ),
    ],
    [
      "nonsense",
      Buffer.from(
        '<?xml version="1.0" encoding="klingon"?><urlset><url><loc>http://a.example/é</loc></url></urlset>',
      ),
    ],
  ])("in %s", async (_encoding, body) => {
    expect(await urlsOf(body)).toEqual(["http://a.example/é"]);
    expect(await urlsOf(body, { pieces: 211 })).toEqual(["http://a.example/é"]);
  });

  it("in plain text, if it is known to be one", async () => {
    const body = "\uFEFFhttp://a.example/1\r\n\r\n http://a.example/2 \nnot a url\rhttp://a.example/3";
    expect(await read(body)).toMatchObject({ form: undefined });
    for (const pieces of [65_536, 1]) {
      expect(await urlsOf(body, { mayBeText: true, pieces })).toEqual([
        "http://a.example/1",
        "http://a.example/2",
        "not a url",
        "http://a.example/3",
      ]);
    }
  });

  it.each([
    [{ maxUrls: 3 }, 3, "more than 3 URLs"],
    [{ maxBytes: 200 }, 2, "more than 200 bytes"],
  ])("is cut at %j", async (limits, expected, cut) => {
    const body = sitemap(...Array.from({ length: 50 }, (_, n) => `http://a.example/${n}`));
    const { listed, ...summary } = await read(body, limits);
    expect(listed).toHaveLength(expected);
    expect(summary.cut).toBe(cut);
  });

  it("is not cut when it has as many URLs as are taken", async () => {
    expect(
      await read(sitemap("http://a.example/1", "http://a.example/2"), { maxUrls: 2 }),
    ).not.toHaveProperty("cut");
  });
});

describe("a feed", () => {
  it.each([
    [
      "RSS 2.0",
      `<rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom"><channel><title>t</title><link>http://a.example/</link><atom:link rel="self" href="http://a.example/feed"/><item><title>x</title><link>http://a.example/1</link><atom:link rel="alternate" href="http://x.example/"/><pubDate>Fri, 02 Jan 2026 00:00:00 GMT</pubDate></item><item><guid>http://a.example/2</guid></item><item><guid isPermaLink="false">http://x.example/3</guid></item></channel></rss>`,
      "rss",
    ],
    [
      "RSS 1.0",
      `<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel rdf:about="x"><link>http://a.example/</link></channel><item rdf:about="http://a.example/1"><link>http://a.example/1</link><dc:date>2026-01-02</dc:date></item><item><link>http://a.example/2</link></item></rdf:RDF>`,
      "rss",
    ],
    [
      "RSS 0.91",
      `<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" "http://my.netscape.com/publish/formats/rss-0.91.dtd"><rss version="0.91"><channel><item><link>http://a.example/1</link></item><item><link><![CDATA[http://a.example/2]]></link></item></channel></rss>`,
      "rss",
    ],
    [
      "Atom",
      `<feed xmlns="http://www.w3.org/2005/Atom"><link href="http://a.example/"/><entry><id>x</id><link href="http://a.example/1"/><link rel="edit" href="http://x.example/"/><updated>2026-01-02T00:00:00Z</updated></entry><entry><link rel="alternate" type="text/html" href="http://a.example/2"/></entry></feed>`,
      "atom",
    ],
    [
      "Atom with a prefix",
      `<a:feed xmlns:a="http://www.w3.org/2005/Atom"><a:entry><a:link href="http://a.example/1"/></a:entry><a:entry><a:link href="http://a.example/2"/></a:entry></a:feed>`,
      "atom",
    ],
    [
      "JSON Feed",
      JSON.stringify({
        version: "https://jsonfeed.org/version/1.1",
        items: [
          { id: "1", url: "http://a.example/1" },
          { id: "2", external_url: "http://a.example/2" },
          { id: "3" },
          4,
          null,
        ],
      }),
      "json",
    ],
    [
      "JSON Feed with escaped slashes",
      '{ "version": "https:\\/\\/jsonfeed.org\\/version\\/1", "items": [{"url":"http:\\/\\/a.example\\/1"},{"url":"http:\\/\\/a.example\\/2"}] }',
      "json",
    ],
  ])("%s", async (_claim, body, form) => {
    for (const pieces of [65_536, 5]) {
      const found = await read(body, { pieces });
      expect(found.form).toBe(form);
      expect(found.listed.map(({ url }) => url)).toEqual(["http://a.example/1", "http://a.example/2"]);
    }
  });

  it.each([
    [
      "RSS",
      '<rss><channel><item><link>http://a.example/1</link><enclosure url="http://a.example/1.mp3" type="audio/mpeg"/></item></channel></rss>',
    ],
    [
      "Atom",
      '<feed xmlns="http://www.w3.org/2005/Atom"><entry><link href="http://a.example/1"/><link rel="enclosure" href="http://a.example/1.mp3"/></entry></feed>',
    ],
    [
      "JSON",
      JSON.stringify({
        version: "https://jsonfeed.org/version/1",
        items: [{ url: "http://a.example/1", attachments: [{ url: "http://a.example/1.mp3" }] }],
      }),
    ],
  ])("%s gives its enclosures when they are wanted", async (_claim, body) => {
    expect(await urlsOf(body)).toEqual(["http://a.example/1"]);
    expect(await urlsOf(body, { extras: ["enclosures"] })).toEqual([
      "http://a.example/1",
      "http://a.example/1.mp3",
    ]);
  });
});

it.each([
  "",
  " ",
  "<html><body><urlset></html>",
  "<!doctype html><title>a</title>",
  "<!-- never closed <urlset>",
  "http://a.example/1\n",
  '{"version": 1}',
  "{",
  "%PDF-1.4",
])("%j is neither", async (body) => {
  expect((await read(body)).form).toBeUndefined();
});

describe("one made to hurt", () => {
  it.each([
    ["is nested", `<urlset>${"<url>".repeat(500_000)}`, "elements in more than 64 others"],
    [
      "has a tag without end",
      `<urlset><url ${"a='b' ".repeat(500_000)}`,
      "nothing comes to its end in 1048576 characters",
    ],
    [
      "has a comment without end",
      `<urlset><!-- ${"x".repeat(3_000_000)}`,
      "nothing comes to its end in 1048576 characters",
    ],
    [
      "has CDATA without end",
      `<urlset><url><loc><![CDATA[${"x".repeat(3_000_000)}`,
      "nothing comes to its end in 1048576 characters",
    ],
    [
      "is JSON without end",
      `{"version":"https://jsonfeed.org/version/1","items":[${"1,".repeat(5_000_000)}`,
      "more than 8388608 bytes of JSON",
    ],
  ])("%s", async (_claim, body, cut) => {
    expect(await read(body)).toMatchObject({ listed: [], cut });
  });

  it("has a URL without end", async () => {
    const { listed } = await read(sitemap(`http://a.example/${"x".repeat(5_000_000)}`, "http://a.example/2"));
    expect(listed).toHaveLength(2);
    expect(listed[0]?.url.length).toBeLessThan(100_000);
  });

  it("is a bomb", async () => {
    const bomb = gzipSync(Buffer.concat([Buffer.from("<urlset>"), Buffer.alloc(60 * 1_048_576, 0x20)]));
    expect(await read(bomb)).toMatchObject({
      bytes: 50 * 1_048_576,
      cut: `more than ${50 * 1_048_576} bytes`,
    });
  });
});

it("holds no more than it reads at a time", async () => {
  const entry = Buffer.from(`<url><loc>http://a.example/${"x".repeat(900)}</loc></url>\n`.repeat(64));
  const before = await heapInUse();
  let grownMiB = Number.POSITIVE_INFINITY;
  async function* body(): AsyncGenerator<Buffer> {
    yield Buffer.from("<urlset>");
    for (let n = 0; n < 700; n += 1) yield entry;
    grownMiB = (await heapInUse()) - before;
  }
  const { urls, bytes } = await readListing(body(), {
    form: "sitemap",
    extras: new Set(),
    maxUrls: 1_000_000,
    maxBytes: 50 * 1_048_576,
    onListed: () => {},
  });
  expect(urls).toBe(64 * 700);
  expect(bytes).toBeGreaterThan(40 * 1_048_576);
  expect(grownMiB).toBeLessThan(10);
});
