import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CALL_ERROR_CODES, CallError, callErrorCodeOf } from "../../../src/bus/errors.js";
import {
  DEAD_LETTER_REASONS,
  expirationOf,
  parseExternalTask,
  parseReply,
  parseRequest,
} from "../../../src/bus/messages.js";
import { rightTask, wrongMember } from "../../support/any-messages.js";

const text = (body: string | Buffer, contentType: string | undefined = "text/plain") =>
  parseExternalTask({ body: Buffer.from(body), contentType });
const json = (value: unknown) =>
  parseExternalTask({
    body: Buffer.from(typeof value === "string" ? value : JSON.stringify(value)),
    contentType: "application/json",
  });
const url = "http://a.test/";
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
const NOT_IN_HEADERS = /[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]/;

describe("a task from outside in plain text", () => {
  it.each([
    ["a URL", "http://a.test/x?y=1#z"],
    ["a secure one", "https://a.test/"],
    ["white space around it", "  \r\n\thttp://a.test/x \n\n"],
    ["capitals in its scheme", "HTTP://A.test/"],
    ["characters of any script", "http://ü.test/ä"],
  ])("is taken with %s", (_, body) => {
    expect(text(body)).toEqual({ ok: true, task: { url: body.trim() } });
  });

  it.each([
    ["no content type", undefined],
    ["a parameter", "text/plain; charset=utf-8"],
    ["capitals", "Text/Plain"],
  ])("is taken with %s", (_, contentType) => {
    expect(parseExternalTask({ body: Buffer.from(url), contentType })).toEqual({ ok: true, task: { url } });
  });

  it.each([
    ["nothing", ""],
    ["white space", " \n "],
    ["a relative URL", "/x"],
    ["a URL without a scheme", "a.test/x"],
    ["another scheme", "ftp://a.test/"],
    ["a script", "javascript:alert(1)"],
    ["two URLs", "http://a.test/\nhttp://b.test/"],
    ["a space inside", "http://a.test/x y"],
    ["no host", "http://"],
    ["a text", "hello"],
    ["bytes that are no text", Buffer.from([0x68, 0xff, 0xfe])],
    ["a URL that is too long", `http://a.test/${"x".repeat(8_192)}`],
  ])("is refused with %s", (_, body) => {
    expect(text(body)).toMatchObject({ ok: false, reason: "invalid-message" });
  });

  it.each([
    "text/html",
    "application/xml",
    "application/octet-stream",
    "application/jsonx",
    "image/png",
    "x",
  ])("is refused as %s", (contentType) => {
    expect(text(url, contentType)).toMatchObject({ ok: false, reason: "unsupported-content-type" });
  });

  it("is refused when it is larger than 256 KiB, whatever it is", () => {
    const body = Buffer.alloc(256 * 1_024 + 1, " ");
    for (const contentType of ["text/plain", "application/json", "image/png", undefined]) {
      expect(parseExternalTask({ body, contentType })).toMatchObject({ ok: false, reason: "too-large" });
    }
    const largest = Buffer.concat([Buffer.from(url), Buffer.alloc(256 * 1_024 - url.length, " ")]);
    expect(text(largest)).toEqual({ ok: true, task: { url } });
  });
});

