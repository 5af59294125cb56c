import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";

/** What a node knows of a version that is ready to run, in `.warren/ready.json` within its folder. */
const readyFile = z.object({
  name: z.string(),
  version: z.string(),
  /** Of the bundle. */
  sha256: z.string(),
  /** As they were when it was ready: installing may have changed some. */
  files: z.array(z.object({ path: z.string(), sha256: z.string() })),
  /** That it takes of the disk, dependencies and all. */
  bytes: z.number(),
  readyAt: z.number(),
  installTookMs: z.number().optional(),
});

export type ReadyMark = z.infer<typeof readyFile>;

/** A version that has a folder. */
export type CodeFolder = { readonly name: string; readonly version: string; readonly folder: string };

const OWN = ".warren";
const READY = path.join(OWN, "ready.json");
const INSTALL_LOG = path.join(OWN, "install.log");
const VERSION = /^[1-9]\d{0,8}$/;

/**
 * The folders of spiders' code on this node's disk: `<root>/<name>/<version>/`. What is being made is in a folder of
 * another name beside them, and gets its name when it is all there and on the disk; it may be used when its mark is
 * there as well, which comes last of all. So whatever has no mark is a leftover.
 */
export class CodeFolders {
  readonly root: string;

  /** @param root made when it is needed */
  constructor(root: string) {
    this.root = path.resolve(root);
  }

  of(name: string, version: string): string {
    return path.join(this.root, name, version);
  }

  /** A new folder for what is being made. */
  async begin(): Promise<string> {
    const folder = path.join(this.root, `.new-${randomUUID()}`);
    await mkdir(folder, { recursive: true });
    return folder;
  }

  /** Gives what was made its name. Nothing may have it. */
  async finish(made: string, name: string, version: string): Promise<string> {
    for (const folder of await foldersIn(made)) await syncFolder(folder);
    const folder = this.of(name, version);
    await mkdir(path.dirname(folder), { recursive: true });
    await rename(made, folder);
    await syncFolder(path.dirname(folder));
    return folder;
  }

  /** The mark of a version that may be used. */
  async markOf(name: string, version: string): Promise<ReadyMark | undefined> {
    try {
      const mark = readyFile.parse(
        JSON.parse(await readFile(path.join(this.of(name, version), READY), "utf8")),
      );
      return mark.name === name && mark.version === version ? mark : undefined;
    } catch {
      return undefined;
    }
  }

  async mark(mark: ReadyMark): Promise<void> {
    const file = path.join(this.of(mark.name, mark.version), READY);
    await writeSynced(`${file}.new`, JSON.stringify(mark));
    await rename(`${file}.new`, file);
    await syncFolder(path.dirname(file));
  }

  /** Whether the files of a version are still as they were when it was marked. */
  async isIntact({ name, version, files }: ReadyMark): Promise<boolean> {
    const folder = this.of(name, version);
    for (const { path: file, sha256 } of files) {
      if ((await sha256OfFile(path.join(folder, file))) !== sha256) return false;
    }
    return true;
  }

  async writeInstallLog(folder: string, text: string): Promise<void> {
    await mkdir(path.join(folder, OWN), { recursive: true });
    await writeSynced(path.join(folder, INSTALL_LOG), text);
  }

  async installLogOf(name: string, version: string): Promise<string | undefined> {
    return readFile(path.join(this.of(name, version), INSTALL_LOG), "utf8").catch(() => undefined);
  }

  /** Removes a version, as if at once: a folder that is half gone has no name. */
  async remove(folder: string): Promise<void> {
    const going = path.join(this.root, `.old-${randomUUID()}`);
    try {
      await rename(folder, going);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw error;
    }
    await rm(going, { recursive: true, force: true });
  }

  /** Removes what was being made, or was going, when the process ended. To be called before anything is begun. */
  async removeLeftovers(): Promise<void> {
    for (const entry of await readdir(this.root).catch(() => [])) {
      if (/^\.(new|old)-/.test(entry))
        await rm(path.join(this.root, entry), { recursive: true, force: true });
    }
    for (const { name, version, folder } of await this.list()) {
      if ((await this.markOf(name, version)) === undefined) await this.remove(folder);
    }
  }

  /** All versions that have a folder, whether or not they may be used. */
  async list(): Promise<readonly CodeFolder[]> {
    const found: CodeFolder[] = [];
    const names = await readdir(this.root, { withFileTypes: true }).catch(() => []);
    for (const entry of names) {
      if (!entry.isDirectory() || entry.name.startsWith(".")) continue;
      for (const version of await readdir(path.join(this.root, entry.name)).catch(() => [])) {
        if (VERSION.test(version))
          found.push({ name: entry.name, version, folder: this.of(entry.name, version) });
      }
    }
    return found;
  }
}

/** The checksum of a file; undefined if it is none, or cannot be read. Links are not followed. */
export async function sha256OfFile(file: string): Promise<string | undefined> {
  try {
    if (!(await lstat(file)).isFile()) return undefined;
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(file)) hash.update(chunk as Uint8Array);
    return hash.digest("hex");
  } catch {
    return undefined;
  }
}

/** Bytes of all files below a folder. What goes away meanwhile counts nothing. */
export async function bytesIn(folder: string): Promise<number> {
  let bytes = 0;
  for (const inner of await foldersIn(folder)) {
    for (const entry of await readdir(inner, { withFileTypes: true }).catch(() => [])) {
      if (!entry.isFile()) continue;
      bytes += await lstat(path.join(inner, entry.name)).then(
        ({ size }) => size,
        () => 0,
      );
    }
  }
  return bytes;
}

/** A folder and all below it, the deepest first. Links are not followed. */
async function foldersIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const inner: string[] = [];
  for (const entry of entries) {
    if (entry.isDirectory()) inner.push(...(await foldersIn(path.join(folder, entry.name))));
  }
  return [...inner, folder];
}

async function writeSynced(file: string, text: string): Promise<void> {
  const handle = await open(file, "w");
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** So that the names in it outlast a loss of power. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
