import { canonicalUrl } from "./url.js";

/** Longest delay that a site can ask for, in milliseconds. */
export const MAX_CRAWL_DELAY_MS = 60_000;

/** What a robots.txt says to one crawler. */
export type RobotsRules = {
  /** @param target path and query of a URL, as it would be sent */
  allows(target: string): boolean;
  /** From the end of one fetch to the start of the next, in milliseconds; 0 when it says nothing. */
  readonly crawlDelayMs: number;
  /** Characters of patterns held: what they cost in memory. */
  readonly size: number;
};

export type RobotsTxt = {
  allows(url: string, userAgent: string): boolean;
  crawlDelayMs(userAgent: string): number;
  rulesFor(userAgent: string): RobotsRules;
  /** Absolute URLs, in their order. */
  readonly sitemaps: readonly string[];
};

type Group = { patterns: { text: string; allows: boolean }[]; crawlDelayMs: number };

/**
 * Reads a robots.txt as RFC 9309 says.
 *
 * Groups with the same name are merged. Records that are no rules (`Sitemap`, unknown ones) do not end a
 * group's list of names (2.2.4). `Crawl-delay`, which is not in the RFC, holds for the names listed since
 * the rule or delay before it. As Google's parser does, a missing colon is forgiven, and of a name only its
 * leading letters, `-` and `_` count. The byte order mark and any line ending are accepted.
 * @param origin scheme, host name and port that it was asked of
 */
export function parseRobots(origin: string, body: string): RobotsTxt {
  const groups = new Map<string, Group>();
  const sitemaps: string[] = [];
  /** Whom rules are for, and whom a delay is for. */
  let named: Group[] = [];
  let delayed: Group[] = [];
  let isNaming = false;
  let isNamingDelayed = false;
  const text = body.startsWith("\uFEFF") ? body.slice(1) : body;
  for (const line of text.split(/\r\n|\r|\n/)) {
    const record = recordOf(line);
    if (record === undefined) continue;
    const { name, value } = record;
    if (name === "user-agent") {
      if (!isNaming) named = [];
      if (!isNamingDelayed) delayed = [];
      isNaming = true;
      isNamingDelayed = true;
      const group = groupOf(groups, tokenOf(value));
      named.push(group);
      delayed.push(group);
    } else if (name === "allow" || name === "disallow") {
      isNaming = false;
      isNamingDelayed = false;
      if (value === "") continue;
      for (const group of new Set(named)) {
        group.patterns.push({ text: normalizedPattern(value), allows: name === "allow" });
      }
    } else if (name === "crawl-delay") {
      isNamingDelayed = false;
      const delayMs = Math.min(Number(value) * 1_000, MAX_CRAWL_DELAY_MS);
      if (!(delayMs > 0)) continue;
      for (const group of delayed) group.crawlDelayMs = Math.max(group.crawlDelayMs, delayMs);
    } else if (name === "sitemap") {
      const sitemap = canonicalUrl(value, origin);
      if (sitemap !== undefined) sitemaps.push(sitemap.url);
    }
  }
  const prepared = new Map<Group | undefined, RobotsRules>();
  const rulesFor = (userAgent: string) => {
    const group = groups.get(tokenOf(userAgent)) ?? groups.get("*");
    let rules = prepared.get(group);
    if (rules === undefined) {
      rules = prepare(group);
      prepared.set(group, rules);
    }
    return rules;
  };
  return {
    rulesFor,
    sitemaps,
    allows(url, userAgent) {
      const { pathname, search } = new URL(url, origin);
      return rulesFor(userAgent).allows(pathname + search);
    },
    crawlDelayMs: (userAgent) => rulesFor(userAgent).crawlDelayMs,
  };
}

function recordOf(line: string): { name: string; value: string } | undefined {
  const comment = line.indexOf("#");
  const content = (comment < 0 ? line : line.slice(0, comment)).trim();
  if (content === "") return undefined;
  const colon = content.indexOf(":");
  if (colon >= 0) {
    return { name: content.slice(0, colon).trim().toLowerCase(), value: content.slice(colon + 1).trim() };
  }
  const [name, value, ...more] = content.split(/[ \t]+/, 3);
  if (name === undefined || value === undefined || more.length > 0) return undefined;
  return { name: name.toLowerCase(), value };
}

