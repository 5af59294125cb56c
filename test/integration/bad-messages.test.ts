import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { type Channel, type ChannelModel, type ConsumeMessage, connect, type Options } from "amqplib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { noUrl, rightTask, wrongMember } from "../support/any-messages.js";
import { Cluster, type Member, until } from "../support/cluster.js";

type Bad = {
  readonly body: string | Buffer;
  readonly properties?: Options.Publish;
  readonly reason: string;
  readonly error: RegExp;
};

const URL_ = "http://127.0.0.1/";
const JSON_ = { contentType: "application/json" };
/** What the dispatcher sends; nobody else should. */
const DISPATCHED = { contentType: "application/vnd.warren.task+json" };

/** A JSON message with one member that is wrong. */
function member(name: string, value: unknown, error = new RegExp(`^${name}`)): Bad {
  return json({ url: URL_, [name]: value }, error);
}

function json(value: unknown, error: RegExp): Bad {
  const body = typeof value === "string" ? value : JSON.stringify(value);
  return { body, properties: JSON_, reason: "invalid-message", error };
}

function text(body: string | Buffer, error = /^url/): Bad {
  return { body, reason: "invalid-message", error };
}

function nested(depth: number): string {
  return `{"url":"${URL_}","meta":${'{"a":'.repeat(depth - 1)}1${"}".repeat(depth)}`;
}

const UNKNOWN_CRAWL = "0192f0c1-7d3e-7aa0-8f5e-3b7b2f6a1c55";

const dispatched = {
  ...{ id: "i", crawl: "c", generation: 0, url: URL_, host: "127.0.0.1", kind: "page", depth: 0 },
  ...{ attempts: 0, round: 0, token: "t", shard: 0, epoch: 1, dispatchedAt: 1, notAfter: 2, delayMs: 0 },
};

