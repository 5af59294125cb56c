import { gzipSync } from "node:zlib";
import { Header, Pax } from "tar";
import { type BundleFile, inOrder } from "./bundle-files.js";

const BLOCK_BYTES = 512;
/** Where gzip says which system wrote it; 255: it does not matter. */
const GZIP_SYSTEM = 9;
const UNKNOWN_SYSTEM = 255;

/** A gzipped tar archive of files: the same bytes for the same files, wherever and whenever it is written. */
export function packTarGz(files: readonly BundleFile[]): Buffer {
  const blocks = inOrder(files).flatMap(({ path, body, isExecutable }) => {
    const about = {
      ...{ path, size: body.byteLength, type: "File" as const, mtime: new Date(0) },
      mode: isExecutable ? 0o755 : 0o644,
    };
    const head = Buffer.alloc(BLOCK_BYTES);
    const isTooLong = new Header(about).encode(head, 0);
    const extended = isTooLong ? [new Pax({ path, size: body.byteLength }).encode()] : [];
    return [
      ...extended,
      head,
      body,
      Buffer.alloc((BLOCK_BYTES - (body.byteLength % BLOCK_BYTES)) % BLOCK_BYTES),
    ];
  });
  const archive = gzipSync(Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK_BYTES)]));
  archive[GZIP_SYSTEM] = UNKNOWN_SYSTEM;
  return archive;
}
