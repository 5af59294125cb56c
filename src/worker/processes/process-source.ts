import type { ProcessManifest } from "../../crawl/process-manifest.js";
import type { SpiderContext } from "../../crawl/spider.js";
import type { Clock } from "../../lib/clock.js";
import type { ChildProcesses } from "./child-processes.js";
import type { OpenMessage } from "./protocol.js";

export type ProcessSpidersDeps = {
  readonly children: Pick<ChildProcesses, "run">;
  readonly clock: Clock;
  /** The node's id. */
  readonly node: string;
};

export type ProcessSpidersOptions = {
  /** Items, requests and files from one page. @default 25_000 */
  readonly maxOutputs?: number;
  /** What a process logs in a second; what is more has to wait, and the process with it. @default 5_000 */
  readonly maxLogLinesPerSecond?: number;
};

export type ProcessSpiderSource = {
  /** Where it runs. */
  readonly folder: string;
  readonly manifest: ProcessManifest;
  readonly version: string;
  /** Besides that of its manifest, which goes before: where what was installed for it is found. */
  readonly env?: Readonly<Record<string, string>>;
};

type CrawlOfProcess = Pick<SpiderContext, "crawl" | "node">;

/** What a process of a spider finds in its environment. */
export function processEnvironment(
  { crawl, node }: CrawlOfProcess,
  { name, mode }: Pick<ProcessManifest, "name" | "mode">,
  version: string,
): Record<string, string> {
  return {
    WARREN_CRAWL_ID: crawl.id,
    WARREN_SPIDER: name,
    WARREN_VERSION: version,
    WARREN_NODE_ID: node,
    WARREN_PARAMS: JSON.stringify(crawl.params),
    WARREN_MODE: mode,
  };
}

/** What it is told first. */
export function openMessage(
  { crawl, node }: CrawlOfProcess,
  { name, mode }: Pick<ProcessManifest, "name" | "mode">,
  version: string,
): OpenMessage {
  return { type: "open", crawl: crawl.id, spider: name, version, node, params: crawl.params, mode };
}
