import { processManifest } from "../../crawl/process-manifest.js";
import type { Spider } from "../../crawl/spider.js";
import type { Clock } from "../../lib/clock.js";
import { ConfigError } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { Service } from "../../lib/service.js";
import { compileSpider } from "../../spiders/declarative/index.js";
import type { Store } from "../../store/index.js";
import { ModuleHost, type ModuleSettings } from "../modules/index.js";
import { ChildProcesses, ProcessSpiders } from "../processes/index.js";
import { CodeCatalog, type SpiderMakers } from "./code-catalog.js";
import { Dependencies, type DependenciesOptions, environmentOf } from "./dependencies.js";
import { SpiderCode, type SpiderCodeOptions } from "./spider-code.js";
import { SpiderDirectory } from "./spider-directory.js";

export type NodeCodeOptions = {
  readonly node: string;
  /** Where it is kept, by this node only. */
  readonly folder: string;
  readonly code: Partial<SpiderCodeOptions>;
  readonly dependencies: Partial<DependenciesOptions>;
  readonly modules: Partial<ModuleSettings>;
};

export type NodeCodeDeps = {
  readonly store: Pick<Store, "spiders" | "versions" | "code">;
  readonly bundled: { get(name: string): Spider | undefined };
  readonly clock: Clock;
  readonly logger: Logger;
};

/** All that a node has to do with spiders' code: fetching it, installing what it needs, and making spiders of it. */
export class NodeCode implements Service {
  readonly name = "spiders' code";
  readonly catalog: CodeCatalog;
  readonly directory: SpiderDirectory;
  readonly bundled: NodeCodeDeps["bundled"];
  readonly #children: ChildProcesses;
  readonly #modules: ModuleHost;
  readonly #processes: ProcessSpiders;
  readonly #code: SpiderCode;

  constructor(
    { node, folder, code, dependencies, modules }: NodeCodeOptions,
    { store, bundled, clock, logger }: NodeCodeDeps,
  ) {
    this.bundled = bundled;
    this.#children = new ChildProcesses({ clock, logger });
    this.#modules = new ModuleHost({ logger }, modules);
    this.#processes = new ProcessSpiders({ children: this.#children, clock, node });
    this.directory = new SpiderDirectory({ spiders: store.spiders, clock });
    this.#code = new SpiderCode(
      {
        folder,
        contents: store.code,
        dependencies: new Dependencies(this.#children, dependencies),
        inUse: () => this.catalog.inUse,
        clock,
        logger,
      },
      code,
    );
    this.catalog = new CodeCatalog({
      ...{ bundled, clock, logger },
      directory: this.directory,
      versions: store.versions,
      code: this.#code,
      makers: this.#makers(),
    });
  }

  /** @throws ConfigError when the folder cannot be written */
  async start(): Promise<void> {
    await this.#children.start();
    try {
      await this.#code.start();
    } catch (error) {
      throw new ConfigError("--data-dir: spiders' code cannot be kept there", { cause: error });
    }
    await this.catalog.start();
  }

  /** Nothing may ask for spiders any more. */
  async stop(): Promise<void> {
    await this.#code.stop();
    await this.catalog.stop();
    await this.#processes.stop();
    await this.#modules.stop();
    await this.#children.stop();
  }

  #makers(): SpiderMakers {
    return {
      declarative: ({ name, version, manifest }) => ({
        spider: compileSpider({ ...manifest.declarative, name }, { version }),
      }),
      module: async ({ name, version, folder, manifest: { entry } }) => {
        const spider = await this.#modules.load({ folder, entry, name, version });
        const { seeds, settings, fileTypes, itemSchema } = spider.describe();
        return {
          spider,
          description: {
            ...(seeds !== undefined && { seeds }),
            ...(settings !== undefined && { settings }),
            ...(fileTypes !== undefined && { fileTypes }),
            ...(itemSchema !== undefined && { itemSchema }),
          },
          stop: () => spider.stop(),
        };
      },
      process: async ({ name, version, folder, manifest: { process: given } }) => {
        const manifest = processManifest.parse({ ...given, name });
        const source = { folder, version, manifest, env: await environmentOf(folder) };
        if (manifest.mode === "run") return { spider: this.#processes.loadRun(source) };
        const spider = await this.#processes.load(source);
        return { spider, stop: () => spider.stop() };
      },
    };
  }
}
