import { createRequire } from "node:module";
import { TextDecoder } from "node:util";

/** Bytes of a page that a guess is made from, at most: markup is taken out of so many, and text is left of so many. */
const MAX_MARKUP_BYTES = 65_536;
/** About 1 ms of chardet. More text makes no better guess. */
const MAX_TEXT_BYTES = 1_024;
/** What stands before the first byte that tells anything. */
const LEAD_BYTES = 64;
/** Of 100: what chardet is less sure of is not believed. */
const MIN_CONFIDENCE = 10;
/** Accented letters that a text in Latin script needs before its language can be told by them. */
const MIN_ACCENTED = 12;
/** Bytes that a text in any other script needs: two characters of two bytes. */
const MIN_OTHERS = 4;
const ESCAPE = 0x1b;

/** What chardet's names are taken for: pages are in the Windows encodings, whichever of their cousins they resemble. */
const ENCODINGS: Readonly<Record<string, string>> = {
  Shift_JIS: "shift_jis",
  "EUC-JP": "euc-jp",
  "EUC-KR": "euc-kr",
  GB18030: "gb18030",
  Big5: "big5",
  "ISO-8859-1": "windows-1252",
  "ISO-8859-2": "iso-8859-2",
  "ISO-8859-5": "iso-8859-5",
  "ISO-8859-6": "iso-8859-6",
  "ISO-8859-7": "windows-1253",
  "ISO-8859-8": "windows-1255",
  "ISO-8859-9": "windows-1254",
  "windows-874": "windows-874",
  "windows-1250": "windows-1250",
  "windows-1251": "windows-1251",
  "windows-1252": "windows-1252",
  "windows-1253": "windows-1253",
  "windows-1254": "windows-1254",
  "windows-1255": "windows-1255",
  "windows-1256": "windows-1256",
  "windows-1257": "windows-1257",
  "windows-1258": "windows-1258",
  "KOI8-R": "koi8-r",
};
const MULTI_BYTE = new Set(["shift_jis", "euc-jp", "euc-kr", "gb18030", "big5"]);

type Match = { readonly name: string; readonly confidence: number };
type Chardet = { analyse(bytes: Uint8Array): readonly Match[] };

const require = createRequire(import.meta.url);

/** UTF-16 without a byte order mark, told by markup: every second byte of it is zero. Looks at two bytes of most pages. */
export function guessUtf16(body: Buffer): "utf-16le" | "utf-16be" | undefined {
  const [first, second] = body;
  if (body.length < 4 || (first !== 0) === (second !== 0)) return undefined;
  const sample = body.subarray(0, 1_024);
  const zeros: [number, number] = [0, 0];
  for (let index = 0; index < sample.length; index += 1)
    if (sample[index] === 0) zeros[index & 1 ? 1 : 0] += 1;
  const [even, odd] = zeros;
  const pairs = sample.length / 2;
  if (second === 0) return odd > pairs / 4 && even < odd / 8 ? "utf-16le" : undefined;
  return even > pairs / 4 && odd < even / 8 ? "utf-16be" : undefined;
}

/** Whether a page that is ASCII throughout is ISO-2022-JP, which is so: its escape sequences tell (RFC 1468). */
export function isIso2022Jp(body: Buffer): boolean {
  const start = body.subarray(0, MAX_MARKUP_BYTES);
  for (let at = start.indexOf(ESCAPE); at >= 0; at = start.indexOf(ESCAPE, at + 1)) {
    // ESC $ @ and ESC $ B begin its two-byte characters.
    if (start[at + 1] === 0x24 && (start[at + 2] === 0x40 || start[at + 2] === 0x42)) return true;
  }
  return false;
}

/**
 * The encoding that a page seems to be in which is not valid UTF-8 and does not say, by the frequencies of bytes in its
 * text; undefined when nothing can be said. A name that TextDecoder knows. Costs about 1 ms, whatever the page.
 */
export function guessEncoding(body: Buffer): string | undefined {
  const sample = textOf(body);
  if (isBrokenUtf8(sample)) return "utf-8";
  const { high, letters } = countOf(sample);
  // Between ASCII letters there are single accented ones, and no characters of two bytes.
  const isLatin = high < letters;
  if (high < (isLatin ? MIN_ACCENTED : MIN_OTHERS)) return undefined;
  const { analyse } = require("chardet") as Chardet;
  for (const { name, confidence } of analyse(sample)) {
    if (confidence < MIN_CONFIDENCE) break;
    const encoding = ENCODINGS[name];
    if (encoding === undefined) continue;
    if (MULTI_BYTE.has(encoding) && (isLatin || !isValid(sample, encoding))) continue;
    return encoding === "windows-1253" && isIsoGreek(sample) ? "iso-8859-7" : encoding;
  }
  return undefined;
}

/** UTF-8 but for a few characters that were cut, or came from elsewhere. */
function isBrokenUtf8(sample: Buffer): boolean {
  let good = 0;
  let bad = 0;
  for (const character of sample.toString("utf8")) {
    if (character === "\ufffd") bad += 1;
    else if (character > "\x7f") good += 1;
  }
  return good > 0 && good >= bad * 3;
}

/** Bytes above ASCII, and ASCII letters. */
function countOf(sample: Buffer): { high: number; letters: number } {
  let high = 0;
  let letters = 0;
  for (const byte of sample) {
    const lower = byte | 0x20;
    if (byte >= 0x80) high += 1;
    else if (lower >= 0x61 && lower <= 0x7a) letters += 1;
  }
  return { high, letters };
}

/** The first of a page's text that is more than ASCII. */
function textOf(body: Buffer): Buffer {
  const text = body
    .toString("latin1", 0, MAX_MARKUP_BYTES)
    .replace(/<(script|style)\b[\s\S]*?<\/\1|<[^>]*>?|&#?\w{1,20};?/gi, " ")
    .replace(/[ \t\r\n]+/g, " ");
  const first = text.search(/[\x80-\xff]/);
  const start = first < LEAD_BYTES ? 0 : first - LEAD_BYTES;
  return Buffer.from(text.slice(start, start + MAX_TEXT_BYTES), "latin1");
}

function isValid(sample: Buffer, encoding: string): boolean {
  try {
    // The last character may be cut.
    new TextDecoder(encoding, { fatal: true }).decode(sample, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/** The one letter that Greek pages in ISO 8859-7 and windows-1253 have in different places is capital alpha with tonos. */
function isIsoGreek(sample: Buffer): boolean {
  return sample.includes(0xb6) && !sample.includes(0xa2);
}
