import { LRUCache } from "lru-cache";
import { RecentKeys } from "../recent-keys.js";
import { type CalendarDate, calendarDateOf, ordinalOf } from "./calendar-date.js";
import { DistinctCounter } from "./distinct-counter.js";
import { DEFAULT_TRAPS, type TrapOptions } from "./trap-options.js";
import type { CanonicalUrl } from "./url.js";
import { isSessionParameter, withoutSessionId } from "./url-identity.js";

export const TRAP_KINDS = [
  "long-path",
  "repeating-path",
  "many-parameters",
  "calendar",
  "session-ids",
  "query-explosion",
  "path-explosion",
] as const;
export type TrapKind = (typeof TRAP_KINDS)[number];

export type Trap = {
  readonly kind: TrapKind;
  /** What of the URL is against the rule, and the option that sets it, for people. */
  readonly rule: string;
};

export type TrapGuardOptions = {
  readonly limits: TrapOptions;
  /** Session ids do not tell URLs apart in this crawl, so they cannot multiply them. */
  readonly ignoresSessions: boolean;
  /** In milliseconds since the epoch: what is far in the future depends on it. */
  readonly now: () => number;
};

/** What is remembered at most: URLs with session ids, paths with queries, of these those with many. */
const MAX_SESSION_URLS = 10_000;
const MAX_PATHS = 20_000;
const MAX_COUNTED_PATHS = 500;
/** Queries of a path from which on they are counted; before, no rule can be broken by much. */
const COUNTED_FROM = 100;
/** Parameters of a path of which values are counted. */
const MAX_COUNTED_PARAMETERS = 16;
/** Below, a product of few values is no explosion. */
const LEAST_QUERIES = 5_000;
/** The same of segments: sites of many pages by few numbers, as archives by day are, have them in paths. */
const LEAST_PATHS = 20_000;
/** Paths of fewer segments are not looked at for that. */
const DEEP_SEGMENTS = 4;
const MAX_COUNTED_HOSTS = 500;

/** The deep paths of one host. */
type HostPaths = { readonly paths: DistinctCounter; readonly segments: DistinctCounter };

/** The queries of one path. */
type PathQueries = {
  readonly queries: DistinctCounter;
  readonly nameSets: DistinctCounter;
  readonly values: Map<string, DistinctCounter>;
};

/**
 * Tells links that belong to a trap: URLs that a site, or a fault in one, makes without end. Asked for every link that
 * is new to the process, it must cost little and remember a bounded number of things.
 *
 * What looks at the URL alone (long paths, repetition, many parameters) says the same in every process. A calendar is
 * told by the step over its edge, from a page of a date within the years that are allowed to the same page of a date
 * beyond: so it depends on the page and the clock. Sessions and queries are counted in each process for itself, and
 * forgotten with it: as many times as many pass as there are processes.
 */
export class TrapGuard {
  readonly #limits: Required<TrapOptions>;
  readonly #ignoresSessions: boolean;
  readonly #now: () => number;
  readonly #sessions = new LRUCache<string, Set<string>>({ max: MAX_SESSION_URLS });
  /** How often a path was seen with a query. */
  readonly #paths = new RecentKeys(MAX_PATHS);
  readonly #counted = new LRUCache<string, PathQueries>({ max: MAX_COUNTED_PATHS });
  readonly #hosts = new LRUCache<string, HostPaths>({ max: MAX_COUNTED_HOSTS });

  constructor({ limits, ignoresSessions, now }: TrapGuardOptions) {
    this.#limits = { ...DEFAULT_TRAPS, ...limits };
    this.#ignoresSessions = ignoresSessions;
    this.#now = now;
  }

  /**
   * @param foundOn the URL of the page with the link
   * @returns undefined when the link belongs to no trap
   */
  trapOf({ key }: Pick<CanonicalUrl, "key">, foundOn: string): Trap | undefined {
    const pathAt = key.indexOf("/", key.indexOf("//") + 2);
    const queryAt = key.indexOf("?", pathAt);
    const path = queryAt < 0 ? key.slice(pathAt) : key.slice(pathAt, queryAt);
    const query = queryAt < 0 ? "" : key.slice(queryAt + 1);
    const segments = path.split("/");
    return (
      this.#inPath(segments) ??
      this.#amongPaths(key.slice(0, pathAt), path, segments) ??
      this.#inCalendar(key, pathAt, foundOn) ??
      this.#inQuery(key, query, queryAt) ??
      this.#inSessions(key, path, query)
    );
  }

