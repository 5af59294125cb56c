import path from "node:path";
import { ProcessMeter } from "./process-meter.mjs";

const START_MS = 30_000;

/** The floor in one process or two: see floor.mjs. */
export async function runFloor({ children, site, pages, processes, dist, concurrency, profile, deadlineMs }) {
  const { seeds, hosts } = await site.open(pages);
  const program = path.join(import.meta.dirname, "floor.mjs");
  const role = processes === 2 ? ["with-peer"] : [];
  const child = children.start({
    name: `floor of ${processes}`,
    args: [...profile.flags(`floor${processes}`), program, dist, ...role],
    ipc: true,
  });
  try {
    const { peer } = await child.tells("listening", START_MS);
    const subjects = [
      { name: "worker 1", pid: child.pid },
      ...(peer === undefined ? [] : [{ name: "worker 2", pid: peer }]),
      { name: "site", pid: site.pid },
    ];
    const meter = new ProcessMeter(subjects);
    const finished = child.tells("finished", deadlineMs);
    child.send({ seeds, hosts, concurrency });
    const { at, pages: fetched } = await finished;
    const measured = meter.stop();
    const report = await site.report();
    const complaints = fetched === pages ? [] : [`${fetched} pages instead of ${pages}`];
    return { ...measured, report, finishedAt: at, complaints };
  } finally {
    if (child.process.connected) child.process.disconnect();
    await child.exits(START_MS).catch(() => child.stop("SIGKILL"));
  }
}
