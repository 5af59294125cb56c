import type { Collection } from "mongodb";
import { z } from "zod";
import { type Bundle, DESCRIPTION_FILE } from "../crawl/bundles/bundle.js";
import type { CodeKind, ManifestFile, SpiderDescription, SpiderManifest } from "../crawl/spider-manifest.js";
import type { Clock } from "../lib/clock.js";
import { isDuplicateKey } from "./duplicates.js";
import { ConflictError, NotFoundError } from "./errors.js";
import type { MongoFileStore } from "./file-store.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { Retrier } from "./retrier.js";
import type { Spiders } from "./spiders.js";

/** A file of a version, and where its bytes are. */
export type StoredFile = ManifestFile & { readonly contentId: string };

/** `_id` is `<name>:<version>`. It is written last: what it names is all there. */
export type SpiderVersionDocument = {
  readonly _id: string;
  readonly spider: string;
  readonly version: number;
  readonly kind: CodeKind;
  readonly entry: string;
  /** Of the sorted list of its files. */
  readonly sha256: string;
  readonly files: readonly StoredFile[];
  readonly bytes: number;
  readonly createdAt: number;
  /** The rest of its manifest as JSON text: its members may have names that MongoDB refuses. */
  readonly about: string;
  /** What a node told of it, as JSON text. */
  readonly described?: string;
};

/** What a list of versions shows. */
export type VersionRow = {
  readonly version: string;
  readonly kind: CodeKind;
  readonly sha256: string;
  readonly files: number;
  /** Of all files. */
  readonly bytes: number;
  /** In milliseconds since the epoch. */
  readonly createdAt: number;
};

/** One version of a spider. */
export type StoredVersion = Omit<VersionRow, "files"> & {
  readonly name: string;
  readonly manifest: SpiderManifest;
  readonly files: readonly StoredFile[];
  /** Whether its seeds and settings are known: of a module, once somebody has loaded it. */
  readonly isDescribed: boolean;
};

export type SpiderVersionsDeps = {
  readonly versions: Collection<SpiderVersionDocument>;
  readonly spiders: Spiders;
  readonly contents: MongoFileStore;
  readonly retrier: Retrier;
  readonly clock: Clock;
};

/** Files that are stored at once. */
const FILES_AT_ONCE = 8;
const POSITION = z.tuple([z.number()]);

/**
 * The code of spiders. A version is a document that names its files by where their bytes are; the same bytes are there
 * once, however many versions have them, and go with the last of these. A version is all there or not there: its files
 * come first, its document then, and at last it becomes the one that new crawls get.
 */
export class SpiderVersions {
  readonly #deps: SpiderVersionsDeps;

  constructor(deps: SpiderVersionsDeps) {
    this.#deps = deps;
  }