const BAD: Readonly<Record<string, Bad>> = {
  nothing: text(""),
  "white space": text(" \r\n\t "),
  "a text": text("hello"),
  "a relative URL": text("/a/page"),
  "a URL without a scheme": text("example.org/a"),
  "a URL without a host": text("http://"),
  "a URL with a port that is none": text("http://127.0.0.1:99999/"),
  "another scheme": text("ftp://127.0.0.1/"),
  "a script": text("javascript:alert(1)"),
  "a local file": text("file:///etc/passwd"),
  "data as a URL": text("data:text/html,x"),
  "two URLs": text(`${URL_}a\n${URL_}b`),
  "a space in a URL": text(`${URL_}a b`),
  "a URL of 8,193 characters": text(URL_.padEnd(8_193, "x")),
  "bytes that are no UTF-8": text(Buffer.from([0x68, 0x74, 0xff, 0xfe]), /UTF-8/),
  "UTF-16": text(Buffer.from(`\ufeff${URL_}`, "utf16le"), /UTF-8|^url/),
  "half a character": text(Buffer.from([...Buffer.from(URL_), 0xc3]), /UTF-8/),
  "a surrogate in UTF-8": text(Buffer.from([0xed, 0xa0, 0x80]), /UTF-8/),
  "a compressed body": {
    ...text(gzipSync(URL_), /UTF-8/),
    properties: { contentType: "text/plain", contentEncoding: "gzip" },
  },
  "no JSON": json("{", /not JSON/),
  "an empty JSON message": json("", /not JSON/),
  "JSON with something after it": json(`{"url":"${URL_}"}x`, /not JSON/),
  "JSON with single quotes": json("{'url':'x'}", /not JSON/),
  "JSON with NaN": json(`{"url":"${URL_}","priority":NaN}`, /not JSON/),
  "a control character in JSON": json('{"url":"\u0001"}', /not JSON/),
  "JSON that is no UTF-8": {
    ...json("", /UTF-8/),
    body: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]),
  },
  null: json("null", /message/),
  "a number": json("1", /message/),
  "an array": json([URL_], /message/),
  "JSON text": json(JSON.stringify(URL_), /message/),
  "no URL": json({}, /^url/),
  "nesting of 33": json(nested(33), /nested/),
  "nesting of a hundred thousand": json("[".repeat(100_000), /nested/),
  "a URL that is a number": member("url", 1),
  "a URL that is null": member("url", null),
  "a URL in an array": member("url", [URL_]),
  "white space before a URL": member("url", ` ${URL_}`),
  "a URL that is too long": member("url", URL_.padEnd(8_193, "x")),
  "a crawl that is a number": member("crawl", 1),
  "an empty crawl": member("crawl", ""),
  "a crawl of 201 characters": member("crawl", "x".repeat(201)),
  "a spider that is an object": member("spider", {}),
  "an empty spider": member("spider", ""),
  "a priority of 10": member("priority", 10),
  "a priority of -1": member("priority", -1),
  "half a priority": member("priority", 0.5),
  "a priority in text": member("priority", "5"),
  "a priority that is true": member("priority", true),
  "a priority beyond all numbers": json(`{"url":"${URL_}","priority":1e999}`, /^priority/),
  "a negative depth": member("depth", -1),
  "a huge depth": member("depth", Number.MAX_SAFE_INTEGER + 1),
  "another method": member("method", "DELETE"),
  "a method in small letters": member("method", "get"),
  "a method with a line break": member("method", "GET\r\n"),
  "headers in an array": member("headers", [["a", "b"]]),
  "a header that is a number": member("headers", { a: 1 }, /^headers\.a/),
  "a header without a name": member("headers", { "": "x" }),
  "a colon in a header's name": member("headers", { "a:b": "x" }),
  "a line break in a header": member("headers", { a: "x\r\nHost: b.test" }, /^headers\.a/),
  "a line feed in a header's name": member("headers", { "a\n": "x" }),
  "a NUL in a header": member("headers", { a: "\0" }, /^headers\.a/),
  "a header beyond Latin-1": member("headers", { a: "\u{1f578}" }, /^headers\.a/),
  "a lone surrogate in a header": member("headers", { a: "\ud800" }, /^headers\.a/),
  "a host": member("headers", { Host: "b.test" }, /^headers\.Host/),
  "a length": member("headers", { "content-length": "3" }, /^headers\.content-length/),
  "a transfer coding": member("headers", { "Transfer-Encoding": "chunked" }, /^headers\.Transfer-Encoding/),
  "a hop-by-hop header": member("headers", { CONNECTION: "close" }, /^headers\.CONNECTION/),
  "an expectation": member("headers", { Expect: "100-continue" }, /^headers\.Expect/),
  "a password for a proxy": member(
    "headers",
    { "Proxy-Authorization": "Basic x" },
    /^headers\.Proxy-Authorization/,
  ),
  "101 headers": member(
    "headers",
    Object.fromEntries(Array.from({ length: 101 }, (_, index) => [`x-${index}`, ""])),
  ),
  "a body that is an object": member("body", {}),
  "a meta that is an array": member("meta", []),
  "a meta that is text": member("meta", "x"),
  "a NUL in a name in a meta": member("meta", { a: { "b\0": 1 } }, /^meta\.a: .*NUL/),
  "a meta of more than 16 KiB": member("meta", { a: "x".repeat(16_384) }),
  "more than 256 KiB": {
    body: URL_.padEnd(262_145, "x"),
    reason: "too-large",
    error: /262145 bytes/,
  },
  "more than 256 KiB of JSON": {
    body: JSON.stringify({ url: URL_, body: "x".repeat(262_144) }),
    properties: JSON_,
    reason: "too-large",
    error: /bytes/,
  },
  "an unknown crawl": { ...member("crawl", UNKNOWN_CRAWL), reason: "unknown-crawl" },
  "a crawl's name that means something elsewhere": {
    ...member("crawl", "__proto__"),
    reason: "unknown-crawl",
  },
  "a query as a crawl": { ...member("crawl", '{"$ne":null}'), reason: "unknown-crawl" },
  "an unknown spider": { ...member("spider", "nobody"), reason: "unknown-spider" },
  "a spider's name that objects have": { ...member("spider", "constructor"), reason: "unknown-spider" },
  "a path as a spider": { ...member("spider", "../../etc/passwd"), reason: "unknown-spider" },
  ...Object.fromEntries(
    ["application/xml", "text/html", "image/png", "application/octet-stream", "json", "*/*", "\u0001"].map(
      (contentType): [string, Bad] => [
        `content type ${JSON.stringify(contentType)}`,
        {
          body: URL_,
          properties: { contentType },
          reason: "unsupported-content-type",
          error: /^content type/,
        },
      ],
    ),
  ),
  ...Object.fromEntries(
    [
      ...["", "{", "null", "[]", "{}", '"x"'],
      ...[
        { ...dispatched, token: undefined },
        { ...dispatched, kind: "pages" },
        { ...dispatched, epoch: "1" },
        { ...dispatched, url: "/" },
        { ...dispatched, notAfter: null },
      ].map((task) => JSON.stringify(task)),
    ].map((body): [string, Bad] => [
      `as if dispatched: ${body.slice(0, 60)} (${body.length})`,
      { body, properties: DISPATCHED, reason: "invalid-message", error: /task/ },
    ]),
  ),
};

