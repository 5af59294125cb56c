import { createHash } from "node:crypto";
import { BundleError } from "./bundle-error.js";

/** How much an upload may hold, once unpacked. */
export type BundleLimits = {
  /** Bytes of all files together. */
  readonly maxBytes: number;
  /** Bytes of one file. */
  readonly maxFileBytes: number;
  readonly maxFiles: number;
};

export const DEFAULT_BUNDLE_LIMITS: BundleLimits = {
  maxBytes: 64 * 2 ** 20,
  maxFileBytes: 32 * 2 ** 20,
  maxFiles: 2_000,
};

/** A file of a bundle. */
export type BundleFile = {
  /** Relative to the bundle's folder, parted by `/`. */
  readonly path: string;
  readonly body: Uint8Array;
  readonly isExecutable: boolean;
};

/** What a path may be: all file systems, and `tar` with its longest common form, can hold it. */
const MAX_PATH_BYTES = 255;
const MAX_DEPTH = 16;
/** Where a worker keeps what it knows of a version. */
const RESERVED = ".warren";

const WINDOWS_NAME = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)/i;
/** Control characters, and what Windows does not take: a colon would name a drive, or a stream beside the file. */
const FORBIDDEN = /[\p{Cc}<>:"|?*\\\ufffd]/u;

/**
 * Collects the files of an upload, and refuses what must not be unpacked on anyone's disk: paths that lead out of the
 * folder, that other systems understand otherwise, or that are there twice, if only in another case; and too much of
 * anything. Sizes are judged as soon as they are known: `expect` before a file is read, `add` when it has been.
 */
export class BundleFiles {
  readonly #limits: BundleLimits;
  readonly #files: BundleFile[] = [];
  /** By the path as a file system without cases sees it. */
  readonly #taken = new Map<string, "file" | "folder">();
  #bytes = 0;
  #entries = 0;

  constructor(limits: BundleLimits) {
    this.#limits = limits;
  }

  get files(): readonly BundleFile[] {
    return this.#files;
  }

  /** Bytes that may still come. */
  get bytesLeft(): number {
    return Math.min(this.#limits.maxFileBytes, this.#limits.maxBytes - this.#bytes);
  }

  /**
   * A folder, which is only there to be looked at: folders come with their files.
   * @throws BundleError
   */
  addFolder(path: string): void {
    this.#count(path);
    const parts = partsOf(path.endsWith("/") ? path.slice(0, -1) : path, { isFolder: true });
    this.#claim(parts, "folder", path);
  }

  /**
   * A file that comes next.
   * @returns its path as it is kept
   * @throws BundleError when there may be none at this path, or none of this size
   */
  expect(path: string, bytes: number): string {
    this.#count(path);
    const parts = partsOf(path, { isFolder: false });
    this.#claim(parts, "file", path);
    const { maxFileBytes, maxBytes } = this.#limits;
    if (bytes > maxFileBytes) {
      throw new BundleError("too-large", `has ${bytes} bytes; a file may have ${maxFileBytes}`, { path });
    }
    if (this.#bytes + bytes > maxBytes) {
      throw new BundleError("too-large", `makes it more than the ${maxBytes} bytes that all files may have`, {
        path,
      });
    }
    this.#bytes += bytes;
    return parts.join("/");
  }

  /** A file that was expected, and is all there. */
  add(file: BundleFile): void {
    this.#files.push(file);
  }

  /** Folders count as well: a million of them would be a bomb of its own. */
  #count(path: string): void {
    this.#entries += 1;
    const { maxFiles } = this.#limits;
    if (this.#entries > maxFiles) {
      throw new BundleError("too-large", `is one more than the ${maxFiles} files that there may be`, {
        path,
      });
    }
  }

  #claim(parts: readonly string[], kind: "file" | "folder", path: string): void {
    for (let depth = 1; depth <= parts.length; depth += 1) {
      const key = parts.slice(0, depth).join("/").normalize("NFC").toLowerCase();
      const wanted = depth < parts.length ? "folder" : kind;
      const there = this.#taken.get(key);
      if (there !== undefined && (there === "file" || wanted === "file")) {
        const what = there === wanted ? "is there twice" : "is a file and a folder at once";
        throw new BundleError("invalid", `${what}, or differs from another path only in case`, { path });
      }
      this.#taken.set(key, wanted);
    }
  }
}

/** The names that a path is made of. @throws BundleError when it is none that may be unpacked */
function partsOf(path: string, { isFolder }: { readonly isFolder: boolean }): readonly string[] {
  const refuse = (why: string) => new BundleError("invalid", why, { path });
  if (path.includes("\0")) throw refuse("has a NUL in its path");
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw refuse(`has a path of more than ${MAX_PATH_BYTES} bytes`);
  if (/^[/\\]/.test(path) || /^[a-z]:/i.test(path)) throw refuse("is an absolute path");
  // `./a` is how tar writes what it was given as `.`
  const parts = path.split("/").filter((part, index) => part !== "." || index > 0);
  if (parts.length === 0 && isFolder) return [];
  if (parts.length > MAX_DEPTH) throw refuse(`lies more than ${MAX_DEPTH} folders deep`);
  if (parts.includes("..")) throw refuse("leads out of the folder");
  for (const part of parts) {
    if (part === "" || part === ".") throw refuse("has an empty name in its path");
    if (FORBIDDEN.test(part)) throw refuse("has a character in its path that not every system takes");
    if (/[. ]$/.test(part)) throw refuse("has a name that ends in a dot or a space");
    if (WINDOWS_NAME.test(part)) throw refuse("has a name that is a device on Windows");
  }
  if (parts[0]?.toLowerCase() === RESERVED)
    throw refuse(`lies in ${RESERVED}, which workers keep for themselves`);
  return parts;
}

/** By their paths, in the order of their UTF-8 bytes: the same on every machine. */
export function inOrder<File extends { readonly path: string }>(files: readonly File[]): readonly File[] {
  return [...files].sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
}

export function sha256Of(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
