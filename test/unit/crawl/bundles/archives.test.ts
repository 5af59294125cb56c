import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import type { BundleError } from "../../../../src/crawl/bundles/bundle-error.js";
import { type BundleLimits, DEFAULT_BUNDLE_LIMITS } from "../../../../src/crawl/bundles/bundle-files.js";
import { readTarGz } from "../../../../src/crawl/bundles/tar-archive.js";
import { readZip } from "../../../../src/crawl/bundles/zip-archive.js";
import { type ArchiveEntry, tar, tarGz, zip } from "../../../support/archives.js";

const limits: BundleLimits = DEFAULT_BUNDLE_LIMITS;
const KINDS = [
  ["tar.gz", tarGz, readTarGz],
  ["zip", zip, readZip],
] as const;

const texts = (files: readonly { path: string; body: Uint8Array; isExecutable: boolean }[]) =>
  files.map(({ path, body, isExecutable }) => [path, Buffer.from(body).toString(), isExecutable]);

/** What is said against an archive; fails when nothing is. */
async function objection(reading: Promise<unknown>): Promise<BundleError> {
  return reading.then(
    (files) => {
      throw new Error(`it was taken: ${JSON.stringify(files)}`);
    },
    (error: BundleError) => error,
  );
}

describe.each(KINDS)("a %s archive", (kind, archiveOf, read) => {
  it("gives its files, and of their modes only whether they can be run", async () => {
    const executable = kind === "zip" ? 0o100_755 : 0o4_755;
    const archive = archiveOf([
      { path: "spider.mjs", body: "export default 1;" },
      { path: "bin/run.sh", body: "#!/bin/sh\n", mode: executable },
      { path: "ünïcode/文.txt", body: "x" },
      { path: "empty", body: "" },
    ]);

    expect(texts(await read(archive, limits)).sort()).toEqual([
      ["bin/run.sh", "#!/bin/sh\n", true],
      ["empty", "", false],
      ["spider.mjs", "export default 1;", false],
      ["ünïcode/文.txt", "x", false],
    ]);
  });

  it.each([
    ["an absolute path", "/etc/passwd", "absolute"],
    ["a drive", "C:/x", "absolute"],
    ["a path with backslashes that leads out", "..\\..\\x", "not every system"],
    ["a path that leads out", "../x", "out of the folder"],
    ["a path that leads out and back", "a/../../a/x", "out of the folder"],
    ["an empty name", "a//b", "empty name"],
    ["a dot for a name", "a/./b", "empty name"],
    ["a stream beside a file", "lib/a:b", "not every system"],
    ["a line feed", "a\nb", "not every system"],
    ["a device's name", "lib/CON.txt", "device"],
    ["a name that ends in a dot", "lib/x.", "ends in a dot"],
    ["a name that ends in a space", "lib/x ", "ends in a dot or a space"],
    ["what workers keep there", ".warren/ready.json", "keep for themselves"],
    ["the same in another case", ".Warren/ready.json", "keep for themselves"],
    ["too many folders", `${"d/".repeat(20)}f`, "16 folders"],
  ])("is refused with %s", async (_what, path, why) => {
    const error = await objection(
      read(
        archiveOf([
          { path: "ok", body: "1" },
          { path, body: "x" },
        ]),
        limits,
      ),
    );

    expect(error).toMatchObject({ code: "BUNDLE", reason: "invalid" });
    expect(error.message).toContain(why);
    expect(error.path).toBe(JSON.stringify(path).slice(1, -1));
  });

  it.each([
    ["in another case", ["lib/a.js", "LIB/A.js"]],
    ["in another normal form", ["caf\u00e9.txt", "cafe\u0301.txt"]],
    ["as a folder too", ["a", "a/b"]],
  ])("is refused when a path is there twice: %s", async (_what, paths) => {
    const error = await objection(read(archiveOf(paths.map((path) => ({ path, body: "x" }))), limits));

    expect(error).toMatchObject({ reason: "invalid", path: paths[1] });
  });

  it.each<[string, readonly ArchiveEntry[], Partial<BundleLimits>]>([
    ["of one file", [{ path: "big", body: Buffer.alloc(2_000) }], { maxFileBytes: 1_999 }],
    [
      "of all files",
      [
        { path: "a", body: Buffer.alloc(600) },
        { path: "big", body: Buffer.alloc(600) },
      ],
      { maxBytes: 1_000 },
    ],
    ["of files", [{ path: "a" }, { path: "b" }, { path: "big" }], { maxFiles: 2 }],
  ])("is refused when there is too much %s", async (_what, entries, given) => {
    const error = await objection(read(archiveOf(entries), { ...limits, ...given }));

    expect(error).toMatchObject({ reason: "too-large", path: "big" });
  });

  it("is refused when it is cut off anywhere, or is something else", async () => {
    const archive = archiveOf([
      { path: "spider.mjs", body: Buffer.from(Array.from({ length: 3_000 }, (_, i) => (i * 7_919) % 251)) },
    ]);
    for (let end = 0; end < archive.length - 1; end += 97) {
      expect((await objection(read(archive.subarray(0, end), limits))).reason).toBe("invalid");
    }
    expect((await objection(read(Buffer.from("not an archive at all"), limits))).reason).toBe("invalid");
    expect((await objection(read(gzipSync("nor this".repeat(200)), limits))).reason).toBe("invalid");
  });

  it("never gives what it does not hold, whichever of its bytes is changed", async () => {
    const body = "export default { name: 'x' };";
    const archive = archiveOf([{ path: "spider.mjs", body }]);
    for (let at = 0; at < archive.length; at += 1) {
      const changed = Buffer.from(archive);
      changed[at] = (changed[at] ?? 0) ^ 0x41;
      // Fields that nobody reads may change; what is in the file may not, and not unnoticed.
      const files = await read(changed, limits).catch((error: BundleError) => error);
      if (files instanceof Error) expect(files.code).toBe("BUNDLE");
      else expect(files.map((file) => Buffer.from(file.body).toString())).toEqual([body]);
    }
  });
});