  /**
   * Keeps a bundle as the next version, which new crawls get from now on.
   * @throws ConflictError when the spider is external
   */
  async put(bundle: Bundle): Promise<StoredVersion> {
    const { spiders, contents, retrier } = this.#deps;
    const { name, kind } = bundle.manifest;
    let latest = await spiders.latestVersion(name);
    const held = await this.#save(bundle);
    try {
      let document: SpiderVersionDocument;
      do {
        latest += 1;
        document = this.#documentOf(bundle, latest, held);
      } while (!(await retrier.run("keep a version", (again) => this.#insert(document, again))));
      await contents.release([...held.values()]);
      await spiders.putVersion(name, document.version, kind, "newer");
      return toVersion(document);
    } catch (error) {
      await this.#drop(held);
      throw error;
    }
  }

  async get(name: string, version: string): Promise<StoredVersion | undefined> {
    const document = await this.#deps.retrier.run("look up a version", () =>
      this.#deps.versions.findOne({ _id: idOf(name, version) }),
    );
    return document === null ? undefined : toVersion(document);
  }

  /** Those of these that exist. */
  async getMany(
    wanted: readonly { readonly name: string; readonly version: string }[],
  ): Promise<readonly StoredVersion[]> {
    const ids = wanted.map(({ name, version }) => idOf(name, version));
    return (await this.#deps.versions.find({ _id: { $in: ids } }).toArray()).map(toVersion);
  }

  /** Newest first. */
  async list(name: string, options: ListOptions = {}): Promise<ListPage<VersionRow>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const before = cursor === undefined ? undefined : decodeCursor(cursor, POSITION)[0];
    const documents = await this.#deps.versions
      .find({ spider: name, ...(before !== undefined && { version: { $lt: before } }) })
      .sort({ version: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRow, ({ version }) => encodeCursor([version]));
  }

  /** The highest one below a version. */
  async before(name: string, version: string): Promise<string | undefined> {
    const [found] = await this.#deps.versions
      .find({ spider: name, version: { $lt: Number(version) } })
      .sort({ version: -1 })
      .limit(1)
      .toArray();
    return found === undefined ? undefined : String(found.version);
  }

  count(name: string): Promise<number> {
    return this.#deps.versions.countDocuments({ spider: name });
  }

  /** Keeps what a node told of a version that nobody had described. */
  async describe(name: string, version: string, described: SpiderDescription): Promise<void> {
    await this.#deps.retrier.run("describe a version", () =>
      this.#deps.versions.updateOne(
        { _id: idOf(name, version) },
        { $set: { described: JSON.stringify(described) } },
      ),
    );
  }

  /** Makes a version the one that new crawls get. @throws NotFoundError, ConflictError */
  async rollBack(name: string, version: string): Promise<StoredVersion> {
    const found = await this.get(name, version);
    if (found === undefined) throw new NotFoundError(`version of spider "${name}"`, version);
    await this.#deps.spiders.putVersion(name, Number(version), found.kind);
    return found;
  }

  /** Removes one that is not the current one. @throws NotFoundError, ConflictError */
  async remove(name: string, version: string): Promise<void> {
    if ((await this.#deps.spiders.get(name))?.version === version) {
      throw new ConflictError(`version ${version} of spider "${name}" is the one that new crawls get`);
    }
    const removed = await this.#deps.retrier.run("remove a version", () =>
      this.#deps.versions.findOneAndDelete({ _id: idOf(name, version) }),
    );
    if (removed === null) throw new NotFoundError(`version of spider "${name}"`, version);
    await this.#discard(removed);
  }

  /** Removes all versions of a spider that is gone. */
  async removeAll(name: string): Promise<void> {
    for (;;) {
      const removed = await this.#deps.versions.findOneAndDelete({ spider: name });
      if (removed === null) return;
      await this.#discard(removed);
    }
  }

  /** Those of these contents that some version names. */
  async referredTo(contentIds: readonly string[]): Promise<ReadonlySet<string>> {
    const wanted = new Set(contentIds);
    const naming = this.#deps.versions
      .find({ "files.contentId": { $in: [...wanted] } })
      .project<{ files: readonly { contentId: string }[] }>({ "files.contentId": 1 });
    const found = new Set<string>();
    for await (const { files } of naming) {
      for (const { contentId } of files) if (wanted.has(contentId)) found.add(contentId);
    }
    return found;
  }

  /** Each content of a bundle once, held until a document names it. */
  async #save({ files, manifest }: Bundle): Promise<ReadonlyMap<string, Held>> {
    const { contents } = this.#deps;
    const bodies = new Map(files.map(({ path, body }) => [path, body]));
    const waiting = new Map(manifest.files.map(({ sha256, path }) => [sha256, path]));
    const left = waiting.entries();
    const held = new Map<string, Held>();
    const saveSome = async () => {
      for (const [sha256, path] of left) {
        const body = bodies.get(path);
        if (body === undefined) throw new Error(`the manifest names ${path}, which the bundle does not have`);
        const content =
          (await contents.share(sha256)) ??
          (await contents.save(once(body), { name: path, contentType: "application/octet-stream" }));
        held.set(sha256, content);
      }
    };
    const saving = await Promise.allSettled(Array.from({ length: FILES_AT_ONCE }, saveSome));
    const failed = saving.find((each) => each.status === "rejected");
    if (failed === undefined) return held;
    await this.#drop(held);
    throw failed.reason;
  }

  /** What cannot be dropped because the database went away is found by a sweep of the contents. */
  async #drop(held: ReadonlyMap<string, Held>): Promise<void> {
    const { contents } = this.#deps;
    await Promise.allSettled(
      [...held.values()].map(({ contentId, hold }) => contents.discard(contentId, hold)),
    );
  }

  /** @returns false when there is a version of this number already */
  async #insert(document: SpiderVersionDocument, again: boolean): Promise<boolean> {
    try {
      await this.#deps.versions.insertOne(document);
      return true;
    } catch (error) {
      if (!isDuplicateKey(error)) throw error;
    }
    // Our own insert, whose answer was lost, or someone else's.
    const { _id, sha256, createdAt } = document;
    return again && (await this.#deps.versions.findOne({ _id, sha256, createdAt })) !== null;
  }

  #documentOf(bundle: Bundle, version: number, held: ReadonlyMap<string, Held>): SpiderVersionDocument {
    const { name, kind, entry, files, ...about } = bundle.manifest;
    return {
      _id: idOf(name, String(version)),
      spider: name,
      version,
      kind,
      entry,
      sha256: bundle.sha256,
      files: files.map((file) => ({ ...file, contentId: held.get(file.sha256)?.contentId ?? "" })),
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
      createdAt: this.#deps.clock.now(),
      about: JSON.stringify(about),
    };
  }

  async #discard({ files }: SpiderVersionDocument): Promise<void> {
    for (const contentId of new Set(files.map((file) => file.contentId))) {
      await this.#deps.contents.discard(contentId);
    }
  }
}

type Held = { readonly contentId: string; readonly hold?: string };

async function* once(body: Uint8Array): AsyncGenerator<Uint8Array> {
  yield body;
}

function idOf(name: string, version: string): string {
  return `${name}:${version}`;
}

function toRow({ version, kind, sha256, files, bytes, createdAt }: SpiderVersionDocument): VersionRow {
  return { version: String(version), kind, sha256, files: files.length, bytes, createdAt };
}

function toVersion(document: SpiderVersionDocument): StoredVersion {
  const { spider, kind, entry, files, about, described } = document;
  const told = described === undefined ? {} : (JSON.parse(described) as SpiderDescription);
  const rest = JSON.parse(about) as Omit<SpiderManifest, "name" | "kind" | "entry" | "files">;
  return {
    ...toRow(document),
    name: spider,
    files,
    manifest: {
      name: spider,
      kind,
      entry,
      files: files.map(({ contentId: _, ...file }) => file),
      ...told,
      ...rest,
    },
    isDescribed:
      kind !== "module" || described !== undefined || files.some(({ path }) => path === DESCRIPTION_FILE),
  };
}
