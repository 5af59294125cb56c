import type { Spider } from "../crawl/spider.js";
import { article } from "./article.js";
import { links } from "./links.js";
import { pdf } from "./pdf.js";

const BUNDLED: ReadonlyMap<string, Spider> = new Map<string, Spider>([
  [article.name, article],
  [links.name, links],
  [pdf.name, pdf],
]);

/** The spiders that come with Warren, by name. */
export const bundledSpiders = {
  get: (name: string): Spider | undefined => BUNDLED.get(name),
  has: (name: string): boolean => BUNDLED.has(name),
  list: (): readonly Spider[] => [...BUNDLED.values()],
};
