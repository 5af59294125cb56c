import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SetupError, startServers } from "../../scripts/servers.mjs";

/** A loopback port on which nobody answers. */
async function deadPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

describe("servers that are given", () => {
  let dataDir: string;
  const given = { AMQP_URL: process.env.AMQP_URL ?? "", MONGODB_URI: process.env.MONGODB_URI ?? "" };

  beforeEach(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), "warren-servers-"));
  });
  afterEach(() => rm(dataDir, { recursive: true, force: true }));

  const start = (env: Record<string, string>) => startServers({ purpose: "test", dataDir, env });

  /** What it complains about; it must not have left anything claimed. */
  async function complaint(env: Record<string, string>): Promise<string> {
    const error = await start(env).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(SetupError);
    expect(await readdir(path.join(dataDir, "test"))).toEqual([]);
    return error instanceof SetupError ? `${error.exitCode} ${error.message}` : "";
  }

  it("are used as they are", async () => {
    const servers = await start(given);
    expect(servers).toMatchObject({
      amqpUrl: given.AMQP_URL,
      mongodbUri: given.MONGODB_URI,
      kind: { rabbitmq: "given", mongodb: "given" },
    });
    await servers.stop();
    // They are still there.
    await (await start(given)).stop();
  });

  it("are refused by the variable's name when nobody answers", async () => {
    const port = await deadPort();
    expect(await complaint({ ...given, AMQP_URL: `amqp://127.0.0.1:${port}` })).toMatch(
      /^2 AMQP_URL: .*ECONNREFUSED/,
    );
    expect(await complaint({ ...given, MONGODB_URI: `mongodb://127.0.0.1:${port}` })).toMatch(
      /^2 MONGODB_URI: .*ECONNREFUSED/,
    );
  });

  it("are refused by the variable's name when the password is wrong, and without repeating it", async () => {
    const url = new URL(given.AMQP_URL);
    url.password = "not-the-password";
    const text = await complaint({ ...given, AMQP_URL: url.href });
    expect(text).toMatch(/^2 AMQP_URL: .*ACCESS.REFUSED/);
    expect(text).not.toContain("not-the-password");
  });

  it("are refused by the variable's name when they are no URLs", async () => {
    expect(await complaint({ ...given, AMQP_URL: "nonsense" })).toMatch(/^2 AMQP_URL/);
    expect(await complaint({ ...given, MONGODB_URI: "nonsense" })).toMatch(/^2 MONGODB_URI/);
  });

  it("may be several brokers, of which one answers", async () => {
    const AMQP_URL = `amqp://127.0.0.1:${await deadPort()},${given.AMQP_URL}`;
    await (await start({ ...given, AMQP_URL })).stop();
  });
});
