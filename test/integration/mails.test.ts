import { createServer, type Server, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { MailSender } from "../../src/master/mail-sender.js";
import { MailServer, type MailServerOptions } from "../../src/master/mail-server.js";
import type { Store } from "../../src/store/index.js";
import type { MailDocument } from "../../src/store/mails.js";
import { MailServerUnderTest, smtpError } from "../support/mail-server-under-test.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const stores = new StoresUnderTest();
let store: Store;
const open: { stop(): Promise<void> }[] = [];

beforeAll(async () => {
  store = await stores.open();
});

beforeEach(async () => {
  await store.collection("mails").deleteMany({});
});

afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.stop();
});

afterAll(() => stores.dispose());

async function server(options: ConstructorParameters<typeof MailServerUnderTest>[0] = {}) {
  const started = await new MailServerUnderTest(options).start();
  open.push(started);
  return started;
}

function sender(url: string, options: Partial<MailServerOptions> = {}, maxAttempts = 12) {
  const mailServer = new MailServer(
    { url, from: "Warren <warren@crawler.test>", silenceMs: 300, timeoutMs: 2_000, ...options },
    systemClock,
  );
  const made = new MailSender(
    { store, server: mailServer, clock: systemClock, logger: silentLogger },
    { everyMs: 10, firstWaitMs: 0, maxAttempts },
  );
  open.push(made);
  return made;
}

const mail = (id: string, to: readonly string[] = ["ops@example.com"]) => ({
  ...{ id, to, subject: "[Warren] Crawl “nächste” has finished", text: "queued: 0\ndone: 3\n.\nfailed: 0" },
});

const recorded = async (id: string) => (await store.mails.list()).items.find((one) => one.id === id);