/** The product token of a user agent, in lower case: `Warren/0.1 (+https://…)` is `warren`. */
function tokenOf(userAgent: string): string {
  if (userAgent === "*" || /^\*\s/.test(userAgent)) return "*";
  return (/^[A-Za-z_-]+/.exec(userAgent)?.[0] ?? userAgent).toLowerCase();
}

function groupOf(groups: Map<string, Group>, token: string): Group {
  let group = groups.get(token);
  if (group === undefined) {
    group = { patterns: [], crawlDelayMs: 0 };
    groups.set(token, group);
  }
  return group;
}

const ALLOW_ALL: RobotsRules = { allows: () => true, crawlDelayMs: 0, size: 0 };

/** The rules of a group in the order in which they win: longest first, `allow` before `disallow` (2.2.2). */
function prepare(group: Group | undefined): RobotsRules {
  if (group === undefined) return ALLOW_ALL;
  const { crawlDelayMs } = group;
  if (!group.patterns.some(({ allows }) => !allows)) return { ...ALLOW_ALL, crawlDelayMs };
  const ordered = [...group.patterns].sort(
    (a, b) => b.text.length - a.text.length || Number(b.allows) - Number(a.allows),
  );
  const rules = ordered.map(({ text, allows }) => ({ matches: compilePattern(text), allows }));
  return {
    crawlDelayMs,
    size: ordered.reduce((sum, { text }) => sum + text.length, 0),
    allows(target) {
      const path = normalizedTarget(target);
      // 2.2.2: the file itself may always be read.
      if (path === "/robots.txt") return true;
      for (const rule of rules) {
        if (rule.matches(path)) return rule.allows;
      }
      return true;
    },
  };
}

/**
 * A matcher for a path pattern: `*` is any run, a last `$` the end of the path, and without it anything may
 * follow. Pieces are sought from left to right, each at its first place, which finds a match if there is one;
 * nothing is tried twice, so that no pattern can be made to take long.
 */
function compilePattern(pattern: string): (path: string) => boolean {
  const isAnchored = pattern.endsWith("$");
  const pieces = (isAnchored ? pattern.slice(0, -1) : pattern).split("*");
  const [first = "", ...others] = pieces;
  if (others.length === 0) {
    return isAnchored ? (path) => path === first : (path) => path.startsWith(first);
  }
  const last = isAnchored ? (others.pop() ?? "") : "";
  const rest = others.filter((piece) => piece !== "");
  return (path) => {
    if (!path.startsWith(first)) return false;
    let from = first.length;
    for (const piece of rest) {
      const found = path.indexOf(piece, from);
      if (found < 0) return false;
      from = found + piece.length;
    }
    return path.length - last.length >= from && path.endsWith(last);
  };
}

/**
 * A pattern in the spelling in which it is compared. `*` and a last `$` keep their meaning; a `$` elsewhere is
 * itself, and itself is written `%24`, as in a target (2.2.3).
 */
function normalizedPattern(pattern: string): string {
  const end = pattern.endsWith("$") ? "$" : "";
  const rest = end === "" ? pattern : pattern.slice(0, -1);
  return rest.split("*").map(normalized).join("*") + end;
}

const PLAIN_TARGET = /^[A-Za-z0-9\-._~/?&=+,;:@!()]*$/;

function normalizedTarget(target: string): string {
  return PLAIN_TARGET.test(target) ? target : normalized(target);
}

/**
 * The one spelling of all equivalent ones (2.2.2): encoded where it must be or means something in a pattern,
 * decoded where encoding makes no difference (RFC 3986, 2.3), hexadecimal digits in upper case.
 */
function normalized(text: string): string {
  return text
    .replace(/[^A-Za-z0-9\-._~/?&=+,;:@!()%[\]#]/gu, encoded)
    .replace(/%[0-9A-Fa-f]{2}/g, (triplet) => {
      const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16));
      return /[A-Za-z0-9\-._~]/.test(character) ? character : triplet.toUpperCase();
    });
}

function encoded(character: string): string {
  let result = "";
  for (const byte of Buffer.from(character, "utf8")) {
    result += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return result;
}
