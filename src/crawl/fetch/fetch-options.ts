import { z } from "zod";
import type { RetryClass, RetryRule } from "../limits.js";
import { CONNECTION_HEADERS } from "./fetcher.js";
import { proxyOf } from "./proxies.js";

/** What is sent to one origin, and to no other. */
export type Credentials =
  | { readonly username: string; readonly password: string }
  | { readonly bearer: string }
  | { readonly headers: Readonly<Record<string, string>> };

/** How a crawl fetches, where it differs from the settings of the process. Every member may be left out. */
export type FetchOptions = {
  /** Sent with every request, whatever its host. Not for credentials: those are `auth`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** How requests name themselves. robots.txt is still asked in the name that the process has. */
  readonly userAgent?: string;
  /** By origin, such as `https://example.org`: what is sent there, and on no redirect elsewhere. */
  readonly auth?: Readonly<Record<string, Credentials>>;
  /** Whether cookies are kept and sent: a jar for the crawl in each worker, gone with the process. @default false */
  readonly cookies?: boolean;
  /** Whether HTTP/2 may be spoken. @default false */
  readonly http2?: boolean;
  /** http or https URLs of proxies, used in turn for each host. */
  readonly proxies?: readonly string[];
  /** From the start of a fetch to the end of its body, in milliseconds. */
  readonly timeoutMs?: number;
  /** Bytes of a page, on the wire and after decoding. */
  readonly maxPageBytes?: number;
  /** Redirects followed from one URL. */
  readonly maxRedirects?: number;
  /** Fetches of a URL that may fail before it counts as failed. */
  readonly maxAttempts?: number;
  /** By class of failure: how often and after how long it is tried again. */
  readonly retry?: { readonly [Class in RetryClass]?: RetryRule };
};

const DAY_MS = 86_400_000;
const MiB = 1_048_576;
const MAX_HEADERS = 50;
const MAX_ORIGINS = 1_000;
const MAX_PROXIES = 1_000;
const MASK = "***";

/** Headers that say who asks: they are for one origin, and not for each host that a crawl comes to. */
const CREDENTIAL_HEADERS = new Set(["authorization", "cookie"]);

function whole(least: number, most: number) {
  const bounds = `must be from ${least} to ${most}`;
  return z.int().min(least, bounds).max(most, bounds);
}

const headerValue = z
  .string()
  .max(8_192, "must have at most 8192 characters")
  // RFC 9110, 5.5; more than ISO 8859-1 cannot be sent.
  .regex(/^[\t\x20-\x7e\x80-\xff]*$/, "must be of printable characters of ISO 8859-1");

function headers(refused: ReadonlySet<string>, instead: string) {
  return z.record(z.string(), headerValue).superRefine((given, context) => {
    const names = Object.keys(given);
    if (names.length > MAX_HEADERS) {
      context.addIssue({ code: "custom", message: `must be at most ${MAX_HEADERS} headers` });
    }
    for (const name of names) {
      const fault = !/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/.test(name)
        ? "is not the name of a header"
        : CONNECTION_HEADERS.has(name.toLowerCase())
          ? "is for the connection to say, not for a crawl"
          : refused.has(name.toLowerCase())
            ? instead
            : undefined;
      if (fault !== undefined) context.addIssue({ code: "custom", path: [name], message: fault });
    }
  });
}

const secret = z.string().min(1, "must not be empty").max(4_096, "must have at most 4096 characters");

const credentials = z.union(
  [
    z.strictObject({
      // RFC 7617, 2: a colon would end the name.
      username: z
        .string()
        .max(1_024)
        .regex(/^[^:\p{Cc}]*$/u, "must have no colon and no control characters"),
      password: z
        .string()
        .max(4_096)
        .regex(/^\P{Cc}*$/u, "must have no control characters"),
    }),
    // RFC 6750, 2.1.
    z.strictObject({ bearer: secret.regex(/^[A-Za-z0-9\-._~+/]+=*$/, "must be a token of RFC 6750") }),
    z.strictObject({ headers: headers(new Set(), "") }),
  ],
  { error: 'must be an object of "username" and "password", of "bearer", or of "headers"' },
);

