import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { freePort, PrivateRabbit } from "../../scripts/servers.mjs";
import { Bus, type BusOptions, type SecurityOptions } from "../../src/bus/index.js";
import { systemClock } from "../../src/lib/clock.js";
import { ConfigError } from "../../src/lib/errors.js";
import { silentLogger } from "../../src/lib/logger.js";
import { BrokerAdmin } from "../support/broker-admin.js";
import { found, until } from "../support/bus-under-test.js";
import { type CertificateFiles, TestAuthority } from "../support/certificates.js";
import { TcpProxy } from "../support/tcp-proxy.js";

const PASSPHRASE = "a pass phrase";

describe("the bus over TLS", () => {
  let folder: string;
  let authority: TestAuthority;
  let stranger: TestAuthority;
  let rabbit: PrivateRabbit;
  let admin: BrokerAdmin;
  let node: CertificateFiles;
  let encryptedKey: string;
  let port: number;
  const buses: Bus[] = [];
  const proxies: TcpProxy[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-tls-"));
    [authority, stranger] = await Promise.all([TestAuthority.create(), TestAuthority.create()]);
    const server = await authority.issue("broker", ["subjectAltName=IP:127.0.0.1"]);
    node = await authority.issue("node-7");
    encryptedKey = await authority.encrypted(node.keyFile, PASSPHRASE);
    port = await freePort();
    rabbit = new PrivateRabbit({
      folder,
      plugins: ["rabbitmq_auth_mechanism_ssl"],
      settings: [
        `listeners.ssl.1 = 127.0.0.1:${port}`,
        `ssl_options.cacertfile = ${authority.caFile}`,
        `ssl_options.certfile = ${server.certFile}`,
        `ssl_options.keyfile = ${server.keyFile}`,
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
        "ssl_cert_login_from = common_name",
        // How long the list of connections may lag behind, in milliseconds.
        "collect_statistics_interval = 200",
        "auth_mechanisms.1 = PLAIN",
        "auth_mechanisms.2 = EXTERNAL",
      ],
    });
    await rabbit.start();
    admin = new BrokerAdmin(rabbit.managementUrl);
    await admin.put("users/node-7", { password_hash: "", tags: "" });
    await admin.put("permissions/%2F/node-7", { configure: ".*", write: ".*", read: ".*" });
  }, 120_000);

  afterAll(async () => {
    await Promise.all(buses.map((bus) => bus.stop()));
    await Promise.all(proxies.map((proxy) => proxy.close()));
    await rabbit?.stop();
    await Promise.all([authority?.dispose(), stranger?.dispose()]);
    await rm(folder, { recursive: true, force: true });
  });

  function bus(security: SecurityOptions, options: Partial<BusOptions> = {}): Bus {
    const made = new Bus(
      {
        urls: [`amqps://guest:guest@127.0.0.1:${port}`],
        namespace: "tls",
        identity: { role: "worker", id: "node-7", version: "1.2.3" },
        reconnect: { minMs: 10, maxMs: 100 },
        security,
        ...options,
      },
      { logger: silentLogger, clock: systemClock },
    );
    buses.push(made);
    return made;
  }

  /** What a program that begins with these settings says when it ends with exit code 2. */
  async function refusal(security: SecurityOptions, options: Partial<BusOptions> = {}): Promise<string> {
    const error: unknown = await bus(security, options)
      .start()
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    return String(error);
  }

  /** That tasks go through and come back. */
  async function expectToWork(working: Bus): Promise<void> {
    const bodies: string[] = [];
    const consumer = await working.tasks.consume({ prefetch: 1 }, (delivery) => {
      bodies.push(delivery.body.toString());
      working.tasks.settle([delivery], { kind: "ack" });
    });
    const outcomes = await working.tasks.publish([{ body: "a task", contentType: "text/plain" }]);
    expect(outcomes).toEqual([{ ok: true }]);
    await until("the task came", () => bodies.includes("a task"));
    await consumer.stop();
  }

  it("trusts a broker whose certificate the given authority has signed", async () => {
    const trusting = bus({ caFile: authority.caFile });
    await trusting.start();
    await expectToWork(trusting);
    await trusting.stop();
  });

  it("says who it is: its connections' names, node id, role and version", async () => {
    const trusting = bus({ caFile: authority.caFile });
    await trusting.start();
    const connections = await found("both connections are listed", async () => {
      const listed = Connections.parse(await admin.get("connections"));
      return listed.length === 2 ? listed : undefined;
    });
    expect(connections.map(({ user_provided_name }) => user_provided_name).sort()).toEqual([
      "node-7 (consume)",
      "node-7 (publish)",
    ]);
    for (const { client_properties, ssl } of connections) {
      expect(ssl).toBe(true);
      expect(client_properties).toMatchObject({
        product: "Warren",
        version: "1.2.3",
        node: "node-7",
        role: "worker",
      });
    }
    await trusting.stop();
  });

  it.each([
    ["Node alone trusts", () => ({})],
    ["another authority vouches for", () => ({ caFile: stranger.caFile })],
  ])("fails at once when only what %s would be accepted", async (_, security) => {
    expect(await refusal(security())).toMatch(
      /AMQP_URL: the certificate of amqps:\/\/.* does not hold: .*WARREN_AMQP_CA_FILE/,
    );
  });

  it("fails at once when the certificate is for another host", async () => {
    const urls = [`amqps://guest:guest@localhost:${port}`];
    expect(await refusal({ caFile: authority.caFile }, { urls })).toMatch(/ERR_TLS_CERT_ALTNAME_INVALID/);
  });

  it("fails at once when there is a broker, but no TLS", async () => {
    const urls = [rabbit.url.replace("amqp:", "amqps:")];
    expect(await refusal({ caFile: authority.caFile }, { urls })).toMatch(/does not speak TLS/);
  });

  it.each([
    ["as it is", () => ({ keyFile: node.keyFile })],
    ["encrypted", () => ({ keyFile: encryptedKey, keyPassphrase: PASSPHRASE })],
  ])("logs in by its certificate, with its key %s", async (_, key) => {
    const urls = [`amqps://127.0.0.1:${port}`];
    const known = bus(
      { caFile: authority.caFile, certFile: node.certFile, ...key(), auth: "external" },
      { urls },
    );
    await known.start();
    await expectToWork(known);
    const users = await found("its connections are listed", async () => {
      const listed = Connections.parse(await admin.get("connections"));
      return listed.length === 2 ? listed.map(({ user }) => user) : undefined;
    });
    expect(users).toEqual(["node-7", "node-7"]);
    await known.stop();
  });

  it("fails at once when no user has the certificate's name", async () => {
    const other = await authority.issue("node-8");
    const security = { caFile: authority.caFile, ...other, auth: "external" } as const;
    expect(await refusal(security)).toMatch(/WARREN_AMQP_CERT_FILE: .*no user of the certificate's name/);
  });

  it("fails at once when the broker does not know who signed its certificate", async () => {
    const other = await stranger.issue("node-7");
    const security = { caFile: authority.caFile, ...other, auth: "external" } as const;
    expect(await refusal(security)).toMatch(/WARREN_AMQP_CERT_FILE: .*does not take the certificate/);
  });

  it("goes to the next broker when the first is away, and back again", async () => {
    const [first, second] = [await proxyOf(), await proxyOf()];
    await first.close();
    const moving = bus({ caFile: authority.caFile }, { urls: [first.url, second.url] });
    await moving.start();
    expect(second.connections).toBe(2);
    await first.open();
    await second.close();
    await until("the loss was noticed", () => !moving.connected);
    await until("it is up again", () => moving.connected);
    expect(first.connections).toBe(2);
    await expectToWork(moving);
    await moving.stop();
  });

  it("takes a renewed certificate with the next connection", async () => {
    const changing = {
      certFile: path.join(folder, "changing.pem"),
      keyFile: path.join(folder, "changing.key"),
    };
    const put = async ({ certFile, keyFile }: CertificateFiles) => {
      await copyFile(certFile, changing.certFile);
      await copyFile(keyFile, changing.keyFile);
    };
    await put(node);
    await admin.put("users/node-9", { password_hash: "", tags: "" });
    await admin.put("permissions/%2F/node-9", { configure: ".*", write: ".*", read: ".*" });
    const proxy = await proxyOf();
    const renewing = bus({ caFile: authority.caFile, ...changing, auth: "external" }, { urls: [proxy.url] });
    await renewing.start();
    await put(await authority.issue("node-9"));
    proxy.cut();
    await until("connections are the other user's", async () => {
      const users = Connections.parse(await admin.get("connections")).map(({ user }) => user);
      return users.length === 2 && users.every((user) => user === "node-9");
    });
    await renewing.stop();
  });

  it.each([
    ["CA_FILE", "cannot read", () => ({ caFile: "/nowhere/ca.pem" })],
    ["CA_FILE", "holds no certificate", () => ({ caFile: node.keyFile })],
    ["CERT_FILE", "cannot read", () => ({ ...node, certFile: "/nowhere/node.pem" })],
    ["CERT_FILE", "holds no certificate", () => ({ ...node, certFile: node.keyFile })],
    ["KEY_FILE", "cannot read", () => ({ ...node, keyFile: "/nowhere/node.key" })],
    ["KEY_FILE", "holds no private key", () => ({ ...node, keyFile: node.certFile })],
    ["KEY_FILE", "WARREN_AMQP_KEY_PASSPHRASE is not", () => ({ ...node, keyFile: encryptedKey })],
    [
      "KEY_FILE",
      "WARREN_AMQP_KEY_PASSPHRASE is not",
      () => ({ ...node, keyFile: encryptedKey, keyPassphrase: "no" }),
    ],
    ["CERT_FILE", "without the other", () => ({ certFile: node.certFile })],
    ["KEY_PASSPHRASE", "no WARREN_AMQP_KEY_FILE", () => ({ keyPassphrase: "no" })],
    ["AUTH", "external needs", () => ({ auth: "external" as const })],
  ])("names WARREN_AMQP_%s when it %s", async (setting, what, security) => {
    const said = await refusal({ caFile: authority.caFile, ...security() });
    expect(said).toContain(`WARREN_AMQP_${setting}`);
    expect(said).toContain(what);
    expect(said).not.toContain(PASSPHRASE);
  });

  it("fails at once when a key is another certificate's, or files are given and no URL is amqps", async () => {
    const keyFile = path.join(folder, "other.key");
    await writeFile(keyFile, "");
    await copyFile((await authority.issue("node-10")).keyFile, keyFile);
    expect(await refusal({ caFile: authority.caFile, ...node, keyFile })).toMatch(/is not the key of/);
    expect(await refusal({ caFile: authority.caFile }, { urls: [rabbit.url] })).toMatch(
      /WARREN_AMQP_CA_FILE/,
    );
    expect(await refusal({ ...node, auth: "external" }, { urls: [rabbit.url] })).toMatch(/WARREN_AMQP_AUTH/);
  });

  async function proxyOf(): Promise<TcpProxy> {
    const proxy = await new TcpProxy(`amqps://guest:guest@127.0.0.1:${port}`).open();
    proxies.push(proxy);
    return proxy;
  }
});

/** What the management API tells of connections; those that are about to go have no user yet, or no more. */
const Connections = z.array(
  z.object({
    user: z.string().optional(),
    ssl: z.boolean().optional(),
    user_provided_name: z.string().optional(),
    client_properties: z.record(z.string(), z.unknown()).optional(),
  }),
);
