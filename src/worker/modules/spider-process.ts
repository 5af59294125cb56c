import { Worker } from "node:worker_threads";
import { type ErrorFacts, errorFacts, LEASH_FD, type LoadMessage, type ToProcess } from "./messages.js";
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
      void end();
      return;
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
    channel.send({ type: "unloadable", error: withoutOwnLines(errorFacts(error)) });
  }
}

async function end(): Promise<void> {
  await jobs?.closeAll();
  await channel.flush();
  process.exit(0);
}

/** A stack with only that in it which the module's author can do something about. */
function withoutOwnLines({ stack, ...facts }: ErrorFacts): ErrorFacts {
  if (stack === undefined) return facts;
  const own = new URL(".", import.meta.url).href;
  const lines = stack.split("\n").filter((line) => !line.includes(own) && !line.includes("node:internal"));
  return { ...facts, stack: lines.join("\n").replace(/^Error: /, "") };
}
