import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const MOST_MS = 900_000;

/**
 * Runs the dispatcher in simulated time, each scenario in a process of its own, in turns.
 *
 * @param {{
 *   scenarios: string[], hosts: number, urls: number, rounds: number, dist: string, profileDir?: string,
 *   report: (line: string) => void, signal: AbortSignal,
 * }} options
 * @returns every run, in its order
 */
export async function benchDispatch({ scenarios, hosts, urls, rounds, dist, profileDir, report, signal }) {
  const runs = [];
  for (let round = 1; round <= rounds; round += 1) {
    for (const scenario of scenarios) {
      signal.throwIfAborted();
      const profiling = profileDir === undefined ? [] : ["--cpu-prof", "--cpu-prof-dir", profileDir];
      const size = ["--hosts", String(hosts), "--urls", String(urls), "--seed", String(round)];
      const { stdout } = await run(
        process.execPath,
        [
          ...profiling,
          path.join(import.meta.dirname, "dispatch-run.mjs"),
          ...["--scenario", scenario, "--dist", dist, ...size],
        ],
        { signal, timeout: MOST_MS, maxBuffer: 16 * 1_048_576 },
      );
      const figures = { scenario, round, ...JSON.parse(stdout) };
      runs.push(figures);
      report(
        `round ${round} of ${rounds}, ${scenario}: ${Math.round(figures.dispatched / figures.cpuSeconds)} URLs a second of CPU`,
      );
    }
  }
  return runs;
}
