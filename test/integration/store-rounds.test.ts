import { roundsContract } from "../support/rounds-contract.js";
import { StoresUnderTest } from "../support/store-under-test.js";

roundsContract("UrlRounds", async () => {
  const stores = new StoresUnderTest();
  const { frontier, rounds, shardCount } = await stores.open();
  return { frontier, rounds, shardCount, dispose: () => stores.dispose() };
});
