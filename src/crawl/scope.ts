import { getDomain } from "tldts";
import type { Scope } from "./crawl.js";
import { type CanonicalUrl, canonicalUrl } from "./url.js";

/** A crawl's scope, ready to be asked for every link. */
export interface CompiledScope {
  includes(url: Pick<CanonicalUrl, "url" | "hostname">): boolean;
}

const EVERYTHING: CompiledScope = { includes: () => true };

/**
 * Makes a scope ready.
 *
 * - `host`: the host names of the seeds, on any port, by http or https.
 * - `domain`: their registrable domains by the public suffix list, private suffixes included, so that
 *   `a.github.io` and `b.github.io` are strangers. An IP address, or a name without a public suffix, is its
 *   own domain.
 * - `allow` and `deny`: globs over the whole URL as it is fetched. A URL is in scope if no deny glob matches
 *   it and an allow glob does; an empty allow list allows all.
 */
export function compileScope(scope: Scope, seeds: readonly string[]): CompiledScope {
  if (scope === "any") return EVERYTHING;
  if (scope === "host") {
    const hostnames = new Set(hostnamesOf(seeds));
    return { includes: ({ hostname }) => hostnames.has(hostname) };
  }
  if (scope === "domain") return domainScope(seeds);
  const allow = scope.allow.map(compileGlob);
  const deny = scope.deny.map(compileGlob);
  return {
    includes: ({ url }) =>
      !deny.some((matches) => matches(url)) && (allow.length === 0 || allow.some((matches) => matches(url))),
  };
}

const REMEMBERED_HOSTNAMES = 10_000;

function domainScope(seeds: readonly string[]): CompiledScope {
  const domains = new Set(hostnamesOf(seeds).map(domainOf));
  // The public suffix list costs a microsecond a look-up; a page's links lead to few hosts.
  const decided = new Map<string, boolean>();
  return {
    includes({ hostname }) {
      let isInside = decided.get(hostname);
      if (isInside === undefined) {
        isInside = domains.has(domainOf(hostname));
        if (decided.size >= REMEMBERED_HOSTNAMES) decided.clear();
        decided.set(hostname, isInside);
      }
      return isInside;
    },
  };
}

function domainOf(hostname: string): string {
  return getDomain(hostname, { allowPrivateDomains: true }) ?? hostname;
}

function hostnamesOf(seeds: readonly string[]): string[] {
  return seeds.flatMap((seed) => canonicalUrl(seed)?.hostname ?? []);
}

/**
 * A matcher for a glob over the whole text, in which `*` stands for any run and everything else for itself.
 *
 * The pieces between stars are sought from left to right, each at its first place: if the glob matches at
 * all, it matches so. Nothing is ever tried again, so that no glob can be made to take long.
 */
function compileGlob(glob: string): (url: string) => boolean {
  const pieces = withLowerCaseOrigin(glob).split("*");
  const first = pieces[0] ?? "";
  if (pieces.length === 1) return (url) => url === first;
  const last = pieces[pieces.length - 1] ?? "";
  const middle = pieces.slice(1, -1).filter((piece) => piece !== "");
  return (url) => {
    if (url.length < first.length + last.length || !url.startsWith(first) || !url.endsWith(last))
      return false;
    const end = url.length - last.length;
    let from = first.length;
    for (const piece of middle) {
      const found = url.indexOf(piece, from);
      if (found < 0) return false;
      from = found + piece.length;
    }
    return from <= end;
  };
}

/** Scheme and host have no letter case, and URLs are compared in their canonical spelling. */
function withLowerCaseOrigin(glob: string): string {
  return glob.replace(/^[A-Za-z]+:\/\/[^/]*/, (origin) => origin.toLowerCase());
}