  #inPath(segments: readonly string[]): Trap | undefined {
    const { segments: most, repeats } = this.#limits;
    // Before the first slash there is nothing.
    const length = segments.length - 1;
    if (length > most) return { kind: "long-path", rule: `${length} path segments (segments: ${most})` };
    if (length < repeats) return undefined;
    const run = repeatedRun(segments, repeats);
    return run === undefined ? undefined : { kind: "repeating-path", rule: `${run} (repeats: ${repeats})` };
  }

  /** Few segments that make many paths. */
  #amongPaths(origin: string, path: string, segments: readonly string[]): Trap | undefined {
    if (segments.length <= DEEP_SEGMENTS) return undefined;
    let host = this.#hosts.get(origin);
    if (host === undefined) {
      host = { paths: new DistinctCounter(), segments: new DistinctCounter() };
      this.#hosts.set(origin, host);
    }
    host.paths.add(path);
    for (let at = 1; at < segments.length; at += 1) host.segments.add(segments[at] ?? "");
    if (!host.paths.mayExceed(LEAST_PATHS)) return undefined;
    const { pathsPerSegment } = this.#limits;
    const paths = Math.round(host.paths.count);
    const different = Math.max(1, Math.round(host.segments.count));
    if (paths <= LEAST_PATHS || paths <= pathsPerSegment * different) return undefined;
    const rule = `about ${paths} paths of about ${different} segments (pathsPerSegment: ${pathsPerSegment})`;
    return { kind: "path-explosion", rule };
  }

  /** A page of one date leads to the same page of another, and that is too far away. */
  #inCalendar(key: string, pathAt: number, foundOn: string): Trap | undefined {
    const date = calendarDateOf(key.slice(pathAt));
    if (date === undefined || this.#isNear(date)) return undefined;
    const parentPathAt = foundOn.indexOf("/", foundOn.indexOf("//") + 2);
    if (key.slice(0, pathAt) !== foundOn.slice(0, parentPathAt)) return undefined;
    const parent = foundOn.slice(parentPathAt);
    const parentDate = calendarDateOf(parent);
    if (parentDate === undefined || shapeOf(parent) !== shapeOf(key.slice(pathAt))) return undefined;
    // From beyond, only what goes on into the future: old archives are big, and have pages of their own that list them.
    const goesOn =
      ordinalOf(date) > ordinalOf(parentDate) && date.year > new Date(this.#now()).getUTCFullYear();
    if (!this.#isNear(parentDate) && !(goesOn && isCertain(key.slice(pathAt)))) return undefined;
    const { futureYears, pastYears } = this.#limits;
    return {
      kind: "calendar",
      rule: `from ${textOf(parentDate)} to ${textOf(date)} (futureYears: ${futureYears}, pastYears: ${pastYears})`,
    };
  }

  #isNear(date: CalendarDate): boolean {
    const today = new Date(this.#now());
    const [year, month, day] = [today.getUTCFullYear(), today.getUTCMonth() + 1, today.getUTCDate()];
    const { futureYears, pastYears } = this.#limits;
    const at = ordinalOf(date);
    return (
      at <= ordinalOf({ year: year + futureYears, month, day }) &&
      at >= ordinalOf({ year: year - pastYears, month: 1, day: 1 })
    );
  }

  #inQuery(key: string, query: string, queryAt: number): Trap | undefined {
    if (query === "") return undefined;
    const parameters = query.split("&");
    const { parameters: most } = this.#limits;
    if (parameters.length > most) {
      const rule = `${parameters.length} query parameters (parameters: ${most})`;
      return { kind: "many-parameters", rule };
    }
    const path = key.slice(0, queryAt);
    const seen = (this.#paths.get(path) ?? 0) + 1;
    this.#paths.set(path, seen);
    const { queries, combinations, queriesPerValue } = this.#limits;
    if (seen <= Math.min(COUNTED_FROM, queries / 10, combinations / 10)) return undefined;
    const counted = this.#count(path, query, parameters);
    const count = Math.round(counted.queries.count);
    if (count > queries) return explosion(`about ${count} queries of one path (queries: ${queries})`);
    const sets = Math.round(counted.nameSets.count);
    if (sets > combinations) {
      return explosion(`about ${sets} sets of parameters of one path (combinations: ${combinations})`);
    }
    if (count <= LEAST_QUERIES) return undefined;
    const values = Math.round(Math.max(1, ...[...counted.values.values()].map((one) => one.count)));
    if (count <= queriesPerValue * values) return undefined;
    return explosion(
      `about ${count} queries of one path, no parameter with more than ${values} values (queriesPerValue: ${queriesPerValue})`,
    );
  }

  #count(path: string, query: string, parameters: readonly string[]): PathQueries {
    let counted = this.#counted.get(path);
    if (counted === undefined) {
      counted = { queries: new DistinctCounter(), nameSets: new DistinctCounter(), values: new Map() };
      this.#counted.set(path, counted);
    }
    counted.queries.add(query);
    const names: string[] = [];
    for (const parameter of parameters) {
      const end = parameter.indexOf("=");
      const name = end < 0 ? parameter : parameter.slice(0, end);
      names.push(name);
      let values = counted.values.get(name);
      if (values === undefined) {
        if (counted.values.size >= MAX_COUNTED_PARAMETERS) continue;
        values = new DistinctCounter();
        counted.values.set(name, values);
      }
      values.add(parameter);
    }
    counted.nameSets.add(names.sort().join("&"));
    return counted;
  }

  /** The same URL again and again, each time with another session's id. */
  #inSessions(key: string, path: string, query: string): Trap | undefined {
    if (this.#ignoresSessions) return undefined;
    const barePath = withoutSessionId(path);
    const parameters = query === "" ? [] : query.split("&");
    const bareParameters = parameters.filter((parameter) => !isSessionParameter(parameter));
    if (barePath === path && bareParameters.length === parameters.length) return undefined;
    const origin = key.slice(0, key.indexOf("/", key.indexOf("//") + 2));
    const bare = `${origin}${barePath}?${bareParameters.join("&")}`;
    const spellings = this.#sessions.get(bare) ?? new Set<string>();
    this.#sessions.set(bare, spellings);
    const { sessions } = this.#limits;
    if (spellings.has(key)) return undefined;
    if (spellings.size < sessions) {
      spellings.add(key);
      return undefined;
    }
    const rule = `more than ${sessions} session ids in one URL (sessions: ${sessions}; see urls.dropSessionIds)`;
    return { kind: "session-ids", rule };
  }
}

