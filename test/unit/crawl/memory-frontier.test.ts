import { MemoryFrontier } from "../../../src/crawl/memory-frontier.js";
import { frontierContract } from "../../support/frontier-contract.js";

frontierContract("MemoryFrontier", async () => ({
  frontier: new MemoryFrontier(64),
  shardCount: 64,
  dispose: async () => {},
}));
