import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tarGz } from "../support/archives.js";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { TcpProxy } from "../support/tcp-proxy.js";

const FILES = 40;
const FILE_BYTES = 20_000;
const TOTAL = FILES * FILE_BYTES;

const cluster = new Cluster();
let master: Master;
let proxy: TcpProxy;

beforeAll(async () => {
  proxy = await new TcpProxy(cluster.mongodbUri).open();
  master = await cluster.master();
}, 120_000);
afterAll(async () => {
  await cluster.stop();
  await proxy?.close();
});

/** A worker whose database is as far away as the proxy makes it. */
function startWorker(): Promise<Member> {
  const uri = new URL(proxy.url);
  uri.searchParams.set("directConnection", "true");
  uri.searchParams.delete("replicaSet");
  return cluster.worker("w1", [], { MONGODB_URI: uri.href });
}

const spiders = () => path.join(cluster.nodeFolderOf("w1"), "spiders");

async function put(name: string, archive: Buffer): Promise<string> {
  const response = await fetch(`${master.url}/api/v1/spiders/${name}`, {
    method: "PUT",
    headers: { "content-type": "application/gzip" },
    body: new Uint8Array(archive),
  });
  const { version } = (await response.json()) as { version: string };
  expect(response.status).toBe(201);
  return version;
}

/** What is there of versions that are not there yet, in bytes; undefined when nothing was begun. */
async function bytesBegun(): Promise<number | undefined> {
  const begun = (await readdir(spiders()).catch(() => [])).filter((name) => name.startsWith(".new-"));
  if (begun.length === 0) return undefined;
  let bytes = 0;
  for (const name of begun) {
    const folder = path.join(spiders(), name);
    for (const file of await readdir(folder, { recursive: true }).catch(() => [])) {
      const found = await stat(path.join(folder, file)).catch(() => undefined);
      if (found?.isFile() === true) bytes += found.size;
    }
  }
  return bytes;
}

type Report = { node: string; state: string; install?: { log: string } };

async function report(name: string, version: string): Promise<Report | undefined> {
  const { body } = await api(master).call("GET", `/api/v1/spiders/${name}/versions/${version}/nodes`);
  return (body as { items: Report[] }).items.find(({ node }) => node === "w1");
}

/** Has the nodes told of a version once more, and waits until it is ready. */
async function syncAgain(name: string, version: string): Promise<void> {
  await api(master).call("POST", `/api/v1/spiders/${name}/rollback`, { version });
  await until(`version ${version} is ready`, async () => (await report(name, version))?.state === "ready");
}

/** What is on the disk is what was put, and nothing else is. */
async function expectWhole(name: string, version: string): Promise<void> {
  const { body } = await api(master).call("GET", `/api/v1/spiders/${name}/versions/${version}`);
  const { files } = (body as { manifest: { files: { path: string; sha256: string }[] } }).manifest;
  for (const file of files) {
    const bytes = await readFile(path.join(spiders(), name, version, file.path));
    expect(createHash("sha256").update(bytes).digest("hex")).toBe(file.sha256);
  }
  const all = await readdir(path.join(spiders(), name, version), { recursive: true, withFileTypes: true });
  const own = all.filter((entry) => entry.isFile() && !entry.parentPath.endsWith(".warren"));
  expect(own).toHaveLength(files.length);
  expect((await readdir(spiders())).filter((entry) => entry.startsWith("."))).toEqual([]);
}