function explosion(rule: string): Trap {
  return { kind: "query-explosion", rule };
}

/**
 * What comes too often in a path, and how: a run of two or more segments `repeats` times in a row, a single one once
 * more (as in the paths of map tiles), or one anywhere twice as often.
 * @param segments the first is not looked at
 */
function repeatedRun(segments: readonly string[], repeats: number): string | undefined {
  const length = segments.length;
  for (let run = 1; run * repeats < length; run += 1) {
    const wanted = run === 1 ? repeats : run * (repeats - 1);
    let same = 0;
    for (let at = 1 + run; at < length; at += 1) {
      same = segments[at] === segments[at - run] ? same + 1 : 0;
      if (same < wanted) continue;
      const text = segments.slice(at - run + 1, at + 1).join("/");
      return `"${text}" ${run === 1 ? repeats + 1 : repeats} times in a row in the path`;
    }
  }
  if (length <= repeats * 2) return undefined;
  const counts = new Map<string, number>();
  for (let at = 1; at < length; at += 1) {
    const segment = segments[at] ?? "";
    const count = (counts.get(segment) ?? 0) + 1;
    if (count >= repeats * 2) return `"${segment}" ${count} times in the path`;
    counts.set(segment, count);
  }
  return undefined;
}

/** What is left of a path and query when its numbers and values are taken away. */
function shapeOf(target: string): string {
  const queryAt = target.indexOf("?");
  const path = (queryAt < 0 ? target : target.slice(0, queryAt)).replace(/\d+/g, "0");
  if (queryAt < 0) return path;
  const names = target
    .slice(queryAt + 1)
    .split("&")
    .map((parameter) => parameter.split("=", 1)[0] ?? "");
  return `${path}?${names.sort().join("&")}`;
}

/** A form of date that numbers of other things seldom have: 2099-05-12, or a year that is called so. */
function isCertain(target: string): boolean {
  return /(?<!\d)\d{4}([-/])\d\d(?:\1\d\d)?(?!\d)|[?&](?:year|yr|jahr|annee|ano|anno|jaar)=/i.test(target);
}

function textOf({ year, month, day }: CalendarDate): string {
  return `${year}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
}
