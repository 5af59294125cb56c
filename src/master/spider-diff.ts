import { createTwoFilesPatch } from "diff";
import type { StoredFile, StoredVersion } from "../store/index.js";

/** A file that both versions have, and not the same. */
export type ChangedFile = {
  readonly path: string;
  readonly from: FileState;
  readonly to: FileState;
  /** Unified, of texts that are not large; absent where there is none to be had. */
  readonly diff?: string;
};

export type FileState = { readonly bytes: number; readonly sha256: string; readonly executable: boolean };

/** What changed between two versions of a spider, by path. */
export type SpiderDiff = {
  readonly from: string;
  readonly to: string;
  readonly added: readonly ({ readonly path: string } & FileState)[];
  readonly removed: readonly ({ readonly path: string } & FileState)[];
  readonly changed: readonly ChangedFile[];
};

/** A larger text is not compared line by line, nor are further ones after so many bytes in all. */
const MAX_TEXT_BYTES = 262_144;
const MAX_COMPARED_BYTES = 4 * 2 ** 20;
/** Texts that have nothing in common take for ever. */
const COMPARE_TIMEOUT_MS = 500;

/** @param read gives the bytes of a file */
export async function diffOf(
  from: StoredVersion,
  to: StoredVersion,
  read: (file: StoredFile) => Promise<Buffer>,
): Promise<SpiderDiff> {
  const before = new Map(from.files.map((file) => [file.path, file]));
  const after = new Map(to.files.map((file) => [file.path, file]));
  const only = (files: readonly StoredFile[], others: ReadonlyMap<string, StoredFile>) =>
    files.filter(({ path }) => !others.has(path)).map((file) => ({ path: file.path, ...stateOf(file) }));
  const changed: ChangedFile[] = [];
  let compared = 0;
  for (const file of to.files) {
    const old = before.get(file.path);
    if (old === undefined || (old.sha256 === file.sha256 && old.executable === file.executable)) continue;
    const bytes = old.bytes + file.bytes;
    const isSmall =
      Math.max(old.bytes, file.bytes) <= MAX_TEXT_BYTES && compared + bytes <= MAX_COMPARED_BYTES;
    let diff: string | undefined;
    if (isSmall && old.sha256 !== file.sha256) {
      compared += bytes;
      diff = patchOf(file.path, await read(old), await read(file), [from.version, to.version]);
    }
    changed.push({
      path: file.path,
      from: stateOf(old),
      to: stateOf(file),
      ...(diff !== undefined && { diff }),
    });
  }
  return {
    from: from.version,
    to: to.version,
    added: only(to.files, before),
    removed: only(from.files, after),
    changed,
  };
}

function stateOf({ bytes, sha256, executable }: StoredFile): FileState {
  return { bytes, sha256, executable: executable === true };
}

function patchOf(
  path: string,
  before: Buffer,
  after: Buffer,
  [from, to]: readonly [string, string],
): string | undefined {
  const texts = [before, after].map(textOf);
  const [old, now] = texts;
  if (old === undefined || now === undefined) return undefined;
  return createTwoFilesPatch(path, path, old, now, `version ${from}`, `version ${to}`, {
    timeout: COMPARE_TIMEOUT_MS,
  });
}

/** Undefined when these bytes are no text. */
export function textOf(bytes: Buffer): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
