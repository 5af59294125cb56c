/** A link of a `Link:` header (RFC 8288), about the resource that the response is of. */
export type HeaderLink = {
  /** Not resolved; relative to the response's own URL, whatever the page's base. */
  readonly href: string;
  /** Relations, in lower case. */
  readonly rel: readonly string[];
  readonly hasLanguage: boolean;
};

const MAX_LINKS = 1_000;

/**
 * The links of a `Link:` header, several of them joined by commas. Follows the algorithm of RFC 8288, appendix B.2, and
 * like it is forgiving: what comes after something broken is still read where that can be found. Links with an `anchor`
 * are about something else, and left out.
 */
export function parseLinkHeader(header: string): readonly HeaderLink[] {
  const links: HeaderLink[] = [];
  let at = 0;
  while (links.length < MAX_LINKS) {
    const open = header.indexOf("<", at);
    if (open < 0) break;
    const close = header.indexOf(">", open + 1);
    if (close < 0) break;
    const { parameters, end } = readParameters(header, close + 1);
    at = end;
    if (parameters.has("anchor")) continue;
    links.push({
      href: header.slice(open + 1, close).trim(),
      rel: (parameters.get("rel") ?? "").toLowerCase().split(/\s+/).filter(Boolean),
      hasLanguage: parameters.has("hreflang"),
    });
  }
  return links;
}

const NAME = /[^\s;,="<>]+/y;
const TOKEN = /[^\s;,"]*/y;

/** `;name=value` as often as there are, up to the comma that ends them. Of a repeated one the first counts. */
function readParameters(
  header: string,
  from: number,
): { readonly parameters: ReadonlyMap<string, string>; readonly end: number } {
  const parameters = new Map<string, string>();
  let at = from;
  while (at < header.length) {
    const character = header[at];
    if (character === ",") return { parameters, end: at + 1 };
    // Where the next link begins without a comma, this one has ended.
    if (character === "<") return { parameters, end: at };
    if (character === '"') {
      at = readQuoted(header, at).end;
      continue;
    }
    NAME.lastIndex = at;
    const name = NAME.exec(header)?.[0].toLowerCase();
    if (name === undefined) {
      at += 1;
      continue;
    }
    at = skipSpace(header, at + name.length);
    let value = "";
    if (header[at] === "=") {
      at = skipSpace(header, at + 1);
      if (header[at] === '"') {
        const quoted = readQuoted(header, at);
        value = quoted.text;
        at = quoted.end;
      } else {
        TOKEN.lastIndex = at;
        value = TOKEN.exec(header)?.[0] ?? "";
        at += value.length;
      }
    }
    if (!parameters.has(name)) parameters.set(name, value);
  }
  return { parameters, end: at };
}

/** A quoted string, which ends with the header if it does not end before. */
function readQuoted(header: string, from: number): { readonly text: string; readonly end: number } {
  let text = "";
  let at = from + 1;
  while (at < header.length && header[at] !== '"') {
    if (header[at] === "\\") at += 1;
    text += header[at] ?? "";
    at += 1;
  }
  return { text, end: at + 1 };
}

function skipSpace(header: string, from: number): number {
  let at = from;
  while (header[at] === " " || header[at] === "\t") at += 1;
  return at;
}
