import { createGunzip } from "node:zlib";
import { Parser, type ReadEntry } from "tar";
import { messageOf } from "../../lib/errors.js";
import { BundleError } from "./bundle-error.js";
import { type BundleFile, BundleFiles, type BundleLimits } from "./bundle-files.js";

/** What a header and its padding take of an archive at most, long names and all. */
const ENTRY_OVERHEAD_BYTES = 4_096;
const ARCHIVE_OVERHEAD_BYTES = 2 ** 20;
const EXECUTABLE = 0o111;

/**
 * The files of a gzipped tar archive, in memory. Nothing is unpacked past a limit: each file's size is judged by its
 * header, and the bytes that come out of gzip are counted as they come.
 * @throws BundleError
 */
export async function readTarGz(archive: Uint8Array, limits: BundleLimits): Promise<readonly BundleFile[]> {
  const files = new BundleFiles(limits);
  const mostBytes = limits.maxBytes + limits.maxFiles * ENTRY_OVERHEAD_BYTES + ARCHIVE_OVERHEAD_BYTES;
  const gunzip = createGunzip();
  let failure: unknown;
  const fail = (error: unknown) => {
    failure ??= error;
    gunzip.destroy();
  };
  const parser = new Parser({ strict: true, maxDecompressionRatio: Number.POSITIVE_INFINITY });
  parser.on("error", (error: Error) =>
    fail(new BundleError("invalid", `is no tar archive: ${error.message}`)),
  );
  parser.on("ignoredEntry", (entry: ReadEntry) => fail(ofNoUse(entry)));
  parser.on("entry", (entry: ReadEntry) => {
    try {
      take(entry, files);
    } catch (error) {
      fail(error);
      entry.resume();
    }
  });
  const ended = new Promise<void>((resolve) => parser.on("end", resolve).on("error", () => resolve()));
  try {
    gunzip.end(archive);
    let unpacked = 0;
    for await (const chunk of gunzip) {
      const bytes = chunk as Buffer;
      unpacked += bytes.length;
      if (unpacked > mostBytes) {
        throw new BundleError(
          "too-large",
          `unpacks to more than the ${limits.maxBytes} bytes that there may be`,
        );
      }
      parser.write(bytes);
      if (failure !== undefined) throw failure;
    }
    parser.end();
    await ended;
  } catch (error) {
    const first = failure ?? error;
    if (first instanceof BundleError) throw first;
    throw new BundleError("invalid", `is no gzipped tar archive: ${messageOf(first)}`, { cause: first });
  }
  if (failure !== undefined) throw failure;
  return files.files;
}

function take(entry: ReadEntry, files: BundleFiles): void {
  if (entry.type === "Directory") {
    files.addFolder(entry.path);
    entry.resume();
    return;
  }
  if (entry.type !== "File" && entry.type !== "OldFile" && entry.type !== "ContiguousFile")
    throw ofNoUse(entry);
  const path = files.expect(entry.path, entry.size);
  const isExecutable = ((entry.mode ?? 0) & EXECUTABLE) !== 0;
  const chunks: Buffer[] = [];
  entry.on("data", (chunk: Buffer) => chunks.push(chunk));
  entry.on("end", () => files.add({ path, body: Buffer.concat(chunks), isExecutable }));
}

function ofNoUse(entry: ReadEntry): BundleError {
  const what =
    entry.type === "SymbolicLink" || entry.type === "Link"
      ? "is a link; only files and folders are taken"
      : `is neither a file nor a folder (${entry.type})`;
  return new BundleError("invalid", what, { path: entry.path });
}