describe("a task from outside in JSON", () => {
  it("is taken with all that it may hold", () => {
    const task = {
      url,
      crawl: "c",
      spider: "pdf",
      priority: 9,
      depth: 0,
      method: "POST",
      headers: { "X-Any": "a b\tc", authorization: "Basic x", accept: "ü" },
      body: "b",
      meta: { any: [{ thing: null }] },
    };
    expect(json(task)).toEqual({ ok: true, task });
  });

  it("is taken without what it does not say, and without what is not known", () => {
    expect(json({ url, unknown: { a: 1 }, priorit: 3 })).toEqual({ ok: true, task: { url } });
    expect(
      parseExternalTask({
        body: Buffer.from('{"url":"http://a.test/"}'),
        contentType: "application/json; charset=utf-8",
      }),
    ).toEqual({ ok: true, task: { url } });
  });

  it.each<[string, unknown, string]>([
    ["something that is no JSON", "{", "not JSON"],
    ["nothing", "", "not JSON"],
    ["an array", [url], "the message"],
    ["null", null, "the message"],
    ["no URL", {}, "url"],
    ["a URL that is no text", { url: 1 }, "url"],
    ["a relative URL", { url: "/x" }, "url"],
    ["white space around the URL", { url: " http://a.test/" }, "url"],
    ["an empty crawl", { url, crawl: "" }, "crawl"],
    ["a crawl that is null", { url, crawl: null }, "crawl"],
    ["a crawl that is too long", { url, crawl: "x".repeat(201) }, "crawl"],
    ["an empty spider", { url, spider: "" }, "spider"],
    ["a priority that is too high", { url, priority: 10 }, "priority"],
    ["a negative priority", { url, priority: -1 }, "priority"],
    ["a priority that is not whole", { url, priority: 1.5 }, "priority"],
    ["a priority in text", { url, priority: "5" }, "priority"],
    ["a negative depth", { url, depth: -1 }, "depth"],
    ["another method", { url, method: "DELETE" }, "method"],
    ["a method in small letters", { url, method: "get" }, "method"],
    ["headers in an array", { url, headers: [] }, "headers"],
    ["a header that is no text", { url, headers: { a: 1 } }, "headers.a"],
    ["a header without a name", { url, headers: { "": "x" } }, "headers"],
    ["a space in a header's name", { url, headers: { "a b": "x" } }, "headers.a b"],
    ["a colon in a header's name", { url, headers: { "a:": "x" } }, "headers.a:"],
    ["a line break in a header", { url, headers: { a: "x\r\nHost: b.test" } }, "headers.a"],
    ["a line feed at a header's end", { url, headers: { a: "x\n" } }, "headers.a"],
    ["a NUL in a header", { url, headers: { a: "\0" } }, "headers.a"],
    ["a header beyond Latin-1", { url, headers: { a: "€" } }, "headers.a"],
    ["a forged host", { url, headers: { HOST: "b.test" } }, "headers.HOST"],
    ["a forged length", { url, headers: { "Content-Length": "0" } }, "headers.Content-Length"],
    ["a transfer coding", { url, headers: { "transfer-encoding": "chunked" } }, "headers.transfer-encoding"],
    ["a hop-by-hop header", { url, headers: { Connection: "close" } }, "headers.Connection"],
    ["an upgrade", { url, headers: { upgrade: "h2c" } }, "headers.upgrade"],
    [
      "too many headers",
      { url, headers: Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`h${i}`, ""])) },
      "headers",
    ],
    ["a body that is no text", { url, body: {} }, "body"],
    ["a meta that is no object", { url, meta: [1] }, "meta"],
    ["a NUL in a name in a meta", { url, meta: { a: [{ b: { "c\0": 1 } }] } }, "meta.a.0.b: "],
    ["a NUL in a meta's name", { url, meta: { "\0": 1 } }, "meta: "],
    ["a meta that is too large", { url, meta: { a: "x".repeat(16 * 1_024) } }, "meta"],
    ["a meta that is too large in bytes only", { url, meta: { a: "ü".repeat(8 * 1_024) } }, "meta"],
  ])("is refused with %s, naming the field", (_, value, named) => {
    const parsed = json(value);
    expect(parsed).toMatchObject({ ok: false, reason: "invalid-message" });
    expect(!parsed.ok && parsed.error).toContain(named);
  });

  it("is refused when it is nested deeper than 32, wherever that is", () => {
    const nested = (depth: number) => `{"url":"${url}","meta":${'{"a":'.repeat(depth)}1${"}".repeat(depth)}}`;
    expect(json(nested(31))).toMatchObject({ ok: true });
    expect(json(nested(32))).toMatchObject({ ok: false, reason: "invalid-message" });
    expect(json(`{"url":"${url}","x":${"[".repeat(200_000)}`)).toMatchObject({ ok: false });
    expect(json(`{"url":"${url}","x":"${"[{".repeat(100)}\\"[["}`)).toMatchObject({ ok: true });
  });

  it("changes no object's prototype", () => {
    const parsed = json(
      `{"url":"${url}","__proto__":{"crawl":"stolen"},"meta":{"__proto__":{"a":1}},"headers":{"__proto__":"x"}}`,
    );
    expect(({} as Record<string, unknown>).a).toBeUndefined();
    if (parsed.ok) {
      expect(parsed.task.crawl).toBeUndefined();
      expect(Object.getPrototypeOf(parsed.task.meta)).toBe(Object.prototype);
      expect(parsed.task.meta?.a).toBeUndefined();
    }
  });
});

