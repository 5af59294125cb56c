import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Crawl } from "../../../src/crawl/crawl.js";
import type { Task } from "../../../src/crawl/task.js";
import { EngineUnderTest } from "../../support/engine-under-test.js";

let site: EngineUnderTest;

beforeEach(async () => {
  site = await EngineUnderTest.start();
});
afterEach(() => site.dispose());

const BYTES = Buffer.concat([Buffer.from("%PDF-1.7\n"), randomBytes(400_000)]);
const SHA256 = createHash("sha256").update(BYTES).digest("hex");
const LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT";
const HEADERS = { "content-type": "application/pdf", "accept-ranges": "bytes", etag: '"1"' };

/** Sends a body, or as much of it as there are bytes to send before the connection is cut. */
function send(
  response: ServerResponse,
  status: number,
  headers: object,
  body: Buffer,
  cutAt = body.length,
): void {
  response.writeHead(status, { "content-length": body.length, ...headers });
  if (cutAt >= body.length) {
    response.end(body);
    return;
  }
  response.write(body.subarray(0, cutAt), () => setImmediate(() => response.destroy()));
}

const startOf = (request: IncomingMessage): number | undefined => {
  const start = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
  return start === undefined ? undefined : Number(start);
};

/** A server that takes ranges, and cuts each transfer after so many bytes. */
function serveInParts(cutAt: number, headers: Record<string, string> = HEADERS, body = BYTES): void {
  site.answers.set("/a.pdf", (request, response) => {
    const start = startOf(request);
    if (start === undefined) return send(response, 200, headers, body, cutAt);
    const range = `bytes ${start}-${body.length - 1}/${body.length}`;
    send(response, 206, { ...headers, "content-range": range }, body.subarray(start), cutAt);
  });
}

/** A server that cuts its first transfer, and answers as it is told when it is asked for the rest. */
function serveCut(rest: (response: ServerResponse, start: number) => void, headers: object = HEADERS): void {
  site.answers.set("/a.pdf", (request, response) => {
    const start = startOf(request);
    if (start === undefined) send(response, 200, headers, BYTES, 150_000);
    else rest(response, start);
  });
}

async function fetchFile(about: Partial<Task> = {}, crawl: Crawl = site.crawl({ spider: "pdf" })) {
  const result = await site.run({ ...site.task("/a.pdf"), kind: "file", ...about }, crawl);
  const [name] = await readdir(site.folder).catch(() => []);
  const stored = name === undefined ? undefined : await readFile(path.join(site.folder, name));
  return { ...result, stored };
}

describe("a file whose transfer is cut", () => {
  it("is gone on with where it was cut, as often as need be, and is whole in the end", async () => {
    serveInParts(120_000);

    const { ending, files, stored } = await fetchFile();

    expect(ending).toMatchObject({ state: "done", attempts: 1, files: 1 });
    expect(files).toMatchObject([{ sha256: SHA256, bytes: BYTES.length }]);
    expect(stored?.equals(BYTES)).toBe(true);
    const [first, ...rest] = site.asked;
    expect(first?.headers.range).toBeUndefined();
    expect(rest).toHaveLength(3);
    for (const { headers } of rest) {
      expect(headers).toMatchObject({ "if-range": '"1"', "accept-encoding": "identity" });
    }
  });

  it("is gone on with by its date, when that is a strong validator", async () => {
    const { etag: _etag, ...headers } = HEADERS;
    serveInParts(250_000, { ...headers, "last-modified": LONG_AGO });

    const { ending } = await fetchFile();

    expect(ending.state).toBe("done");
    expect(site.asked.at(-1)?.headers["if-range"]).toBe(LONG_AGO);
  });

  it("is asked for so often and not more", async () => {
    serveInParts(10_000);

    const { ending, stored } = await fetchFile();

    expect(ending).toMatchObject({ state: "queued", attempts: 1 });
    expect(site.asked).toHaveLength(6);
    expect(stored).toBeUndefined();
  });

  it("comes anew, as the server has it now, when it has changed meanwhile", async () => {
    const other = Buffer.concat([Buffer.from("%PDF-1.7\n"), randomBytes(1_000)]);
    serveCut((response) => send(response, 200, { ...HEADERS, etag: '"2"' }, other));

    const { ending, files, stored } = await fetchFile();

    expect(ending.state).toBe("done");
    expect(files).toMatchObject([{ bytes: other.length }]);
    expect(stored?.equals(other)).toBe(true);
  });

  it("is no file when something else comes in its place", async () => {
    serveCut((response) => send(response, 200, { "content-type": "text/html" }, Buffer.from("<p>Sign in")));

    const { ending, files, stored } = await fetchFile();

    expect(ending).toMatchObject({ state: "skipped", reason: "type" });
    expect([files, stored]).toEqual([[], undefined]);
  });

  it.each<[string, number, Record<string, string>]>([
    ["another range", 206, { "content-range": "bytes 5-399999/400009" }],
    ["a range of another length", 206, { "content-range": "bytes 150000-400008/500000" }],
    ["a part of the rest", 206, { "content-range": "bytes 150000-160000/400009" }],
    ["no range", 206, {}],
    ["another version", 206, { "content-range": "bytes 150000-400008/400009", etag: '"2"' }],
    ["that there is no such range", 416, { "content-range": "bytes */400009" }],
    ["that it is gone", 404, {}],
    ["that it is busy", 503, {}],
  ])("is tried again from the start when the server answers %s", async (_, status, headers) => {
    serveCut((response, start) => {
      const rest = status === 206 ? BYTES.subarray(start) : Buffer.from("no");
      // What was cut off begins where the reader was, which need not be where the cut was.
      const fitted = Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name, value.replace("150000", String(start))]),
      );
      send(response, status, { ...HEADERS, ...fitted }, rest);
    });

    const { ending, files, stored } = await fetchFile();

    expect(ending).toMatchObject({ state: "queued", attempts: 1 });
    expect([files, stored]).toEqual([[], undefined]);
    expect(site.asked).toHaveLength(2);
  });

  it.each<[string, Record<string, string>]>([
    ["does not say that it takes ranges", { "content-type": "application/pdf", etag: '"1"' }],
    ["has a weak entity tag only", { ...HEADERS, etag: 'W/"1"' }],
    ["has no validator", { "content-type": "application/pdf", "accept-ranges": "bytes" }],
    ["takes none", { ...HEADERS, "accept-ranges": "none" }],
  ])("is not asked for in parts when the server %s", async (_, headers) => {
    serveInParts(150_000, headers);

    const { ending } = await fetchFile();

    expect(ending).toMatchObject({ state: "queued", attempts: 1 });
    expect(site.asked).toHaveLength(1);
  });

  it("waits for its host's delay before it goes on", async () => {
    serveInParts(250_000);
    const startedAt = performance.now();

    const { ending } = await fetchFile({ delayMs: 120 });

    expect(ending.state).toBe("done");
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(115);
  });
});
