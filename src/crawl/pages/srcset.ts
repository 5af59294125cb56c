const LEADING = /^[\t\n\f\r ,]+/;
const WHITE_SPACE = /[\t\n\f\r ]/;

/** More candidates than any page means, so that an attribute cannot be made to flood a crawl. */
const MAX_CANDIDATES = 1_000;

/**
 * The URLs of a `srcset` attribute, in their order, as the HTML standard parses it ("parse a srcset attribute"): commas
 * may be part of a URL, separate candidates where white space or the end of a URL is before them, and mean nothing in
 * parentheses. A candidate whose descriptors make no sense is none.
 */
export function srcsetUrls(srcset: string): readonly string[] {
  const urls: string[] = [];
  let rest = srcset;
  while (urls.length < MAX_CANDIDATES) {
    rest = rest.replace(LEADING, "");
    if (rest === "") break;
    const end = rest.search(WHITE_SPACE);
    const url = end < 0 ? rest : rest.slice(0, end);
    rest = end < 0 ? "" : rest.slice(end);
    if (url.endsWith(",")) {
      urls.push(url.replace(/,+$/, ""));
      continue;
    }
    const length = descriptorsLength(rest);
    if (areDescriptors(rest.slice(0, length))) urls.push(url);
    rest = rest.slice(length + 1);
  }
  return urls;
}

/** Up to the comma that ends them, which is not in parentheses. */
function descriptorsLength(text: string): number {
  let isInParentheses = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    // Parentheses do not nest: the first that closes does.
    if (character === "(") isInParentheses = true;
    else if (character === ")") isInParentheses = false;
    else if (character === "," && !isInParentheses) return at;
  }
  return text.length;
}

const WIDTH = /^\d+w$/;
const HEIGHT = /^\d+h$/;
const DENSITY = /^-?(?:\d+|\d*\.\d+)(?:e[+-]?\d+)?x$/i;

/** One density, or one width, perhaps with a height. */
function areDescriptors(text: string): boolean {
  let widths = 0;
  let heights = 0;
  let densities = 0;
  for (const token of text.split(/[\t\n\f\r ]+/)) {
    if (token === "") continue;
    if (WIDTH.test(token) && Number.parseInt(token, 10) > 0) widths += 1;
    else if (HEIGHT.test(token) && Number.parseInt(token, 10) > 0) heights += 1;
    else if (DENSITY.test(token) && Number.parseFloat(token) >= 0) densities += 1;
    else return false;
  }
  if (widths > 1 || heights > 1 || densities > 1) return false;
  // A height says nothing without the width that it belongs to.
  return densities === 1 ? widths === 0 && heights === 0 : heights === 0 || widths === 1;
}
