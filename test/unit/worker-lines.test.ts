import { describe, expect, it } from "vitest";
import type { CrawlLogLine } from "../../src/crawl/crawl-log.js";
import { LogRing } from "../../src/lib/log-ring.js";
import { createLogger } from "../../src/lib/logger.js";
import { WorkerLines } from "../../src/worker/crawl-log/worker-lines.js";

describe("what a worker says about a crawl", () => {
  it("is in the crawl's log from warnings on, and what it says otherwise is not", () => {
    const ring = new LogRing(10);
    const base = { role: "worker", node: "w1" };
    const logger = createLogger({ level: "debug", base, ring, destination: { write: () => {} } });
    const written: Omit<CrawlLogLine, "at">[] = [];
    const log = { write: (line: Omit<CrawlLogLine, "at">) => written.push(line) > 0 };
    const lines = new WorkerLines({ ring, log });
    lines.begin();
    logger.warn("no crawl");
    logger.info({ crawl: "c" }, "not of interest");
    logger.warn({ crawl: 7 }, "no crawl's id");
    logger.warn({ crawl: "c", url: "http://h/", tasks: 3 }, "could not vouch");
    lines.end();
    logger.error({ crawl: "c" }, "unheard");

    expect(written).toEqual([
      {
        crawl: "c",
        url: "http://h/",
        at: expect.any(Number),
        level: "warn",
        message: "could not vouch",
        fields: { tasks: 3 },
      },
    ]);
  });
});
