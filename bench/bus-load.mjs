/** What is sent in the measurements of the bus: the same for ours and for the bare loop. */

const CRAWL = "0192f0c1-7d3e-7aa0-8f5e-3b7b2f6a1c55";

/** A command with some arguments, and an answer of about the same size. */
export const COMMAND = "measure";
export const ARGS = {
  crawl: CRAWL,
  urls: ["https://example.org/a/page", "https://example.org/another/page"],
  reason: "measured by a benchmark",
  limit: 100,
};
export const RESULT = { aborted: ["https://example.org/a/page"], dropped: 3, crawl: CRAWL, tookMs: 1.25 };

/** A task as the dispatcher writes it, more or less. */
export const TASK = JSON.stringify({
  url: "https://example.org/a/page?with=a&query=string",
  crawl: CRAWL,
  spider: "links",
  depth: 3,
  priority: 5,
  meta: { parent: "https://example.org/" },
});

export const NODE = "node-0";
/** One that was there and is not any more, and one that never was. */
export const DEAD_NODE = "dead-node";
export const UNKNOWN_NODE = "unknown-node";

export const CALL_TIMEOUT_MS = 10_000;
/** As many calls of masters as a master of ours works on at once. */
export const MASTER_PREFETCH = 64;
export const TASK_PREFETCH = 256;

/** @throws when an answer is not the one that was to be given */
export function checkResult(result) {
  if (result?.dropped !== RESULT.dropped) throw new Error(`a wrong answer: ${JSON.stringify(result)}`);
}