/** Properties that a good message may have as well as a bad one, and that are to be borne. */
const ODD_PROPERTIES: Readonly<Record<string, Options.Publish>> = {
  "headers of every type": {
    headers: {
      ...{ yes: true, no: false, none: null, byte: 1, long: 2 ** 40, double: 1.5, negative: -1 },
      ...{ time: { "!": "timestamp", value: 1_700_000_000 }, bytes: Buffer.from([0, 255]), text: "ü" },
      ...{ list: [1, "two", [3, { four: 4 }]], table: { a: { b: { c: [] } } } },
    },
  },
  "headers with names that mean something elsewhere": {
    headers: { $where: "1", "a.b": 1, "": "empty", constructor: "x", __proto__: { a: 1 }, toString: 1 },
  },
  "headers with a NUL in their names": { headers: { "a\0b": 1, table: { "\0": [{ "\0\0": 1 }] } } },
  "headers as if it were a dead letter": {
    headers: { "x-reason": "poison", "x-error": "forged", "x-first-queue": "elsewhere", "x-count": "many" },
  },
  "headers as if the broker had sent it": {
    headers: {
      ...{ "x-delivery-count": "x", "x-death": [{ count: "many" }], "x-first-death-reason": "expired" },
      ...{ "x-opt-deaths": 1, "x-acquired-count": -1 },
    },
  },
  "a copy to nobody": { CC: ["nobody.at.all"] },
  "trace headers that are none": { headers: { traceparent: "00-zz", tracestate: "=".repeat(1_000) } },
  "every other property": {
    ...{ priority: 255, timestamp: 1, type: "t".repeat(255), appId: "a", expiration: "60000" },
    ...{ contentEncoding: "utf-8", deliveryMode: 1 },
  },
};

