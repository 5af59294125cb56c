import path from "node:path";
import { ProcessMeter } from "./process-meter.mjs";

const START_MS = 30_000;

/** `node dist/worker.js --standalone` over the whole site. */
export async function runStandalone({ children, site, pages, dist, dataDir, profile, deadlineMs }) {
  const { seeds } = await site.open(pages);
  const begun = site.begun(deadlineMs);
  begun.catch(() => {});
  const child = children.start({
    name: "standalone",
    args: [
      ...profile.flags("standalone"),
      "--import",
      path.join(import.meta.dirname, "exit-usage.mjs"),
      path.join(dist, "worker.js"),
      "--standalone",
      ...["--spider", "links", "--output", "/dev/null", "--data-dir", path.join(dataDir, "standalone")],
      "--seed",
      ...seeds,
    ],
    env: { WARREN_ALLOWED_NETWORKS: "127.0.0.0/8", WARREN_LOG_LEVEL: "info" },
  });
  try {
    // It ends as soon as it is done, too soon for a last look from outside: it says itself what it used.
    const usage = child.says(/exit-usage (\{.*\})/, deadlineMs);
    const ended = child.says(/"queued":.*"msg":"crawl finished"/, deadlineMs).then((line) => ({
      line,
      finishedAt: Number(process.hrtime.bigint()),
    }));
    // Each is awaited below; until then, one that fails is no unhandled failure.
    usage.catch(() => {});
    ended.catch(() => {});
    await Promise.race([begun, ended]);
    const meter = new ProcessMeter([
      { name: "worker 1", pid: child.pid },
      { name: "site", pid: site.pid },
    ]);
    const startCpuSeconds = meter.cpuSecondsBefore("worker 1") ?? 0;
    const { line, finishedAt } = await ended;
    const measured = meter.stop();
    const { cpuSeconds, peakRssBytes } = JSON.parse(await usage);
    measured.processes["worker 1"] = { cpuSeconds: cpuSeconds - startCpuSeconds, peakRssBytes };
    const report = await site.report();
    const { code } = await child.exits(START_MS);
    const complaints = code === 0 ? [] : [`exit code ${code}`];
    const counts = Object.fromEntries(
      [...line.matchAll(/"(\w+)":(\d+)/g)].map(([, name, n]) => [name, Number(n)]),
    );
    if (counts.done !== pages || counts.items !== pages) {
      complaints.push(`${counts.done} done and ${counts.items} items instead of ${pages}`);
    }
    return { ...measured, report, finishedAt, complaints };
  } finally {
    await child.stop("SIGKILL");
  }
}