describe("a tar.gz archive", () => {
  it.each([
    ["SymbolicLink", "is a link"],
    ["Link", "is a link"],
    ["CharacterDevice", "neither a file nor a folder"],
    ["BlockDevice", "neither a file nor a folder"],
    ["FIFO", "neither a file nor a folder"],
  ] as const)("is refused with a %s", async (type, why) => {
    const archive = tarGz([
      { path: "spider.mjs", body: "1" },
      { path: "bad", type, ...(type.endsWith("Link") && { linkpath: "/etc/passwd" }) },
    ]);
    const error = await objection(readTarGz(archive, limits));

    expect(error).toMatchObject({ reason: "invalid", path: "bad" });
    expect(error.message).toContain(why);
  });

  it("is refused with the very same path twice", async () => {
    const archive = tarGz([
      { path: "a", body: "1" },
      { path: "./a", body: "2" },
    ]);

    expect((await objection(readTarGz(archive, limits))).message).toContain("there twice");
  });

  it("may name files as tar does that was given a dot, and hold folders", async () => {
    const archive = tarGz([
      { path: "./", type: "Directory", mode: 0o755 },
      { path: "./lib/", type: "Directory", mode: 0o755 },
      { path: "./lib/a.js", body: "1" },
    ]);

    expect(texts(await readTarGz(archive, limits))).toEqual([["lib/a.js", "1", false]]);
  });

  it("is unpacked no further than its limit, whatever its headers say", async () => {
    const few = { ...limits, maxBytes: 10_000, maxFiles: 10 };
    const honest = tar([{ path: "a", body: "1" }]);
    // Gigabytes of it would come, all of them after the end of the archive.
    const bomb = gzipSync(Buffer.concat([honest, Buffer.alloc(16 * 2 ** 20)]));
    const declared = tarGz([{ path: "a", size: 8 * 2 ** 30 }]);

    expect(await objection(readTarGz(bomb, few))).toMatchObject({ reason: "too-large" });
    expect(await objection(readTarGz(declared, few))).toMatchObject({ reason: "too-large", path: "a" });
  });
});

describe("a zip archive", () => {
  const END = 22;

  it("is refused with a link, a device, and what is encrypted", async () => {
    const link = zip([{ path: "bad", body: "/etc/passwd", mode: 0o120_777 }]);
    const device = zip([{ path: "bad", mode: 0o020_644 }]);
    const encrypted = zip([{ path: "bad", body: "x" }]);
    const central = encrypted.readUInt32LE(encrypted.length - END + 16);
    encrypted.writeUInt16LE(1, central + 8);

    expect((await objection(readZip(link, limits))).message).toContain("is a link");
    expect((await objection(readZip(device, limits))).message).toContain("neither a file nor a folder");
    expect((await objection(readZip(encrypted, limits))).message).toContain("encrypted");
  });

  it("inflates an entry into no more than it announced", async () => {
    const bomb = zip([{ path: "bomb", body: Buffer.alloc(4 * 2 ** 20) }]);
    const central = bomb.readUInt32LE(bomb.length - END + 16);
    bomb.writeUInt32LE(10, central + 24);

    const error = await objection(readZip(bomb, { ...limits, maxFileBytes: 1_000 }));

    expect(error).toMatchObject({ reason: "invalid", path: "bomb" });
    expect(error.message).toContain("10 bytes");
  });

  it("is refused when two entries share their bytes, or are named otherwise where they lie", async () => {
    const shared = zip([
      { path: "a", body: "same" },
      { path: "b", body: "same" },
    ]);
    const central = shared.readUInt32LE(shared.length - END + 16);
    const second = shared.indexOf("PK\x01\x02", central + 4, "latin1");
    shared.writeUInt32LE(0, second + 42);
    const renamed = zip([{ path: "a", body: "x" }]);
    renamed.write("b", 30);

    expect((await objection(readZip(shared, limits))).reason).toBe("invalid");
    expect((await objection(readZip(renamed, limits))).message).toContain("another name");
  });
});
