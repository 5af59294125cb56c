import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tarGz, zip } from "../support/archives.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("spider-code");
});
afterAll(() => master.dispose());

type Body = string | Uint8Array | object;
const TYPES = {
  json: "application/json",
  js: "text/javascript",
  gz: "application/gzip",
  zip: "application/zip",
};

async function put(name: string, type: keyof typeof TYPES, body: Body) {
  const isRaw = typeof body === "string" || body instanceof Uint8Array;
  const response = await fetch(`${master.url}/api/v1/spiders/${name}`, {
    method: "PUT",
    headers: { "content-type": TYPES[type] },
    body: isRaw ? (body as string) : JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Record<string, string> };
}
const get = (path: string) => master.get(`/api/v1/spiders/${path}`);
const MODULE = "export default { name: 'm', async *parse() {} };\n";
/** A module that says itself what masters need to know. */
const described = (seeds: readonly string[] = []) => [
  { path: "spider.mjs", body: MODULE },
  { path: "warren.json", body: JSON.stringify({ seeds }) },
];
const blobs = () => master.store.collection("code.files").countDocuments();
const chunks = () => master.store.collection("code.chunks").countDocuments();

describe("code of spiders", () => {
  it.each([
    ["json", { follow: [{ css: "a" }] }, "declarative"],
    ["json", { command: ["./run"] }, "process"],
    ["js", MODULE, "module"],
    ["gz", tarGz(described()), "module"],
    ["zip", zip(described()), "module"],
  ] as [keyof typeof TYPES, Body, string][])(
    "is taken as %s, each time as a new version",
    async (type, body, kind) => {
      const name = `taken-${type}-${kind}`;
      const first = await put(name, type, body);
      const second = await put(name, type, body);

      expect(first).toEqual({
        status: 201,
        body: { name, version: "1", sha256: expect.stringMatching(/^[0-9a-f]{64}$/), kind },
      });
      expect(second.body).toEqual({ ...first.body, version: "2" });
      expect((await get(name)).body).toMatchObject({
        name,
        kind,
        version: "2",
        versions: 2,
        external: false,
      });
      const listed = (await master.get("/api/v1/spiders")).body.items.find(
        (each: { name: string }) => each.name === name,
      );
      expect(listed).toMatchObject({ kind, version: "2", sha256: first.body.sha256 });
    },
  );

  it("has the same checksum whichever way it was packed", async () => {
    const answers = [await put("same", "gz", tarGz(described())), await put("same", "zip", zip(described()))];

    expect(answers[0]?.body.sha256).toBe(answers[1]?.body.sha256);
  });

  it("is kept file by file, the same bytes once, until no version has them", async () => {
    const before = { blobs: await blobs(), chunks: await chunks() };
    const shared = { path: "lib/shared.js", body: "export const shared = 'by all of them';\n" };
    await put(
      "kept",
      "gz",
      tarGz([{ path: "spider.mjs", body: "1" }, shared, { ...shared, path: "copy.js" }]),
    );
    await put("kept", "gz", tarGz([{ path: "spider.mjs", body: "2" }, shared]));
    await put("also-kept", "gz", tarGz([{ path: "spider.mjs", body: "3" }, shared]));
    const all = await blobs();
    const removed = await master.send("DELETE", "/api/v1/spiders/kept/versions/1");
    const afterOne = await blobs();
    await master.send("DELETE", "/api/v1/spiders/kept");
    const afterTwo = await blobs();
    const stillThere = await get("also-kept/versions/1/files/lib/shared.js");
    await master.send("DELETE", "/api/v1/spiders/also-kept");

    expect(removed.status).toBe(204);
    expect([all, afterOne, afterTwo].map((count) => count - before.blobs)).toEqual([4, 3, 2]);
    expect(stillThere.body).toBe(shared.body);
    expect({ blobs: await blobs(), chunks: await chunks() }).toEqual(before);
  });

  it("can be looked at: versions, manifest, files", async () => {
    await put("seen", "js", MODULE);
    const binary = Buffer.from([0, 255, 1]);
    await put(
      "seen",
      "gz",
      tarGz([...described(["http://a.test/"]), { path: "bin/x y.bin", body: binary, mode: 0o755 }]),
    );

    const versions = (await get("seen/versions?limit=1")).body;
    const older = (await get(`seen/versions?limit=1&cursor=${versions.next}`)).body;
    const manifest = (await get("seen/versions/2")).body;
    const text = await get("seen/versions/2/files/spider.mjs");
    const bytes = await fetch(`${master.url}/api/v1/spiders/seen/versions/2/files/bin/x%20y.bin`);

    expect(versions.items).toMatchObject([{ version: "2", kind: "module", files: 3, isCurrent: true }]);
    expect(older).toMatchObject({ items: [{ version: "1", files: 1, isCurrent: false }], next: null });
    expect(manifest).toMatchObject({ name: "seen", version: "2", kind: "module", isDescribed: true });
    expect(manifest.manifest).toMatchObject({ entry: "spider.mjs", seeds: ["http://a.test/"] });
    expect(manifest.manifest.files[0]).toEqual({
      path: "bin/x y.bin",
      bytes: 3,
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      executable: true,
    });
    expect(text.body).toBe(MODULE);
    expect(text.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect(bytes.headers.get("content-type")).toBe("application/octet-stream");
    expect(Buffer.from(await bytes.arrayBuffer())).toEqual(binary);
    for (const path of [
      "seen/versions/3",
      "seen/versions/2/files/nope",
      "unseen/versions",
      "links/versions",
    ]) {
      expect((await get(path)).status, path).toBe(404);
    }
    expect((await get("seen/versions/x")).status).toBe(400);
  });

  it("is compared file by file, texts line by line", async () => {
    const same = { path: "same.txt", body: "same" };
    await put(
      "compared",
      "gz",
      tarGz([{ path: "spider.mjs", body: "a\nb\n" }, { path: "old", body: "1" }, same]),
    );
    await put(
      "compared",
      "gz",
      tarGz([
        { path: "spider.mjs", body: "a\nc\n" },
        { path: "new", body: "2" },
        { ...same, mode: 0o755 },
      ]),
    );

    const { body } = await get("compared/diff");
    const reversed = (await get("compared/diff?from=2&to=1")).body;

    expect(body).toMatchObject({
      ...{ from: "1", to: "2" },
      added: [{ path: "new", bytes: 1, executable: false }],
      removed: [{ path: "old" }],
      changed: [
        { path: "same.txt", from: { executable: false }, to: { executable: true } },
        { path: "spider.mjs", from: { bytes: 4 }, to: { bytes: 4 } },
      ],
    });
    expect(body.changed[0].diff).toBeUndefined();
    expect(body.changed[1].diff).toContain("-b\n+c\n");
    expect(reversed.added).toMatchObject([{ path: "old" }]);
    expect((await get("compared/diff?from=1&to=9")).status).toBe(404);
    expect((await get("compared/diff?from=x")).status).toBe(400);
  });

  it("is rolled back to an earlier version; the next upload has a new number all the same", async () => {
    for (const text of ["1", "2"]) await put("back", "js", text);

    const back = await master.post("/api/v1/spiders/back/rollback", { version: "1" });
    const current = await get("back");
    const kept = await master.send("DELETE", "/api/v1/spiders/back/versions/1");
    await master.send("DELETE", "/api/v1/spiders/back/versions/2");
    const next = await put("back", "js", "3");

    expect(back).toMatchObject({ status: 200, body: { name: "back", version: "1" } });
    expect(current.body.version).toBe("1");
    expect(kept.status).toBe(409);
    expect(next.body.version).toBe("3");
    expect((await get("back")).body.version).toBe("3");
    expect((await master.post("/api/v1/spiders/back/rollback", { version: "2" })).status).toBe(404);
    expect((await master.post("/api/v1/spiders/links/rollback", { version: "1" })).status).toBe(404);
  });

  it("never has the number of something else that was removed", async () => {
    await put("again", "js", "1");
    await master.send("DELETE", "/api/v1/spiders/again");
    const gone = await get("again");
    const again = await put("again", "js", "2");

    expect(gone.status).toBe(404);
    expect(again.body.version).toBe("2");
    expect((await get("again/versions")).body.items).toHaveLength(1);
  });

  it("gets numbers of their own when it comes from everywhere at once", async () => {
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) => put("at-once", "js", `export default ${i}`)),
    );

    expect(answers.map(({ body }) => Number(body.version)).sort((a, b) => a - b)).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    expect((await get("at-once")).body.version).toBe("8");
  });

  it("cannot have the name of a spider that comes with Warren, or of an external one, nor the other way round", async () => {
    await put("theirs", "json", { external: true });
    await put("ours", "js", MODULE);

    expect((await put("links", "js", MODULE)).status).toBe(409);
    expect((await put("theirs", "js", MODULE)).status).toBe(409);
    expect((await put("ours", "json", { external: true })).status).toBe(409);
    await master.send("DELETE", "/api/v1/spiders/ours");
    expect((await put("ours", "json", { external: true })).status).toBe(201);
    expect((await get("ours")).body).toEqual({
      name: "ours",
      kind: "external",
      version: "1",
      seeds: [],
      runs: false,
      external: true,
    });
  });

  it.each([
    ["nothing", "gz", "", 400, undefined],
    ["no archive", "zip", "x", 400, undefined],
    ["an archive without a spider", "gz", tarGz([{ path: "readme", body: "x" }]), 400, undefined],
    ["a path that leads out", "gz", tarGz([{ path: "../x", body: "x" }]), 400, "../x"],
    ["a file that is too large", "gz", tarGz([{ path: "big", size: 2 ** 40 }]), 413, "big"],
    ["JSON that is no object", "json", "[]", 400, "spider.json"],
    [
      "settings that are none",
      "json",
      { settings: { limits: { maxPages: 0 } } },
      400,
      "settings.limits.maxPages",
    ],
    ["a selector that is none", "json", { items: [{ css: ":::", fields: {} }] }, 400, "items.0.css"],
    ["a command that is none", "json", { command: "ls -l" }, 400, "command"],
  ] as [string, keyof typeof TYPES, Body, number, string | undefined][])(
    "is refused with %s, and leaves nothing behind",
    async (_what, type, body, status, field) => {
      const before = await blobs();
      const answer = await put("refused", type, body);

      expect(answer.status).toBe(status);
      if (field !== undefined) expect(JSON.stringify(answer.body.errors)).toContain(JSON.stringify(field));
      expect((await get("refused")).status).toBe(404);
      expect(await blobs()).toBe(before);
    },
  );

  it("is of four types, and of no other", async () => {
    const answer = await master.send("PUT", "/api/v1/spiders/typed", {
      headers: { "content-type": "text/plain" },
      body: "x",
    });

    expect(answer.status).toBe(415);
    expect(answer.body.detail).toContain("application/gzip");
  });
});

