import { createHash } from "node:crypto";
import { SetupError } from "./setup-error.mjs";

const POLL_MS = 250;
/** For so long the API may fail on the way: a broker or a database may be restarted under a crawl. */
const PATIENCE_MS = 60_000;
const CLOSE_MS = 3_000;
/** Without a terminal: how often progress is said. */
const SAY_MS = 2_000;
const COUNTS = ["queued", "active", "done", "failed", "skipped", "items", "files"];
const SAMPLE = 3;
const SHOWN_PROBLEMS = 5;

/** A crawl that was started through the API and is watched until it is over. */
export class WatchedCrawl {
  #api;
  #report;
  #crawl;
  #isLeft = false;

  /**
   * Starts it.
   * @param {{ api: import("./api-client.mjs").ApiClient, report: import("./report.mjs").Report }} parts
   * @param {{ spider: string, seed: string }} options
   * @throws SetupError with the fields that were refused
   */
  static async start({ api, report }, { spider, seed }) {
    const { status, body } = await api.post("/api/v1/crawls", {
      spider,
      seeds: [seed],
      name: new URL(seed).host,
    });
    if (status !== 201) {
      const errors = (body.errors ?? []).map(({ field, message }) => `${field} ${message}`).join("; ");
      throw new SetupError(`the crawl was refused: ${errors || body.detail || body.title}`);
    }
    report(`Crawling ${seed} with the spider "${body.spider}" (crawl ${body.id})`);
    return new WatchedCrawl({ api, report }, body);
  }

  constructor({ api, report }, crawl) {
    this.#api = api;
    this.#report = report;
    this.#crawl = crawl;
  }

  get isFinished() {
    return this.#crawl.status === "finished";
  }

