import type { Spider, SpiderSettings } from "../crawl/spider.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenBus } from "../protocol/index.js";
import type { Store } from "../store/index.js";
import { notFound, RequestError } from "./errors.js";

/** A spider that a crawl may name. */
export type KnownSpider = {
  readonly name: string;
  readonly version: string;
  readonly seeds: readonly string[];
  /** It runs as a whole instead of reading pages. */
  readonly runs: boolean;
  /** Its pages go to workers that are not Warren's, over a queue of their own. */
  readonly external: boolean;
  /** What its crawls are like where they do not say so themselves. */
  readonly settings?: SpiderSettings;
};

type SpiderFacts = Pick<Spider, "name" | "version" | "seeds" | "settings">;

/** The spiders that come with Warren. */
export interface BundledSpiders {
  get(name: string): SpiderFacts | undefined;
  list(): readonly SpiderFacts[];
}

export type SpiderCatalogParts = {
  readonly bundled: BundledSpiders;
  readonly store: Pick<Store, "spiders" | "crawls">;
  readonly bus: Pick<WarrenBus, "spiderQueues">;
  readonly logger: Logger;
};

/** The spiders that a crawl may name: those that come with Warren, and those that were put into the store. */
export class SpiderCatalog {
  readonly #parts: SpiderCatalogParts;

  constructor(parts: SpiderCatalogParts) {
    this.#parts = parts;
  }

  async get(name: string): Promise<KnownSpider | undefined> {
    const bundled = this.#parts.bundled.get(name);
    if (bundled !== undefined) return known(bundled);
    const stored = await this.#parts.store.spiders.get(name);
    return stored === undefined ? undefined : known(stored);
  }

  /** Those that come with Warren first. */
  async list(): Promise<readonly KnownSpider[]> {
    return [...this.#parts.bundled.list(), ...(await this.#parts.store.spiders.list())].map(known);
  }

  /**
   * Declares that the pages of this spider are read by workers that are not Warren's; their queue is there
   * when this resolves, unless RabbitMQ is away.
   * @throws RequestError `conflict` when a spider that comes with Warren has the name
   */
  async putExternal(name: string): Promise<{ readonly spider: KnownSpider; readonly isNew: boolean }> {
    this.#refuseBundled(name, "replaced");
    const { bus, store, logger } = this.#parts;
    const { spider, isNew } = await store.spiders.put(name);
    try {
      await bus.spiderQueues.open(name);
    } catch (error) {
      logger.warn({ spider: name, error: messageOf(error) }, "could not declare a spider's queue yet");
    }
    return { spider: known(spider), isNew };
  }

  /** @throws RequestError `not-found`; `conflict` while a crawl of it may go on, or when it comes with Warren */
  async remove(name: string): Promise<void> {
    this.#refuseBundled(name, "removed");
    const { bus, store, logger } = this.#parts;
    if ((await store.spiders.get(name)) === undefined) throw notFound("spider", name);
    const crawl = await store.crawls.openOf(name);
    if (crawl !== undefined) {
      throw new RequestError("conflict", `crawl "${crawl}" of spider "${name}" is not over: close it first`);
    }
    await store.spiders.remove(name);
    try {
      await bus.spiderQueues.drop(name);
    } catch (error) {
      logger.warn({ spider: name, error: messageOf(error) }, "could not delete a spider's queue");
    }
  }

  #refuseBundled(name: string, change: string): void {
    if (this.#parts.bundled.get(name) === undefined) return;
    throw new RequestError("conflict", `spider "${name}" comes with Warren and cannot be ${change}`);
  }
}

function known({
  name,
  version = "1",
  seeds = [],
  external = false,
  runs = false,
  settings,
}: SpiderFacts & { readonly external?: boolean; readonly runs?: boolean }): KnownSpider {
  return { name, version, seeds, runs, external, ...(settings !== undefined && { settings }) };
}
