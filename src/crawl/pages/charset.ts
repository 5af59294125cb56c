import { isAscii, isUtf8 } from "node:buffer";
import { TextDecoder } from "node:util";
import { guessEncoding, guessUtf16, isIso2022Jp } from "./charset-guess.js";

/** Bytes in which a page has to name its character set (WHATWG HTML, 13.2.3.2). */
const PRESCAN_BYTES = 1_024;

/** Which encoding a page's bytes are in, and where its text begins. */
export type PageEncoding = {
  /** A name that TextDecoder knows; `latin1` for bytes that are ASCII throughout. */
  readonly name: string;
  /** Bytes of a byte order mark, which is no text. */
  readonly bomBytes: number;
};

/**
 * Turns a page's bytes into text as a browser does (WHATWG HTML, 13.2.3): by its byte order mark, else by the
 * charset of the content type, else by what the page itself says at its beginning; and else as UTF-8 if it is
 * valid UTF-8, or as what it looks like, or windows-1252. Bytes that mean nothing become U+FFFD.
 */
export function decodeText(body: Buffer, contentType: string | undefined): string {
  const { name, bomBytes } = encodingOfPage(body, contentType);
  // One byte a character is what most pages need, and the quickest to read.
  if (name === "latin1") return body.toString("latin1");
  if (name === "utf-8") return body.toString("utf8", bomBytes);
  if (name === "windows-1252") return decodeWindows1252(body);
  if (name === "iso-8859-16") return decodeIso885916(body);
  return decoderOf(name).decode(body);
}

export function encodingOfPage(body: Buffer, contentType: string | undefined): PageEncoding {
  const marked = byBom(body);
  if (marked !== undefined) return marked;
  const stated = encodingOf(charsetOf(contentType)) ?? encodingOf(prescan(body));
  if (stated !== undefined && stated !== "utf-8") return { name: stated, bomBytes: 0 };
  if (stated === undefined) {
    const wide = guessUtf16(body);
    if (wide !== undefined) return { name: wide, bomBytes: 0 };
  }
  if (isAscii(body)) {
    const name = stated === undefined && isIso2022Jp(body) ? "iso-2022-jp" : "latin1";
    return { name, bomBytes: 0 };
  }
  if (stated !== undefined || isUtf8(body)) return { name: "utf-8", bomBytes: 0 };
  return { name: guessEncoding(body) ?? "windows-1252", bomBytes: 0 };
}

/** What windows-1252 has in the places of the control characters 0x80 to 0x9F (WHATWG Encoding, 9). */
const WINDOWS_1252 =
  "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

/** By hand, because the TextDecoder of several versions of Node, 20 among them, takes it for ISO 8859-1. */
function decodeWindows1252(body: Buffer): string {
  return body
    .toString("latin1")
    .replace(/[\u0080-\u009f]/g, (character) => WINDOWS_1252.charAt(character.charCodeAt(0) - 0x80));
}

/** The upper half of ISO 8859-16 (WHATWG Encoding, 9), which Node's TextDecoder does not know. */
const ISO_8859_16 =
  "\u00a0ĄąŁ€„Š§š©Ș«Ź\u00adźŻ°±ČłŽ”¶·žčș»ŒœŸż" +
  "ÀÁÂĂÄĆÆÇÈÉÊËÌÍÎÏĐŃÒÓÔŐÖŚŰÙÚÛÜĘȚß" +
  "àáâăäćæçèéêëìíîïđńòóôőöśűùúûüęțÿ";

function decodeIso885916(body: Buffer): string {
  return body
    .toString("latin1")
    .replace(/[\u00a0-\u00ff]/g, (character) => ISO_8859_16.charAt(character.charCodeAt(0) - 0xa0));
}

function byBom(body: Buffer): PageEncoding | undefined {
  const [first, second, third] = body;
  if (first === 0xef && second === 0xbb && third === 0xbf) return { name: "utf-8", bomBytes: 3 };
  if (first === 0xff && second === 0xfe) return { name: "utf-16le", bomBytes: 2 };
  if (first === 0xfe && second === 0xff) return { name: "utf-16be", bomBytes: 2 };
  return undefined;
}

function charsetOf(contentType: string | undefined): string | undefined {
  const found = /;\s*charset\s*=\s*(?:"([^"]*)"|([^\s;,"]+))/i.exec(contentType?.slice(0, 1_000) ?? "");
  return found?.[1] ?? found?.[2];
}

/** What the beginning of a page says in a `meta` element or an XML declaration. */
function prescan(body: Buffer): string | undefined {
  const start = body.toString("latin1", 0, PRESCAN_BYTES).replace(/<!--.*?(?:-->|$)/gs, "");
  for (const [meta] of start.matchAll(/<meta[\s/][^>]*/gi)) {
    const named = /[\s/"']charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>;/]+))/i.exec(meta);
    const isInContent = /[\s/"']content\s*=\s*["'][^"']*charset\s*=/i.test(meta);
    if (isInContent && !/http-equiv\s*=\s*["']?content-type/i.test(meta)) continue;
    const label = isInContent ? /charset\s*=\s*["']?([^\s"'>;]+)/i.exec(meta)?.[1] : undefined;
    const charset = label ?? named?.[1] ?? named?.[2] ?? named?.[3];
    if (charset === undefined) continue;
    // A page that could be read so far is in no 16-bit encoding, whatever it says (13.2.3.2, step 16).
    if (/^\s*utf-?16/i.test(charset)) return "utf-8";
    if (encodingOf(charset) !== undefined) return charset;
  }
  const declared = /^<\?xml\s[^>]*?encoding\s*=\s*["']([^"']+)["']/i.exec(start)?.[1];
  return declared !== undefined && /^utf-?16/i.test(declared) ? "utf-8" : declared;
}

const decoders = new Map<string, TextDecoder>();
const encodings = new Map<string, string | undefined>();
const MAX_LABELS = 1_000;

function decoderOf(encoding: string): TextDecoder {
  let decoder = decoders.get(encoding);
  if (decoder === undefined) {
    decoder = new TextDecoder(encoding);
    decoders.set(encoding, decoder);
  }
  return decoder;
}

/** The encoding that a label stands for (WHATWG Encoding, 4.2); undefined when it stands for none. */
function encodingOf(label: string | undefined): string | undefined {
  if (label === undefined || label.length > 40) return undefined;
  if (encodings.has(label)) return encodings.get(label);
  let encoding: string | undefined;
  if (label.trim().toLowerCase() === "iso-8859-16") return "iso-8859-16";
  try {
    ({ encoding } = new TextDecoder(
      label.trim().toLowerCase() === "x-user-defined" ? "windows-1252" : label,
    ));
  } catch {
    // Not a label of any encoding: the next source has its say.
  }
  if (encodings.size >= MAX_LABELS) encodings.clear();
  encodings.set(label, encoding);
  return encoding;
}