describe("crawls of code", () => {
  const crawl = (body: object) => master.post("/api/v1/crawls", { seeds: ["http://a.test/"], ...body });

  it("are pinned to the current version, or to one that they name, and have its seeds", async () => {
    await put("pinned", "gz", tarGz(described(["http://one.test/"])));
    await put("pinned", "gz", tarGz(described(["http://two.test/"])));

    const latest = await master.post("/api/v1/crawls", { spider: "pinned" });
    const first = await master.post("/api/v1/crawls", { spider: "pinned", spiderVersion: "1" });
    await put("pinned", "gz", tarGz(described(["http://three.test/"])));
    await master.post(`/api/v1/crawls/${latest.body.id}/close`, {});
    const resumed = await master.post(`/api/v1/crawls/${latest.body.id}/resume`, {});

    expect(latest.body).toMatchObject({ spiderVersion: "2", seeds: ["http://two.test/"] });
    expect(first.body).toMatchObject({ spiderVersion: "1", seeds: ["http://one.test/"] });
    expect(resumed.body).toMatchObject({ spiderVersion: "2", seeds: ["http://two.test/"] });
    expect((await master.get(`/api/v1/crawls/${first.body.id}`)).body.spiderVersion).toBe("1");
  });

  it("name no version that is not there, and none of spiders that have none", async () => {
    await put("versioned", "gz", tarGz(described()));
    await put("foreign", "json", { external: true });

    for (const spider of ["versioned", "foreign", "links"]) {
      const answer = await crawl({ spider, spiderVersion: "7" });
      expect(answer, spider).toMatchObject({ status: 400, body: { errors: [{ field: "spiderVersion" }] } });
    }
    expect((await crawl({ spider: "versioned", spiderVersion: "latest" })).status).toBe(400);
    expect((await crawl({ spider: "links" })).body).not.toHaveProperty("spiderVersion");
  });

  it("keep their version from being removed, and an open one its spider", async () => {
    for (const _ of [1, 2]) await put("in-use", "gz", tarGz(described()));
    const { body } = await crawl({ spider: "in-use", spiderVersion: "1" });

    const version = await master.send("DELETE", "/api/v1/spiders/in-use/versions/1");
    const spider = await master.send("DELETE", "/api/v1/spiders/in-use");
    await master.send("DELETE", `/api/v1/crawls/${body.id}?purge=true`);

    expect([version.status, spider.status]).toEqual([409, 409]);
    expect(version.body.detail).toContain(body.id);
    expect((await master.send("DELETE", "/api/v1/spiders/in-use/versions/1")).status).toBe(204);
    expect((await master.send("DELETE", "/api/v1/spiders/in-use")).status).toBe(204);
  });

  it("of a module that nobody has described wait for a node that can load it", async () => {
    await put("undescribed", "js", MODULE);
    const refused = await crawl({ spider: "undescribed" });

    const asked: unknown[] = [];
    await master.serveNode("describer-1", {
      "sync-spider": async (args) => {
        asked.push(args);
        return { spider: "undescribed", version: "1", description: { seeds: ["http://told.test/"] } };
      },
    });
    await master.callMaster("register-node", { id: "describer-1", epoch: 1, version: "0", capacity: 1 });
    const taken = await master.post("/api/v1/crawls", { spider: "undescribed" });
    await master.post("/api/v1/crawls", { spider: "undescribed" });

    expect(refused).toMatchObject({ status: 503, body: { code: "unavailable" } });
    expect(taken.body).toMatchObject({ spiderVersion: "1", seeds: ["http://told.test/"] });
    expect(asked).toEqual([{ spider: "undescribed", version: "1", describe: true }]);
    expect((await get("undescribed/versions/1")).body.isDescribed).toBe(true);
  });
});
