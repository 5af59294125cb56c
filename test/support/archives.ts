import { gzipSync } from "node:zlib";
import { zipSync } from "fflate";
import { Header, type HeaderData } from "tar";

/** A file or whatever else an archive may hold: by default a file with this body. */
export type ArchiveEntry = {
  readonly path: string;
  readonly body?: string | Uint8Array;
  readonly mode?: number;
  /** Of tar: `SymbolicLink`, `CharacterDevice` and so on. */
  readonly type?: HeaderData["type"];
  readonly linkpath?: string;
  /** What the header says, if that is not so. */
  readonly size?: number;
};

const BLOCK = 512;

/** A tar archive with any entries, however wrong, as no program would write them. */
export function tar(entries: readonly ArchiveEntry[]): Buffer {
  const blocks = entries.flatMap(({ path, body = "", mode = 0o644, type = "File", linkpath, size }) => {
    const bytes = Buffer.from(body);
    const header = new Header({
      path,
      mode,
      type,
      size: size ?? bytes.length,
      mtime: new Date(0),
      ...(linkpath !== undefined && { linkpath }),
    });
    const block = Buffer.alloc(BLOCK);
    header.encode(block, 0);
    return [block, bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

export function tarGz(entries: readonly ArchiveEntry[]): Buffer {
  return gzipSync(tar(entries));
}

const UNIX = 3;

/** A zip archive made on a Unix. */
export function zip(entries: readonly ArchiveEntry[]): Buffer {
  const files = entries.map(({ path, body = "", mode = 0o100_644 }) => [
    path,
    [Buffer.from(body), { os: UNIX, attrs: (mode << 16) >>> 0 }] as const,
  ]);
  return Buffer.from(zipSync(Object.fromEntries(files)));
}
