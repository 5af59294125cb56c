import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { until } from "../support/cluster.js";

const ROOT = path.resolve(import.meta.dirname, "../..");
/** A port on which nothing listens. */
const NOWHERE = "127.0.0.1:9";

describe("a program that cannot start", () => {
  let folder: string;
  const started: ChildProcess[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-start-"));
  });
  afterEach(() => {
    for (const child of started.splice(0)) child.kill("SIGKILL");
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  function start(program: string, args: readonly string[], environment: Record<string, string> = {}) {
    const child = spawn(process.execPath, [path.join(ROOT, "dist", `${program}.js`), ...args], {
      cwd: folder,
      env: { ...process.env, WARREN_NAMESPACE: "badstart", ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    started.push(child);
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    const ended = once(child, "close").then(() => ({ code: child.exitCode, output }));
    return { child, ended, output: () => output };
  }

  const broker = new URL(process.env.AMQP_URL ?? "amqp://127.0.0.1");

  it.each<[string, string, string[], Record<string, string>, RegExp]>([
    ["an unknown flag", "master", ["--prot", "1"], {}, /unknown flag --prot, did you mean --port\?/],
    ["an unknown flag", "worker", ["--nope"], {}, /unknown flag --nope/],
    ["an unknown variable", "master", [], { WARREN_PROT: "1" }, /WARREN_PROT, did you mean WARREN_PORT\?/],
    ["a bad port", "master", ["--port", "99999"], {}, /--port must be a whole number, 0 to 65535/],
    ["a bad node id", "worker", ["--node-id", "a/b"], {}, /--node-id must be/],
    ["a bad AMQP URL", "worker", [], { AMQP_URL: "rabbit:5672" }, /AMQP_URL must look like/],
    ["a bad MongoDB URI", "worker", [], { MONGODB_URI: "localhost" }, /MONGODB_URI must look like/],
    [
      "a certificate authority that is not there",
      "worker",
      [],
      { AMQP_URL: "amqps://127.0.0.1:9", WARREN_AMQP_CA_FILE: "/nowhere/ca.pem" },
      /WARREN_AMQP_CA_FILE: cannot read \/nowhere\/ca\.pem/,
    ],
    [
      "a certificate without its key",
      "master",
      ["--port", "0", "--amqp-cert-file", "/nowhere/node.pem"],
      { AMQP_URL: "amqps://127.0.0.1:9" },
      /WARREN_AMQP_CERT_FILE and WARREN_AMQP_KEY_FILE/,
    ],
    [
      "a MongoDB URI that cannot be read",
      "master",
      ["--port", "0"],
      { MONGODB_URI: "mongodb://u:secret@:x/" },
      /MONGODB_URI/,
    ],
    [
      "a wrong AMQP password",
      "worker",
      ["--node-id", "w"],
      { AMQP_URL: `amqp://guest:secret@${broker.host}` },
      /AMQP_URL: .* refused the user or password/,
    ],
    [
      "an open address without tokens",
      "master",
      ["--host", "0.0.0.0", "--port", "0"],
      {},
      /WARREN_API_TOKENS/,
    ],
    [
      "a bad network",
      "worker",
      [],
      { WARREN_ALLOWED_NETWORKS: "10.0.0.0/99" },
      /WARREN_ALLOWED_NETWORKS: "10.0.0.0\/99"/,
    ],
    ["no seed", "worker", ["--standalone"], {}, /--seed: nothing to crawl/],
    ["a bad seed", "worker", ["--standalone", "--seed", "example"], {}, /--seed must be an absolute http/],
    [
      "an unknown spider",
      "worker",
      ["--standalone", "--seed", "http://a/", "--spider", "nope"],
      {},
      /no spider "nope"/,
    ],
    [
      "a spider's file that is not there",
      "worker",
      ["--standalone", "--seed", "http://a/", "--spider", "./x.mjs"],
      {},
      /cannot load .\/x.mjs/,
    ],
    [
      "a crawl file that is not there",
      "worker",
      ["--standalone", "--config", "x.yaml"],
      {},
      /--config: cannot read x.yaml/,
    ],
  ])("ends with 2 on %s (%s %j)", async (_what, program, args, environment, message) => {
    const { code, output } = await start(program, args, environment).ended;
    expect(output).toMatch(message);
    expect(output).not.toContain("secret");
    expect(code).toBe(2);
  });

  it("names the member of a crawl file that is wrong", async () => {
    await writeFile(path.join(folder, "crawl.yaml"), "seeds: [http://a/]\nlimits: {maxPages: none}\n");
    const { code, output } = await start("worker", ["--standalone", "--config", "crawl.yaml"]).ended;
    expect(output).toMatch(/--config limits\.maxPages/);
    expect(code).toBe(2);
  });

  it("ends with 2 when its port is taken", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const { code, output } = await start("master", ["--port", String(port)]).ended;
    server.close();
    expect(output).toMatch(new RegExp(`port.*${port}|${port}.*taken|EADDRINUSE.*${port}`));
    expect(code).toBe(2);
  });

  it("keeps trying while the servers are away, says so, and stops when it is told to", async () => {
    const away = {
      AMQP_URL: `amqp://guest:secret@${NOWHERE}`,
      MONGODB_URI: `mongodb://${NOWHERE}/?replicaSet=x`,
    };
    const { child, ended, output } = start("master", ["--port", "0"], away);
    await until("it says that RabbitMQ is away", async () => output().includes("RabbitMQ is away"));
    await until("the API listens", async () => /"url":"http:/.test(output()));
    const url = /"url":"(http:[^"]+)"/.exec(output())?.[1];
    const ready = await fetch(`${url}/readyz`);
    expect(ready.status).toBe(503);
    expect(await ready.json()).toMatchObject({ checks: { amqp: { ok: false }, mongodb: { ok: false } } });
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    child.kill("SIGTERM");
    const { code } = await ended;
    expect(output()).not.toContain("secret");
    expect(code).toBe(0);
  });

  it("gives up with 1 after the time that it was given", async () => {
    const away = { AMQP_URL: `amqp://${NOWHERE}`, MONGODB_URI: `mongodb://${NOWHERE}/?replicaSet=x` };
    const { code, output } = await start("worker", ["--node-id", "w", "--connect-timeout-ms", "1200"], away)
      .ended;
    expect(output).toMatch(/could not be reached within 1200 ms/);
    expect(code).toBe(1);
  });
});
