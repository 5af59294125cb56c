/** Loaded before a program (`node --import`): says at its end what it has used. */
import { writeSync } from "node:fs";

process.on("exit", () => {
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
  const usage = { cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakRssBytes: maxRSS * 1_024 };
  writeSync(2, `\nexit-usage ${JSON.stringify(usage)}\n`);
});
