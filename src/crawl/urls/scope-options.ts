import { RE2JS } from "re2js";
import { getDomain } from "tldts";
import { z } from "zod";
import { messageOf } from "../../lib/errors.js";
import { canonicalUrl } from "./url.js";

/**
 * Which URLs a crawl may fetch, member by member. A URL is in scope if nothing denies it and it meets every
 * member that is given; an empty list asks for nothing. Of a list one entry is enough.
 */
export type ScopeRules = {
  /** Globs over the whole URL as it is fetched, `*` standing for any run. @default [] */
  readonly allow?: readonly string[];
  /** Globs; one that matches denies. @default [] */
  readonly deny?: readonly string[];
  /** The seeds' host names, or their registrable domains. @default "any" */
  readonly within?: "host" | "domain" | "any";
  /** Host names, on any port: `example.com` itself, `*.example.com` all below it. @default [] */
  readonly hosts?: readonly string[];
  /** Registrable domains by the public suffix list, each with all below it. @default [] */
  readonly domains?: readonly string[];
  /** Paths with all below them, by whole segments: `/docs` has `/docs/a` and not `/docsets`. @default [] */
  readonly pathPrefixes?: readonly string[];
  /** RE2 expressions that match somewhere in the URL as it is fetched. @default [] */
  readonly allowPatterns?: readonly string[];
  /** RE2 expressions; one that matches denies. @default [] */
  readonly denyPatterns?: readonly string[];
  /**
   * MIME types a body may have by the server's word: `text/html`, `text/*`. Others are not read. One that
   * states none is, since nothing says what it is. @default []
   */
  readonly contentTypes?: readonly string[];
};

/** Which hosts and URLs a crawl may fetch. */
export type Scope = "host" | "domain" | "any" | ScopeRules;

const MAX_ENTRIES = 1_000;
const MAX_ENTRY_CHARACTERS = 2_048;
/** An expression's states grow with its length, and each costs memory in every process that has the crawl. */
const MAX_PATTERNS = 100;
const MAX_PATTERN_CHARACTERS = 1_000;
/**
 * Steps of a list's expressions in all, some 20 in an ordinary one. The time for a URL grows with its length and with
 * these: 1,000 steps take half a second for a URL of 8,000 characters that is made to hurt.
 */
const MAX_PATTERN_STEPS = 2_000;

/** A list whose entries must say something; `fault` tells what is wrong with one, if anything. */
function listOf(
  noun: string,
  fault: (entry: string) => string | undefined = () => undefined,
  most = MAX_ENTRIES,
  characters = MAX_ENTRY_CHARACTERS,
) {
  const entry = z
    .string()
    .min(1, "must not be empty")
    .max(characters, `must have at most ${characters} characters`)
    .superRefine((value, context) => {
      // Too long or too short was said already.
      const message = value === "" || value.length > characters ? undefined : fault(value);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    });
  return z.array(entry).max(most, `must be at most ${most} ${noun}`);
}

const globs = listOf("globs");
const patterns = listOf("expressions", patternFault, MAX_PATTERNS, MAX_PATTERN_CHARACTERS).superRefine(
  (expressions, context) => {
    const steps = expressions.reduce((sum, expression) => sum + stepsOf(expression), 0);
    if (steps <= MAX_PATTERN_STEPS) return;
    const message = `must have at most ${MAX_PATTERN_STEPS} steps in all, and have ${steps}: repetitions such as {1,500} count as often`;
    context.addIssue({ code: "custom", message });
  },
);

const scopeRules = z.strictObject({
  allow: globs.default([]),
  deny: globs.default([]),
  within: z.enum(["host", "domain", "any"]).exactOptional(),
  hosts: listOf("hosts", (host) =>
    hostnameOf(host.replace(/^\*\./, "")) === undefined ? 'must be a host name, or "*." and one' : undefined,
  ).exactOptional(),
  domains: listOf("domains", domainFault).exactOptional(),
  pathPrefixes: listOf("paths", (path) =>
    path.startsWith("/") && !/[?#]/.test(path) && canonicalPath(path) !== undefined
      ? undefined
      : 'must be a path that begins with "/", without a query',
  ).exactOptional(),
  allowPatterns: patterns.exactOptional(),
  denyPatterns: patterns.exactOptional(),
  contentTypes: listOf("types", (type) =>
    CONTENT_TYPE.test(type)
      ? undefined
      : 'must be a MIME type without parameters, or all of a kind ("text/*")',
  ).exactOptional(),
});

export const scopeOption = z.union([z.enum(["host", "domain", "any"]), scopeRules], {
  error: 'must be "host", "domain", "any" or an object of rules, such as "allow" and "deny"',
});

const CONTENT_TYPE = /^(?:\*\/\*|[\w!#$&^.+-]+\/(?:\*|[\w!#$&^.+-]+))$/;

/** A host name as URLs have it, in lower case and punycode; undefined when it is none, or has a port or a star. */
export function hostnameOf(text: string): string | undefined {
  if (/[/?#@\\\s*]/.test(text) || /:\d*$/.test(text.replace(/\[[^\]]*\]/, ""))) return undefined;
  return canonicalUrl(`http://${text}/`)?.hostname;
}

/** The registrable domain; an IP address, or a name without a public suffix, is its own. */
export function registrableDomain(hostname: string): string {
  return getDomain(hostname, { allowPrivateDomains: true }) ?? hostname;
}

/** A path in canonical form. */
export function canonicalPath(path: string): string | undefined {
  const url = canonicalUrl(`http://h${path}`);
  return url === undefined ? undefined : url.key.slice("http://h".length);
}

/** @throws Error saying what RE2 cannot make of it */
export function compilePattern(pattern: string): (url: string) => boolean {
  const expression = RE2JS.compile(pattern);
  return (url) => expression.test(url);
}

function patternFault(pattern: string): string | undefined {
  try {
    compilePattern(pattern);
    return undefined;
  } catch (error) {
    return `must be an expression that RE2 knows (linear time: no back-references, no look-around): ${messageOf(error)}`;
  }
}

/** 0 for what is no expression, which is refused for that. */
function stepsOf(pattern: string): number {
  try {
    return RE2JS.compile(pattern).programSize();
  } catch {
    return 0;
  }
}

function domainFault(domain: string): string | undefined {
  const hostname = hostnameOf(domain);
  if (hostname === undefined) return "must be a registrable domain";
  const registrable = registrableDomain(hostname);
  if (registrable === hostname) return undefined;
  return `must be a registrable domain: "${registrable}"; for less than all of it there is "hosts"`;
}
