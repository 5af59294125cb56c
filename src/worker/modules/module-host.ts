import path from "node:path";
import type { Logger } from "../../lib/logger.js";
import type { Service } from "../../lib/service.js";
import { DEFAULT_MODULE_SETTINGS, type ModuleSettings } from "./module-settings.js";
import { ModuleSpider } from "./module-spider.js";
import { ProcessPool } from "./process-pool.js";

export type ModuleToLoad = {
  readonly folder: string;
  /** The file that exports the spider, within the folder. */
  readonly entry: string;
  /** The name that it goes by. @default what it calls itself */
  readonly name?: string;
  /** @default "1" */
  readonly version?: string;
};

/**
 * Loads users' modules, each of which runs in processes of its own: it can neither block nor end the worker, nor see what
 * the worker's environment holds.
 */
export class ModuleHost implements Service {
  readonly name = "module spiders";
  readonly #settings: ModuleSettings;
  readonly #logger: Logger;
  readonly #pools = new Set<ProcessPool>();
  #isStopped = false;

  constructor({ logger }: { readonly logger: Logger }, settings: Partial<ModuleSettings> = {}) {
    this.#logger = logger;
    this.#settings = { ...DEFAULT_MODULE_SETTINGS, ...settings };
  }

  /** Nothing yet: processes come with the modules. */
  async start(): Promise<void> {}

  /** @throws SpiderUnavailableError when it cannot be loaded, saying why; `retryable` unless the code is at fault */
  async load({ folder, entry, name, version = "1" }: ModuleToLoad): Promise<ModuleSpider> {
    const code = {
      name: name ?? path.parse(entry).name,
      version,
      folder,
      entry: path.resolve(folder, entry),
    };
    const pool = new ProcessPool(code, this.#settings, this.#logger);
    this.#pools.add(pool);
    try {
      const description = await pool.load();
      if (this.#isStopped) throw new Error("the program is ending");
      return new ModuleSpider({ ...code, name: name ?? description.name }, description, pool);
    } catch (error) {
      this.#pools.delete(pool);
      await pool.stop();
      throw error;
    }
  }

  /** Resolves when none of their processes is left. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all([...this.#pools].map((pool) => pool.stop()));
    this.#pools.clear();
  }
}
