import { foreignCrawl } from "../support/foreign-crawl.js";

foreignCrawl(false);
