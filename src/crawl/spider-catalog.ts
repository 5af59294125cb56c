import type { Spider } from "./spider.js";

/** Where an engine has its spiders from. */
export interface SpiderCatalog {
  /**
   * A spider, at once when it is at hand, or when its code was fetched and loaded; undefined when there is no such
   * spider, or no such version of it. Rejects with SpiderUnavailableError when it cannot be had here now.
   * @param version @default the one that is current; those that come with Warren have only that
   */
  get(name: string, version?: string): Spider | undefined | Promise<Spider | undefined>;
}
