import { CRAWL_LOG_LEVELS } from "../../crawl/crawl-log.js";
import type { LogRing } from "../../lib/log-ring.js";
import type { CrawlLog } from "./crawl-log.js";

const STARTS = ["warn", "error", "fatal"].map((level) => `{"level":"${level}"`);

/** Brings what the worker itself says about a crawl, from warnings on, into that crawl's log as well. */
export class WorkerLines {
  readonly #ring: LogRing;
  readonly #log: Pick<CrawlLog, "write">;
  #unfollow: () => void = () => {};

  constructor(parts: { readonly ring: LogRing; readonly log: Pick<CrawlLog, "write"> }) {
    this.#ring = parts.ring;
    this.#log = parts.log;
  }

  begin(): void {
    this.#unfollow = this.#ring.follow((line) => this.#take(line));
  }

  end(): void {
    this.#unfollow();
  }

  #take(text: string): void {
    if (!STARTS.some((start) => text.startsWith(start)) || !text.includes('"crawl":')) return;
    const {
      level,
      time,
      msg,
      crawl,
      url,
      role: _role,
      node: _node,
      ...fields
    }: Record<string, unknown> = JSON.parse(text);
    const known = CRAWL_LOG_LEVELS.find((one) => one === level);
    if (typeof crawl !== "string" || known === undefined) return;
    const at = Date.parse(String(time));
    this.#log.write({
      crawl,
      ...(typeof url === "string" && { url }),
      ...(Number.isFinite(at) && { at }),
      level: known,
      message: typeof msg === "string" ? msg : "",
      ...(Object.keys(fields).length > 0 && { fields }),
    });
  }
}
