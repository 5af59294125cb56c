import type { Bundle } from "../crawl/bundles/bundle.js";
import type { Spider, SpiderSettings } from "../crawl/spider.js";
import type { SpiderKind } from "../crawl/spider-manifest.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenBus } from "../protocol/index.js";
import type {
  ListOptions,
  ListPage,
  Store,
  StoredSpider,
  StoredVersion,
  VersionRow,
} from "../store/index.js";
import { notFound, RequestError } from "./errors.js";
import { SpiderDescriber } from "./spider-describer.js";

/** A spider that a crawl may name. */
export type KnownSpider = {
  readonly name: string;
  readonly kind: SpiderKind;
  readonly version: string;
  readonly seeds: readonly string[];
  /** It runs as a whole instead of reading pages. */
  readonly runs: boolean;
  /** Its pages go to workers that are not Warren's, over a queue of their own. */
  readonly external: boolean;
  readonly description?: string;
  /** What its crawls are like where they do not say so themselves. */
  readonly settings?: SpiderSettings;
  /** Of its code: the sorted list of its files. */
  readonly sha256?: string;
};

type SpiderFacts = Pick<Spider, "name" | "version" | "seeds" | "settings">;

/** The spiders that come with Warren. */
export interface BundledSpiders {
  get(name: string): SpiderFacts | undefined;
  list(): readonly SpiderFacts[];
}

export type SpiderCatalogParts = {
  readonly bundled: BundledSpiders;
  readonly store: Pick<Store, "spiders" | "versions" | "crawls" | "nodes" | "serverClock">;
  readonly bus: Pick<WarrenBus, "spiderQueues" | "calls">;
  readonly logger: Logger;
};

/** The spiders that a crawl may name: those that come with Warren, and those that were put into the store. */
export class SpiderCatalog {
  readonly #parts: SpiderCatalogParts;
  readonly #describer: SpiderDescriber;

  constructor(parts: SpiderCatalogParts) {
    this.#parts = parts;
    this.#describer = new SpiderDescriber(parts);
  }

  async get(name: string): Promise<KnownSpider | undefined> {
    const bundled = this.#parts.bundled.get(name);
    if (bundled !== undefined) return ofBundled(bundled);
    const stored = await this.#parts.store.spiders.get(name);
    if (stored === undefined) return undefined;
    if (stored.kind === "external") return ofExternal(stored);
    return ofVersion(await this.version(name, stored.version));
  }

  /** Those that come with Warren first. */
  async list(): Promise<readonly KnownSpider[]> {
    const { bundled, store } = this.#parts;
    const stored = await store.spiders.list();
    const current = await store.versions.getMany(stored.filter(({ kind }) => kind !== "external"));
    const byName = new Map(current.map((version) => [version.name, version]));
    const known = stored.flatMap((spider) => {
      if (spider.kind === "external") return [ofExternal(spider)];
      const version = byName.get(spider.name);
      return version === undefined ? [] : [ofVersion(version)];
    });
    return [...bundled.list().map(ofBundled), ...known];
  }