describe("any task from outside", () => {
  const contentType = fc.oneof(
    fc.constantFrom(undefined, "text/plain", "application/json", "Application/JSON; charset=utf-8"),
    fc.string(),
  );

  it("is taken or refused with a reason, whatever its bytes and its content type", () => {
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.json().map((json) => Buffer.from(json)),
      fc.string({ unit: "binary" }).map((text_) => Buffer.from(text_)),
    );
    fc.assert(
      fc.property(body, contentType, (bytes, type) => {
        const parsed = parseExternalTask({ body: Buffer.from(bytes), contentType: type });
        if (parsed.ok) {
          expect(new URL(parsed.task.url).protocol).toMatch(/^https?:$/);
        } else {
          expect(DEAD_LETTER_REASONS).toContain(parsed.reason);
          expect(parsed.error).not.toBe("");
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it("is taken as it is when all of it is right, and without members that are not known", () => {
    fc.assert(
      fc.property(rightTask(), fc.dictionary(fc.string({ minLength: 12 }), fc.jsonValue()), (task, more) => {
        const known = Object.keys(more).some((name) => Object.hasOwn(task, name));
        fc.pre(!known);
        expect(json(JSON.stringify({ ...more, ...task }))).toEqual({ ok: true, task });
      }),
    );
  });

  it("is refused when one member is wrong, and the error begins with its name", () => {
    fc.assert(
      fc.property(rightTask(), wrongMember(), (task, [name, value]) => {
        const parsed = json(JSON.stringify({ ...task, [name]: value }));
        expect(parsed).toMatchObject({ ok: false, reason: "invalid-message" });
        expect(!parsed.ok && parsed.error.startsWith(name)).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  it("is refused when its end is missing", () => {
    fc.assert(
      fc.property(
        rightTask(),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (task, share) => {
          const whole = JSON.stringify(task);
          expect(json(whole.slice(0, Math.floor(share * whole.length)))).toMatchObject({ ok: false });
        },
      ),
    );
  });

  it("is refused exactly when it is nested deeper than 32", () => {
    const brackets = fc.array(fc.constantFrom("object", "array"), { minLength: 1, maxLength: 64 });
    fc.assert(
      fc.property(brackets, (kinds) => {
        const opened = kinds.map((kind) => (kind === "object" ? '{"a":' : "[")).join("");
        const closed = kinds.map((kind) => (kind === "object" ? "}" : "]")).reverse();
        const parsed = json(`{"url":"${url}","unknown":${opened}1${closed.join("")}}`);
        expect(parsed.ok).toBe(kinds.length < 32);
      }),
    );
  });

  it("lets no header through that could end a line or carry another", () => {
    const header = fc.tuple(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }));
    fc.assert(
      fc.property(header, ([name, value]) => {
        const parsed = json({ url, headers: { [name]: value } });
        const taken = parsed.ok ? Object.entries(parsed.task.headers ?? {}) : [];
        for (const line of taken) expect(line.join("")).not.toMatch(NOT_IN_HEADERS);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("any call and any answer", () => {
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.json().map((text_) => Buffer.from(text_)),
    fc
      .record({ type: fc.jsonValue(), args: fc.jsonValue() }, { requiredKeys: [] })
      .map((value) => Buffer.from(JSON.stringify(value))),
    fc
      .record({ ok: fc.jsonValue(), result: fc.jsonValue(), error: fc.jsonValue() }, { requiredKeys: [] })
      .map((value) => Buffer.from(JSON.stringify(value))),
  );

  it("is read, or is an error with a code, whatever its bytes", () => {
    fc.assert(
      fc.property(body, (bytes) => {
        try {
          expect(parseRequest(Buffer.from(bytes)).type).not.toBe("");
        } catch (error) {
          expect(callErrorCodeOf(error)).toBe("invalid");
        }
        const answer = parseReply(Buffer.from(bytes));
        if (!answer.ok) expect(CALL_ERROR_CODES).toContain(answer.error.code);
      }),
      { numRuns: 1_000 },
    );
  });

  it("comes out as it went in", () => {
    const args = fc.dictionary(
      fc.string().filter((name) => name !== "__proto__"),
      fc.jsonValue({ maxDepth: 5 }),
    );
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 100 }), args, (type, given) => {
        const written = JSON.stringify({ type, args: given });
        expect(parseRequest(Buffer.from(written))).toEqual(JSON.parse(written));
        const answer = JSON.stringify({ ok: true, result: given });
        expect(parseReply(Buffer.from(answer))).toEqual(JSON.parse(answer));
      }),
    );
  });
});

describe("a call", () => {
  const parse = (body: string) => parseRequest(Buffer.from(body));

  it("has a type, and arguments or none", () => {
    expect(parse('{"type":"ping"}')).toEqual({ type: "ping", args: {} });
    expect(parse('{"type":"ping","args":{"a":[1]},"more":1}')).toEqual({ type: "ping", args: { a: [1] } });
  });

  it.each([
    ["nothing", ""],
    ["a word", "x"],
    ["null", "null"],
    ["an array", "[]"],
    ["no type", "{}"],
    ["an empty type", '{"type":""}'],
    ["a type that is no text", '{"type":1}'],
    ["arguments in an array", '{"type":"a","args":[]}'],
    ["arguments in text", '{"type":"a","args":"b"}'],
    ["deep nesting", "[".repeat(50_000)],
    ["deep nesting in its arguments", `{"type":"a","args":{"a":${"[".repeat(40)}${"]".repeat(40)}}}`],
  ])("is invalid with %s", (_, body) => {
    expect(() => parse(body)).toThrow(CallError);
    expect(() => parse(body)).toThrow(/must be JSON/);
  });

  it("is invalid when it is no UTF-8", () => {
    expect(() => parseRequest(Buffer.from([0x22, 0xff, 0x22]))).toThrow(/must be JSON/);
  });
});

describe("an answer", () => {
  const parse = (body: string) => parseReply(Buffer.from(body));

  it("brings a result, whatever it is", () => {
    expect(parse('{"ok":true,"result":{"a":1}}')).toEqual({ ok: true, result: { a: 1 } });
    expect(parse('{"ok":true,"result":null}')).toEqual({ ok: true, result: null });
    expect(parse('{"ok":true}')).toEqual({ ok: true, result: null });
  });

  it.each(CALL_ERROR_CODES)("brings the error %s", (code) => {
    const parsed = parse(JSON.stringify({ ok: false, error: { code, message: "m" } }));
    expect(parsed.ok).toBe(false);
    if (!parsed.ok) expect(parsed.error).toMatchObject({ code, message: "m" });
  });

  it("with a code that is not known, or that cannot be read, is internal", () => {
    for (const body of [
      '{"ok":false,"error":{"code":"new","message":"m"}}',
      "x",
      "",
      "{}",
      '{"ok":1}',
      '{"ok":false}',
    ]) {
      const parsed = parse(body);
      expect(!parsed.ok && parsed.error.code).toBe("internal");
    }
  });
});

describe("the code of an error", () => {
  it("is its own when it is one of the list, else internal", () => {
    expect(callErrorCodeOf(new CallError("conflict", "m"))).toBe("conflict");
    expect(callErrorCodeOf({ code: "forbidden" })).toBe("forbidden");
    for (const thrown of [new Error("m"), { code: "ECONNRESET" }, undefined, null, "text", 1]) {
      expect(callErrorCodeOf(thrown)).toBe("internal");
    }
  });
});

describe("a time to live", () => {
  it.each([
    [0, "0"],
    [0.2, "1"],
    [1_500, "1500"],
    [1_500.5, "1501"],
    [-3, "0"],
    [1e12, "2147483647"],
  ])("of %d ms is written as %s", (ms, written) => {
    expect(expirationOf(ms)).toBe(written);
  });
});
