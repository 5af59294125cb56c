import type { CommittedGroup } from "../../results/index.js";
import type { CrawlLog } from "./crawl-log.js";

type Context = { readonly task: { readonly url: string } };

/** Says in the logs of their crawls which pages failed because of their spider: for the one who wrote it. */
export function logSpiderFaults(
  log: Pick<CrawlLog, "write">,
  { members, applied }: Pick<CommittedGroup<Context>, "members" | "applied">,
): void {
  for (const { result, context } of members) {
    const { ending } = result;
    if (ending.state !== "failed" || ending.reason !== "spider-error" || !applied.has(ending.id)) continue;
    const { url } = context.task;
    const message = `the spider failed: ${ending.error ?? "it does not say how"}`;
    log.write({ crawl: ending.crawl, url, level: "error", message });
  }
}
