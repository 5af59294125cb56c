import { LRUCache } from "lru-cache";
import { FetchError } from "../errors.js";
import type { FetchRoute } from "../fetch/fetcher.js";
import type { NewUrl } from "../frontier.js";
import type { LinkAdmission } from "../link-admission.js";
import type { Robots } from "../robots/robots.js";
import { canonicalUrl } from "../urls/url.js";

/** Hosts of one crawl of which is remembered that their sitemaps were found. */
const MAX_HOSTS = 20_000;

/**
 * Finds the sitemaps of the hosts that a crawl comes to: those that a host's robots.txt names, wherever they lie, or
 * `/sitemap.xml` when it names none. Each host is asked once; what came out of here must be stored, or `forget` called.
 */
export class SitemapDiscovery {
  readonly #robots: Pick<Robots, "sitemaps">;
  readonly #admission: LinkAdmission;
  readonly #known = new LRUCache<string, true>({ max: MAX_HOSTS });

  constructor(robots: Pick<Robots, "sitemaps">, admission: LinkAdmission) {
    this.#robots = robots;
    this.#admission = admission;
  }

  forget(): void {
    this.#known.clear();
  }

  /**
   * The sitemaps of a URL's host, if this is the first URL of it and its robots.txt can be had.
   * @param route how the host is reached, when not as all others are
   */
  async of(url: string, signal: AbortSignal, route?: FetchRoute): Promise<readonly NewUrl[]> {
    const { origin, hostname } = new URL(url);
    if (this.#known.has(origin)) return [];
    this.#known.set(origin, true);
    const named = await this.#named(url, signal, route);
    if (named === undefined) {
      this.#known.delete(origin);
      return [];
    }
    const sitemaps = named.length > 0 ? named : [`${origin}/sitemap.xml`];
    const mark = { nesting: 0, hostname };
    return sitemaps.flatMap((sitemap) => {
      const target = canonicalUrl(sitemap);
      return target === undefined ? [] : [this.#admission.sitemapOf(target, 0, `${origin}/robots.txt`, mark)];
    });
  }

  async #named(
    url: string,
    signal: AbortSignal,
    route: FetchRoute | undefined,
  ): Promise<readonly string[] | undefined> {
    try {
      return await this.#robots.sitemaps(url, signal, route);
    } catch (error) {
      // The host cannot be asked; its URLs end for the same reason.
      if (error instanceof FetchError) return undefined;
      throw error;
    }
  }
}
