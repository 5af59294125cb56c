import { Worker } from "node:worker_threads";
import { errorFacts, LEASH_FD, type LoadMessage, type ToProcess } from "./messages.js";
import { describeSpider, importSpider } from "./module-entry.js";
import { lendImports } from "./module-imports.js";
import { ProcessChannel } from "./process-channel.js";
import { SpiderJobs } from "./spider-jobs.js";

// The program of a process in which a user's module runs. It trusts the worker and nothing else; what becomes of it is
// for the worker to find out.

const maxBytes = Number(process.argv[2]);
process.title = `warren-spider ${process.argv[3] ?? ""}`;

const watchdog = new Worker(new URL("./watchdog.js", import.meta.url), {
  name: "watchdog",
  workerData: { leash: LEASH_FD, maxBytes },
  resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 },
  env: {},
  execArgv: [],
});
watchdog.unref();

let jobs: SpiderJobs | undefined;
const channel = new ProcessChannel(
  (message, body) => take(message, body),
  () => process.exit(0),
);

process.on("uncaughtException", (error) => {
  channel.send({ type: "uncaught", error: errorFacts(error), isRejection: false });
});
process.on("unhandledRejection", (reason) => {
  channel.send({ type: "uncaught", error: errorFacts(reason), isRejection: true });
});

function take(message: ToProcess, body: Buffer): void {
  switch (message.type) {
    case "load":
      void load(message);
      return;
    case "crawl":
      jobs?.know(message);
      return;
    case "job":
      jobs?.add(message, body);
      return;
    case "abort":
      jobs?.abort(message.id);
      return;
    case "end":
      process.exit(0);
      break;
    case "answer":
    case "refusal":
      return;
    default:
      message satisfies never;
  }
}

async function load({ entry, limits }: LoadMessage): Promise<void> {
  lendImports();
  try {
    const spider = await importSpider(entry);
    jobs = new SpiderJobs(spider, channel, limits);
    channel.send({ type: "loaded", description: describeSpider(spider) });
  } catch (error) {
    channel.send({ type: "unloadable", error: errorFacts(error) });
  }
}
