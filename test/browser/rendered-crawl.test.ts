import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ScratchFolder } from "../../src/crawl/render/scratch-folder.js";
import { api, Cluster, type Master, type Member, until } from "../support/cluster.js";
import { PageServer } from "../support/page-server.js";
import { openChannel } from "../support/stranger.js";

const ROOT = path.resolve(import.meta.dirname, "../..");

type Item = { readonly url: string; readonly data: Readonly<Record<string, unknown>> };

/** A site whose links and titles are made by scripts alone. */
function scriptedSite(server: PageServer): PageServer {
  const titled = (title: string) => `<script>document.title = "${title}"</script>`;
  return server
    .serve("/robots.txt", (_, response) => void response.end("User-agent: *\nDisallow: /private/\n"))
    .serve(
      "/",
      `<title>plain</title><body><script src=/private/tracker.js></script><script>
        fetch("/api/links").then((answer) => answer.json()).then((links) => {
          document.body.innerHTML = links.map((link) => "<a href='" + link + "'>x</a>").join("");
          document.title = "made";
        });</script>`,
    )
    .serve("/api/links", (_, response) => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(["/one", "/moved", "/away", "/to-private", "/plain.txt", "/loop-a"]));
    })
    .serve("/one", titled("one"))
    .serve("/two", titled("two"))
    .serve("/moved", `<script>location.replace("/two")</script>`)
    .serve("/away", `<script>location.href = "http://elsewhere.invalid/"</script>`)
    .serve("/to-private", `<script>location.href = "/private/page"</script>`)
    .serve("/loop-a", `<script>location.href = "/loop-b"</script>`)
    .serve("/loop-b", `<script>location.href = "/loop-a"</script>`)
    .serve("/plain.txt", (_, response) => {
      response.setHeader("content-type", "text/plain");
      response.end("<script>document.title = 'never'</script>");
    });
}

/** The children of a process, and theirs. */
function descendantsOf(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const [, parent] = /\) \S (\d+)/.exec(readFileSync(`/proc/${name}/stat`, "utf8")) ?? [];
      parents.set(Number(name), Number(parent));
    } catch {
      // It has ended meanwhile.
    }
  }
  const found = [pid];
  for (const known of found) {
    for (const [child, parent] of parents) if (parent === known) found.push(child);
  }
  return found.slice(1);
}

/** What a process was started with; nothing when it has ended. */
function argumentsOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

function isAlive(pid: number): boolean {
  try {
    // A zombie waits for whoever adopted it: it runs no more.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("a standalone crawl", () => {
  let site: PageServer;
  let folder: string;
  let running: ChildProcess | undefined;

  beforeEach(async () => {
    site = scriptedSite(await new PageServer().start());
    folder = await mkdtemp(path.join(tmpdir(), "warren-test-"));
  });

  afterEach(async () => {
    running?.kill("SIGKILL");
    await site.stop();
    await rm(folder, { recursive: true, force: true });
  });

  async function start(crawl: object, flags: readonly string[] = []): Promise<ChildProcess> {
    const config = path.join(folder, "crawl.json");
    await writeFile(config, JSON.stringify({ seeds: [site.url("/")], ...crawl }));
    const files = ["--output", path.join(folder, "items"), "--files", path.join(folder, "files")];
    const args = ["dist/worker.js", "--standalone", "--config", config, "--allowed-networks", "127.0.0.0/8"];
    running = spawn(process.execPath, [...args, ...files, "--retry-delay-ms", "10", ...flags], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe"],
    });
    return running;
  }

  async function summaryOf(crawl: object, flags: readonly string[] = []) {
    const child = await start(crawl, flags);
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    const [code] = await once(child, "close");
    expect(code, output).toBe(0);
    const line = output.split("\n").find((text) => text.includes("crawl finished")) ?? "{}";
    return { output, counts: JSON.parse(line) as Record<string, number> };
  }

  async function items(): Promise<Item[]> {
    const text = await readFile(path.join(folder, "items"), "utf8");
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Item);
  }

  const titles = async () =>
    Object.fromEntries((await items()).map(({ url, data }) => [new URL(url).pathname, data.title]));

  it("finds what scripts made, and judges where they lead as it judges redirects", async () => {
    const { counts } = await summaryOf({ render: { mode: "always", screenshot: true } });
    expect(await titles()).toEqual({ "/": "made", "/one": "one", "/two": "two", "/plain.txt": "" });
    // Left out: /away (scope), /to-private (robots), and the targets of redirects.
    expect(counts).toMatchObject({ failed: 1, items: 4, files: 3 });
    expect(site.requests.filter((request) => request.includes("/private/"))).toEqual([]);
    expect(site.requests.filter((request) => request === "GET /two")).toHaveLength(1);
    for (const name of await readdir(path.join(folder, "files"))) {
      const png = await readFile(path.join(folder, "files", name));
      expect(png.subarray(1, 4).toString()).toBe("PNG");
    }
  });

  it("renders nothing unless it is asked to", async () => {
    await summaryOf({});
    expect(await titles()).toEqual({ "/": "plain" });
    expect(site.requests).not.toContain("GET /api/links");
  });

  it("renders what its spider asks for, also a page that it had plain", async () => {
    const spider = path.join(folder, "asks.mjs");
    await writeFile(
      spider,
      `export default { name: "asks", *parse(page) {
        yield { item: { title: page.title, rendered: page.rendered } };
        if (!page.rendered) yield { request: { url: page.url, render: { waitFor: { css: "a" }, timeoutMs: 5000 } } };
      } };`,
    );
    await summaryOf({}, ["--spider", spider]);
    expect((await items()).map(({ data }) => data)).toEqual([
      { title: "plain", rendered: false },
      { title: "made", rendered: true },
    ]);
  });

  it("fails a page whose process keeps crashing after three attempts, and goes on", async () => {
    site.serve(
      "/one",
      `<script>const all = []; for (;;) all.push(new Array(1e6).fill(Math.random()))</script>`,
    );
    const flags = ["--browser-memory-bytes", String(256 * 2 ** 20)];
    const { counts } = await summaryOf({ render: { mode: "always" } }, flags);
    expect(site.requests.filter((request) => request === "GET /one")).toHaveLength(3);
    expect(counts).toMatchObject({ failed: 2, items: 3 });
  });

  it("says what is missing where there is no browser", async () => {
    const { counts } = await summaryOf({ render: { mode: "always" } }, ["--browser-path", "/nowhere"]);
    expect(counts).toMatchObject({ done: 0, failed: 1 });
    expect(site.requests).toEqual(["GET /robots.txt", "GET /"]);
  });

  it.each(["SIGKILL", "SIGTERM"] as const)("leaves no browser behind when it ends by %s", async (signal) => {
    site.serve("/", `<p>busy<script>fetch("/asked"); setTimeout(() => { for (;;) {} }, 200)</script>`);
    const child = await start({ render: { mode: "always", timeoutMs: 45_000 } });
    await until("the page is rendered", async () => site.requests.includes("GET /asked"));
    const processes = descendantsOf(child.pid ?? 0);
    expect(processes.length).toBeGreaterThan(2);
    const profiles = processes.flatMap((pid) => {
      const [, name] = /--user-data-dir=\S*\/(playwright_[\w-]+)/.exec(argumentsOf(pid)) ?? [];
      return name === undefined ? [] : [name];
    });
    expect(profiles).not.toEqual([]);
    child.kill(signal);
    await once(child, "exit");
    await until("the browser has ended", async () => !processes.some(isAlive), undefined, 15_000);
    // What a killed process had no time to remove is removed by the next one that starts a browser.
    const next = await ScratchFolder.make();
    await next.remove();
    const left = [
      ...profiles,
      ...readdirSync(tmpdir()).filter((name) => name.includes(`browser-${child.pid}-`)),
    ];
    expect(left.filter((name) => existsSync(path.join(tmpdir(), name)))).toEqual([]);
  });
});