  get #isOver() {
    return this.#crawl.status !== "running" && this.#crawl.status !== "paused";
  }

  /**
   * Watches it no more: nothing that waits for its end hears of it again.
   * @param {{ andClose: boolean }} options to close it takes a few seconds at most, whether that works or not
   */
  async leave({ andClose }) {
    this.#isLeft = true;
    this.#report.status?.("crawl", undefined);
    if (!andClose || this.#isOver) return;
    const closed = this.#api.post(`/api/v1/crawls/${this.#crawl.id}/close`, {}).catch(() => {});
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, CLOSE_MS))]);
  }

  /** Shows how it goes; resolves when it is over, in whatever way. */
  async watch() {
    const startedAt = performance.now();
    const pace = new Pace();
    let last = { text: "", at: Number.NEGATIVE_INFINITY };
    for (;;) {
      await this.#look();
      const { counts } = this.#crawl;
      const isOver = this.#isOver;
      const now = performance.now();
      // It should fit into 80 columns.
      const parts = COUNTS.map((name) => `${name} ${counts[name]}`).join(" ");
      const text = `${pace
        .at(now, counts.done + counts.failed)
        .toFixed(1)
        .padStart(5)} pages/s  ${parts}`;
      if (this.#report.status !== undefined) this.#report.status("crawl", isOver ? undefined : text);
      else if (!isOver && parts !== last.text && now - last.at >= SAY_MS) {
        this.#report(text);
        last = { text: parts, at: now };
      }
      if (isOver) {
        const seconds = (now - startedAt) / 1_000;
        const rate = (counts.done + counts.failed) / Math.max(seconds, 0.001);
        this.#report(`${rate.toFixed(1).padStart(5)} pages/s  ${parts}`);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Asks how it stands, again and again if need be. */
  async #look() {
    const deadline = performance.now() + PATIENCE_MS;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const crawl = await this.#api.get(`/api/v1/crawls/${this.#crawl.id}`);
        if (this.#isLeft) return new Promise(() => {});
        this.#crawl = crawl;
        return;
      } catch (error) {
        if (this.#isLeft) return new Promise(() => {});
        if (performance.now() > deadline) throw error;
        if (attempt === 2) this.#report(`No answer yet, asking again (${error.message})`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /**
   * Whether each of these files was stored as it is.
   * @param {string} site
   * @param {readonly { path: string, sha256: string, bytes: number }[]} expected
   */
  async hasFiles(site, expected) {
    const stored = new Map();
    for await (const file of this.#api.list(`/api/v1/crawls/${this.#crawl.id}/files`))
      stored.set(file.url, file);
    let good = 0;
    for (const { path: place, sha256, bytes } of expected) {
      const file = stored.get(new URL(place, site).href);
      if (file === undefined) {
        this.#report(`PDF ${place}: was not stored`);
        continue;
      }
      const body = await this.#api.bytes(`/api/v1/files/${encodeURIComponent(file.id)}`);
      if (body.length === bytes && createHash("sha256").update(body).digest("hex") === sha256) good += 1;
      else
        this.#report(
          `PDF ${place}: what was stored (${body.length} bytes) is not what the site has (${bytes} bytes)`,
        );
    }
    this.#report(`PDFs: ${good} of the site's ${expected.length} are stored, byte for byte as it has them`);
    return good === expected.length;
  }

  /** Says how it ended, what it found, and where to look. */
  async summarize({ managementUrl }) {
    const { id, status, finishReason, startedAt, finishedAt, counts } = this.#crawl;
    const say = this.#report;
    const url = this.#api.url;
    const took = (Date.parse(finishedAt ?? new Date().toISOString()) - Date.parse(startedAt)) / 1_000;
    say(`\nThe crawl is ${status}${finishReason ? ` (${finishReason})` : ""} after ${took.toFixed(1)} s:`);
    say(
      `  ${COUNTS.slice(2)
        .map((name) => `${counts[name]} ${name}`)
        .join(", ")}, ${counts.bytes} bytes`,
    );
    const { items } = await this.#api.get(`/api/v1/crawls/${id}/items?limit=${SAMPLE}`);
    if (items.length > 0) say("Some of its items:");
    for (const item of items) say(`  ${item.url}  ${JSON.stringify(item.data)}`);
    await this.#sayProblems();
    say("Where to look:");
    say(`  dashboard  ${url}/`);
    if (managementUrl !== undefined) say(`  RabbitMQ   ${managementUrl}/ (guest, guest)`);
    say(`  files      ${url}/api/v1/crawls/${id}/files`);
    say(`  items      curl '${url}/api/v1/crawls/${id}/items?format=ndjson'`);
  }

  /** Says which URLs failed or were skipped, and why. */
  async #sayProblems() {
    const rows = [];
    for (const state of ["failed", "skipped"]) {
      if (this.#crawl.counts[state] === 0) continue;
      const { items } = await this.#api.get(
        `/api/v1/crawls/${this.#crawl.id}/urls?state=${state}&limit=${SHOWN_PROBLEMS}`,
      );
      rows.push(...items);
    }
    if (rows.length === 0) return;
    this.#report("Some of what failed or was skipped:");
    for (const { url, state, reason, statusCode } of rows.slice(0, SHOWN_PROBLEMS)) {
      const why = [reason, statusCode].filter((part) => part !== undefined).join(" ");
      this.#report(`  ${url}  ${state}${why && `: ${why}`}`);
    }
    if (rows.some(({ reason }) => reason === "address")) {
      this.#report("  (private addresses are fetched only if WARREN_ALLOWED_NETWORKS has their network)");
    }
  }
}

/** How fast a count grows, over the last few seconds. */
class Pace {
  static #WINDOW_MS = 3_000;
  #points = [];

  at(now, count) {
    this.#points.push({ now, count });
    while (this.#points.length > 2 && now - this.#points[0].now > Pace.#WINDOW_MS) this.#points.shift();
    const [first] = this.#points;
    return now === first.now ? 0 : ((count - first.count) * 1_000) / (now - first.now);
  }
}
