import path from "node:path";
import { pathToFileURL } from "node:url";

/** Environment for masters and workers that have the spider "chatty", which logs; see the program beside this. */
export const WITH_CHATTY_SPIDER = {
  NODE_OPTIONS: `--import=${pathToFileURL(path.join(import.meta.dirname, "chatty-spider.mjs")).href}`,
};
