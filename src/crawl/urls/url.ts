import { hash } from "node:crypto";
import type { UrlRequest } from "../frontier.js";
import { asksToRender } from "../render/render-options.js";

/** Characters of a URL at most, both as it is written and after resolution. */
export const MAX_URL_LENGTH = 8_192;

export type CanonicalUrl = {
  /** What is fetched: the URL as the WHATWG parser writes it, without its fragment. */
  readonly url: string;
  /** What is compared: the canonical form. */
  readonly key: string;
  /** Host name, with its port unless it is the scheme's own: the key of a lane. */
  readonly host: string;
  /** Host name alone; an IPv6 address keeps its brackets. */
  readonly hostname: string;
};

/**
 * Resolves a URL and brings it into its canonical form. Two URLs are the same URL of a crawl when their
 * canonical forms are equal. That form is what the WHATWG URL parser makes of it (scheme and host name in
 * lower case, internationalised names in punycode, IPv4 in its usual spelling, dot segments resolved, default
 * port dropped, characters percent-encoded where they must be), with, in this order:
 *
 * - its fragment dropped: it never reaches the server;
 * - percent-encodings of unreserved characters decoded and all others in upper case (RFC 3986, 6.2.2.1 and
 *   6.2.2.2), in path and query alike; percent signs that begin no encoding are left alone, and `^` is encoded;
 * - an empty query (`?` with nothing after it) dropped.
 *
 * Nothing else is merged, since a server may tell the difference: http and https, `www.`, a trailing slash,
 * the order of query parameters, tracking parameters, letter case in paths.
 *
 * URLs with user information (`http://user:password@host/`) are refused: from a page they are most often
 * there to obscure the host (RFC 9110, 4.2.4), and a password must not get into records.
 *
 * @param base the absolute URL that `href` is relative to
 * @returns undefined when it is no http or https URL with a host, cannot be parsed, has user information, or
 *   is longer than MAX_URL_LENGTH
 */
export function canonicalUrl(href: string, base?: string): CanonicalUrl | undefined {
  if (href.length > MAX_URL_LENGTH) return undefined;
  return resolvePlain(href, base) ?? resolveFully(href, base);
}

/**
 * Characters for which the URL parser has nothing to do in a path and query: no percent signs, nothing that
 * it would encode, drop or take for a fragment.
 */
const PLAIN_TARGET = /^\/[\w\-~./:;,+@!$&()*=]*(?:\?[\w\-~./:;,+@!$&()*=?]+)?$/;

type Origin = { readonly text: string; readonly host: string; readonly hostname: string };

const KNOWN_ORIGINS_MAX = 4_096;
/** A host name has 253 characters at most (RFC 1035, 2.3.4). */
const MAX_ORIGIN_LENGTH = 300;
/** Origins that were found to be spelt as the URL parser writes them; `false` when they are not. */
const knownOrigins = new Map<string, Origin | false>();
let lastBase: { readonly base: string; readonly origin: Origin | false } | undefined;

/**
 * The two shapes that most links have, `/path` and `http://host/path` of plain characters without dot
 * segments, resolved without the URL parser: several times as fast, and links are most of what a crawl reads.
 * Gives up (undefined) on anything else.
 */
function resolvePlain(href: string, base: string | undefined): CanonicalUrl | undefined {
  let origin: Origin | false;
  let target: string;
  if (href.charCodeAt(0) === 47 /* / */) {
    if (base === undefined || href.charCodeAt(1) === 47) return undefined;
    if (lastBase === undefined || lastBase.base !== base) lastBase = { base, origin: originOf(base) };
    origin = lastBase.origin;
    target = href;
  } else {
    origin = originOf(href);
    if (origin === false) return undefined;
    target = href.slice(origin.text.length);
  }
  if (origin === false || target.includes("/.") || !PLAIN_TARGET.test(target)) return undefined;
  // The origin's own copy of its text, so that a link does not keep the page it was cut out of in memory.
  const url = origin.text + target;
  if (url.length > MAX_URL_LENGTH) return undefined;
  return { url, key: url, host: origin.host, hostname: origin.hostname };
}