  /**
   * A spider as a new crawl gets it: of the current version, or of one that it names.
   * @throws RequestError `unavailable` when nobody has loaded its code yet, and nobody can
   */
  async forCrawl(name: string, version?: string): Promise<KnownSpider | undefined> {
    const { store, bundled } = this.#parts;
    const stored = bundled.get(name) === undefined ? await store.spiders.get(name) : undefined;
    if (stored === undefined || stored.kind === "external") {
      return version === undefined ? this.get(name) : undefined;
    }
    const found = await store.versions.get(name, version ?? stored.version);
    return found === undefined ? undefined : ofVersion(await this.#describer.described(found));
  }

  /**
   * Declares that the pages of this spider are read by workers that are not Warren's; their queue is there
   * when this resolves, unless RabbitMQ is away.
   * @throws RequestError `conflict` when a spider that comes with Warren, or code, has the name
   */
  async putExternal(name: string): Promise<{ readonly spider: KnownSpider; readonly isNew: boolean }> {
    this.#refuseBundled(name, "replaced");
    const { bus, store, logger } = this.#parts;
    const { spider, isNew } = await store.spiders.putExternal(name);
    try {
      await bus.spiderQueues.open(name);
    } catch (error) {
      logger.warn({ spider: name, error: messageOf(error) }, "could not declare a spider's queue yet");
    }
    return { spider: ofExternal(spider), isNew };
  }

  /**
   * Keeps code as the next version of its spider, and tells the nodes of it.
   * @throws RequestError `conflict` when a spider that comes with Warren has the name; ConflictError when an external has
   */
  async putCode(bundle: Bundle): Promise<StoredVersion> {
    const { store } = this.#parts;
    this.#refuseBundled(bundle.manifest.name, "replaced");
    const version = await store.versions.put(bundle);
    await this.#tellNodes(version.name, version.version);
    return version;
  }

  /** Makes a version the one that new crawls get. @throws RequestError, NotFoundError */
  async rollBack(name: string, version: string): Promise<KnownSpider> {
    await this.#findCode(name);
    const found = await this.#parts.store.versions.rollBack(name, version);
    await this.#tellNodes(name, version);
    return ofVersion(found);
  }

  /** Newest first. @throws RequestError `not-found` when there is no code of this name */
  async versions(name: string, options: ListOptions): Promise<ListPage<VersionRow & { isCurrent: boolean }>> {
    const { version } = await this.#findCode(name);
    const { items, next } = await this.#parts.store.versions.list(name, options);
    return { items: items.map((row) => ({ ...row, isCurrent: row.version === version })), next };
  }

  /** @throws RequestError `not-found` */
  async version(name: string, version: string): Promise<StoredVersion> {
    const found = await this.#parts.store.versions.get(name, version);
    if (found === undefined) throw notFound(`version of spider "${name}"`, version);
    return found;
  }

  /** What to compare: the current version, or another, with the highest one below it. @throws RequestError `not-found` */
  async lastChange(
    name: string,
    given: { readonly from?: string; readonly to?: string },
  ): Promise<{ readonly from: string; readonly to: string }> {
    const to = given.to ?? (await this.#findCode(name)).version;
    const from = given.from ?? (await this.#parts.store.versions.before(name, to));
    if (from === undefined) throw notFound(`version of spider "${name}" before`, to);
    return { from, to };
  }

  /** @throws RequestError `conflict` when it is the current one, or a crawl is pinned to it; NotFoundError */
  async removeVersion(name: string, version: string): Promise<void> {
    const { store } = this.#parts;
    await this.#findCode(name);
    const crawl = await store.crawls.pinnedTo(name, version);
    if (crawl !== undefined) {
      const message = `crawl "${crawl}" is pinned to version ${version} of spider "${name}": purge it first`;
      throw new RequestError("conflict", message);
    }
    await store.versions.remove(name, version);
  }

  /** @throws RequestError `not-found`; `conflict` while a crawl of it may go on, or when it comes with Warren */
  async remove(name: string): Promise<void> {
    this.#refuseBundled(name, "removed");
    const { bus, store, logger } = this.#parts;
    const stored = await store.spiders.get(name);
    if (stored === undefined) throw notFound("spider", name);
    const crawl = await store.crawls.openOf(name);
    if (crawl !== undefined) {
      throw new RequestError("conflict", `crawl "${crawl}" of spider "${name}" is not over: close it first`);
    }
    await store.spiders.remove(name, store.serverClock.now());
    if (stored.kind !== "external") return store.versions.removeAll(name);
    try {
      await bus.spiderQueues.drop(name);
    } catch (error) {
      logger.warn({ spider: name, error: messageOf(error) }, "could not delete a spider's queue");
    }
  }

  async #findCode(name: string): Promise<StoredSpider> {
    const stored = await this.#parts.store.spiders.get(name);
    if (stored === undefined || stored.kind === "external") throw notFound("code of a spider", name);
    return stored;
  }

  /** So that they have it before they need it; those that do not hear of it fetch it when they do. */
  async #tellNodes(spider: string, version: string): Promise<void> {
    try {
      await this.#parts.bus.calls.broadcast("sync-spider", { spider, version });
    } catch (error) {
      this.#parts.logger.warn(
        { spider, version, error: messageOf(error) },
        "could not tell nodes of a version",
      );
    }
  }

  #refuseBundled(name: string, change: string): void {
    if (this.#parts.bundled.get(name) === undefined) return;
    throw new RequestError("conflict", `spider "${name}" comes with Warren and cannot be ${change}`);
  }
}

function ofBundled({ name, version = "1", seeds = [], settings }: SpiderFacts): KnownSpider {
  return {
    ...{ name, kind: "bundled", version, seeds, runs: false, external: false },
    ...(settings !== undefined && { settings }),
  };
}

function ofExternal({ name, version }: StoredSpider): KnownSpider {
  return { name, kind: "external", version, seeds: [], runs: false, external: true };
}

function ofVersion({ name, kind, version, sha256, manifest }: StoredVersion): KnownSpider {
  const { seeds = [], settings, description, process: ofProcess } = manifest;
  const runs = ofProcess?.mode === "run";
  return {
    ...{ name, kind, version, seeds, runs, external: false, sha256 },
    ...(description !== undefined && { description }),
    ...(settings !== undefined && { settings }),
  };
}
