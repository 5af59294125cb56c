import type { CrawlRecord, RuleRecord } from "../store/index.js";
import { aboutCrawl, type Notice, nameOf } from "./notices.js";

/** URLs that must have ended before a share of them says something. */
const MIN_URLS = 20;

/**
 * What a crawl has crossed of a rule's thresholds, at this instant. Each has one key for as long as the crawl runs, so
 * that it is told once; a crawl that is opened again crosses them anew.
 */
export function crossingsOf(
  { thresholds = {} }: Pick<RuleRecord, "thresholds">,
  crawl: CrawlRecord,
  now: number,
): readonly Notice[] {
  const { id, status, generation, counts } = crawl;
  const { failedPercent, minUrls = MIN_URLS, noItems = false, durationMs } = thresholds;
  const isOver = status === "finished";
  const about = (kind: string, says: string): Notice => {
    const { data, ...rest } = aboutCrawl(crawl, status, now);
    return {
      key: `threshold:${kind}:${id}:${generation}`,
      event: "threshold",
      level: "warn",
      title: `Crawl ${nameOf(crawl)} ${says}`,
      ...rest,
      data: { threshold: kind, ...data },
    };
  };
  const crossed: Notice[] = [];
  const ended = counts.done + counts.failed;
  if (failedPercent !== undefined && ended > 0 && (isOver || ended >= minUrls)) {
    const percent = (100 * counts.failed) / ended;
    if (percent > failedPercent) {
      crossed.push(
        about(
          "failedPercent",
          `fails: ${counts.failed} of ${ended} URLs (${percent.toFixed(1)} %, more than ${failedPercent} %)`,
        ),
      );
    }
  }
  if (noItems && isOver && counts.items === 0) crossed.push(about("noItems", "has finished without an item"));
  if (durationMs !== undefined) {
    const tookMs = (crawl.finishedAt ?? now) - crawl.startedAt;
    if (tookMs > durationMs) {
      crossed.push(about("durationMs", `takes ${seconds(tookMs)} s, more than ${seconds(durationMs)} s`));
    }
  }
  return crossed;
}

/** There are more dead letters than a rule wants, for the so-and-so-many-th time. */
export function deadLettersCrossed(rule: RuleRecord, most: number, crossing: number, now: number): Notice {
  const { crawl } = rule.filter ?? {};
  return {
    key: `threshold:deadLetters:${crossing}`,
    event: "threshold",
    level: "warn",
    title: `There are more than ${most} dead letters${crawl === undefined ? "" : ` of crawl ${crawl}`}`,
    text: `More than ${most} messages were given up; they wait to be replayed or discarded.`,
    at: now,
    ...(crawl !== undefined && { crawl }),
    data: { threshold: "deadLetters", most, crawl: crawl ?? null },
  };
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(ms < 10_000 ? 1 : 0);
}
