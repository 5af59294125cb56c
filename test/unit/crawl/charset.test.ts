import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { decodeText } from "../../../src/crawl/pages/charset.js";
import { guessEncoding } from "../../../src/crawl/pages/charset-guess.js";

/** A text in many languages, encoded by Python's codecs: an encoder that shares nothing with the decoder. */
type Sample = {
  readonly language: string;
  readonly charset: string;
  readonly text: string;
  readonly bytes: string;
};
const SAMPLES = JSON.parse(
  readFileSync(new URL("../../fixtures/charsets.json", import.meta.url), "utf8"),
) as readonly Sample[];

const BOMS: Readonly<Record<string, readonly number[]>> = {
  "utf-8": [0xef, 0xbb, 0xbf],
  "utf-16le": [0xff, 0xfe],
  "utf-16be": [0xfe, 0xff],
};

/** Markup in the encoding of the page. */
function markup(text: string, charset: string): Buffer {
  if (charset === "utf-16le") return Buffer.from(text, "utf16le");
  if (charset === "utf-16be") return Buffer.from(text, "utf16le").swap16();
  return Buffer.from(text);
}

function pageOf({ charset, bytes }: Sample, head = ""): Buffer {
  const script = "<script>var a = function () { return document.getElementById('the') < 1 }</script>";
  return Buffer.concat([
    markup(
      `<!doctype html><html><head>${head}${script}</head><body><div class="container main"><p>`,
      charset,
    ),
    Buffer.from(bytes, "base64"),
    markup("</p></div></body></html>", charset),
  ]);
}

const isWide = ({ charset }: Sample) => charset.startsWith("utf-16");
const named = (samples: readonly Sample[]) =>
  samples.map((sample) => [`${sample.language} in ${sample.charset}`, sample] as const);

describe("the text of a page", () => {
  it.each(named(SAMPLES))("is decoded as its header says: %s", (_name, sample) => {
    const text = decodeText(pageOf(sample), `text/html; charset=${sample.charset}`);
    expect(text).toContain(`<p>${sample.text}</p>`);
  });

  it.each(named(SAMPLES.filter((sample) => !isWide(sample))))(
    "is decoded as its meta element says: %s",
    (_name, sample) => {
      const text = decodeText(pageOf(sample, `<meta charset="${sample.charset}">`), "text/html");
      expect(text).toContain(`<p>${sample.text}</p>`);
    },
  );

  it.each(named(SAMPLES.filter((sample) => !isWide(sample))))(
    "is decoded as its XML declaration says: %s",
    (_name, sample) => {
      const declaration = Buffer.from(`<?xml version="1.0" encoding="${sample.charset}"?>`);
      const text = decodeText(Buffer.concat([declaration, pageOf(sample)]), "application/xhtml+xml");
      expect(text).toContain(`<p>${sample.text}</p>`);
    },
  );

  it.each(named(SAMPLES.filter(({ charset }) => BOMS[charset] !== undefined)))(
    "is decoded by its byte order mark before anything else: %s",
    (_name, sample) => {
      const body = Buffer.concat([Buffer.from(BOMS[sample.charset] ?? []), pageOf(sample)]);
      const text = decodeText(body, "text/html; charset=windows-1251");
      expect(text).toContain(`<p>${sample.text}</p>`);
      expect(text.startsWith("<!doctype")).toBe(true);
    },
  );

  it.each(named(SAMPLES))("is decoded by what it looks like when nothing says so: %s", (_name, sample) => {
    expect(decodeText(pageOf(sample), "text/html")).toContain(`<p>${sample.text}</p>`);
  });

  it.each([
    "Grüße",
    "café",
    "El Niño",
    "naïve café",
    "São Paulo",
    "Málaga",
    "ÄÖÜ",
    "Høyre på øya",
    "© 2020",
    "à",
  ])("is windows-1252 when there is too little to guess from: %s", (text) => {
    expect(decodeText(Buffer.from(text, "latin1"), "text/html")).toBe(text);
  });

  it("is UTF-8 although a character of it is broken", () => {
    const whole = Buffer.from("<p>Это предложение на русском языке</p>");
    const body = Buffer.concat([whole, Buffer.from([0xd0]), Buffer.from("<p>конец</p>")]);
    expect(decodeText(body, undefined)).toBe("<p>Это предложение на русском языке</p>\ufffd<p>конец</p>");
  });

  it("is what its header says, even if it looks otherwise", () => {
    const russian = SAMPLES.find(({ charset }) => charset === "koi8-r");
    const body = Buffer.from(russian?.bytes ?? "", "base64");
    expect(decodeText(body, "text/html; charset=windows-1252")).not.toContain("Это");
  });

  it("is not UTF-16 because of a zero byte", () => {
    expect(decodeText(Buffer.from("\0<p>hello hello</p>"), undefined)).toBe("\0<p>hello hello</p>");
    expect(decodeText(Buffer.from("<\0p>hello hello</p>"), undefined)).toBe("<\0p>hello hello</p>");
  });

  it("may be anything at all", () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      let state = seed;
      const bytes = Uint8Array.from({ length: seed }, () => {
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
        return (state >> 16) & 255;
      });
      expect(typeof decodeText(Buffer.from(bytes), undefined)).toBe("string");
      guessEncoding(Buffer.from(bytes));
    }
  });
});
