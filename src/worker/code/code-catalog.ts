import { SpiderUnavailableError } from "../../crawl/errors.js";
import type { Spider } from "../../crawl/spider.js";
import type { SpiderCatalog } from "../../crawl/spider-catalog.js";
import type { CodeKind, SpiderDescription } from "../../crawl/spider-manifest.js";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import { Loop } from "../../lib/loop.js";
import type { Service } from "../../lib/service.js";
import type { SpiderVersions } from "../../store/index.js";
import type { CodeReport, ReadyCode, SpiderCode } from "./spider-code.js";
import type { SpiderDirectory } from "./spider-directory.js";

/** A spider made of code, and what it says of itself if its manifest does not. */
export type MadeSpider = {
  readonly spider: Spider;
  readonly description?: SpiderDescription;
  /** Ends what it runs in. */
  readonly stop?: () => Promise<void>;
};

/** Who makes a spider of code, by its kind. @throws SpiderUnavailableError, or any error that says what is wrong */
export type SpiderMakers = Readonly<Record<CodeKind, (code: ReadyCode) => MadeSpider | Promise<MadeSpider>>>;

export type CodeCatalogDeps = {
  readonly bundled: { get(name: string): Spider | undefined };
  readonly directory: SpiderDirectory;
  readonly versions: Pick<SpiderVersions, "get">;
  readonly code: Pick<SpiderCode, "ready" | "report" | "prune">;
  readonly makers: SpiderMakers;
  readonly clock: Clock;
  readonly logger: Logger;
};

export type CodeCatalogOptions = {
  /** How long a spider that nothing asks for is kept loaded, in milliseconds. @default 600_000 */
  readonly idleMs: number;
  /** How often it is looked for those, and for code that nobody needs, in milliseconds. @default 60_000 */
  readonly lookEveryMs: number;
  /** How long a task waits for its spider's code, in milliseconds; below the time of a task. @default 100_000 */
  readonly patienceMs: number;
};

const DEFAULTS: CodeCatalogOptions = { idleMs: 600_000, lookEveryMs: 60_000, patienceMs: 100_000 };

type Loaded = MadeSpider & { usedAtMs: number };

/** A spider and one of its versions. */
export type Wanted = { readonly name: string; readonly version: string };

/** The spiders of a node of the cluster: those that come with Warren, and those whose code was put. */
export class CodeCatalog implements SpiderCatalog, Service {
  readonly name = "spiders";
  readonly #deps: CodeCatalogDeps;
  readonly #options: CodeCatalogOptions;
  readonly #loaded = new Map<string, Loaded>();
  readonly #loading = new Map<string, Promise<Loaded | undefined>>();
  #looking: Loop | undefined;
  #isStopped = false;

  constructor(deps: CodeCatalogDeps, options: Partial<CodeCatalogOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    this.#looking = new Loop(this.#options.lookEveryMs, this.#deps.clock, () => this.#look());
  }

