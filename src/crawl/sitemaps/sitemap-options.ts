import { z } from "zod";

/** What of a sitemap or feed may be followed beside the pages it lists. */
export const LISTED_EXTRAS = ["images", "videos", "alternates", "enclosures"] as const;
export type ListedExtra = (typeof LISTED_EXTRAS)[number];

/** Which sitemaps a crawl reads. */
export const SITEMAP_USES = ["off", "met", "all"] as const;
export type SitemapUse = (typeof SITEMAP_USES)[number];

/** Which lists of URLs a crawl reads beside the links of its pages. */
export type ListingOptions = {
  /**
   * `met`: sitemaps that are seeds, or that pages link to, are read as such, and what they list is followed. `all`:
   * so are those that the robots.txt of each host in scope names, or `/sitemap.xml` when it names none; they are
   * fetched as URLs of the crawl. @default "off"
   */
  readonly sitemaps?: SitemapUse;
  /** RSS, Atom and JSON feeds are read as such, wherever they are met, and what they list is followed. @default false */
  readonly feeds?: boolean;
  /**
   * What is followed beside listed pages: a sitemap's images and videos and a feed's enclosures, as files, and a
   * sitemap's alternate pages in other languages. @default none
   */
  readonly alsoListed?: readonly ListedExtra[];
};

/** The members of a crawl's links that are about lists of URLs. */
export const listingOptions = {
  sitemaps: z.enum(SITEMAP_USES).exactOptional(),
  feeds: z.boolean().exactOptional(),
  alsoListed: z.array(z.enum(LISTED_EXTRAS)).max(LISTED_EXTRAS.length).readonly().exactOptional(),
};

/**
 * What marks a URL of the frontier as a sitemap, so that it is read as one whatever it looks like. Sitemaps that an
 * index lists inherit the host.
 */
export type SitemapMark = {
  /** How many indexes led to it. */
  readonly nesting: number;
  /** The host name whose robots.txt named it: it may list any of that host's URLs, wherever it lies itself. */
  readonly hostname?: string;
};
