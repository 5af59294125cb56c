import path from "node:path";

const START_MS = 30_000;

/** The synthetic site, served by a process of its own. */
export class ServedSite {
  #child;

  static async start(children) {
    const site = new ServedSite();
    const program = path.join(import.meta.dirname, "site-server.mjs");
    site.#child = children.start({ name: "site", args: [program], ipc: true });
    await site.#child.tells("listening", START_MS);
    return site;
  }

  get pid() {
    return this.#child.pid;
  }

  /** Serves a site of so many pages from now on, nothing of it asked for yet; resolves with its seeds. */
  async open(pages) {
    const opened = this.#child.tells("opened", START_MS);
    this.#child.send({ type: "open", pages });
    const { seeds } = await opened;
    return { seeds, hosts: [...new Set(seeds.map((seed) => new URL(seed).hostname))] };
  }

  /** Resolves at the first request. */
  begun(timeoutMs) {
    return this.#child.tells("begun", timeoutMs);
  }

  /** Resolves when every page was asked for. */
  complete(timeoutMs) {
    return this.#child.tells("complete", timeoutMs);
  }

  /** What was asked of it since it was opened. */
  async report() {
    const report = this.#child.tells("report", START_MS);
    this.#child.send({ type: "report" });
    return report;
  }

  stop() {
    return this.#child.stop();
  }
}

/**
 * What is wrong with what a crawl asked of the site: nothing, if each page was fetched once.
 * @returns {string[]}
 */
export function complaintsAbout(report) {
  const complaints = [];
  const { pages, fetches, missing, firstMissing, duplicates, firstDuplicate, unknown, firstUnknown } = report;
  if (missing > 0) complaints.push(`${missing} of ${pages} pages never fetched, such as ${firstMissing}`);
  if (duplicates > 0) {
    complaints.push(
      `${duplicates} pages fetched more than once (${fetches} fetches), such as ${firstDuplicate}`,
    );
  }
  if (unknown > 0) complaints.push(`${unknown} fetches of what is not there, such as ${firstUnknown}`);
  return complaints;
}
