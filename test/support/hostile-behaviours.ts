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

/** Short waits, so that a server that never answers is soon done with. All else is as it comes. */
export const HOSTILE_LIMITS = {
  fetchTimeoutMs: 6_000,
  connectTimeoutMs: 3_000,
  retryDelayMs: 600,
  maxRetryDelayMs: 1_500,
  maxFileBytes: 4 * 1_048_576,
} as const;

/** One fetch at a time on a host: those that send much do not do it all at once. */
export const HOSTILE_POLITENESS = { delayMs: 0, maxConcurrencyPerHost: 1, obeyRobots: true } as const;

/** Links into `/denied/` are out of scope. */
export const HOSTILE_SCOPE = { allow: [], deny: ["*/denied/*"] } as const;

/** The network that the site's hosts are in: the only one of this machine that may be fetched. */
export const HOSTILE_NETWORK = "127.77.0.0/16";