const auth = z
  .record(z.string(), credentials)
  .superRefine((given, context) => {
    const keys = Object.keys(given);
    if (keys.length > MAX_ORIGINS) {
      context.addIssue({ code: "custom", message: `must be at most ${MAX_ORIGINS} origins` });
    }
    for (const key of keys) {
      if (originOf(key) !== undefined) continue;
      const message = "must be an origin, such as https://example.org; a host alone means https";
      context.addIssue({ code: "custom", path: [key], message });
    }
  })
  .transform((given) =>
    Object.fromEntries(Object.entries(given).map(([key, value]) => [originOf(key) ?? key, value])),
  );

const proxy = z
  .string()
  .max(2_048, "must have at most 2048 characters")
  .refine(isProxyUrl, "must be the URL of a proxy, http://[user:password@]host:port or https://…");

const retryRule = z.strictObject({
  attempts: whole(1, 100).exactOptional(),
  delayMs: whole(0, DAY_MS).exactOptional(),
  maxDelayMs: whole(0, DAY_MS).exactOptional(),
});

/** As they come from outside. */
export const fetchOptions = z.strictObject({
  headers: headers(
    CREDENTIAL_HEADERS,
    'holds credentials: give it under "auth", for its origin',
  ).exactOptional(),
  userAgent: z
    .string()
    .max(500, "must have at most 500 characters")
    .regex(/^[\x21-\x7e][\x20-\x7e]*$/, "must be of printable ASCII characters")
    .exactOptional(),
  auth: auth.exactOptional(),
  cookies: z.boolean().exactOptional(),
  http2: z.boolean().exactOptional(),
  proxies: z.array(proxy).max(MAX_PROXIES, `must be at most ${MAX_PROXIES} proxies`).exactOptional(),
  timeoutMs: whole(100, DAY_MS).exactOptional(),
  maxPageBytes: whole(1_024, 256 * MiB).exactOptional(),
  maxRedirects: whole(0, 100).exactOptional(),
  maxAttempts: whole(1, 100).exactOptional(),
  retry: z
    .strictObject({
      network: retryRule.exactOptional(),
      dns: retryRule.exactOptional(),
      timeout: retryRule.exactOptional(),
      status429: retryRule.exactOptional(),
      status4xx: retryRule.exactOptional(),
      status5xx: retryRule.exactOptional(),
    } satisfies Record<RetryClass, unknown>)
    .exactOptional(),
});

/** The same without what must stay secret, to be shown: passwords, tokens, and the values of headers. */
export function withoutSecrets(options: FetchOptions): FetchOptions {
  const { headers: sent, auth: byOrigin, proxies, ...rest } = options;
  return {
    ...rest,
    ...(sent !== undefined && { headers: masked(sent) }),
    ...(byOrigin !== undefined && {
      auth: Object.fromEntries(Object.entries(byOrigin).map(([origin, one]) => [origin, maskedOne(one)])),
    }),
    ...(proxies !== undefined && { proxies: proxies.map((url) => proxyOf(url).label) }),
  };
}

function maskedOne(one: Credentials): Credentials {
  if ("bearer" in one) return { bearer: MASK };
  if ("headers" in one) return { headers: masked(one.headers) };
  return { username: one.username, password: MASK };
}

/** A header of any name may be a key to something. */
function masked(sent: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.keys(sent).map((name) => [name, MASK]));
}

/** Undefined when the text is neither an origin nor a host. */
function originOf(text: string): string | undefined {
  const url = /^https?:\/\//i.test(text) ? text : `https://${text}`;
  if (!URL.canParse(url)) return undefined;
  const { origin, pathname, search, hash, username, password } = new URL(url);
  const isBare = pathname === "/" && search === "" && hash === "" && username === "" && password === "";
  return isBare ? origin : undefined;
}

function isProxyUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, pathname, search, hash, username, password } = new URL(text);
  if (protocol !== "http:" && protocol !== "https:") return false;
  try {
    decodeURIComponent(username + password);
  } catch {
    return false;
  }
  return hostname !== "" && (pathname === "/" || pathname === "") && search === "" && hash === "";
}
