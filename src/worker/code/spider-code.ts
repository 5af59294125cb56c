import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, open, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Readable } from "node:stream";
import { SpiderUnavailableError } from "../../crawl/errors.js";
import type { SpiderManifest } from "../../crawl/spider-manifest.js";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { Service } from "../../lib/service.js";
import type { SyncState } from "../../protocol/index.js";
import type { StoredFile, StoredVersion } from "../../store/index.js";
import { bytesIn, CodeFolders, type ReadyMark, sha256OfFile } from "./code-folders.js";
import type { Dependencies } from "./dependencies.js";
import { endOf, InstallLog } from "./install-log.js";

/** A version of a spider that is on this node's disk, whole and with its dependencies. */
export type ReadyCode = {
  readonly name: string;
  readonly version: string;
  readonly folder: string;
  readonly manifest: SpiderManifest;
};

/** How a version stands here. */
export type CodeReport = {
  readonly state: SyncState;
  readonly install?: { readonly log: string; readonly tookMs?: number };
  readonly error?: string;
};

export type SpiderCodeOptions = {
  /** Newest versions of each spider that are kept, whether or not they are used. @default 3 */
  readonly keptVersions: number;
  /** Disk that all of it may take, dependencies included. @default 4 GiB */
  readonly maxBytes: number;
};

export const DEFAULT_SPIDER_CODE: SpiderCodeOptions = { keptVersions: 3, maxBytes: 4 * 2 ** 30 };

export type SpiderCodeDeps = {
  /** A folder of this node's own: `<data directory>/<namespace>/<node>/spiders` */
  readonly folder: string;
  readonly contents: { open(contentId: string): Promise<Readable> };
  readonly dependencies: Dependencies;
  /** Versions that must stay, by `<name>:<version>`. */
  readonly inUse: () => ReadonlySet<string>;
  readonly clock: Clock;
  readonly logger: Logger;
};

type Failure = {
  readonly message: string;
  readonly log: string;
  readonly pauseMs: number;
  readonly until: number;
};

/** Files that are fetched at once. */
const FILES_AT_ONCE = 4;
/** What failed to install is not tried again before this, doubled each time. */
const FIRST_PAUSE_MS = 15_000;
const LONGEST_PAUSE_MS = 600_000;
const LOG_TOLD_CHARACTERS = 16_384;
const LOG_IN_ERROR_CHARACTERS = 1_000;
const MAX_FAILURES = 100;

/**
 * The code of spiders on this node's disk. A version is fetched when it is needed, file by file, each checked by its
 * sum; whoever needs it at the same time waits for the same fetch. It gets its place in one step when all of it is
 * there; then its dependencies are installed, once; then it is marked, and only what is marked is used. So a process
 * may be killed at any byte: what has no mark is removed at the next start.
 *
 * What is on the disk already is read through when this process uses it for the first time; if it is no longer what
 * it was, it is fetched again.
 */
export class SpiderCode implements Service {
  readonly name = "spider code";
  readonly #deps: SpiderCodeDeps;
  readonly #options: SpiderCodeOptions;
  readonly #folders: CodeFolders;
  readonly #ready = new Map<string, { readonly code: ReadyCode; readonly mark: ReadyMark }>();
  readonly #preparing = new Map<string, { state: SyncState; readonly done: Promise<ReadyCode> }>();
  readonly #failures = new Map<string, Failure>();
  readonly #stopping = new AbortController();
  /** What is about to be there and has no mark yet, in bytes. */
  readonly #coming = new Map<string, number>();
  /** Room is made for one after the other. */
  #roomMaking: Promise<unknown> = Promise.resolve();

