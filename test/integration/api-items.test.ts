import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ItemRecord } from "../../src/crawl/records.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

const ITEMS = 20_000;

let master: ApiMaster;
let crawl: string;

beforeAll(async () => {
  master = await startApiMaster("api_items");
  const { body } = await master.post("/api/v1/crawls", { seeds: ["http://items.test/"] });
  crawl = body.id;
  for (let from = 0; from < ITEMS; from += 2_000) {
    await master.store.items.store(Array.from({ length: 2_000 }, (_, n) => itemOf(crawl, from + n)));
  }
});

afterAll(async () => {
  await master.dispose();
});

function itemOf(
  ofCrawl: string,
  n: number,
  data: Record<string, unknown> = { title: `page ${n}`, text: "x".repeat(2_000) },
): ItemRecord {
  return {
    id: `${ofCrawl}:${String(n).padStart(6, "0")}.0.0`,
    crawl: ofCrawl,
    url: `http://items.test/${n}`,
    at: 1_700_000_000_000 + n,
    spider: "links",
    version: "1",
    node: "worker-1",
    data,
  };
}

async function crawlWith(...data: Record<string, unknown>[]): Promise<string> {
  const { body } = await master.post("/api/v1/crawls", { seeds: ["http://few.test/"] });
  await master.store.items.store(data.map((one, n) => itemOf(body.id, n, one)));
  return body.id;
}

async function textOf(
  path: string,
  headers: Record<string, string> = {},
): Promise<{ text: string; type: string | null }> {
  const response = await fetch(master.url + path, { headers });
  expect(response.status).toBe(200);
  return { text: await response.text(), type: response.headers.get("content-type") };
}

