import type { Spider } from "../crawl/spider.js";

/** The spiders that a crawl may name. */
export interface SpiderCatalog {
  has(name: string): boolean;
  get(name: string): Pick<Spider, "name" | "version" | "seeds"> | undefined;
  list(): readonly Pick<Spider, "name" | "version" | "seeds">[];
}
