import { z } from "zod";

/** How a crawl treats what sites say to robots. */
export type RobotsPoliteness = {
  /**
   * Hosts whose robots.txt is neither asked nor obeyed, for one's own sites: `shop.example` on any port,
   * `shop.example:8080` on that one, `*.shop.example` for all names below it. @default []
   */
  readonly ignoreRobotsOn?: readonly string[];
  /**
   * Whether `X-Robots-Tag` and `<meta name="robots">`, or the `meta` of our own name, are obeyed: of a page with
   * `noindex` no item and no file is kept, from one with `nofollow` no request is followed. @default false
   */
  readonly obeyMetaRobots?: boolean;
};

const MAX_HOSTS = 1_000;

const hostPattern = z
  .string()
  .max(300, "must have at most 300 characters")
  .refine((pattern) => normalPattern(pattern) !== undefined, {
    error: 'must be a host name, perhaps with a port, or "*." and a host name',
  });

/** The members of a crawl's politeness that are about robots. */
export const robotsPoliteness = {
  ignoreRobotsOn: z
    .array(hostPattern)
    .max(MAX_HOSTS, `must be at most ${MAX_HOSTS} hosts`)
    .readonly()
    .exactOptional(),
  obeyMetaRobots: z.boolean().exactOptional(),
};

type HostSet = { readonly hosts: ReadonlySet<string>; readonly parents: ReadonlySet<string> };

/** By the list they were made of: a crawl's options do not change while it is held. */
const hostSets = new WeakMap<readonly string[], HostSet>();

/**
 * Whether robots.txt is asked and obeyed on a host.
 * @param host its name, with its port unless it is the scheme's own
 */
export function obeysRobots(
  { obeyRobots, ignoreRobotsOn }: RobotsPoliteness & { readonly obeyRobots: boolean },
  host: string,
): boolean {
  if (!obeyRobots) return false;
  if (ignoreRobotsOn === undefined || ignoreRobotsOn.length === 0) return true;
  const { hosts, parents } = hostSetOf(ignoreRobotsOn);
  const name = host.replace(/:\d+$/, "");
  if (hosts.has(host) || hosts.has(name)) return false;
  if (parents.size === 0) return true;
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    if (parents.has(name.slice(dot + 1))) return false;
  }
  return true;
}

function hostSetOf(patterns: readonly string[]): HostSet {
  let found = hostSets.get(patterns);
  if (found === undefined) {
    const hosts = new Set<string>();
    const parents = new Set<string>();
    for (const pattern of patterns) {
      const normal = normalPattern(pattern);
      if (normal?.startsWith("*.") === true) parents.add(normal.slice(2));
      else if (normal !== undefined) hosts.add(normal);
    }
    found = { hosts, parents };
    hostSets.set(patterns, found);
  }
  return found;
}

/** As hosts are written in canonical URLs; undefined when it is no host. */
function normalPattern(pattern: string): string | undefined {
  const wildcard = pattern.startsWith("*.") ? "*." : "";
  const host = pattern.slice(wildcard.length);
  if (host === "" || /[/?#@\\*\s]/.test(host)) return undefined;
  try {
    const { host: normal, port, hostname } = new URL(`http://${host}`);
    if (wildcard === "") return normal;
    return port === "" ? wildcard + hostname : undefined;
  } catch {
    return undefined;
  }
}
