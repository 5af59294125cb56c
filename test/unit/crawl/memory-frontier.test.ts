import { MemoryFrontier } from "../../../src/crawl/memory-frontier.js";
import { frontierContract } from "../../support/frontier-contract.js";
import { roundsContract } from "../../support/rounds-contract.js";

const setup = async () => {
  const frontier = new MemoryFrontier(64);
  return { frontier, rounds: frontier, shardCount: 64, dispose: async () => {} };
};

frontierContract("MemoryFrontier", setup);
roundsContract("MemoryFrontier", setup);
