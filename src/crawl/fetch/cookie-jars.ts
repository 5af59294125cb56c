import { LRUCache } from "lru-cache";
import { CookieJar, getPublicSuffix, MemoryCookieStore } from "tough-cookie";

/** Cookies of one site, all its hosts together, as RFC 6265, 6.1, asks of clients at least. */
const MAX_COOKIES_A_SITE = 50;
/** Characters of one `set-cookie`; a longer one is passed over, as browsers do (RFC 6265bis, 5.7). */
const MAX_COOKIE_CHARACTERS = 4_096;
/** `set-cookie` headers of one response that are looked at. */
const MAX_COOKIES_A_RESPONSE = 50;
/** Characters of cookies in one request; servers refuse more. */
const MAX_SENT_CHARACTERS = 8_192;
/** Sites whose cookies are kept; those of the one unused for longest go first. */
const MAX_SITES = 5_000;

/**
 * The cookies of one crawl in this process. Which host may set a cookie for which, and which request it goes with,
 * is tough-cookie's to say, by RFC 6265 and the public suffix list. Each site has a jar of its own: a site being a
 * registrable domain, no cookie is meant for two of them, and whole sites can be forgotten when there are too many.
 */
export class CookieJars {
  readonly #sites = new LRUCache<string, { readonly jar: CookieJar; readonly store: MemoryCookieStore }>({
    max: MAX_SITES,
  });

  /** What the `cookie` header for this URL says; undefined when there is nothing to send. */
  async headerFor(url: string): Promise<string | undefined> {
    const site = this.#sites.get(siteOf(url));
    if (site === undefined) return undefined;
    const cookies = await site.jar.getCookies(url);
    let header = "";
    for (const cookie of cookies) {
      const pair = cookie.cookieString();
      if (header.length + pair.length + 2 > MAX_SENT_CHARACTERS) continue;
      header += header === "" ? pair : `; ${pair}`;
    }
    return header === "" ? undefined : header;
  }

  /** Takes in what a response from this URL sets. What may not be set is passed over. */
  async take(url: string, setCookies: readonly string[]): Promise<void> {
    const key = siteOf(url);
    let site = this.#sites.get(key);
    if (site === undefined) {
      const store = new MemoryCookieStore();
      site = { store, jar: new CookieJar(store, { looseMode: true }) };
      this.#sites.set(key, site);
    }
    for (const text of setCookies.slice(0, MAX_COOKIES_A_RESPONSE)) {
      if (text.length > MAX_COOKIE_CHARACTERS) continue;
      await site.jar.setCookie(text, url, { ignoreError: true });
    }
    const all = await site.store.getAllCookies();
    // Oldest first, which is how the store gives them.
    for (const { domain, path, key: name } of all.slice(0, Math.max(0, all.length - MAX_COOKIES_A_SITE))) {
      await site.store.removeCookie(domain ?? "", path ?? "", name);
    }
  }
}

function siteOf(url: string): string {
  const { hostname } = new URL(url);
  return getPublicSuffix(hostname, { allowSpecialUseDomain: true, ignoreError: true }) ?? hostname;
}
