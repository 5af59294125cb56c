import { promisify } from "node:util";
import { crc32, inflateRaw } from "node:zlib";
import { messageOf } from "../../lib/errors.js";
import { BundleError } from "./bundle-error.js";
import { type BundleFile, BundleFiles, type BundleLimits } from "./bundle-files.js";

const inflate = promisify(inflateRaw);

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 65_535;
const CENTRAL_SIGNATURE = 0x02014b50;
const CENTRAL_BYTES = 46;
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_BYTES = 30;
const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 0x1;
/** What made the entry, if that was a Unix: then the upper half of the attributes is its mode. */
const UNIX_HOSTS = new Set([3, 19]);
const DOS_FOLDER = 0x10;
const FORMAT = 0o170_000;
const REGULAR = 0o100_000;
const FOLDER = 0o040_000;
const LINK = 0o120_000;
const EXECUTABLE = 0o111;

/** An entry as the central directory has it. */
type Entry = {
  readonly path: string;
  readonly rawName: Uint8Array;
  readonly method: number;
  readonly crc: number;
  readonly packedBytes: number;
  readonly bytes: number;
  readonly mode: number | undefined;
  readonly isFolder: boolean;
  readonly offset: number;
};

/**
 * The files of a zip archive, in memory. Goes by the central directory, which alone tells links from files, and holds
 * every entry to what stands there: an entry whose own header, size or checksum differs is refused, so that nobody can
 * see other files in it than we do. An entry is inflated into no more room than it announced.
 * @throws BundleError
 */
export async function readZip(archive: Uint8Array, limits: BundleLimits): Promise<readonly BundleFile[]> {
  const zip = Buffer.from(archive.buffer, archive.byteOffset, archive.byteLength);
  const files = new BundleFiles(limits);
  let dataEnd = 0;
  // In the order of their places, where two that share bytes follow each other.
  const entries = [...entriesOf(zip)];
  for (const entry of entries.sort((a, b) => a.offset - b.offset)) {
    const { path, mode, isFolder } = entry;
    if (mode !== undefined && (mode & FORMAT) === LINK) {
      throw new BundleError("invalid", "is a link; only files and folders are taken", { path });
    }
    if (mode !== undefined && ![0, REGULAR, FOLDER].includes(mode & FORMAT)) {
      throw new BundleError("invalid", "is neither a file nor a folder", { path });
    }
    if (isFolder) {
      files.addFolder(path);
      continue;
    }
    const kept = files.expect(path, entry.bytes);
    if (entry.offset < dataEnd)
      throw new BundleError("invalid", "shares its bytes with another entry", { path });
    const { body, end } = await bodyOf(zip, entry);
    dataEnd = end;
    files.add({ path: kept, body, isExecutable: ((mode ?? 0) & EXECUTABLE) !== 0 });
  }
  return files.files;
}

function* entriesOf(zip: Buffer): Generator<Entry> {
  const end = endOf(zip);
  const count = zip.readUInt16LE(end + 10);
  const offset = zip.readUInt32LE(end + 16);
  if (count === 0xffff || offset === 0xffffffff) throw broken("is a zip64 archive, which no spider needs");
  if (zip.readUInt16LE(end + 4) !== 0 || zip.readUInt16LE(end + 8) !== count) {
    throw broken("is one part of a zip archive");
  }
  let at = offset;
  for (let index = 0; index < count; index += 1) {
    if (at + CENTRAL_BYTES > end || zip.readUInt32LE(at) !== CENTRAL_SIGNATURE) {
      throw broken("is a zip archive with a broken list of entries");
    }
    const nameBytes = zip.readUInt16LE(at + 28);
    const next = at + CENTRAL_BYTES + nameBytes + zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32);
    if (next > end) throw broken("is a zip archive with a broken list of entries");
    const rawName = zip.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes);
    const path = rawName.toString("utf8");
    const attributes = zip.readUInt32LE(at + 38);
    const mode = UNIX_HOSTS.has(zip.readUInt8(at + 5)) ? attributes >>> 16 : undefined;
    if ((zip.readUInt16LE(at + 8) & ENCRYPTED) !== 0) {
      throw new BundleError("invalid", "is encrypted", { path });
    }
    yield {
      path,
      rawName,
      method: zip.readUInt16LE(at + 10),
      crc: zip.readUInt32LE(at + 16),
      packedBytes: zip.readUInt32LE(at + 20),
      bytes: zip.readUInt32LE(at + 24),
      mode,
      isFolder: path.endsWith("/") || (attributes & DOS_FOLDER) !== 0 || ((mode ?? 0) & FORMAT) === FOLDER,
      offset: zip.readUInt32LE(at + 42),
    };
    at = next;
  }
}

/** Where the end record is: the last one whose comment reaches to the end of the archive. */
function endOf(zip: Buffer): number {
  const first = Math.max(0, zip.length - END_BYTES - MAX_COMMENT_BYTES);
  for (let at = zip.length - END_BYTES; at >= first; at -= 1) {
    if (zip.readUInt32LE(at) !== END_SIGNATURE) continue;
    if (at + END_BYTES + zip.readUInt16LE(at + 20) === zip.length) return at;
  }
  throw broken("is no zip archive, or not all of one");
}

async function bodyOf(zip: Buffer, entry: Entry): Promise<{ readonly body: Buffer; readonly end: number }> {
  const { path, offset, rawName, packedBytes, bytes } = entry;
  const refuse = (why: string, cause?: unknown) => new BundleError("invalid", why, { path, cause });
  if (offset + LOCAL_BYTES > zip.length || zip.readUInt32LE(offset) !== LOCAL_SIGNATURE) {
    throw refuse("is not where the archive says");
  }
  const nameEnd = offset + LOCAL_BYTES + zip.readUInt16LE(offset + 26);
  if (!zip.subarray(offset + LOCAL_BYTES, nameEnd).equals(rawName)) {
    throw refuse("has another name in the archive's list than where it lies");
  }
  const start = nameEnd + zip.readUInt16LE(offset + 28);
  const end = start + packedBytes;
  if (end > zip.length) throw refuse("is cut off");
  const packed = zip.subarray(start, end);
  const body = await unpacked(packed, entry).catch((error: unknown) => {
    throw refuse(`does not unpack to the ${bytes} bytes that it should have: ${messageOf(error)}`, error);
  });
  if (body.length !== bytes)
    throw refuse(`has ${body.length} bytes and not the ${bytes} that it should have`);
  if (crc32(body) !== entry.crc) throw refuse("does not have the checksum that it should have");
  return { body, end };
}

async function unpacked(packed: Buffer, { method, bytes }: Entry): Promise<Buffer> {
  if (method === STORED) return packed;
  if (method !== DEFLATED) throw new Error(`compression method ${method} is not known here`);
  if (bytes === 0) return Buffer.alloc(0);
  return inflate(packed, { maxOutputLength: bytes });
}

function broken(what: string): BundleError {
  return new BundleError("invalid", what);
}