describe("a mail", () => {
  it("is handed in once, whoever sends, with subject, text and a Message-ID of its own", async () => {
    const smtp = await server();
    expect(await store.mails.add(mail("one"))).toBe(true);
    expect(await store.mails.add({ ...mail("one"), subject: "another" })).toBe(false);
    await store.mails.add(mail("two", ["a@example.com", "b@example.com"]));
    await Promise.all([1, 2, 3].map(() => sender(smtp.url).sendDue()));
    expect(smtp.received.map(({ to }) => to).sort()).toEqual([
      ["a@example.com", "b@example.com"],
      ["ops@example.com"],
    ]);
    const [{ text = "", from = "" } = {}] = smtp.received;
    expect(from).toBe("warren@crawler.test");
    expect(text).toContain("From: Warren <warren@crawler.test>");
    expect(text).toMatch(/^Subject: =\?UTF-8\?/m);
    expect(text).toMatch(/^Auto-Submitted: auto-generated/m);
    expect(text).toContain("queued: 0\r\ndone: 3\r\n.\r\nfailed: 0");
    expect(new Set(smtp.received.map((one) => /^Message-ID: (.*)$/m.exec(one.text)?.[1])).size).toBe(2);
    expect(await recorded("one")).toMatchObject({ state: "sent", attempts: 1 });
    // Known still, so that who adds it late does not have it sent again.
    expect(await store.mails.add(mail("one"))).toBe(false);
    await sender(smtp.url).sendDue();
    expect(smtp.received).toHaveLength(2);
  });

  it("whose sender died is sent by another, under the same Message-ID", async () => {
    const smtp = await server();
    await store.mails.add(mail("left"));
    const taken = await store.mails.take(60_000);
    expect(taken).toMatchObject({ id: "left", attempts: 1 });
    // It was handed in, and that was not noted any more.
    const dead = new MailServer({ url: smtp.url, from: "warren@crawler.test" }, systemClock);
    await dead.send(taken ?? { ...mail("left"), attempts: 1 });
    await sender(smtp.url).sendDue();
    expect(smtp.received).toHaveLength(1);
    await store
      .collection<MailDocument>("mails")
      .updateOne({ _id: "left" }, { $set: { nextAt: new Date(0) } });
    await sender(smtp.url).sendDue();
    const ids = smtp.received.map((one) => /^Message-ID: (.*)$/m.exec(one.text)?.[1]);
    expect(ids).toHaveLength(2);
    expect(new Set(ids).size).toBe(1);
    expect(await recorded("left")).toMatchObject({ state: "sent", attempts: 2 });
  });

  it("waits while the server is away, and is sent when it comes back", async () => {
    const smtp = await server();
    await smtp.stop();
    await store.mails.add(mail("patient"));
    const away = sender(smtp.url);
    await away.sendDue();
    const waiting = await recorded("patient");
    expect(waiting).toMatchObject({ state: "waiting", attempts: 1 });
    expect(waiting?.error).toContain("ECONNREFUSED");
    await smtp.start();
    await away.sendDue();
    expect(smtp.received).toHaveLength(1);
    expect(await recorded("patient")).toMatchObject({ state: "sent", attempts: 2 });
  });

  it.each([
    ["a recipient for good", 550, "failed", 1],
    ["a recipient for now", 450, "waiting", 1],
  ] as const)("has an end that fits when the server refuses %s", async (_what, code, state, attempts) => {
    const smtp = await server({
      onRcptTo: (_address, _session, callback) => callback(smtpError(code, "no such mailbox")),
    });
    await store.mails.add(mail("refused"));
    await sender(smtp.url).sendDue();
    expect(await recorded("refused")).toMatchObject({ state, attempts });
    expect((await recorded("refused"))?.error).toContain("no such mailbox");
  });

  it("that is refused does not hold up the next", async () => {
    const smtp = await server({
      onRcptTo: ({ address }, _session, callback) =>
        callback(address === "bad@example.com" ? smtpError(550, "no such mailbox") : null),
    });
    await store.mails.add(mail("bad", ["bad@example.com"]));
    await store.mails.add(mail("part", ["bad@example.com", "good@example.com"]));
    await store.mails.add(mail("good", ["good@example.com"]));
    await sender(smtp.url).sendDue();
    expect(smtp.received.map(({ to }) => to)).toEqual([["good@example.com"], ["good@example.com"]]);
    expect(await recorded("bad")).toMatchObject({ state: "failed" });
    expect(await recorded("part")).toMatchObject({ state: "sent" });
  });

  it("is given up after so many attempts", async () => {
    const smtp = await server({
      onMailFrom: (_address, _session, callback) => callback(smtpError(451, "try again")),
    });
    await store.mails.add(mail("hopeless"));
    const trying = sender(smtp.url, {}, 3);
    for (let attempts = 0; attempts < 5; attempts += 1) await trying.sendDue();
    expect(await recorded("hopeless")).toMatchObject({ state: "failed", attempts: 3 });
  });

  it("is sent to a server that wants a password, which shows up nowhere", async () => {
    const smtp = await server({
      authOptional: false,
      allowInsecureAuth: true,
      authMethods: ["PLAIN"],
      onAuth: ({ username, password }, _session, callback) =>
        password === "s3cret/pass"
          ? callback(null, { user: username })
          : callback(new Error("wrong password")),
    });
    const withPassword = (password: string) =>
      smtp.url.replace("//", `//user:${encodeURIComponent(password)}@`);
    await store.mails.add(mail("private"));
    await sender(withPassword("wr0ng")).sendDue();
    // A password can be mended; the mail waits for that.
    const waiting = await recorded("private");
    expect(waiting).toMatchObject({ state: "waiting" });
    expect(JSON.stringify(waiting)).not.toContain("wr0ng");
    await sender(withPassword("s3cret/pass")).sendDue();
    expect(await recorded("private")).toMatchObject({ state: "sent" });
  });

  it("goes into no other header, whatever its subject", async () => {
    const smtp = await server();
    await store.mails.add({ ...mail("forged"), subject: "hello\r\nBcc: victim@example.com\r\n\r\nbody" });
    await sender(smtp.url).sendDue();
    const [{ text = "", to = [] } = {}] = smtp.received;
    expect(to).toEqual(["ops@example.com"]);
    expect(text).not.toMatch(/^Bcc:/im);
    expect(text).toMatch(/^Subject: hello Bcc: victim@example.com/m);
  });
});

describe("a server that says nothing", () => {
  let silent: Server;
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    silent = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
    });
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", () => resolve()));
  });

  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
  });

  it("is not waited for", async () => {
    const { port } = silent.address() as { port: number };
    await store.mails.add(mail("stuck"));
    await sender(`smtp://127.0.0.1:${port}`).sendDue();
    expect(await recorded("stuck")).toMatchObject({ state: "waiting", attempts: 1 });
  });

  it("is not waited for either when it says something without end", async () => {
    const trickle = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      const timer = setInterval(() => socket.write("220-still there\r\n"), 50);
      socket.on("close", () => clearInterval(timer));
    });
    await new Promise<void>((resolve) => trickle.listen(0, "127.0.0.1", () => resolve()));
    try {
      const { port } = trickle.address() as { port: number };
      await store.mails.add(mail("endless"));
      await sender(`smtp://127.0.0.1:${port}`, { silenceMs: 5_000, timeoutMs: 400 }).sendDue();
      const stuck = await recorded("endless");
      expect(stuck).toMatchObject({ state: "waiting", error: "took longer than 400 ms" });
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => trickle.close(resolve));
    }
  });
});
