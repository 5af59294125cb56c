/**
 * Fingerprints of texts that are near each other when the texts are alike.
 *
 * Charikar, "Similarity estimation techniques from rounding algorithms" (2002): every feature of a text has a hash;
 * each bit of the fingerprint is what most features have there. Manku, Jain and Das Sarma, "Detecting near-duplicates
 * for web crawling" (2007): of 64 bits, pages that differ in 3 at most are near-duplicates; and to find those among
 * many, the bits are cut into bands of which at least one must be the same.
 *
 * The features here are runs of three words, as often as they occur: order counts, so that two lists of the same
 * words are not taken for one text.
 */

/** Words of a text that has too few to be told from others by its fingerprint, which then has none. */
const LEAST_WORDS = 40;
/** Characters of a page looked at, at most. */
const MAX_CHARACTERS = 1_048_576;
const BITS = 64;
const BANDS = 4;

/** Languages written without spaces give a word a character. */
const WORD =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]|[\p{L}\p{M}\p{N}]+/gu;

/**
 * The fingerprint of a page's text, as 16 hexadecimal digits; undefined when it has too few words.
 * @param page HTML, or plain text
 */
export function simhashOf(page: string): string | undefined {
  const weights = new Int32Array(BITS);
  let words = 0;
  let [oneLow, oneHigh, twoLow, twoHigh] = [0, 0, 0, 0];
  for (const [word] of visibleText(page).toLowerCase().matchAll(WORD)) {
    const low = hashOf(word, 0x811c9dc5);
    const high = hashOf(word, 0x5bd1e995);
    words += 1;
    if (words > 2) {
      weigh(weights, 0, mixed(oneLow, twoLow, low));
      weigh(weights, 32, mixed(oneHigh, twoHigh, high));
    }
    [oneLow, oneHigh, twoLow, twoHigh] = [twoLow, twoHigh, low, high];
  }
  if (words < LEAST_WORDS) return undefined;
  return hexOf(weights, 32) + hexOf(weights, 0);
}

/** In how many bits two fingerprints differ. */
export function distanceOf(one: string, other: string): number {
  return (
    bitsOf(Number.parseInt(one.slice(0, 8), 16) ^ Number.parseInt(other.slice(0, 8), 16)) +
    bitsOf(Number.parseInt(one.slice(8), 16) ^ Number.parseInt(other.slice(8), 16))
  );
}

/**
 * The bands of a fingerprint, each with its place: two that differ in 3 bits at most have one in common, since 3 bits
 * cannot lie in 4 bands.
 */
export function bandsOf(simhash: string): readonly number[] {
  return Array.from(
    { length: BANDS },
    (_, band) => band * 65_536 + Number.parseInt(simhash.slice(band * 4, band * 4 + 4), 16),
  );
}

const SILENT = new Set(["script", "style", "template", "noscript", "svg"]);

/** What stands outside of tags, comments, scripts and styles: one pass, whatever the page. */
function visibleText(page: string): string {
  const html = page.length > MAX_CHARACTERS ? page.slice(0, MAX_CHARACTERS) : page;
  const parts: string[] = [];
  let at = 0;
  for (;;) {
    const open = html.indexOf("<", at);
    if (open < 0) break;
    parts.push(html.slice(at, open));
    const name = /^[a-z]{1,10}/i.exec(html.slice(open + 1, open + 12))?.[0].toLowerCase();
    at = html.startsWith("<!--", open)
      ? after(html, "-->", open + 4)
      : name !== undefined && SILENT.has(name)
        ? after(html, ">", endTagOf(html, name, open))
        : after(html, ">", open);
    if (at < 0) return parts.join(" ");
  }
  parts.push(html.slice(at));
  return parts.join(" ");
}

/** The index behind a text, searched for from an index on; -1 when it does not come. */
function after(html: string, text: string, from: number): number {
  if (from < 0) return -1;
  const found = html.indexOf(text, from);
  return found < 0 ? -1 : found + text.length;
}

function endTagOf(html: string, name: string, from: number): number {
  const end = new RegExp(`</${name}`, "gi");
  end.lastIndex = from;
  return end.exec(html)?.index ?? -1;
}

/** FNV-1a over UTF-16 units: a word's hash need be no better, `mixed` stirs it. */
function hashOf(word: string, seed: number): number {
  let value = seed;
  for (let index = 0; index < word.length; index += 1) {
    value = Math.imul(value ^ word.charCodeAt(index), 0x01000193);
  }
  return value;
}

/** Three hashes in one, in this order; the end is that of MurmurHash3, by which each bit depends on all. */
function mixed(one: number, two: number, three: number): number {
  let value = Math.imul(Math.imul(one, 0x9e3779b1) ^ two, 0x85ebca77) ^ three;
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
}

function weigh(weights: Int32Array, from: number, value: number): void {
  for (let bit = 0; bit < 32; bit += 1) {
    weights[from + bit] = (weights[from + bit] ?? 0) + ((value >>> bit) & 1) * 2 - 1;
  }
}

function hexOf(weights: Int32Array, from: number): string {
  let value = 0;
  for (let bit = 0; bit < 32; bit += 1) if ((weights[from + bit] ?? 0) > 0) value |= 1 << bit;
  return (value >>> 0).toString(16).padStart(8, "0");
}

function bitsOf(value: number): number {
  let left = value >>> 0;
  let bits = 0;
  for (; left !== 0; bits += 1) left &= left - 1;
  return bits;
}
