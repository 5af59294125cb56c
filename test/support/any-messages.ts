import fc from "fast-check";

/** Tasks from outside as JSON values: right ones, and what makes one wrong. */

const headerName = fc
  .stringMatching(/^[A-Za-z][A-Za-z0-9-]{0,20}$/)
  // Neither hop-by-hop nor ours to set.
  .map((name) => `X-${name}`);
const headerValue = fc.stringMatching(/^[\t\x20-\x7e]{0,40}$/);
const metaName = fc.string({ maxLength: 10 }).filter((name) => name !== "__proto__" && !name.includes("\0"));

export function httpUrl(): fc.Arbitrary<string> {
  return fc.webUrl({ withQueryParameters: true, withFragments: true });
}

/** A task of which everything is right. */
export function rightTask() {
  return fc.record(
    {
      url: httpUrl(),
      crawl: fc.string({ minLength: 1, maxLength: 200 }),
      spider: fc.string({ minLength: 1, maxLength: 200 }),
      priority: fc.nat(9),
      depth: fc.nat(1_000_000),
      method: fc.constantFrom("GET", "HEAD", "POST"),
      headers: fc.dictionary(headerName, headerValue, { maxKeys: 10 }),
      body: fc.string({ maxLength: 1_000 }),
      meta: fc.dictionary(metaName, jsonValue(), { maxKeys: 5 }),
    },
    { requiredKeys: ["url"], noNullPrototype: true },
  );
}

function jsonValue() {
  return fc
    .jsonValue({ maxDepth: 3 })
    .map((value) => JSON.parse(JSON.stringify(value).replaceAll("__proto__", "proto")) as unknown);
}

const noText = fc.jsonValue().filter((value) => typeof value !== "string");
const noObject = fc.jsonValue().filter((value) => !isObject(value));
const tooLong = fc.integer({ min: 201, max: 300 }).map((length) => "x".repeat(length));

/** A member of a task and a value that it must not have. */
export function wrongMember(): fc.Arbitrary<readonly [name: string, value: unknown]> {
  const name = fc.oneof(noText, fc.constant(""), tooLong);
  const wrong: Record<string, fc.Arbitrary<unknown>> = {
    url: fc.oneof(noText, noUrl(), fc.constant(`http://a.test/${"x".repeat(8_192)}`)),
    crawl: name,
    spider: name,
    priority: fc
      .jsonValue()
      .filter((value) => !(Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 9)),
    depth: fc
      .jsonValue()
      .filter((value) => !(Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 1_000_000)),
    method: fc.oneof(
      noText,
      fc.string().filter((text) => !["GET", "HEAD", "POST"].includes(text)),
    ),
    headers: fc.oneof(noObject, wrongHeaders()),
    body: noText,
    meta: fc.oneof(
      noObject,
      fc.integer({ min: 16_400, max: 20_000 }).map((length) => ({ a: "x".repeat(length) })),
    ),
  };
  return fc.oneof(...Object.entries(wrong).map(([member, value]) => fc.tuple(fc.constant(member), value)));
}

/** Text that is not one absolute http(s) URL. */
export function noUrl(): fc.Arbitrary<string> {
  return fc.oneof(
    fc.string().filter((text) => !/^\s*https?:/i.test(text)),
    fc.webPath(),
    httpUrl().map((url) => url.replace(/^https?/, "ftp")),
    fc.tuple(httpUrl(), httpUrl()).map(([one, other]) => `${one}\n${other}`),
    fc.tuple(httpUrl(), fc.constantFrom(" ", "\t", "\r\n")).map(([url, gap]) => `${url}/a${gap}b`),
  );
}

function wrongHeaders(): fc.Arbitrary<unknown> {
  const badCharacter = fc.constantFrom("\r", "\n", "\0", "\r\nHost: b.test", "\x7f", "€", "\ud800");
  const forbidden = fc.constantFrom(
    ...["Host", "connection", "Content-Length", "TRANSFER-ENCODING", "te", "Upgrade", "keep-alive", "expect"],
  );
  return fc.oneof(
    fc.tuple(headerName, noText).map(([name, value]) => ({ [name]: value })),
    fc
      .tuple(headerName, headerValue, badCharacter, headerValue)
      .map(([name, before, bad, after]) => ({ [name]: `${before}${bad}${after}` })),
    fc
      .tuple(headerName, fc.constantFrom(" ", ":", "\r\n", "(", "ä", "\0"), headerName)
      .map(([before, bad, after]) => ({ [`${before}${bad}${after}`]: "x" })),
    forbidden.map((name) => ({ [name]: "x" })),
    fc
      .integer({ min: 101, max: 150 })
      .map((count) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`X-${index}`, ""]))),
  );
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
