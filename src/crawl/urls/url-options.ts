import { z } from "zod";

/**
 * What a crawl takes for the same URL, beyond the canonical form. Nothing of this changes the URL that is
 * fetched: of several spellings of one URL, the first that is found is.
 */
export type UrlOptions = {
  /** The order of query parameters means nothing; that of parameters of the same name does. @default false */
  readonly sortQuery?: boolean;
  /** Names of query parameters that mean nothing, letter case counting, `*` for any run. @default [] */
  readonly dropParameters?: readonly string[];
  /** TRACKING_PARAMETERS mean nothing. @default false */
  readonly dropTracking?: boolean;
  /** Session ids mean nothing, in queries and in paths: see `SESSION_PARAMETERS`. @default false */
  readonly dropSessionIds?: boolean;
};

/**
 * Parameters that tell a site where a visitor came from, and nothing about the page. In lower case, any case
 * meant; `*` stands for any run.
 */
export const TRACKING_PARAMETERS: readonly string[] = [
  // Campaigns: Google Analytics, Matomo and Piwik, HubSpot, Mailchimp, Marketo, Adobe, Yandex.
  ...[
    "utm_*",
    "mtm_*",
    "pk_*",
    "piwik_*",
    "matomo_*",
    "hsa_*",
    "_hsenc",
    "_hsmi",
    "__hssc",
    "__hstc",
    "__hsfp",
  ],
  ...["hsctatracking", "mc_cid", "mc_eid", "mkt_tok", "s_cid", "_openstat", "_ga", "_gl", "ml_subscriber*"],
  ...["oly_anon_id", "oly_enc_id", "vero_id", "vero_conv", "wickedid", "rb_clickid", "irclickid"],
  // Clicks on advertisements and in social networks.
  ...["gclid", "gclsrc", "gbraid", "wbraid", "dclid", "gad_source", "gad_campaignid", "srsltid", "fbclid"],
  ...[
    "msclkid",
    "yclid",
    "ysclid",
    "ymclid",
    "twclid",
    "ttclid",
    "li_fat_id",
    "igshid",
    "igsh",
    "epik",
    "scclid",
  ],
];

/**
 * Parameters that hold a session's id, in lower case, any case meant. In paths they come after a semicolon
 * (`;jsessionid=1A2B`); besides, ASP.NET has segments like `/(S(1a2b3c))/`.
 */
export const SESSION_PARAMETERS: readonly string[] = [
  ...["phpsessid", "jsessionid", "aspsessionid*", "asp.net_sessionid", "cfid", "cftoken", "cfsessionid"],
  ...["oscsid", "zenid", "xtcsid", "modsid", "sessionid", "session_id", "sessid", "sess_id", "sid_session"],
];

/** The same, if their value looks like one: 16 or more letters, digits, `-` and `_`, with a digit. */
export const DOUBTFUL_SESSION_PARAMETERS: readonly string[] = ["sid", "s", "session", "sess"];

const MAX_DROPPED = 100;

export const urlOptions = z.strictObject({
  sortQuery: z.boolean().exactOptional(),
  dropParameters: z
    .array(z.string().min(1, "must not be empty").max(200, "must have at most 200 characters"))
    .max(MAX_DROPPED, `must be at most ${MAX_DROPPED} names`)
    .exactOptional(),
  dropTracking: z.boolean().exactOptional(),
  dropSessionIds: z.boolean().exactOptional(),
});
