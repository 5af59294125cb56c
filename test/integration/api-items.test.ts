import { get } from "node:http";
import { parquetReadObjects } from "hyparquet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { keptAs } from "../../src/crawl/item-keeping.js";
import { itemOptions } from "../../src/crawl/item-options.js";
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

/** As HTTP sends it: `fetch` does not show what comes behind a body. */
function withTrailers(path: string): Promise<{ text: string; trailers: NodeJS.Dict<string> }> {
  return new Promise((resolve, reject) => {
    get(master.url + path, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ text, trailers: response.trailers }));
      response.on("error", reject);
    }).on("error", reject);
  });
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

  it("go on after the last one that came, which is told behind all of them", async () => {
    const first = await withTrailers(`/api/v1/crawls/${crawl}/items?format=ndjson&limit=7`);
    const second = await withTrailers(
      `/api/v1/crawls/${crawl}/items?format=ndjson&limit=7&after=${first.trailers["x-last-id"]}`,
    );
    const listed = await master.get(
      `/api/v1/crawls/${crawl}/items?limit=2&after=${first.trailers["x-last-id"]}`,
    );

    const urls = `${first.text}${second.text}`
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).url);
    expect(urls).toEqual(Array.from({ length: 14 }, (_, n) => `http://items.test/${n}`));
    expect(first.trailers["x-last-id"]).toBe(`${crawl}:000006.0.0`);
    expect(listed.body.items.map(({ url }: { url: string }) => url)).toEqual([
      "http://items.test/7",
      "http://items.test/8",
    ]);
  });

  it("go on as CSV with the columns of all of them, and without the first line", async () => {
    const id = await crawlWith({ a: 1 }, { b: 2 }, { a: 3 });

    const { text, type } = await textOf(`/api/v1/crawls/${id}/items?format=csv&after=${id}:000000.0.0`);

    expect(type).toContain("header=absent");
    expect(text).toBe(
      "http://items.test/1,2023-11-14T22:13:20.001Z,,2\nhttp://items.test/2,2023-11-14T22:13:20.002Z,3,\n",
    );
  });

  it("are those that came since an instant", async () => {
    const id = await crawlWith({ n: 0 }, { n: 1 }, { n: 2 });

    const byTime = await textOf(
      `/api/v1/crawls/${id}/items?format=json&since=2023-11-14T23:13:20.001%2B01:00`,
    );
    const byNumber = await master.get(`/api/v1/crawls/${id}/items?since=1700000000002`);

    expect(JSON.parse(byTime.text).map(({ data }: { data: { n: number } }) => data.n)).toEqual([1, 2]);
    expect(byNumber.body.items.map(({ data }: { data: { n: number } }) => data.n)).toEqual([2]);
  });

  it("come as a Parquet file that others can read", async () => {
    const id = await crawlWith({ title: "a", price: 1 }, { title: "b", tags: ["x"] });

    const response = await fetch(`${master.url}/api/v1/crawls/${id}/items`, {
      headers: { accept: "application/vnd.apache.parquet" },
    });

    expect(response.headers.get("content-type")).toBe("application/vnd.apache.parquet");
    const rows = await parquetReadObjects({ file: await response.arrayBuffer() });
    expect(rows).toEqual([
      expect.objectContaining({ _id: `${id}:000000.0.0`, title: "a", price: 1, tags: null }),
      expect.objectContaining({ _id: `${id}:000001.0.0`, title: "b", price: null, tags: ["x"] }),
    ]);
  });

  it.each([
    ["after=other:1.0.0", "after"],
    ["after=%00", "after"],
    ["since=yesterday", "since"],
    ["since=2023-11-14", "since"],
    ["format=xml", "format"],
    ["format=csv&cursor=x", "cursor"],
    ["format=csv&limit=0", "limit"],
  ])("refuse %s by name", async (query, field) => {
    const { status, body } = await master.get(`/api/v1/crawls/${crawl}/items?${query}`);

    expect([status, body.errors?.[0]?.field ?? body]).toEqual([400, field]);
  });

  it("with keys are shown one by one, with what they were before", async () => {
    const { body } = await master.post("/api/v1/crawls", {
      seeds: ["http://keyed.test/"],
      items: {
        key: "sku",
        history: true,
        webhooks: [{ url: "http://hooks.test/", secret: "a long secret" }],
      },
    });
    const options = itemOptions.parse({ key: "sku", history: true });
    for (const [n, price] of [1, 2, 3].entries()) {
      const items = [itemOf(body.id, n, { sku: "x", price })];
      await master.store.items.store(keptAs({ items, files: [] }, { items: options }).items);
    }
    const { body: list } = await master.get(`/api/v1/crawls/${body.id}/items`);
    const path = `/api/v1/crawls/${body.id}/items/${list.items[0].id}`;

    const one = await master.get(path);
    const history = await master.get(`${path}/history?limit=1`);
    const rest = await master.get(`${path}/history?cursor=${history.body.next}`);
    const none = await master.get(`/api/v1/crawls/${body.id}/items/${body.id}:k-nothing/history`);

    expect(body.items.webhooks).toEqual([{ url: "http://hooks.test/", secret: "***" }]);
    expect(one.body).toMatchObject({ revision: 3, data: { sku: "x", price: 3 }, url: "http://items.test/2" });
    expect(history.body.items).toEqual([
      expect.objectContaining({ id: one.body.id, revision: 2, data: { sku: "x", price: 2 } }),
    ]);
    expect(rest.body).toMatchObject({ items: [{ revision: 1, data: { sku: "x", price: 1 } }], next: null });
    expect(none.status).toBe(404);
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
