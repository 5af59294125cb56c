import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { packSpider } from "../../../src/cli/packed-spider.js";
import { DEFAULT_BUNDLE_LIMITS } from "../../../src/crawl/bundles/bundle-files.js";
import { readTarGz } from "../../../src/crawl/bundles/tar-archive.js";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "warren-pack-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function write(files: Record<string, string>, below = folder): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(below, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, text);
  }
}
const unpacked = async ({ bytes }: { bytes: Uint8Array }) => {
  const files = await readTarGz(bytes, DEFAULT_BUNDLE_LIMITS);
  return new Map(files.map((file) => [file.path, Buffer.from(file.body).toString()]));
};
const DECLARATION = JSON.stringify({ name: "books", follow: [{ css: "a" }] });
const MODULE = `export default { name: "own", seeds: ["http://a.test/"], parse() { return []; } };`;

describe("a folder", () => {
  it("is packed to the same bytes whenever, wherever and in whatever order it was written", async () => {
    const files = { "spider.json": DECLARATION, "lib/ü.txt": "2", [`lib/${"long".repeat(40)}/x.txt`]: "3" };
    const elsewhere = path.join(folder, "there");
    await write(files, path.join(folder, "here"));
    await write(Object.fromEntries(Object.entries(files).reverse()), elsewhere);
    await utimes(path.join(elsewhere, "spider.json"), 1, 1);
    await chmod(path.join(elsewhere, "lib/ü.txt"), 0o600);

    const [first, second] = [await packSpider(path.join(folder, "here")), await packSpider(elsewhere)];

    expect(Buffer.compare(first.bytes, second.bytes)).toBe(0);
    expect(first.sha256).toBe(second.sha256);
    expect(await unpacked(first)).toEqual(new Map(Object.entries(files)));
    expect(first.name).toBe("books");
  });

  it("is packed without what nobody wants to upload, and what its .warrenignore names", async () => {
    await write({
      "spider.json": DECLARATION,
      ".warrenignore": "*.log\n/data/\n!.keep\n",
      ".env": "SECRET=1",
      ".git/config": "x",
      ".keep": "kept",
      "node_modules/a/index.js": "x",
      "lib/__pycache__/a.pyc": "x",
      "lib/data/kept.txt": "x",
      "data/big.bin": "x",
      "debug.log": "x",
    });

    const files = await unpacked(await packSpider(folder));

    expect([...files.keys()].sort()).toEqual([".keep", "lib/data/kept.txt", "spider.json"]);
  });

  it("of a module says what the module says of itself, unless that is there already", async () => {
    const described = path.join(folder, "described");
    await write({ "spider.mjs": MODULE }, path.join(folder, "plain"));
    await write({ "spider.mjs": MODULE, "warren.json": '{"seeds":["http://b.test/"]}' }, described);

    const plain = await packSpider(path.join(folder, "plain"));

    expect(plain.name).toBe("own");
    expect(JSON.parse((await unpacked(plain)).get("warren.json") ?? "")).toEqual({
      seeds: ["http://a.test/"],
    });
    expect((await unpacked(await packSpider(described))).get("warren.json")).toContain("b.test");
  });

  it("of a module that cannot be loaded here is packed all the same, with a word about it", async () => {
    await write(
      { "spider.mjs": 'import "not-installed-here"; export default {};' },
      path.join(folder, "mine"),
    );

    const packed = await packSpider(path.join(folder, "mine"));

    expect(packed).toMatchObject({ name: "mine", files: 1 });
    expect(packed.notes[0]).toContain("not-installed-here");
  });

  it("keeps what can be run executable", async () => {
    await write({ "spider.json": JSON.stringify({ name: "p", command: ["./run"] }), run: "#!/bin/sh\n" });
    await chmod(path.join(folder, "run"), 0o755);

    const files = await readTarGz((await packSpider(folder)).bytes, DEFAULT_BUNDLE_LIMITS);

    expect(files.map((file) => [file.path, file.isExecutable])).toEqual([
      ["run", true],
      ["spider.json", false],
    ]);
  });

  it("with a link is refused by name, and so is one without a spider", async () => {
    await write({ "spider.json": DECLARATION, "empty/readme": "" });
    await symlink("/etc/passwd", path.join(folder, "passwd"));

    await expect(packSpider(folder)).rejects.toThrow(/passwd: is a link/);
    await expect(packSpider(path.join(folder, "empty"))).rejects.toThrow("holds no spider");
    await expect(packSpider(path.join(folder, "nowhere"))).rejects.toThrow("cannot read");
  });
});

describe("a file", () => {
  it("is packed as the bundle that it makes on its own", async () => {
    await write({ "shop.mjs": MODULE, "shop.yaml": "name: shop\nfollow: [{css: a}]\n", "shop.txt": "" });
    const place = (name: string) => path.join(folder, name);

    const module = await packSpider(place("shop.mjs"));
    const declared = await packSpider(place("shop.yaml"));

    expect([...(await unpacked(module)).keys()]).toEqual(["spider.mjs", "warren.json"]);
    expect([...(await unpacked(declared)).keys()]).toEqual(["spider.yaml"]);
    expect([module.name, declared.name]).toEqual(["own", "shop"]);
    await expect(packSpider(place("shop.txt"))).rejects.toThrow("must be a folder");
  });

  it("that is an archive is sent as it is", async () => {
    await write({ "x.tar.gz": "whatever" });

    const packed = await packSpider(path.join(folder, "x.tar.gz"));

    expect(packed).toMatchObject({ name: "x", type: "application/gzip" });
    expect(Buffer.from(packed.bytes).toString()).toBe("whatever");
  });
});