describe("a worker that is killed while it fetches code", () => {
  const big = () =>
    tarGz([
      { path: "spider.json", body: JSON.stringify({ name: "big", follow: [{ css: "a" }] }) },
      ...Array.from({ length: FILES }, (_, i) => ({
        path: `data/${i}/x.bin`,
        body: randomBytes(FILE_BYTES),
      })),
    ]);

  it.each([0, 0.1, 0.5, 0.95, 1.01].map((part) => [Math.floor(part * TOTAL)]))(
    "when %i bytes have come, has none of it at its next start, and all of it when it fetched it then",
    async (bytes) => {
      const first = await startWorker();
      proxy.delay(20);
      const version = await put("big", big());
      await until(
        "so much has come",
        async () => {
          const begun = await bytesBegun();
          if (begun !== undefined && begun >= bytes) return true;
          // It went by between two looks: its place has it all.
          return (await readdir(path.join(spiders(), "big", version)).catch(() => [])).length > 0;
        },
        first,
      );
      await first.end("SIGKILL");
      proxy.delay(0);

      await startWorker();
      // Either none of it, or all: it may have been ready before it was killed.
      const state = (await report("big", version))?.state;
      expect(["missing", "ready"]).toContain(state);
      if (bytes < TOTAL / 2) expect(state).toBe("missing");
      await syncAgain("big", version);
      await expectWhole("big", version);
      for (const member of cluster.members.filter(({ name }) => name === "w1")) await member.end("SIGKILL");
    },
  );

  it("or loses the connection in the middle, fetches it as a whole once it is back", async () => {
    const worker = await startWorker();
    proxy.delay(20);
    const version = await put("big", big());
    await until("half has come", async () => ((await bytesBegun()) ?? 0) >= TOTAL / 2, worker);
    proxy.cut();
    proxy.delay(0);
    await syncAgain("big", version);
    await expectWhole("big", version);
    await worker.end("SIGKILL");
  });
});

describe("a worker that is killed while it installs dependencies", () => {
  it("takes the commands along, and has none of it at its next start", async () => {
    const endless =
      "require('fs').writeFileSync('half', 'x'); console.log('pid', process.pid); setTimeout(() => {}, 60_000)";
    const manifest = { name: "slow", command: ["./run"], install: [["node", "-e", endless]] };
    const worker = await startWorker();
    const version = await put("slow", tarGz([{ path: "spider.json", body: JSON.stringify(manifest) }]));
    const half = path.join(spiders(), "slow", version, "half");
    await until("it is half done", async () => (await stat(half)).isFile(), worker);
    expect((await report("slow", version))?.state).toBe("installing");
    await worker.end("SIGKILL");

    const next = await startWorker();

    expect((await report("slow", version))?.state).toBe("missing");
    expect(await readdir(path.join(spiders(), "slow")).catch(() => [])).toEqual([]);
    await until("the command is gone", async () => (await running(endless)) === 0, next);
    await next.end("SIGKILL");
  });
});

describe("Python packages", () => {
  it("go into an environment of their version's own, which what is run finds", async () => {
    const worker = await startWorker();
    const manifest = {
      ...{ name: "python", command: ["python", "spider.py"] },
      install: [["python", "-c", "import greet, sys; print(greet.WORD, sys.prefix)"]],
    };
    const project = `[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "greet"
version = "1"
`;
    const version = await put(
      "python",
      tarGz([
        { path: "spider.json", body: JSON.stringify(manifest) },
        { path: "requirements.txt", body: "# ours\n./greet\n" },
        { path: "greet/pyproject.toml", body: project },
        { path: "greet/backend.py", body: BACKEND },
      ]),
    );

    await until(
      "it is ready",
      async () => (await report("python", version))?.state === "ready",
      worker,
      120_000,
    );
    const { install } = (await report("python", version)) ?? {};
    expect(install?.log).toContain(`hello from greet ${path.join(spiders(), "python", version, ".venv")}`);
    await worker.end("SIGKILL");
  });
});

/** Builds the package without a build tool, which would have to come from somewhere. */
const BACKEND = `
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "greet-1-py3-none-any.whl"
    about = "greet-1.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("greet.py", "WORD = 'hello from greet'\\n")
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: greet\\nVersion: 1\\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(about + "RECORD", "greet.py,,\\n")
    return name
`;

/** Processes whose command line holds a text. */
async function running(text: string): Promise<number> {
  let found = 0;
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (line.includes(text)) found += 1;
  }
  return found;
}