  /** Nothing may ask for spiders any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#looking?.stop();
    await Promise.allSettled(this.#loading.values());
    await Promise.all([...this.#loaded.keys()].map((key) => this.#unload(key)));
  }

  /** Versions that are loaded, by `<name>:<version>`. */
  get inUse(): ReadonlySet<string> {
    return new Set([...this.#loaded.keys(), ...this.#loading.keys()]);
  }

  get(name: string, version?: string): Spider | undefined | Promise<Spider | undefined> {
    const bundled = this.#deps.bundled.get(name);
    if (bundled !== undefined) return bundled;
    if (version !== undefined) return this.#ofVersion({ name, version });
    const current = this.current(name);
    if (current instanceof Promise) return current.then((wanted) => wanted && this.#ofVersion(wanted));
    return current && this.#ofVersion(current);
  }

  /** The version that a spider has when none is named; undefined when no code has this name. */
  current(name: string): Wanted | undefined | Promise<Wanted | undefined> {
    const found = this.#deps.directory.get(name);
    return found instanceof Promise ? found.then(codeOf) : codeOf(found);
  }

  /**
   * Fetches a version, and installs what it needs.
   * @returns false when there is no such version
   * @throws SpiderUnavailableError
   */
  async sync({ name, version }: Wanted): Promise<boolean> {
    const stored = await this.#deps.versions.get(name, version);
    if (stored === undefined) return false;
    await this.#deps.code.ready(stored);
    return true;
  }

  /** How a version stands here. */
  report(wanted: Wanted): Promise<CodeReport> {
    return this.#deps.code.report(wanted);
  }

  /**
   * What a spider says of itself, once it is loaded.
   * @returns undefined when there is no such version
   * @throws SpiderUnavailableError
   */
  async describe(wanted: Wanted): Promise<SpiderDescription | undefined> {
    const loaded = await this.#load(wanted);
    return loaded && (loaded.description ?? describedBy(loaded.spider));
  }

  #ofVersion(wanted: Wanted): Spider | undefined | Promise<Spider | undefined> {
    const loaded = this.#loaded.get(keyOf(wanted));
    if (loaded === undefined) return this.#inTime(wanted);
    loaded.usedAtMs = this.#deps.clock.monotonic();
    return loaded.spider;
  }

  /** The code goes on coming when a task no longer waits for it. */
  async #inTime(wanted: Wanted): Promise<Spider | undefined> {
    const { clock } = this.#deps;
    const { patienceMs } = this.#options;
    let stopTimer = () => {};
    const late = new Promise<never>((_, reject) => {
      stopTimer = clock.after(patienceMs, () => {
        const which = `version ${wanted.version} of spider "${wanted.name}"`;
        reject(
          new SpiderUnavailableError(`${which} is not ready after ${patienceMs} ms: it is still coming`),
        );
      });
    });
    try {
      return (await Promise.race([this.#load(wanted), late]))?.spider;
    } finally {
      stopTimer();
    }
  }

  #load(wanted: Wanted): Promise<Loaded | undefined> {
    const key = keyOf(wanted);
    const known = this.#loaded.get(key);
    if (known !== undefined) return Promise.resolve(known);
    let loading = this.#loading.get(key);
    if (loading === undefined) {
      loading = this.#make(wanted).finally(() => this.#loading.delete(key));
      this.#loading.set(key, loading);
      // Whoever waits for it may have left.
      loading.catch(() => {});
    }
    return loading;
  }

  async #make(wanted: Wanted): Promise<Loaded | undefined> {
    const { versions, code, makers, clock } = this.#deps;
    const stored = await versions.get(wanted.name, wanted.version);
    if (stored === undefined) return undefined;
    const ready = await code.ready(stored);
    let made: MadeSpider;
    try {
      made = await makers[stored.kind](ready);
    } catch (error) {
      if (error instanceof SpiderUnavailableError) throw error;
      throw new SpiderUnavailableError(
        `version ${wanted.version} of spider "${wanted.name}" cannot be loaded: ${messageOf(error)}`,
        { cause: error, retryable: false },
      );
    }
    const loaded: Loaded = { ...made, usedAtMs: clock.monotonic() };
    if (this.#isStopped) {
      await made.stop?.();
      throw new SpiderUnavailableError("this node is stopping");
    }
    this.#loaded.set(keyOf(wanted), loaded);
    return loaded;
  }

  async #look(): Promise<void> {
    const { clock, code, logger } = this.#deps;
    const before = clock.monotonic() - this.#options.idleMs;
    for (const [key, { usedAtMs }] of this.#loaded) if (usedAtMs < before) await this.#unload(key);
    await code.prune().catch((error: unknown) => {
      logger.warn({ error: messageOf(error) }, "could not remove spiders' code that nobody needs");
    });
  }

  async #unload(key: string): Promise<void> {
    const loaded = this.#loaded.get(key);
    this.#loaded.delete(key);
    try {
      await loaded?.stop?.();
    } catch (error) {
      this.#deps.logger.warn({ spider: key, error: messageOf(error) }, "could not stop a spider cleanly");
    }
  }
}

function keyOf({ name, version }: Wanted): string {
  return `${name}:${version}`;
}

function codeOf(
  stored: { readonly name: string; readonly version: string; readonly kind: string } | undefined,
) {
  return stored === undefined || stored.kind === "external"
    ? undefined
    : { name: stored.name, version: stored.version };
}

function describedBy({ seeds, settings, fileTypes }: Spider): SpiderDescription {
  return {
    ...(seeds !== undefined && { seeds }),
    ...(settings !== undefined && { settings }),
    ...(fileTypes !== undefined && { fileTypes }),
  };
}
