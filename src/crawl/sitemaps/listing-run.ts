import type { Logger } from "../../lib/logger.js";
import type { Crawl } from "../crawl.js";
import type { Fetched } from "../fetch/fetcher.js";
import type { TaskLimits } from "../limits.js";
import type { LinkAdmission } from "../link-admission.js";
import type { Task } from "../task.js";
import type { Findings } from "../task-result.js";
import { type CanonicalUrl, canonicalUrl } from "../urls/url.js";
import {
  LISTING_START_BYTES,
  type ListedUrl,
  type ListingForm,
  listingForm,
  readListing,
} from "./listing.js";
import type { SitemapMark } from "./sitemap-options.js";

const FEED_FORMS: ReadonlySet<ListingForm> = new Set(["rss", "atom", "json"]);
/** Types under which sitemaps and feeds are sent. HTML is not looked at: nearly all pages are. */
const LISTING_TYPES =
  /^(?:(?:application|text)\/(?:xml|json|feed\+json|[\w.-]+\+xml|gzip|x-gzip|octet-stream|plain)|binary\/octet-stream)$/;

/**
 * The form of a response's body, if it is a list of URLs that its crawl reads; undefined for everything else, and at
 * no cost for crawls that read none.
 */
export async function listingFormOf(
  fetched: Fetched,
  task: Task,
  { links }: Crawl,
): Promise<ListingForm | undefined> {
  const mark = task.request?.sitemap;
  if (links === undefined || task.kind !== "page" || fetched.statusCode !== 200) return undefined;
  const { sitemaps = "off", feeds = false } = links;
  if (sitemaps === "off" && !feeds) return undefined;
  const { contentType } = fetched;
  const isSaidToBe = mark !== undefined || isSeed(task);
  if (!isSaidToBe && contentType !== undefined && !isListingType(contentType)) return undefined;
  // A seed is a list of lines if it looks like one; so is what was said to be a sitemap.
  const mayBeText = mark !== undefined || (isSeed(task) && contentType === "text/plain");
  const form = listingForm(await fetched.body.peek(LISTING_START_BYTES), mayBeText);
  if (form === undefined) return undefined;
  const isWanted = mark !== undefined || (FEED_FORMS.has(form) ? feeds : sitemaps !== "off");
  return isWanted ? form : undefined;
}

function isSeed({ parent, depth }: Task): boolean {
  return parent === undefined && depth === 0;
}

function isListingType(contentType: string): boolean {
  return contentType !== "application/xhtml+xml" && LISTING_TYPES.test(contentType);
}

export type ListingRunInput = {
  readonly task: Task;
  readonly crawl: Crawl;
  readonly admission: LinkAdmission;
  /** Takes the URLs. */
  readonly findings: Findings;
  readonly limits: TaskLimits;
  readonly logger: Logger;
};

/**
 * A sitemap or feed being read: what it lists goes to the frontier as links of its own, one deeper than it; sitemaps of
 * an index at its own depth.
 *
 * A sitemap may list pages of its own host in and below its own folder, or any of the host whose robots.txt named it
 * (sitemaps.org, "Sitemap file location"), or of its own host if it is a seed; an index any sitemap of its host. The scheme
 * may differ. All URLs in it are absolute. A feed may list anything, relative to itself. Both only find URLs: the crawl's
 * scope and depth decide about them as about any link.
 */
export class ListingRun {
  readonly #input: ListingRunInput;
  readonly #url: string;
  readonly #isFeed: boolean;
  readonly #form: ListingForm;
  /** Where a sitemap may list pages: host and folder, without the scheme. */
  readonly #folder: string;
  readonly #host: string;
  readonly #mark: SitemapMark;
  #refused = 0;

  /** @param url where it was found, after redirects */
  constructor(input: ListingRunInput, url: string, form: ListingForm) {
    this.#input = input;
    this.#url = url;
    this.#form = form;
    this.#isFeed = FEED_FORMS.has(form);
    const { host, hostname, pathname } = new URL(url);
    this.#host = host;
    this.#folder = `//${host}${pathname.slice(0, pathname.lastIndexOf("/") + 1)}`;
    this.#mark = input.task.request?.sitemap ?? {
      nesting: 0,
      // Whoever gives a sitemap as a seed speaks for its host.
      ...(isSeed(input.task) && { hostname }),
    };
  }

  /** @returns bytes read, unpacked. @throws FetchError what the body throws */
  async read(body: Fetched["body"]): Promise<number> {
    const { crawl, limits, logger } = this.#input;
    const { bytes, urls, cut } = await readListing(body.stream(Number.POSITIVE_INFINITY), {
      form: this.#form,
      extras: new Set(crawl.links?.alsoListed),
      maxUrls: limits.maxListedUrls,
      maxBytes: limits.maxListingBytes,
      onListed: (listed) => this.#take(listed),
    });
    const facts = { crawl: crawl.id, url: this.#url, form: this.#form, urls, refused: this.#refused };
    if (cut === undefined) logger.debug(facts, "read a list of URLs");
    else logger.warn({ ...facts, cut }, "read a list of URLs in part");
    return bytes;
  }

  #take({ url, kind, lastModified, priority }: ListedUrl): void {
    const { task, admission, findings } = this.#input;
    const target = canonicalUrl(url, this.#isFeed ? this.#url : undefined);
    if (target === undefined || !(this.#isFeed || this.#mayList(target, kind))) {
      this.#refused += 1;
      return;
    }
    if (kind === "sitemap") {
      this.#takeSitemap(target);
      return;
    }
    const lastmod = lastModified === undefined ? undefined : dateOf(lastModified);
    const wanted =
      lastmod === undefined && priority === undefined
        ? target.url
        : {
            url: target.url,
            ...(lastmod !== undefined && { meta: { lastmod } }),
            // 0.5, the middle of sitemaps.org, is our 5.
            ...(priority !== undefined && { priority: Math.round(priority * 9) }),
          };
    const link = admission.admit(wanted, kind, { url: this.#url, depth: task.depth }, target);
    if (link !== undefined) findings.links.set(link.id, link);
  }

  #takeSitemap(target: CanonicalUrl): void {
    const { task, admission, findings, limits } = this.#input;
    const nesting = this.#mark.nesting + 1;
    if (nesting > limits.maxSitemapNesting) {
      this.#refused += 1;
      return;
    }
    const link = admission.sitemapOf(target, task.depth, this.#url, { ...this.#mark, nesting });
    findings.links.set(link.id, link);
  }

  #mayList({ url, host, hostname }: CanonicalUrl, kind: ListedUrl["kind"]): boolean {
    // Images and videos are often kept elsewhere; the scope decides.
    if (kind === "file" || hostname === this.#mark.hostname) return true;
    if (kind === "sitemap") return host === this.#host;
    return url.startsWith(this.#folder, url.indexOf("//"));
  }
}

/** A date in ISO 8601; undefined when it cannot be read. */
function dateOf(written: string): string | undefined {
  const at = Date.parse(written);
  return Number.isNaN(at) ? undefined : new Date(at).toISOString();
}
