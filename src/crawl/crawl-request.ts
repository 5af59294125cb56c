import { z } from "zod";
import { type DuplicatesMode, duplicatesMode } from "./content-index.js";
import { type CrawlLimits, DEFAULT_POLITENESS, type Politeness } from "./crawl.js";
import { type FetchOptions, fetchOptions } from "./fetch/fetch-options.js";
import { type ItemOptions, itemOptions } from "./item-options.js";
import { type NodeSelection, nodeSelection } from "./node-selection.js";
import { type LinkOptions, linkOptions } from "./pages/link-options.js";
import { politeness } from "./politeness.js";
import { type RecrawlOptions, recrawlOptions } from "./recrawl-options.js";
import { type RenderOptions, renderOptions } from "./render/render-options.js";
import { type Scope, scopeOption } from "./urls/scope-options.js";
import { type UrlOptions, urlOptions } from "./urls/url-options.js";

/** Seeds, or added URLs, in one request at most. */
export const MAX_URLS_A_REQUEST = 10_000;
/** Characters of one URL. */
export const MAX_URL_CHARACTERS = 8_192;
const MAX_PARAMS_BYTES = 65_536;
const MAX_PARAMS_DEPTH = 32;
const DAY_MS = 86_400_000;

/** A URL as it is handed in: looked at more closely by whoever makes it canonical. */
const url = z
  .string()
  .min(1, "must not be empty")
  .max(MAX_URL_CHARACTERS, `must have at most ${MAX_URL_CHARACTERS} characters`);
/** Several of them. */
export const urlList = z.array(url).max(MAX_URLS_A_REQUEST, `must be at most ${MAX_URLS_A_REQUEST} URLs`);

/** A whole number within bounds, with a message that gives them. */
export function whole(least: number, most: number) {
  const bounds = `must be from ${least} to ${most}`;
  return z.int().min(least, bounds).max(most, bounds);
}

/** 0 (last) to 9 (first). */
export const priority = whole(0, 9);

/** The limits of a crawl, as they come from outside. */
export const crawlLimits = z.strictObject({
  maxDepth: whole(0, 1_000_000).exactOptional(),
  maxPages: whole(1, Number.MAX_SAFE_INTEGER).exactOptional(),
  maxDurationMs: whole(1, 3_650 * DAY_MS).exactOptional(),
  maxBytes: whole(1, Number.MAX_SAFE_INTEGER).exactOptional(),
});

export const spiderName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, "must be a spider's name: letters, digits, '.', '_' and '-'");

/** The number of a spider's version, from 1. */
export const versionNumber = z
  .string()
  .regex(/^[1-9]\d{0,8}$/, 'must be the number of a version, such as "1"');

const params = z.record(z.string(), z.unknown()).superRefine((value, context) => {
  if (depthOf(value, MAX_PARAMS_DEPTH) > MAX_PARAMS_DEPTH) {
    context.addIssue({ code: "custom", message: `must not be nested deeper than ${MAX_PARAMS_DEPTH}` });
  } else if (Buffer.byteLength(JSON.stringify(value)) > MAX_PARAMS_BYTES) {
    context.addIssue({ code: "custom", message: `must be at most ${MAX_PARAMS_BYTES} bytes of JSON` });
  } else if (hasNulKey(value)) {
    context.addIssue({ code: "custom", message: "must not have NUL characters in its members' names" });
  }
});

/** The members of a crawl, as they come from outside: in a request, a call, or a configuration file. */
export const crawlRequest = z.strictObject({
  name: z
    .string()
    .trim()
    .min(1, "must not be empty")
    .max(200, "must have at most 200 characters")
    .exactOptional(),
  spider: spiderName.default("links"),
  spiderVersion: versionNumber.exactOptional(),
  seeds: urlList.default([]),
  scope: scopeOption.default("host"),
  limits: crawlLimits.default({}),
  politeness: politeness.default(DEFAULT_POLITENESS),
  urls: urlOptions.exactOptional(),
  links: linkOptions.exactOptional(),
  fetch: fetchOptions.exactOptional(),
  priority: priority.default(5),
  recrawl: recrawlOptions.exactOptional(),
  duplicates: duplicatesMode.exactOptional(),
  items: itemOptions.exactOptional(),
  nodes: nodeSelection.default({ mode: "any", ids: [] }),
  archive: z.boolean().exactOptional(),
  render: renderOptions.exactOptional(),
  params: params.default({}),
});

const ofSpider = crawlRequest.pick({ spider: true, spiderVersion: true }).strip();

/** The spider of a crawl that someone asks for; undefined if what is there names none. */
export function spiderOf(
  request: unknown,
): { readonly spider: string; readonly spiderVersion?: string } | undefined {
  return ofSpider.safeParse(request).data;
}

/** What someone asks of a new crawl, defaults filled in. Its seeds and spider are not yet looked at. */
export type CrawlRequest = {
  readonly name?: string;
  readonly spider: string;
  /** @default the one that new crawls get */
  readonly spiderVersion?: string;
  readonly seeds: readonly string[];
  readonly scope: Scope;
  readonly limits: CrawlLimits;
  readonly politeness: Politeness;
  readonly urls?: UrlOptions;
  readonly links?: LinkOptions;
  readonly fetch?: FetchOptions;
  readonly priority: number;
  readonly recrawl?: RecrawlOptions;
  readonly duplicates?: DuplicatesMode;
  readonly items?: ItemOptions;
  readonly nodes: NodeSelection;
  readonly archive?: boolean;
  readonly render?: RenderOptions;
  readonly params: Readonly<Record<string, unknown>>;
};

/** The members of a request to add URLs to a crawl. */
export const addUrlsRequest = z.strictObject({
  urls: urlList.min(1, "must hold at least one URL"),
  depth: whole(0, 1_000_000).default(0),
  priority: priority.default(5),
});

export type AddUrlsRequest = {
  readonly urls: readonly string[];
  /** How many links away from a seed they count as. */
  readonly depth: number;
  /** Within the crawl. */
  readonly priority: number;
};

/** The members of a request to fetch URLs of a crawl again now: some, or all that ended so long ago. */
export const recrawlRequest = z
  .strictObject({
    urls: urlList.min(1, "must hold at least one URL").exactOptional(),
    olderThanMs: whole(0, 3_650 * DAY_MS).exactOptional(),
  })
  .refine(({ urls, olderThanMs }) => (urls === undefined) !== (olderThanMs === undefined), {
    message: 'must have either "urls" or "olderThanMs"',
  });

export type RecrawlRequest = { readonly urls?: readonly string[]; readonly olderThanMs?: number };

/**
 * How deep a JSON value nests, without recursion: the value may have been made to exhaust the stack.
 * @param enough looks no further than one level below this
 */
export function depthOf(value: unknown, enough: number): number {
  let depth = 0;
  let level: unknown[] = [value];
  while (level.length > 0 && depth <= enough) {
    level = level.flatMap((entry) =>
      typeof entry === "object" && entry !== null ? Object.values(entry) : [],
    );
    if (level.length > 0) depth += 1;
  }
  return depth;
}

/** MongoDB keeps no name with a NUL in it. Called when the depth is known to be bounded. */
function hasNulKey(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).some(([key, inner]) => key.includes("\0") || hasNulKey(inner));
}
