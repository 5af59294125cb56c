import { compileGlob } from "../../crawl/urls/glob.js";
import { Expression } from "./expression.js";

export type UrlMatcher = (url: string) => boolean;

const DELIMITED = /^\/(?<body>(?!\*).+)\/(?<flags>i?)$/s;
/** What is in no URL as it is written canonically, or in none that a glob would be about. */
const IS_EXPRESSION = /\\|^\^|\$$|\.[*+]|[\])][*+?{]|\[[^\]]+\]|\([^)]*\|[^)]*\)/;
/** RE2's flag for letters of either case. */
const IGNORE_CASE = 1;

/**
 * A matcher for absolute URLs from one of:
 *
 * - `/…/` or `/…/i`, or a text that can only be one (`\.pdf$`, `page-[0-9]+`): a regular expression, sought anywhere;
 * - a text with `*`, which stands for any run: a glob over the whole URL, or, if it begins with `/`, over path and query;
 * - an absolute URL: that one; any other text: URLs that have it somewhere.
 *
 * @throws Error if it is a regular expression that cannot be compiled
 */
export function compileUrlPattern(pattern: string): UrlMatcher {
  const delimited = DELIMITED.exec(pattern)?.groups;
  // A star after a slash repeats nothing that anybody would want repeated: `/books/*/` is a glob.
  if (delimited !== undefined && !pattern.includes("/*")) {
    const expression = new Expression(delimited.body ?? "", delimited.flags === "i" ? IGNORE_CASE : 0);
    return (url) => expression.test(url);
  }
  if (!pattern.startsWith("*") && IS_EXPRESSION.test(pattern)) {
    const expression = new Expression(pattern);
    return (url) => expression.test(url);
  }
  if (!pattern.includes("*")) {
    return /^https?:\/\//i.test(pattern) ? (url) => url === pattern : (url) => url.includes(pattern);
  }
  const matches = compileGlob(pattern);
  return pattern.startsWith("/") ? (url) => matches(pathOf(url)) : matches;
}

/** Path and query of an absolute URL. */
function pathOf(url: string): string {
  const start = url.indexOf("/", url.indexOf("://") + 3);
  return start < 0 ? "/" : url.slice(start);
}