describe("a cluster", () => {
  const cluster = new Cluster();
  let master: Master;
  let worker: Member | undefined;
  let site: PageServer;

  beforeAll(async () => {
    site = scriptedSite(await new PageServer().start());
    master = await cluster.master();
    worker = await cluster.worker("renders");
  });

  afterAll(async () => {
    // In the orderly way, so that the browser's files go with it.
    await worker?.end();
    await cluster.stop();
    await site?.stop();
  });

  it("crawls a site that is made by scripts alone, and keeps its pictures", async () => {
    const { id } = await api(master).createCrawl({
      seeds: [site.url("/")],
      render: { mode: "always", screenshot: true },
    });
    const finished = await api(master).crawlOnce(id, "finished");
    expect(finished.counts).toMatchObject({ items: 4, files: 3 });
    const titles = (await api(master).items(id)).map(({ data }) => (data as { title: string }).title).sort();
    expect(titles).toEqual(["", "made", "one", "two"]);
    const [file] = await api(master).list(`/api/v1/crawls/${id}/files`);
    expect(file).toMatchObject({ contentType: "image/png" });
    const picture = await fetch(`${master.url}/api/v1/files/${encodeURIComponent(String(file?.id))}`);
    expect(picture.headers.get("content-type")).toBe("image/png");
    expect(
      Buffer.from(await picture.arrayBuffer())
        .subarray(1, 4)
        .toString(),
    ).toBe("PNG");
  });

  it("renders a URL that is handed in with the wish for it", async () => {
    const { id } = await api(master).createCrawl({ seeds: [site.url("/plain.txt")] });
    await api(master).crawlOnce(id, "finished");
    const { channel, close } = await openChannel();
    const task = { url: site.url("/one"), crawl: id, render: { waitFor: "load" } };
    channel.sendToQueue(`${cluster.namespace}.tasks`, Buffer.from(JSON.stringify(task)), {
      contentType: "application/json",
    });
    const titles = async () =>
      (await api(master).items(id)).map(({ data }) => (data as { title: string }).title);
    await until("the page is rendered", async () => (await titles()).includes("one"));
    await close();
  });

  it("says which node can render", async () => {
    const { body } = await api(master).call("GET", "/api/v1/nodes/renders/system");
    expect(body).toMatchObject({
      rendering: { browser: expect.stringMatching(/chrom/), maxPages: 2, pages: 0 },
    });
  });

  it("refuses a crawl that is to be rendered in an unknown way", async () => {
    const { status, body } = await api(master).call("POST", "/api/v1/crawls", {
      seeds: [site.url("/")],
      render: { mode: "sometimes" },
    });
    expect(status).toBe(400);
    expect(JSON.stringify(body)).toContain("render.mode");
  });
});
