import { compileGlob } from "./glob.js";
import {
  canonicalPath,
  compilePattern,
  hostnameOf,
  registrableDomain,
  type Scope,
  type ScopeRules,
} from "./scope-options.js";
import { type CanonicalUrl, canonicalUrl } from "./url.js";

export type ScopedUrl = Pick<CanonicalUrl, "url" | "key" | "hostname">;

/** A crawl's scope, ready to be asked for every link. */
export interface CompiledScope {
  includes(url: ScopedUrl): boolean;
  /** The member, and where there is one its entry, by which a URL is out of scope: `deny: "*logout*"`. */
  objection(url: ScopedUrl): string | undefined;
  /** @param contentType as the server states it, without parameters and in lower case */
  acceptsType(contentType: string | undefined): boolean;
}

/** One condition: its name, and what it has against a URL, which is an entry of its list or nothing. */
type Rule = {
  readonly name: string;
  readonly passes: (url: ScopedUrl) => boolean;
  /** The entry that denies; absent where no single one does. */
  readonly culprit?: (url: ScopedUrl) => string | undefined;
};

/**
 * Makes a scope ready.
 *
 * - `host`: the host names of the seeds, on any port, by http or https.
 * - `domain`: their registrable domains by the public suffix list, private suffixes included, so that
 *   `a.github.io` and `b.github.io` are strangers. An IP address, or a name without a public suffix, is its
 *   own domain.
 * - rules: nothing may deny a URL, and every member that is given must be met: see `ScopeRules`.
 *
 * What takes less time is asked first; expressions last. None of it can take long, whatever the URL: globs and
 * expressions run in linear time.
 */
export function compileScope(scope: Scope, seeds: readonly string[]): CompiledScope {
  if (typeof scope === "string") return compileRules({ within: scope }, seeds);
  // A crawl is asked for one page after the other, in places that keep nothing between two of them.
  const known = compiledRules.get(scope);
  if (known?.seeds === seeds) return known.compiled;
  const compiled = compileRules(scope, seeds);
  compiledRules.set(scope, { seeds, compiled });
  return compiled;
}

const compiledRules = new WeakMap<
  ScopeRules,
  { readonly seeds: readonly string[]; readonly compiled: CompiledScope }
>();

function compileRules(rules: ScopeRules, seeds: readonly string[]): CompiledScope {
  const compiled = rulesOf(rules, seeds);
  return {
    includes: includesAll(compiled),
    objection(url) {
      const broken = compiled.find(({ passes }) => !passes(url));
      if (broken === undefined) return undefined;
      const culprit = broken.culprit?.(url);
      return culprit === undefined ? broken.name : `${broken.name}: ${JSON.stringify(culprit)}`;
    },
    acceptsType: acceptedTypes(rules.contentTypes ?? []),
  };
}

function includesAll(rules: readonly Rule[]): (url: ScopedUrl) => boolean {
  const [first, ...others] = rules.map(({ passes }) => passes);
  if (first === undefined) return () => true;
  if (others.length === 0) return first;
  return (url) => first(url) && others.every((passes) => passes(url));
}

function rulesOf(rules: ScopeRules, seeds: readonly string[]): readonly Rule[] {
  const { within, hosts, domains, pathPrefixes, deny, allow, denyPatterns, allowPatterns } = rules;
  const compiled: Rule[] = [];
  if (within === "host") {
    compiled.push({ name: "not the host of a seed", passes: namedHosts(hostnamesOf(seeds)) });
  }
  if (within === "domain") {
    const domainsOfSeeds = hostnamesOf(seeds).map(registrableDomain);
    compiled.push({ name: "not the domain of a seed", passes: ofDomains(domainsOfSeeds) });
  }
  if (isGiven(hosts)) compiled.push({ name: "not in hosts", passes: namedHosts(hosts) });
  if (isGiven(domains)) {
    compiled.push({
      name: "not in domains",
      passes: ofDomains(domains.flatMap((one) => hostnameOf(one) ?? [])),
    });
  }
  if (isGiven(pathPrefixes)) {
    compiled.push({ name: "not below pathPrefixes", passes: belowPaths(pathPrefixes) });
  }
  if (isGiven(deny)) compiled.push(denial("deny", deny, globOverUrl));
  if (isGiven(allow)) compiled.push(permission("allow", allow, globOverUrl));
  if (isGiven(denyPatterns)) compiled.push(denial("denyPatterns", denyPatterns, compilePattern));
  if (isGiven(allowPatterns)) compiled.push(permission("allowPatterns", allowPatterns, compilePattern));
  return compiled;
}