describe("items", () => {
  it("come page by page when nothing else is asked for", async () => {
    const first = await master.get(`/api/v1/crawls/${crawl}/items?limit=2`);
    const second = await master.get(`/api/v1/crawls/${crawl}/items?limit=2&cursor=${first.body.next}`);

    expect(first.body.items[0]).toEqual({
      id: `${crawl}:000000.0.0`,
      crawl,
      url: "http://items.test/0",
      at: "2023-11-14T22:13:20.000Z",
      spider: "links",
      version: "1",
      node: "worker-1",
      data: { title: "page 0", text: "x".repeat(2_000) },
    });
    expect(second.body.items.map((item: { url: string }) => item.url)).toEqual([
      "http://items.test/2",
      "http://items.test/3",
    ]);
  });

  it("come all of them as NDJSON, one a line", async () => {
    const { text, type } = await textOf(`/api/v1/crawls/${crawl}/items?format=ndjson`);

    const lines = text.split("\n");
    expect(type).toContain("application/x-ndjson");
    expect(lines.pop()).toBe("");
    expect(lines).toHaveLength(ITEMS);
    expect(new Set(lines.map((line) => (JSON.parse(line) as { url: string }).url)).size).toBe(ITEMS);
  });

  it("come as one JSON array, or a part of it", async () => {
    const all = await textOf(`/api/v1/crawls/${crawl}/items?format=json`);
    const few = await textOf(`/api/v1/crawls/${crawl}/items?format=json&limit=3`);
    const none = await textOf(`/api/v1/crawls/${await crawlWith()}/items?format=json`);

    expect(JSON.parse(all.text)).toHaveLength(ITEMS);
    expect(JSON.parse(few.text)).toHaveLength(3);
    expect(JSON.parse(none.text)).toEqual([]);
  });

  it("come in the form that the Accept header names", async () => {
    const ndjson = await textOf(`/api/v1/crawls/${crawl}/items?limit=1&format=ndjson`, {
      accept: "text/csv",
    });
    const csv = await textOf(`/api/v1/crawls/${crawl}/items`, { accept: "text/csv" });

    expect(JSON.parse(ndjson.text)).toMatchObject({ crawl });
    expect(csv.type).toContain("text/csv");
    expect(csv.text.split("\n")).toHaveLength(ITEMS + 2);
  });

  it("have a CSV column for each field that any of them has, and no formula in it", async () => {
    const id = await crawlWith(
      { title: 'a "quoted", long\nstory', price: -3.5 },
      { title: "=HYPERLINK(1)", tags: ["a", "b"], sold: false },
      { more: { deep: 1 }, title: null },
    );

    const { text } = await textOf(`/api/v1/crawls/${id}/items?format=csv`);

    expect(text).toBe(
      [
        "url,at,title,price,tags,sold,more",
        'http://items.test/0,2023-11-14T22:13:20.000Z,"a ""quoted"", long\nstory",-3.5,,,',
        `http://items.test/1,2023-11-14T22:13:20.001Z,'=HYPERLINK(1),,"[""a"",""b""]",false,`,
        'http://items.test/2,2023-11-14T22:13:20.002Z,,,,,"{""deep"":1}"',
        "",
      ].join("\n"),
    );
  });

  it("are read from the database only as fast as their reader takes them", async () => {
    const readBefore = master.itemsRead;
    const started = new AbortController();
    const response = await fetch(`${master.url}/api/v1/crawls/${crawl}/items?format=ndjson`, {
      signal: started.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    // Nobody reads on: what was read from the database stays where it is once the buffers on the way are full.
    // The kernel's grow to ten megabytes or so on loopback; the items take four times that.
    const heldBack = ITEMS - (await master.settled(() => master.itemsRead - readBefore));
    started.abort();

    expect(heldBack).toBeGreaterThan(ITEMS / 4);
  });
});

describe("files", () => {
  it("are listed, and sent as they were stored", async () => {
    const { body } = await master.post("/api/v1/crawls", { seeds: ["http://files.test/"] });
    const bytes = Buffer.alloc(700_000, "warren ");
    const stored = await master.store.contents.save(
      (async function* () {
        yield bytes;
      })(),
      { name: "größe.pdf", contentType: "application/pdf" },
    );
    const id = `${body.id}:fp.0`;
    await master.store.files.store([
      {
        id,
        crawl: body.id,
        url: "http://files.test/gr.pdf",
        name: 'grö"ße.pdf',
        contentType: "application/pdf",
        at: 1_700_000_000_000,
        ...stored,
      },
    ]);

    const list = await master.get(`/api/v1/crawls/${body.id}/files`);
    const file = await fetch(`${master.url}/api/v1/files/${id}`);
    const again = await fetch(`${master.url}/api/v1/files/${id}`, {
      headers: { "if-none-match": file.headers.get("etag") ?? "" },
    });

    expect(list.body).toEqual({
      items: [
        {
          id,
          crawl: body.id,
          url: "http://files.test/gr.pdf",
          name: 'grö"ße.pdf',
          bytes: 700_000,
          sha256: stored.sha256,
          contentType: "application/pdf",
          at: "2023-11-14T22:13:20.000Z",
        },
      ],
      next: null,
    });
    expect(Buffer.from(await file.arrayBuffer()).equals(bytes)).toBe(true);
    expect(Object.fromEntries(file.headers)).toMatchObject({
      "content-type": "application/pdf",
      "content-length": "700000",
      "content-disposition":
        `attachment; filename="gr__ _e.pdf"; filename*=UTF-8''gr%C3%B6%22%C3%9Fe.pdf`.replace("__ _", "___"),
      "x-content-type-options": "nosniff",
    });
    expect(again.status).toBe(304);
    const part = async (headers: Record<string, string>, method = "GET") => {
      const response = await fetch(`${master.url}/api/v1/files/${id}`, { method, headers });
      const body = Buffer.from(await response.arrayBuffer());
      return { status: response.status, range: response.headers.get("content-range"), body };
    };
    const etag = file.headers.get("etag") ?? "";
    expect(etag).toBe(`"${stored.sha256}"`);
    expect(file.headers.get("accept-ranges")).toBe("bytes");
    for (const [range, start, end] of [
      ["bytes=0-0", 0, 1],
      ["bytes=261110-261130", 261_110, 261_131],
      ["bytes=699999-", 699_999, 700_000],
      ["bytes=-5", 699_995, 700_000],
      ["bytes=10-99999999", 10, 700_000],
      ["bytes=-9999999", 0, 700_000],
    ] as const) {
      const found = await part({ range });
      expect([range, found.status, found.range]).toEqual([range, 206, `bytes ${start}-${end - 1}/700000`]);
      expect(found.body.equals(bytes.subarray(start, end))).toBe(true);
    }
    for (const range of ["bytes=700000-", "bytes=800000-900000", "bytes=-0"]) {
      expect(await part({ range })).toMatchObject({ status: 416, range: "bytes */700000" });
    }
    for (const range of ["bytes=5-4", "bytes=0-1,5-6", "lines=0-5", "bytes=a-b", "bytes=-"]) {
      expect(await part({ range })).toMatchObject({ status: 200, range: null });
    }
    const range = "bytes=0-9";
    expect(await part({ range, "if-range": etag })).toMatchObject({ status: 206 });
    expect(await part({ range, "if-range": `W/${etag}` })).toMatchObject({ status: 200 });
    expect(await part({ range, "if-range": "Sun, 06 Nov 1994 08:49:37 GMT" })).toMatchObject({ status: 200 });
    expect(await part({ range, "if-none-match": `"x", W/${etag}` })).toMatchObject({ status: 304 });
    const head = await fetch(`${master.url}/api/v1/files/${id}`, { method: "HEAD", headers: { range } });
    expect([head.status, head.headers.get("content-length")]).toEqual([200, "700000"]);
  });
});
