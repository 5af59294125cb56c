import type { HostileBehaviour } from "./hostile/behaviour.js";
import { CHARSETS } from "./hostile/charsets.js";
import { CODINGS } from "./hostile/codings.js";
import { CONNECTIONS } from "./hostile/connections.js";
import { FILES } from "./hostile/files.js";
import { MESSAGES } from "./hostile/messages.js";
import { PAGES } from "./hostile/pages.js";
import { REDIRECTS } from "./hostile/redirects.js";
import { ROBOTS } from "./hostile/robots.js";
import { STATUSES } from "./hostile/statuses.js";
import { TYPES } from "./hostile/types.js";

export type { ExpectedEnd, HostileBehaviour } from "./hostile/behaviour.js";

/**
 * What servers do to crawlers, and how a URL must end that meets it: by the standards, and by what
 * docs/reference/outcomes.md promises. Under HOSTILE_LIMITS, within HOSTILE_SCOPE.
 */
export const HOSTILE_BEHAVIOURS: readonly HostileBehaviour[] = [
  ...CONNECTIONS,
  ...MESSAGES,
  ...STATUSES,
  ...REDIRECTS,
  ...CODINGS,
  ...TYPES,
  ...CHARSETS,
  ...PAGES,
  ...FILES,
  ...ROBOTS,
];

/**
 * The crawls in which they are met: those that would last for ever by themselves, since a time limit that is soon over
 * is for them alone. Whatever else a busy machine makes of the others, they end by themselves.
 */
export const HOSTILE_CRAWLS = (["links", "pdf"] as const).flatMap((spider) =>
  [true, false].map((lasts) => ({
    name: `${spider}${lasts ? ", for ever" : ""}`,
    spider,
    fetchTimeoutMs: lasts ? 3_000 : 60_000,
    behaviours: HOSTILE_BEHAVIOURS.filter(
      (behaviour) => (behaviour.spider ?? "links") === spider && isLasting(behaviour) === lasts,
    ),
  })),
);

export type HostileCrawl = (typeof HOSTILE_CRAWLS)[number];

function isLasting({ ends, lasts = ends.reason === "timeout" }: HostileBehaviour): boolean {
  return lasts;
}

/** Short waits, and no large files. All else is as it comes. */
export const HOSTILE_LIMITS = {
  retryDelayMs: 600,
  maxRetryDelayMs: 1_500,
  maxFileBytes: 524_288,
} as const;

/** One fetch at a time on a host: those that send much do not do it all at once. */
export const HOSTILE_POLITENESS = { delayMs: 0, maxConcurrencyPerHost: 1, obeyRobots: true } as const;

/** Links into `/denied/` are out of scope. */
export const HOSTILE_SCOPE = { allow: [], deny: ["*/denied/*"] } as const;

/** The network that the site's hosts are in: the only one of this machine that may be fetched. */
export const HOSTILE_NETWORK = "127.77.0.0/16";