/** The origin that an absolute URL begins with, when it is spelt canonically and followed by a path. */
function originOf(href: string): Origin | false {
  if (!href.startsWith("http")) return false;
  const afterScheme = href.indexOf("://");
  if (afterScheme !== 4 && afterScheme !== 5) return false;
  const end = href.indexOf("/", afterScheme + 3);
  if (end < 0 || end > MAX_ORIGIN_LENGTH) return false;
  const text = href.slice(0, end);
  const known = knownOrigins.get(text);
  if (known !== undefined) return known;
  if (knownOrigins.size >= KNOWN_ORIGINS_MAX) knownOrigins.clear();
  const parsed = parse(text, undefined);
  // An origin has no user information, port 80 or capital letters: equal means that it is spelt canonically.
  // It is the parser's own string, which shares no memory with the page.
  const found =
    parsed?.origin === text ? { text: parsed.origin, host: parsed.host, hostname: parsed.hostname } : false;
  knownOrigins.set(Buffer.from(text).toString(), found);
  return found;
}

function resolveFully(href: string, base: string | undefined): CanonicalUrl | undefined {
  const parsed = parse(href, base);
  if (parsed === undefined) return undefined;
  const { protocol } = parsed;
  if ((protocol !== "http:" && protocol !== "https:") || parsed.username !== "" || parsed.password !== "") {
    return undefined;
  }
  let url = parsed.href;
  const fragment = url.indexOf("#");
  if (fragment >= 0) url = url.slice(0, fragment);
  if (url.length > MAX_URL_LENGTH) return undefined;
  return { url, key: canonicalForm(url), host: parsed.host, hostname: parsed.hostname };
}

function parse(href: string, base: string | undefined): URL | undefined {
  try {
    return new URL(href, base);
  } catch {
    return undefined;
  }
}

function canonicalForm(url: string): string {
  let form = url.endsWith("?") && url.indexOf("?") === url.length - 1 ? url.slice(0, -1) : url;
  // In paths a matter of the runtime's age: the URL standard has it encoded since November 2024.
  if (form.includes("^")) form = form.replaceAll("^", "%5E");
  return form.includes("%") ? form.replace(ENCODED, normalizedEncoding) : form;
}

/**
 * A percent-encoding, or a percent sign that begins none with the encoded hexadecimal digits behind it: to decode
 * these would make an encoding of what is none (`%%34%31` would become `%41`, and that `A`).
 */
const ENCODED = /%[0-9a-f]{2}|%[0-9a-f]?(?:%(?:3[0-9]|[46][1-6]))+/gi;

function normalizedEncoding(encoded: string): string {
  if (encoded.length > 3) return encoded.replace(/%[0-9a-f]{2}/gi, (inner) => inner.toUpperCase());
  const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16));
  return /[A-Za-z0-9\-._~]/.test(character) ? character : encoded.toUpperCase();
}

/**
 * What names a URL within its crawl: 120 bits of the SHA-256 of its canonical form, in 20 characters of
 * base64url. Anything but a plain GET is told apart by its method and body; headers are not. So is a page that is asked
 * for rendered, so that a spider can do so when it has seen it plain.
 */
export function fingerprint(key: string, request?: UrlRequest): string {
  const method = request?.method ?? "GET";
  const isPlain = method === "GET" && request?.body === undefined;
  // A canonical form holds no line break, so the parts cannot run into each other.
  const plain = isPlain ? key : `${key}\n${method}\n${request?.body ?? ""}`;
  const identity = asksToRender(request?.render) ? `${plain}\nrendered` : plain;
  return hash("sha256", identity, "base64url").slice(0, 20);
}

/** The id of a crawl's URL, in the frontier and everywhere else. */
export function urlId(crawl: string, urlFingerprint: string): string {
  return `${crawl}:${urlFingerprint}`;
}

/** The shard that a host belongs to: FNV-1a, 32 bits, over its UTF-16 units. The same in every process. */
export function shardOf(host: string, shardCount: number): number {
  let state = 0x811c9dc5;
  for (let index = 0; index < host.length; index += 1) {
    state = Math.imul(state ^ host.charCodeAt(index), 0x01000193);
  }
  return (state >>> 0) % shardCount;
}
