import { MemoryCrawlStates } from "../../../src/crawl/memory-crawl-state.js";
import { crawlStateContract } from "../../support/crawl-state-contract.js";

crawlStateContract("MemoryCrawlStates", async () => ({
  states: new MemoryCrawlStates(),
  dispose: async () => {},
}));