  constructor(deps: SpiderCodeDeps, options: Partial<SpiderCodeOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULT_SPIDER_CODE, ...options };
    this.#folders = new CodeFolders(deps.folder);
  }

  async start(): Promise<void> {
    await this.#folders.removeLeftovers();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([...this.#preparing.values()].map(({ done }) => done));
  }

  /**
   * Sees to it that a version is here.
   * @throws SpiderUnavailableError when it cannot be had, or its dependencies not be installed
   */
  async ready(version: StoredVersion): Promise<ReadyCode> {
    const key = keyOf(version);
    const known = this.#ready.get(key);
    if (known !== undefined && known.mark.sha256 === version.sha256) return known.code;
    const under = this.#preparing.get(key);
    if (under !== undefined) return under.done;
    const failure = this.#failures.get(key);
    if (failure !== undefined && this.#deps.clock.monotonic() < failure.until) {
      throw new SpiderUnavailableError(failure.message);
    }
    const preparing = { state: "fetching" as SyncState, done: this.#prepare(version) };
    this.#preparing.set(key, preparing);
    try {
      return await preparing.done;
    } finally {
      this.#preparing.delete(key);
      this.#coming.delete(key);
    }
  }

  /** How a version stands here; nothing is fetched for that. */
  async report({ name, version }: { readonly name: string; readonly version: string }): Promise<CodeReport> {
    const key = keyOf({ name, version });
    const preparing = this.#preparing.get(key);
    if (preparing !== undefined) return { state: preparing.state };
    const failure = this.#failures.get(key);
    if (failure !== undefined) {
      return { state: "failed", error: failure.message, install: { log: failure.log } };
    }
    const mark = await this.#folders.markOf(name, version);
    if (mark === undefined) return { state: "missing" };
    const log = await this.#folders.installLogOf(name, version);
    if (log === undefined) return { state: "ready" };
    const { installTookMs: tookMs } = mark;
    return {
      state: "ready",
      install: { log: endOf(log, LOG_TOLD_CHARACTERS), ...(tookMs !== undefined && { tookMs }) },
    };
  }

  /** Removes versions that nobody here needs any more. */
  async prune(): Promise<void> {
    await this.#makeRoom();
  }

  async #prepare(version: StoredVersion): Promise<ReadyCode> {
    const { clock, logger } = this.#deps;
    const { name, version: number } = version;
    const key = keyOf(version);
    try {
      const mark = (await this.#onDisk(version)) ?? (await this.#fetchAndInstall(version));
      const code = {
        name,
        version: number,
        folder: this.#folders.of(name, number),
        manifest: version.manifest,
      };
      this.#ready.set(key, { code, mark });
      this.#failures.delete(key);
      return code;
    } catch (error) {
      const message = `version ${number} of spider "${name}" is not to be had here: ${messageOf(error)}`;
      if (error instanceof InstallError) {
        const { pauseMs = FIRST_PAUSE_MS / 2 } = this.#failures.get(key) ?? {};
        const next = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
        if (this.#failures.size >= MAX_FAILURES) this.#failures.clear();
        const log = endOf(error.log, LOG_TOLD_CHARACTERS);
        this.#failures.set(key, { message, log, pauseMs: next, until: clock.monotonic() + next });
      }
      logger.warn(
        { spider: name, version: number, error: messageOf(error) },
        "a spider's code is not to be had",
      );
      throw new SpiderUnavailableError(message, { cause: error });
    }
  }

  /** What is there from an earlier run, if it is what it should be. */
  async #onDisk({ name, version, sha256 }: StoredVersion): Promise<ReadyMark | undefined> {
    const mark = await this.#folders.markOf(name, version);
    if (mark?.sha256 === sha256 && (await this.#folders.isIntact(mark))) return mark;
    if (mark !== undefined) {
      this.#deps.logger.warn(
        { spider: name, version },
        "a spider's code was changed on this disk: fetching it again",
      );
    }
    this.#ready.delete(keyOf({ name, version }));
    await this.#folders.remove(this.#folders.of(name, version));
    return undefined;
  }

  async #fetchAndInstall(version: StoredVersion): Promise<ReadyMark> {
    const { name, version: number, sha256, manifest } = version;
    const startedAt = performance.now();
    this.#coming.set(keyOf(version), version.bytes);
    await this.#makeRoom();
    const folder = await this.#fetch(version);
    const fetchedMs = performance.now() - startedAt;
    const preparing = this.#preparing.get(keyOf(version));
    if (preparing !== undefined) preparing.state = "installing";
    try {
      const tookMs = await this.#install(folder, manifest);
      const bytes = await bytesIn(folder);
      if (bytes > version.bytes) {
        this.#coming.set(keyOf(version), bytes);
        await this.#makeRoom();
      }
      const files = await Promise.all(
        manifest.files.map(async (file) => ({
          path: file.path,
          sha256: (await sha256OfFile(path.join(folder, file.path))) ?? "",
        })),
      );
      const mark: ReadyMark = {
        ...{ name, version: number, sha256, files, bytes, readyAt: this.#deps.clock.now() },
        ...(tookMs !== undefined && { installTookMs: tookMs }),
      };
      await this.#folders.mark(mark);
      this.#deps.logger.info(
        {
          spider: name,
          version: number,
          files: files.length,
          bytes,
          fetchedMs: Math.round(fetchedMs),
          installMs: tookMs,
        },
        "a spider's code is ready",
      );
      return mark;
    } catch (error) {
      await this.#folders.remove(folder).catch(() => {});
      throw error;
    }
  }

  /** @returns how long it took; undefined when there was nothing to install */
  async #install(folder: string, manifest: SpiderManifest): Promise<number | undefined> {
    const log = new InstallLog();
    const startedAt = performance.now();
    const { commands, failure } = await this.#deps.dependencies.install(
      folder,
      manifest,
      log,
      this.#stopping.signal,
    );
    if (failure !== undefined) throw new InstallError(failure, log.text);
    if (commands === 0) return undefined;
    await this.#folders.writeInstallLog(folder, log.text);
    return Math.round(performance.now() - startedAt);
  }

  async #fetch({ name, version, files }: StoredVersion): Promise<string> {
    const made = await this.#folders.begin();
    try {
      const known = this.#filesHere();
      const left = files.values();
      const fetchSome = async () => {
        for (const file of left) await this.#fetchFile(made, file, known);
      };
      const fetching = await Promise.allSettled(Array.from({ length: FILES_AT_ONCE }, fetchSome));
      const failed = fetching.find((each) => each.status === "rejected");
      if (failed !== undefined) throw failed.reason;
      return await this.#folders.finish(made, name, version);
    } catch (error) {
      await this.#folders.remove(made).catch(() => {});
      throw error;
    }
  }

  async #fetchFile(made: string, file: StoredFile, known: ReadonlyMap<string, string>): Promise<void> {
    this.#stopping.signal.throwIfAborted();
    const target = path.join(made, file.path);
    await mkdir(path.dirname(target), { recursive: true });
    const here = known.get(file.sha256);
    if (here === undefined || !(await copied(here, target, file.sha256))) {
      const body = await this.#deps.contents.open(file.contentId);
      await written(body, target, file, this.#stopping.signal);
    }
    await chmod(target, file.executable === true ? 0o755 : 0o644);
  }

  /** Where files are that other versions have brought, by their sums. */
  #filesHere(): ReadonlyMap<string, string> {
    const files = new Map<string, string>();
    for (const { code, mark } of this.#ready.values()) {
      for (const { path: file, sha256 } of mark.files) files.set(sha256, path.join(code.folder, file));
    }
    return files;
  }

  /**
   * Removes what is neither used nor new, and more than that, the oldest first, while there is no room for what comes.
   * @throws Error when there is no room even so
   */
  #makeRoom(): Promise<void> {
    const made = this.#roomMaking.then(() => this.#removeUnneeded());
    this.#roomMaking = made.catch(() => {});
    return made;
  }

  async #removeUnneeded(): Promise<void> {
    const { keptVersions, maxBytes } = this.#options;
    const inUse = new Set([...this.#deps.inUse(), ...this.#preparing.keys()]);
    const folders = await this.#folders.list();
    const marks = await Promise.all(folders.map(({ name, version }) => this.#folders.markOf(name, version)));
    const here = marks.filter((mark) => mark !== undefined);
    const isNew = newest(here, keptVersions);
    let total = [...here.map(({ bytes }) => bytes), ...this.#coming.values()].reduce(
      (sum, each) => sum + each,
      0,
    );
    for (const mark of [...here].sort((a, b) => a.readyAt - b.readyAt)) {
      const key = keyOf(mark);
      if (inUse.has(key) || (isNew.has(key) && total <= maxBytes)) continue;
      this.#ready.delete(key);
      await this.#folders.remove(this.#folders.of(mark.name, mark.version));
      total -= mark.bytes;
      this.#deps.logger.info(
        { spider: mark.name, version: mark.version },
        "removed a spider's code from this disk",
      );
    }
    if (total > maxBytes) {
      throw new Error(`spiders' code would take ${total} bytes of this disk, more than ${maxBytes}`);
    }
  }
}

/** A command of an installation failed. It stays within this file: others see SpiderUnavailableError. */
class InstallError extends Error {
  readonly log: string;

  constructor(failure: string, log: string) {
    super(`its dependencies could not be installed: ${failure}\n${endOf(log, LOG_IN_ERROR_CHARACTERS)}`);
    this.log = log;
  }
}

function keyOf({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name}:${version}`;
}

/** The newest versions of each spider. */
function newest(marks: readonly ReadyMark[], kept: number): ReadonlySet<string> {
  const byName = new Map<string, ReadyMark[]>();
  for (const mark of marks) byName.set(mark.name, [...(byName.get(mark.name) ?? []), mark]);
  return new Set(
    [...byName.values()].flatMap((versions) =>
      [...versions]
        .sort((a, b) => Number(b.version) - Number(a.version))
        .slice(0, kept)
        .map(keyOf),
    ),
  );
}

/** Copies a file, if it is what it should be. A link would let one version's spider change another's. */
async function copied(from: string, to: string, sha256: string): Promise<boolean> {
  try {
    await copyFile(from, to);
    if ((await sha256OfFile(to)) !== sha256) return false;
    const handle = await open(to, "r+");
    await handle.sync().finally(() => handle.close());
    return true;
  } catch {
    return false;
  }
}

async function written(body: Readable, to: string, file: StoredFile, signal: AbortSignal): Promise<void> {
  const hash = createHash("sha256");
  async function* hashed() {
    for await (const chunk of body) {
      hash.update(chunk as Uint8Array);
      yield chunk as Uint8Array;
    }
  }
  const handle = await open(to, "w");
  const stop = () => body.destroy(new Error("this node is stopping"));
  signal.addEventListener("abort", stop, { once: true });
  try {
    await writeFile(handle, hashed());
    await handle.sync();
  } finally {
    signal.removeEventListener("abort", stop);
    await handle.close();
  }
  const sha256 = hash.digest("hex");
  if (sha256 !== file.sha256) {
    throw new Error(`${file.path} came with the checksum ${sha256} and not ${file.sha256}`);
  }
}
