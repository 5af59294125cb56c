import { CallError } from "../bus/index.js";
import { spiderDescription } from "../crawl/spider-manifest.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenBus } from "../protocol/index.js";
import type { Store, StoredVersion } from "../store/index.js";
import { RequestError } from "./errors.js";

export type SpiderDescriberParts = {
  readonly store: Pick<Store, "nodes" | "versions">;
  readonly bus: Pick<WarrenBus, "calls">;
  readonly logger: Logger;
};

/** Nodes that are asked, one after the other. */
const NODES_ASKED = 3;
/** Time for a node to fetch and load a spider, in milliseconds; it goes on if it takes longer. */
const ANSWER_TIMEOUT_MS = 20_000;

/**
 * Finds out what a module says of itself, its seeds and settings, when whoever uploaded it did not: masters run no
 * code, so a node is asked to load it. What it tells is stored with the version, once and for all.
 */
export class SpiderDescriber {
  readonly #parts: SpiderDescriberParts;
  readonly #asking = new Map<string, Promise<StoredVersion>>();

  constructor(parts: SpiderDescriberParts) {
    this.#parts = parts;
  }

  /**
   * The version with what is to be known of it.
   * @throws RequestError `unavailable` when no node can load it
   */
  async described(version: StoredVersion): Promise<StoredVersion> {
    if (version.isDescribed) return version;
    const key = `${version.name}:${version.version}`;
    let asking = this.#asking.get(key);
    if (asking === undefined) {
      asking = this.#ask(version).finally(() => this.#asking.delete(key));
      this.#asking.set(key, asking);
    }
    return asking;
  }

  async #ask({ name, version }: StoredVersion): Promise<StoredVersion> {
    const { store, bus, logger } = this.#parts;
    const which = `version ${version} of spider "${name}"`;
    const present = (await store.nodes.present()).map(({ id }) => id);
    const nodes = present.sort(() => Math.random() - 0.5).slice(0, NODES_ASKED);
    let why = "there is no node";
    for (const node of nodes) {
      try {
        const args = { spider: name, version, describe: true };
        const answer = await bus.calls.callNode(node, "sync-spider", args, { timeoutMs: ANSWER_TIMEOUT_MS });
        const described = spiderDescription.safeParse(answer.description ?? {});
        if (!described.success) {
          why = `node ${node} tells of it what is no description: ${messageOf(described.error)}`;
          continue;
        }
        await store.versions.describe(name, version, described.data);
        const known = await store.versions.get(name, version);
        if (known !== undefined) return known;
        why = "it was removed";
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        why = `node ${node}: ${error.message}`;
        logger.warn({ spider: name, version, node, error: error.message }, "a node could not load a spider");
        if (error.code !== "unavailable" && error.code !== "timeout") break;
      }
    }
    throw new RequestError("unavailable", `${which} was not loaded anywhere yet, and cannot be now: ${why}`);
  }
}
