import { canonicalUrl } from "../urls/url.js";
import { allowingAll, compileRules, type RobotsRule, type RobotsRules } from "./robots-rules.js";

export type { RobotsRules } from "./robots-rules.js";

/** Longest delay that a site can ask for, in milliseconds. */
export const MAX_CRAWL_DELAY_MS = 60_000;
/** Sitemaps that a site can name; what it names beyond is passed over. */
export const MAX_SITEMAPS = 1_000;

export type RobotsTxt = {
  allows(url: string, userAgent: string): boolean;
  crawlDelayMs(userAgent: string): number;
  rulesFor(userAgent: string): RobotsRules;
  /** Absolute URLs, in their order, each once, `MAX_SITEMAPS` at most. */
  readonly sitemaps: readonly string[];
};

/** Rules that several names may share. */
type Section = { readonly rules: RobotsRule[] };
/** A delay that several names may share, in milliseconds. */
type Pace = { delayMs: number };
type Group = { readonly sections: Set<Section>; readonly paces: Set<Pace> };

/**
 * Reads a robots.txt as RFC 9309 says.
 *
 * Groups with the same name are merged. Records that are no rules (`Sitemap`, unknown ones) do not end a
 * group's list of names (2.2.4). `Crawl-delay`, which is not in the RFC, holds for the names listed since
 * the rule or delay before it. As Google's parser does, a missing colon and the usual misspellings are forgiven, and of
 * a name only its leading letters, `-` and `_` count. The byte order mark, or a part of it, and any line ending are
 * accepted.
 *
 * Every record is kept once, whatever the number of names it is for, so that a hostile file costs no more than an
 * honest one of its size.
 * @param origin scheme, host name and port that it was asked of
 */
export function parseRobots(origin: string, body: string): RobotsTxt {
  const groups = new Map<string, Group>();
  const sitemaps = new Set<string>();
  let section: Section | undefined;
  let pace: Pace | undefined;
  let isNaming = false;
  let isNamingPaced = false;
  for (const line of withoutMark(body).split(/\r\n|\r|\n/)) {
    const record = recordOf(line);
    if (record === undefined) continue;
    const { name, value } = record;
    switch (name) {
      case "user-agent": {
        if (!isNaming || section === undefined) section = { rules: [] };
        if (!isNamingPaced || pace === undefined) pace = { delayMs: 0 };
        isNaming = true;
        isNamingPaced = true;
        const group = groupOf(groups, tokenOf(value));
        group.sections.add(section);
        group.paces.add(pace);
        break;
      }
      case "allow":
      case "disallow":
        isNaming = false;
        isNamingPaced = false;
        if (value !== "") section?.rules.push({ pattern: value, allows: name === "allow" });
        break;
      case "crawl-delay":
        isNamingPaced = false;
        if (pace !== undefined) pace.delayMs = Math.max(pace.delayMs, delayOf(value));
        break;
      case "sitemap": {
        if (value === "" || sitemaps.size >= MAX_SITEMAPS) break;
        const sitemap = canonicalUrl(value, origin);
        if (sitemap !== undefined) sitemaps.add(sitemap.url);
        break;
      }
      default:
    }
  }
  const prepared = new Map<Group | undefined, RobotsRules>();
  const rulesFor = (userAgent: string) => {
    const group = groups.get(productTokenOf(userAgent)) ?? groups.get("*");
    let rules = prepared.get(group);
    if (rules === undefined) {
      rules = group === undefined ? allowingAll() : rulesOf(group);
      prepared.set(group, rules);
    }
    return rules;
  };
  return {
    rulesFor,
    sitemaps: [...sitemaps],
    allows(url, userAgent) {
      const { pathname, search } = new URL(url, origin);
      return rulesFor(userAgent).allows(pathname + search);
    },
    crawlDelayMs: (userAgent) => rulesFor(userAgent).crawlDelayMs,
  };
}

/**
 * The name by which a crawler looks for rules, in lower case: `Warren/0.1 (+https://…)` is `warren`, and one that
 * calls itself `Mozilla/5.0 (compatible; Warren/0.1; …)`, as many do, is `warren` too.
 */
export function productTokenOf(userAgent: string): string {
  const compatible = /^Mozilla\/[^(]*\(\s*compatible\s*;\s*([^;)]+)/i.exec(userAgent)?.[1];
  return tokenOf(compatible ?? userAgent);
}

/** A byte order mark that was cut short has become a replacement character. */
function withoutMark(body: string): string {
  return body.startsWith("\uFEFF") || body.startsWith("\uFFFD") ? body.slice(1) : body;
}

function recordOf(line: string): { name: string; value: string } | undefined {
  const comment = line.indexOf("#");
  const content = (comment < 0 ? line : line.slice(0, comment)).trim();
  if (content === "") return undefined;
  const colon = content.indexOf(":");
  if (colon >= 0) {
    return { name: nameOf(content.slice(0, colon)), value: content.slice(colon + 1).trim() };
  }
  const [name, value, ...more] = content.split(/[ \t]+/, 3);
  if (name === undefined || value === undefined || more.length > 0) return undefined;
  return { name: nameOf(name), value };
}

const LONGEST_NAME = 50;

/** Misspellings of which there is no doubt what was meant. */
const MEANT: Readonly<Record<string, string>> = {
  useragent: "user-agent",
  "user agent": "user-agent",
  dissallow: "disallow",
  dissalow: "disallow",
  disalow: "disallow",
  diasllow: "disallow",
  disallaw: "disallow",
  "site-map": "sitemap",
};

function nameOf(written: string): string {
  if (written.length > LONGEST_NAME) return "";
  const name = written.trim().toLowerCase();
  return Object.hasOwn(MEANT, name) ? (MEANT[name] ?? name) : name;
}

/** The product token that a group is for, in lower case; `*` for all. */
function tokenOf(name: string): string {
  if (name === "*" || /^\*\s/.test(name)) return "*";
  return (/^[A-Za-z_-]+/.exec(name)?.[0] ?? name).toLowerCase();
}

function delayOf(value: string): number {
  const delayMs = Math.min(Number.parseFloat(value) * 1_000, MAX_CRAWL_DELAY_MS);
  return delayMs > 0 ? delayMs : 0;
}

function groupOf(groups: Map<string, Group>, token: string): Group {
  let group = groups.get(token);
  if (group === undefined) {
    group = { sections: new Set(), paces: new Set() };
    groups.set(token, group);
  }
  return group;
}

function rulesOf({ sections, paces }: Group): RobotsRules {
  let crawlDelayMs = 0;
  for (const { delayMs } of paces) crawlDelayMs = Math.max(crawlDelayMs, delayMs);
  return compileRules(
    [...sections].flatMap(({ rules }) => rules),
    crawlDelayMs,
  );
}
