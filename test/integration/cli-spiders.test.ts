import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, startApiMaster } from "./api-master.js";

const CLI = path.resolve(import.meta.dirname, "../../dist/cli.js");
let master: ApiMaster;
let folder: string;

beforeAll(async () => {
  master = await startApiMaster("cli-spiders", { tokens: [{ role: "admin", token: "secret" }] });
  folder = await mkdtemp(path.join(tmpdir(), "warren-cli-"));
});
afterAll(async () => {
  await master.dispose();
  await rm(folder, { recursive: true, force: true });
});

/** Runs the tool as its users do. */
async function warren(...argv: string[]) {
  const env = { PATH: process.env.PATH, WARREN_URL: master.url, WARREN_TOKEN: "secret" };
  const child = spawn(process.execPath, [CLI, ...argv], { env });
  const output = { out: "", err: "" };
  child.stdout.on("data", (chunk) => {
    output.out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    output.err += chunk;
  });
  const [code] = await once(child, "close");
  return { code, ...output };
}

describe("warren spiders", () => {
  it("pushes a folder, lists what there is, compares, rolls back and removes", async () => {
    const declare = (css: string) =>
      writeFile(
        path.join(folder, "spider.json"),
        JSON.stringify({ name: "books", follow: [{ css }] }, undefined, 2),
      );
    await declare("a");
    const first = await warren("spiders", "push", folder);
    await declare("a.next");
    const second = await warren("spiders", "push", folder, "--json");
    const named = await warren("spiders", "push", folder, "--name", "others");
    const listed = await warren("spiders", "list");
    const shown = await warren("spiders", "show", "books", "--json");
    const versions = await warren("spiders", "versions", "books");
    const compared = await warren("spiders", "diff", "books");
    const back = await warren("spiders", "rollback", "books", "1");
    const removed = await warren("spiders", "remove", "books", "2");
    const gone = await warren("spiders", "remove", "others");

    expect(first).toMatchObject({ code: 0, err: "" });
    expect(first.out).toMatch(/^books version 1 \([0-9a-f]{12}\)\n$/);
    expect(JSON.parse(second.out)).toMatchObject({ name: "books", version: "2" });
    expect(named.out).toMatch(/^others version 1/);
    expect(listed.out).toMatch(/^books\s+declarative\s+2$/m);
    expect(JSON.parse(shown.out)).toMatchObject({ name: "books", kind: "declarative", versions: 2 });
    expect(versions.out).toMatch(/^2\s+current\s+1\s/m);
    expect(compared.out).toContain('-      "css": "a"\n+      "css": "a.next"');
    expect(back.out).toBe("books is version 1 now\n");
    expect([removed.code, gone.code]).toEqual([0, 0]);
    expect((await master.send("GET", "/api/v1/spiders/others", AS_ADMIN)).status).toBe(404);
  }, 60_000);

  it("ends with 1 when it failed, and with 2 when it was used wrongly, saying why", async () => {
    const runs = await Promise.all([
      warren("spiders", "show", "nobody"),
      warren("spiders", "list", "--token", "wrong"),
      warren("spiders", "list", "--url", "http://127.0.0.1:9"),
      warren("spiders", "fly"),
      warren("spiders", "push"),
      warren("spiders", "push", path.join(folder, "nowhere")),
      warren("spiders", "list", "--wings"),
      warren("spiders", "list", "--url", "somewhere"),
      warren("--help"),
    ]);

    expect(runs.map(({ code }) => code)).toEqual([1, 1, 1, 2, 2, 2, 2, 2, 0]);
    expect(runs[0]?.err).toContain('404 there is no spider "nobody"');
    expect(runs[2]?.err).toContain("no answer from http://127.0.0.1:9");
    expect(runs[7]?.err).toContain("WARREN_URL");
    expect(runs[8]?.out).toContain("warren spiders push FOLDER|FILE");
  }, 60_000);
});

const AS_ADMIN = { headers: { authorization: "Bearer secret" } };
