import { crawlStateContract } from "../support/crawl-state-contract.js";
import { StoresUnderTest } from "../support/store-under-test.js";

crawlStateContract("MongoCrawlStates", async () => {
  const stores = new StoresUnderTest();
  const { states } = await stores.open();
  return { states, dispose: () => stores.dispose() };
});