function isGiven(list: readonly string[] | undefined): list is readonly string[] {
  return list !== undefined && list.length > 0;
}

type CompileEntry = (entry: string) => (url: string) => boolean;

function denial(name: string, entries: readonly string[], compile: CompileEntry): Rule {
  const matchers = entries.map(compile);
  return {
    name,
    passes: ({ url }) => !matchers.some((matches) => matches(url)),
    culprit: ({ url }) => entries[matchers.findIndex((matches) => matches(url))],
  };
}

function permission(name: string, entries: readonly string[], compile: CompileEntry): Rule {
  const matchers = entries.map(compile);
  return { name: `not in ${name}`, passes: ({ url }) => matchers.some((matches) => matches(url)) };
}

function namedHosts(names: readonly string[]): Rule["passes"] {
  const exact = new Set<string>();
  const above: string[] = [];
  for (const name of names) {
    const hostname = hostnameOf(name.replace(/^\*\./, ""));
    if (hostname === undefined) continue;
    if (name.startsWith("*.")) above.push(`.${hostname}`);
    else exact.add(hostname);
  }
  if (above.length === 0) return ({ hostname }) => exact.has(hostname);
  return remembered((hostname) => exact.has(hostname) || above.some((suffix) => hostname.endsWith(suffix)));
}

function ofDomains(names: readonly string[]): Rule["passes"] {
  const domains = new Set(names);
  // The public suffix list costs a microsecond a look-up; a page's links lead to few hosts.
  return remembered((hostname) => domains.has(registrableDomain(hostname)));
}

const REMEMBERED_HOSTNAMES = 10_000;

function remembered(isInside: (hostname: string) => boolean): Rule["passes"] {
  const decided = new Map<string, boolean>();
  return ({ hostname }) => {
    let decision = decided.get(hostname);
    if (decision === undefined) {
      decision = isInside(hostname);
      if (decided.size >= REMEMBERED_HOSTNAMES) decided.clear();
      decided.set(hostname, decision);
    }
    return decision;
  };
}

function belowPaths(prefixes: readonly string[]): Rule["passes"] {
  const paths = prefixes.flatMap((prefix) => canonicalPath(prefix) ?? []);
  return ({ key }) => {
    const pathAt = key.indexOf("/", key.indexOf("//") + 2);
    return paths.some((path) => {
      if (!key.startsWith(path, pathAt)) return false;
      const next = key[pathAt + path.length];
      return path.endsWith("/") || next === undefined || next === "/" || next === "?";
    });
  };
}

function acceptedTypes(types: readonly string[]): (contentType: string | undefined) => boolean {
  if (types.length === 0 || types.includes("*/*")) return () => true;
  const exact = new Set(types.map((type) => type.toLowerCase()));
  return (type) =>
    type === undefined || exact.has(type) || exact.has(`${type.slice(0, type.indexOf("/"))}/*`);
}

function hostnamesOf(seeds: readonly string[]): string[] {
  return seeds.flatMap((seed) => canonicalUrl(seed)?.hostname ?? []);
}

/** Scheme and host have no letter case, and URLs are compared in their canonical spelling. */
function globOverUrl(glob: string): (url: string) => boolean {
  return compileGlob(glob.replace(/^[A-Za-z]+:\/\/[^/]*/, (origin) => origin.toLowerCase()));
}
