import { z } from "zod";
import { type ListingOptions, listingOptions } from "../sitemaps/sitemap-options.js";
import { type TrapOptions, trapOptions } from "../urls/trap-options.js";

/**
 * Where a link stands. `anchor`: a, area. `frame`: frame, iframe. `refresh`: meta refresh. `next`, `alternate`,
 * `hreflang` (an alternate in another language), `canonical`: link elements, and `Link:` headers where these
 * are asked for. `form`: the action of a form that is sent by GET. `image`: img, source, input and video with
 * their `srcset` and `poster`. `embed`: scripts, style sheets, icons, objects, audio, video, tracks.
 */
export const LINK_KINDS = [
  "anchor",
  "frame",
  "refresh",
  "next",
  "alternate",
  "hreflang",
  "canonical",
  "form",
  "image",
  "embed",
] as const;
export type LinkKind = (typeof LINK_KINDS)[number];

/** What counts as a link on a crawl's pages. */
export type LinkOptions = ListingOptions & {
  /** Alternates of a page (`link rel=alternate` without a language: feeds, other formats). @default true */
  readonly alternates?: boolean;
  /** A page in other languages (`link rel=alternate hreflang=…`). @default true */
  readonly hreflang?: boolean;
  /** `Link:` headers, with the same relations as link elements (RFC 8288). @default false */
  readonly headers?: boolean;
  /**
   * `follow`: `link rel=canonical` is a link. `duplicate`: of the pages that name the same canonical URL the
   * first is kept, and the others are skipped as duplicates. @default "ignore"
   */
  readonly canonical?: "ignore" | "follow" | "duplicate";
  /** The actions of forms that are sent by GET. @default false */
  readonly forms?: boolean;
  /** Images, in all their sizes. @default false */
  readonly images?: boolean;
  /** What a browser loads to show a page: scripts, style sheets, icons, media. @default false */
  readonly embeds?: boolean;
  /** Links marked `nofollow`, by themselves or by their page, are links too. @default false */
  readonly followNofollow?: boolean;
  /** Links of traps are skipped; `false`: they are not; or from when on a link is one. @default true */
  readonly traps?: boolean | TrapOptions;
};

export const linkOptions = z.strictObject({
  alternates: z.boolean().exactOptional(),
  hreflang: z.boolean().exactOptional(),
  headers: z.boolean().exactOptional(),
  canonical: z.enum(["ignore", "follow", "duplicate"]).exactOptional(),
  forms: z.boolean().exactOptional(),
  images: z.boolean().exactOptional(),
  embeds: z.boolean().exactOptional(),
  followNofollow: z.boolean().exactOptional(),
  traps: trapOptions.exactOptional(),
  ...listingOptions,
});

/** A crawl's links, ready to be asked for every page. */
export type LinkPlan = {
  /** What is followed. */
  readonly followed: ReadonlySet<LinkKind>;
  /** What a page is scanned for: what is followed, and what is wanted to know. */
  readonly scanned: ReadonlySet<LinkKind>;
  readonly hasHeaders: boolean;
  readonly followsNofollow: boolean;
  readonly mergesCanonical: boolean;
};

/** What counts as a link where nothing else is said. */
export const DEFAULT_KINDS: ReadonlySet<LinkKind> = new Set([
  "anchor",
  "frame",
  "refresh",
  "next",
  "alternate",
  "hreflang",
]);

const DEFAULT_PLAN: LinkPlan = {
  followed: DEFAULT_KINDS,
  scanned: DEFAULT_KINDS,
  hasHeaders: false,
  followsNofollow: false,
  mergesCanonical: false,
};

/** By the options they were made of: a crawl has the same for all its pages. */
const plans = new WeakMap<LinkOptions, LinkPlan>();

export function linkPlanOf(options: LinkOptions | undefined): LinkPlan {
  if (options === undefined) return DEFAULT_PLAN;
  let plan = plans.get(options);
  if (plan === undefined) {
    plan = planOf(options);
    plans.set(options, plan);
  }
  return plan;
}

function planOf(options: LinkOptions): LinkPlan {
  const { alternates = true, hreflang = true, canonical = "ignore" } = options;
  const followed = new Set<LinkKind>(["anchor", "frame", "refresh", "next"]);
  if (alternates) followed.add("alternate");
  if (hreflang) followed.add("hreflang");
  if (canonical === "follow") followed.add("canonical");
  if (options.forms === true) followed.add("form");
  if (options.images === true) followed.add("image");
  if (options.embeds === true) followed.add("embed");
  return {
    followed,
    scanned: canonical === "duplicate" ? new Set<LinkKind>([...followed, "canonical"]) : followed,
    hasHeaders: options.headers === true,
    followsNofollow: options.followNofollow === true,
    mergesCanonical: canonical === "duplicate",
  };
}
