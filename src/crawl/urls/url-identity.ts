import type { UrlRequest } from "../frontier.js";
import { compileGlob, type GlobMatcher } from "./glob.js";
import { type CanonicalUrl, fingerprint, urlId } from "./url.js";
import {
  DOUBTFUL_SESSION_PARAMETERS,
  SESSION_PARAMETERS,
  TRACKING_PARAMETERS,
  type UrlOptions,
} from "./url-options.js";

/** Of a path, `;jsessionid=…` and its like. */
const SESSION_IN_SEGMENT =
  /(?:;|%3B)(?:jsessionid|phpsessid|sessionid|session_id|sessid|sid)(?:=|%3D)[^/;]*/gi;
/** ASP.NET's `/(S(…))`, with which other things may stand. */
const SESSION_SEGMENT = /\/\((?:[A-Z]\([^()/]*\))+\)(?=\/)/gi;
const LOOKS_LIKE_SESSION = /^(?=.*\d)[\w-]{16,}$/;

/**
 * What names a URL within one crawl: whoever adds URLs to its frontier asks here, so that all agree on which
 * of them are the same.
 */
export class UrlIdentity {
  readonly #crawl: string;
  readonly #options: UrlOptions | undefined;
  readonly #isDropped: ((parameter: string) => boolean) | undefined;

  constructor(crawl: { readonly id: string; readonly urls?: UrlOptions }) {
    this.#crawl = crawl.id;
    this.#options = crawl.urls;
    this.#isDropped = crawl.urls === undefined ? undefined : droppedBy(crawl.urls);
  }

  /** The id of a URL of the crawl, in the frontier and everywhere else. */
  idOf(url: Pick<CanonicalUrl, "key">, request?: UrlRequest): string {
    return this.idOfKey(this.keyOf(url), request);
  }

  /** @param key what `keyOf` gave */
  idOfKey(key: string, request?: UrlRequest): string {
    return urlId(this.#crawl, fingerprint(key, request));
  }

  /** What is compared: the canonical form, less what the crawl's options take for meaningless. */
  keyOf({ key }: Pick<CanonicalUrl, "key">): string {
    const options = this.#options;
    if (options === undefined) return key;
    const queryAt = key.indexOf("?");
    let path = queryAt < 0 ? key : key.slice(0, queryAt);
    if (options.dropSessionIds === true) path = withoutSessionId(path);
    if (queryAt < 0) return path;
    const query = this.#queryOf(key.slice(queryAt + 1), options.sortQuery === true);
    return query === "" ? path : `${path}?${query}`;
  }

  #queryOf(query: string, isSorted: boolean): string {
    const isDropped = this.#isDropped;
    if (isDropped === undefined && !isSorted) return query;
    const parameters = query.split("&");
    const kept = isDropped === undefined ? parameters : parameters.filter((one) => !isDropped(one));
    if (!isSorted) return kept.length === parameters.length ? query : kept.join("&");
    return kept
      .filter((one) => one !== "")
      .map((one) => ({ one, name: encodedNameOf(one) }))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
      .map(({ one }) => one)
      .join("&");
  }
}

/** A path, with or without its origin, as it would be without a session's id. */
export function withoutSessionId(path: string): string {
  if (!path.includes(";") && !path.includes("(") && !path.includes("%3")) return path;
  return path.replace(SESSION_IN_SEGMENT, "").replace(SESSION_SEGMENT, "");
}

/** Whether a parameter (`name=value`) of a query is one of a session. */
export const isSessionParameter: (parameter: string) => boolean = sessionParameters();

/** Which parameters (`name=value`) mean nothing; undefined when all do. */
function droppedBy(options: UrlOptions): ((parameter: string) => boolean) | undefined {
  const own = (options.dropParameters ?? []).map(compileGlob);
  const isTracking = options.dropTracking === true ? namesOf(TRACKING_PARAMETERS) : undefined;
  const hasSessions = options.dropSessionIds === true;
  if (own.length === 0 && isTracking === undefined && !hasSessions) return undefined;
  return (parameter) => {
    const name = nameOf(parameter);
    if (own.some((matches) => matches(name))) return true;
    return isTracking?.(name.toLowerCase()) === true || (hasSessions && isSessionParameter(parameter));
  };
}

function sessionParameters(): (parameter: string) => boolean {
  const isSession = namesOf(SESSION_PARAMETERS);
  const doubtful = new Set(DOUBTFUL_SESSION_PARAMETERS);
  return (parameter) => {
    const name = nameOf(parameter).toLowerCase();
    if (isSession(name)) return true;
    return doubtful.has(name) && LOOKS_LIKE_SESSION.test(parameter.slice(parameter.indexOf("=") + 1));
  };
}

/** Names without stars are looked up, so that a long list costs no more than a short one. */
function namesOf(globs: readonly string[]): GlobMatcher {
  const exact = new Set(globs.filter((glob) => !glob.includes("*")));
  const matchers = globs.filter((glob) => glob.includes("*")).map(compileGlob);
  return (name) => exact.has(name) || matchers.some((matches) => matches(name));
}

function encodedNameOf(parameter: string): string {
  const end = parameter.indexOf("=");
  return end < 0 ? parameter : parameter.slice(0, end);
}

/** As the server reads it, if it can be read. */
function nameOf(parameter: string): string {
  const name = encodedNameOf(parameter);
  if (!name.includes("%") && !name.includes("+")) return name;
  try {
    return decodeURIComponent(name.replaceAll("+", " "));
  } catch {
    return name;
  }
}
