import { LRUCache } from "lru-cache";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import { type Crawl, INBOX } from "./crawl.js";
import { LinkAdmission } from "./link-admission.js";
import type { Robots } from "./robots/robots.js";
import { SitemapDiscovery } from "./sitemaps/sitemap-discovery.js";

/** What decides about the URLs that a crawl's tasks find. */
export type Admission = { readonly links: LinkAdmission; readonly sitemaps: SitemapDiscovery };

export type LinkAdmissionsDeps = {
  readonly robots: Robots;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** Crawls of which is remembered what they have found. */
const MAX_CRAWLS = 16;

/** The admission of each crawl that was worked for lately. */
export class LinkAdmissions {
  readonly #deps: LinkAdmissionsDeps;
  readonly #rememberedUrls: number;
  /** By crawl and generation. */
  readonly #admissions = new LRUCache<string, Admission>({ max: MAX_CRAWLS });

  /** @param rememberedUrls of each crawl, at most */
  constructor(deps: LinkAdmissionsDeps, rememberedUrls: number) {
    this.#deps = deps;
    this.#rememberedUrls = rememberedUrls;
  }

  of(crawl: Crawl): Admission {
    const key = keyOf(crawl);
    let admission = this.#admissions.get(key);
    if (admission === undefined || admission.links.maxDepth !== crawl.limits.maxDepth) {
      // In the inbox each URL from outside is a crawl of its own, whose links are wanted whole.
      const rememberedUrls = crawl.id === INBOX ? 0 : this.#rememberedUrls;
      const { clock, logger, robots } = this.#deps;
      const links = new LinkAdmission(crawl, {
        rememberedUrls,
        now: () => clock.now(),
        onTrap: (trap) =>
          logger.warn(
            { crawl: crawl.id, ...trap },
            "links of this kind on this host are a trap, and skipped",
          ),
      });
      admission = { links, sitemaps: new SitemapDiscovery(robots, links) };
      this.#admissions.set(key, admission);
    }
    return admission;
  }

  /** Links that came out of this crawl were not stored: they must be let through again. */
  forget(crawl: Pick<Crawl, "id" | "generation">): void {
    const admission = this.#admissions.get(keyOf(crawl));
    admission?.links.forget();
    admission?.sitemaps.forget();
  }
}

function keyOf({ id, generation }: Pick<Crawl, "id" | "generation">): string {
  return `${id}:${generation}`;
}