describe("bad messages to a running worker", () => {
  const cluster = new Cluster();
  const letters = new Map<string, ConsumeMessage>();
  const answers = new Map<string, Readonly<Record<string, unknown>>>();
  const tasks = `${cluster.namespace}.tasks`;
  let site: Server;
  let origin: string;
  let worker: Member;
  let connection: ChannelModel;
  let channel: Channel;
  let replyTo: string;
  let sent = 0;

  beforeAll(async () => {
    site = createServer((_request, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end("<title>A page</title>");
    }).listen(0, "127.0.0.1");
    await once(site, "listening");
    origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    await cluster.master();
    connection = await connect(cluster.amqpUrl, { noDelay: true });
    channel = await connection.createChannel();
    ({ queue: replyTo } = await channel.assertQueue("", { exclusive: true }));
    await consume(replyTo, (message) => {
      answers.set(String(message.properties.correlationId), JSON.parse(message.content.toString()));
    });
    const { queue: dead } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(dead, `${cluster.namespace}.dead`, "");
    await consume(dead, (message) => {
      letters.set(String(message.properties.messageId), message);
    });
  });

  afterAll(async () => {
    await connection?.close();
    await cluster.stop();
    site?.close();
  });

  async function consume(queue: string, take: (message: ConsumeMessage) => void): Promise<void> {
    await channel.consume(queue, (message) => message !== null && take(message), { noAck: true });
  }

  /** Hands a message in and returns by what it, its answer and its letter are known. */
  function send(body: string | Buffer, properties: Options.Publish = {}): string {
    sent += 1;
    const id = `message-${sent}`;
    const own = { messageId: id, correlationId: id, replyTo };
    channel.sendToQueue(tasks, Buffer.from(body), { ...properties, ...own });
    return id;
  }

  function sendGood(properties: Options.Publish = {}): string {
    return send(`${origin}/page?number=${sent}`, properties);
  }

  async function isSetAside(id: string, { body, reason, error }: Bad): Promise<void> {
    await until(`there is a letter of ${id}`, async () => letters.has(id), worker);
    await until(`${id} is answered`, async () => answers.has(id), worker);
    const letter = letters.get(id);
    expect(letter?.properties.headers).toMatchObject({ "x-reason": reason, "x-first-queue": tasks });
    expect(letter?.properties.headers?.["x-error"]).toMatch(error);
    expect(letter?.content.equals(Buffer.from(body))).toBe(true);
    expect(answers.get(id)).toMatchObject({ state: "failed", reason, items: 0, files: 0 });
    expect(answers.get(id)?.error).toMatch(new RegExp(`^${reason}: `));
  }

  async function isDone(id: string): Promise<void> {
    await until(`${id} is answered`, async () => answers.has(id), worker);
    expect(answers.get(id)).toMatchObject({ state: "done", statusCode: 200 });
    expect(letters.has(id)).toBe(false);
  }

  it("sets aside what the broker gave up before there was a worker", async () => {
    const body = `${origin}/page`;
    const late = send(body, { expiration: "1" });
    await isSetAside(late, { body, reason: "expired", error: /expired/ });
    const handedOut = send(body);
    await until(
      "it was handed out too often",
      async () => {
        const message = await channel.get(tasks);
        if (message !== false) channel.nack(message, false, true);
        return letters.has(handedOut);
      },
      worker,
    );
    await isSetAside(handedOut, { body, reason: "delivery-limit", error: /delivery limit/ });
    const refused = send(body);
    await until("it was refused", async () => {
      const message = await channel.get(tasks);
      if (message !== false) channel.nack(message, false, false);
      return message !== false;
    });
    await isSetAside(refused, { body, reason: "rejected", error: /rejected/ });
    worker = await cluster.worker("w1");
  });

  it.each(Object.entries(BAD))("sets aside %s, tells why, and goes on", async (_, bad) => {
    const id = send(bad.body, bad.properties);
    const good = sendGood();
    await isSetAside(id, bad);
    await isDone(good);
  });

  it.each(Object.entries(ODD_PROPERTIES))("bears %s", async (_, properties) => {
    const bad = text("no URL");
    const id = send(bad.body, properties);
    const good = sendGood(properties);
    await isSetAside(id, bad);
    await isDone(good);
  });

  it("takes what is only unusual", async () => {
    const page = `${origin}/page`;
    const unusual: [string | Buffer, Options.Publish][] = [
      [`\ufeff${page}?bom`, {}],
      [`\ufeff{"url":"${page}?bom-in-json"}`, JSON_],
      [`\n\t ${page}?space \r\n`, { contentType: "Text/Plain; charset=UTF-8" }],
      [`${page}?no-type`, { contentType: "" }],
      [`{"url":"${page}?proto","__proto__":{"crawl":"x"},"constructor":{"prototype":{"url":"x"}}}`, JSON_],
      [`{"url":"${page}?twice","url":"${page}?twice-2","priority":10,"priority":5.0}`, JSON_],
      [`{"url":"${page}?huge","meta":{"number":1e999,"long":123456789012345678901234567890}}`, JSON_],
      [JSON.stringify({ url: `${page}?meta`, meta: { $where: 1, "a.b": { $ne: 1 }, "": [null] } }), JSON_],
      [JSON.stringify({ url: `${page}?lone`, meta: { a: "\ud800", "\udc00": "\udfff" } }), JSON_],
      [JSON.stringify({ url: `${page}?${"x".repeat(8_000)}` }), JSON_],
      [nested(32).replace(URL_, `${page}?nested`), JSON_],
    ];
    const ids = unusual.map(([body, properties]) => send(body, properties));
    for (const id of ids) await isDone(id);
  });

  it("sets aside any message that is wrong in some way", async () => {
    const wrongTask = fc
      .tuple(rightTask(), wrongMember())
      .map(([task, [name, value]]) => json({ ...task, [name]: value }, new RegExp(`^${name}`)));
    const cut = fc
      .tuple(rightTask(), fc.double({ min: 0, max: 0.99, noNaN: true }))
      .map(([task, share]) => JSON.stringify(task).slice(0, -1 - Math.floor(share * 10)))
      .map((body) => json(body, /not JSON/));
    const bytes = fc
      .tuple(fc.uint8Array({ maxLength: 200 }), fc.uint8Array({ maxLength: 200 }))
      .map(([before, after]) => text(Buffer.from([...before, 0xff, ...after]), /UTF-8/));
    const bad = fc.oneof(
      { arbitrary: wrongTask, weight: 5 },
      { arbitrary: noUrl().map((url) => text(url)), weight: 2 },
      cut,
      bytes,
    );
    const properties = fc.record(
      {
        priority: fc.nat(255),
        headers: fc.dictionary(fc.string({ maxLength: 20 }), headerValue()),
        type: fc.string({ maxLength: 60 }),
        appId: fc.string({ unit: "grapheme", maxLength: 30 }),
      },
      { requiredKeys: [], noNullPrototype: true },
    );
    await fc.assert(
      fc.asyncProperty(bad, properties, async (message, odd) => {
        await isSetAside(send(message.body, { ...odd, ...message.properties }), message);
      }),
      { numRuns: 200, interruptAfterTimeLimit: 40_000, endOnFailure: true },
    );
    await isDone(sendGood());
  });

  it("is at the end where it was at the beginning", async () => {
    expect(worker.process.exitCode).toBeNull();
    expect(worker.output()).not.toMatch(/"level":"(error|fatal)"/);
    await until("nothing waits", async () => (await channel.checkQueue(tasks)).messageCount === 0);
    expect(await worker.end()).toBe(0);
    // What it had taken and not settled would be there again.
    expect((await channel.checkQueue(tasks)).messageCount).toBe(0);
  });
});

/** What a table of headers may hold, as far as amqplib can write it: "!" is how it is told a value's type. */
function headerValue(): fc.Arbitrary<unknown> {
  return fc.oneof(
    fc.string(),
    fc.boolean(),
    fc.integer(),
    fc.double({ noNaN: true, min: -1e15, max: 1e15 }),
    fc.array(fc.string({ maxLength: 10 }), { maxLength: 5 }),
    fc.dictionary(
      fc.string({ maxLength: 10 }).filter((name) => name !== "!"),
      fc.integer(),
      { noNullPrototype: true },
    ),
  );
}
