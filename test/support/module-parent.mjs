// A worker's stand-in: loads the module named on its command line, gives it pages that never end, and tells its
// processes' ids.
import path from "node:path";
import { PageView } from "../../dist/crawl/pages/page-view.js";
import { silentLogger } from "../../dist/lib/logger.js";
import { ModuleHost } from "../../dist/worker/modules/index.js";

const [entry = "", ...bodies] = process.argv.slice(2);
const host = new ModuleHost({ logger: silentLogger }, { processes: bodies.length });
const spider = await host.load({ folder: path.dirname(entry), entry: path.basename(entry) });
for (const body of bodies) {
  const page = new PageView({
    task: { depth: 0 },
    crawl: { id: "crawl", params: {} },
    url: "http://h/",
    status: 200,
    headers: {},
    contentType: undefined,
    body: Buffer.from(body),
    state: { set: async (_, pid) => process.stdout.write(`${pid}\n`) },
    documents: undefined,
    log: () => silentLogger,
    signal: new AbortController().signal,
  });
  void spider.parse(page)[Symbol.asyncIterator]().next();
}
