import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WARCParser, type WARCRecord } from "warcio";
import { api, Cluster, type Master } from "../support/cluster.js";
import { PDF_BYTES, startWildSite, type WildSite } from "../support/wild-site.js";

type Archived = {
  readonly type: string;
  readonly url: string | undefined;
  readonly statusline: string | undefined;
  readonly headers: ReadonlyMap<string, string>;
  readonly warc: (name: string) => string | undefined;
  /** As it stands in the record. */
  readonly raw: Buffer;
};

describe("a crawl that is archived", () => {
  const cluster = new Cluster();
  let master: Master;
  let site: WildSite;
  let crawl: string;
  const zipped = gzipSync("<title>Zipped</title><a href='/same'>same</a>");

  beforeAll(async () => {
    site = await startWildSite();
    const links = ["/zipped", "/twin", "/moved", "/gone", "/paper.pdf", "/chunked"];
    site.page("/", links.map((link) => `<a href="${link}">${link}</a>`).join(""));
    site.page("/zipped", {
      body: zipped,
      headers: { "content-encoding": "gzip", "content-type": "text/html" },
    });
    site.page("/twin", "<title>Twin</title><p>the same words</p>");
    site.page("/same", "<title>Twin</title><p>the same words</p>");
    site.page("/moved", { body: "over there", status: 302, headers: { location: "/there" } });
    site.page("/there", "<title>There</title>");
    site.page("/gone", { body: "<p>It is gone.</p>", status: 410, headers: { "x-why": "because" } });
    site.page("/paper.pdf", { body: PDF_BYTES, headers: { "content-type": "application/pdf" } });
    site.page("/chunked", (_request, response) => {
      response.writeHead(200, { "content-type": "text/html", "set-cookie": ["a=1", "b=2"] });
      response.write("<title>In two");
      response.end(" pieces</title>");
    });
    master = await cluster.master();
    await cluster.worker("w1");
    ({ id: crawl } = await api(master).createCrawl({ spider: "pdf", seeds: [site.url], archive: true }));
    await api(master).crawlOnce(crawl, "finished");
  });

  afterAll(async () => {
    await cluster.stop();
    await site?.close();
  });

  async function exported(id: string): Promise<Buffer> {
    const response = await fetch(`${master.url}/api/v1/crawls/${id}/export.warc.gz`);
    expect(response.status).toBe(200);
    return Buffer.from(await response.arrayBuffer());
  }

  it("is exported as WARC 1.1, with a response, a request and metadata for each exchange", async () => {
    const records = await recordsOf(await exported(crawl));

    expect(records[0]?.type).toBe("warcinfo");
    const responses = records.filter(({ type }) => type === "response" || type === "revisit");
    expect(responses.map(({ url }) => url?.slice(site.origin.length)).sort()).toEqual(
      ["/", "/chunked", "/gone", "/moved", "/paper.pdf", "/same", "/there", "/twin", "/zipped"].sort(),
    );
    const ids = new Set(responses.map(({ warc }) => warc("WARC-Record-ID")));
    for (const type of ["request", "metadata"]) {
      const beside = records.filter((record) => record.type === type);
      expect(new Set(beside.map(({ warc }) => warc("WARC-Concurrent-To")))).toEqual(ids);
    }
    for (const { type, raw } of records) {
      if (type === "metadata")
        expect(raw.toString()).toMatch(/^(via: .*\r\n)?hopsFromSeed: \d\r\nfetchTimeMs: \d+\r\n$/);
    }
  });

  it("keeps what went over the wire: codings, statuses, redirects, cookies and files", async () => {
    const records = await recordsOf(await exported(crawl));
    const of = (path: string) =>
      records.find(({ type, url }) => type === "response" && url === `${site.origin}${path}`);

    const coded = of("/zipped");
    expect(coded?.headers.get("content-encoding")).toBe("gzip");
    expect(coded?.raw).toEqual(zipped);
    expect(gunzipSync(coded?.raw ?? "").toString()).toContain("Zipped");
    expect(of("/gone")).toMatchObject({
      statusline: "HTTP/1.1 410 Gone",
      raw: Buffer.from("<p>It is gone.</p>"),
    });
    expect(of("/gone")?.headers.get("x-why")).toBe("because");
    expect(of("/moved")?.headers.get("location")).toBe("/there");
    expect(of("/moved")?.raw.toString()).toBe("over there");
    expect(of("/paper.pdf")?.raw).toEqual(PDF_BYTES);
    const chunked = of("/chunked");
    expect(chunked?.raw.toString()).toBe("<title>In two pieces</title>");
    expect(chunked?.headers.has("transfer-encoding")).toBe(false);
    expect(chunked?.headers.get("set-cookie")).toContain("b=2");

    const request = records.find(({ type, url }) => type === "request" && url === `${site.origin}/gone`);
    expect(request?.statusline).toBe("GET /gone HTTP/1.1");
    expect(request?.headers.get("host")).toBe(new URL(site.origin).host);
  });

  it("writes the same body once, and says where it stands", async () => {
    const records = await recordsOf(await exported(crawl));
    const twins = records.filter(({ url, type }) => /\/(same|twin)$/.test(url ?? "") && /^re[sv]/.test(type));
    expect(twins.map(({ type }) => type).sort()).toEqual(["response", "revisit"]);
    const [first, second] = [...twins].sort((a, b) => a.type.localeCompare(b.type));
    expect(second?.warc("WARC-Refers-To-Target-URI")).toBe(first?.url);
    expect(second?.warc("WARC-Payload-Digest")).toBe(first?.warc("WARC-Payload-Digest"));
    expect(second?.raw.length).toBe(0);
  });

  it("is not to be had of a crawl that was not archived, nor once it is purged", async () => {
    const { id } = await api(master).createCrawl({ seeds: [`${site.origin}/twin`] });
    await api(master).crawlOnce(id, "finished");
    expect((await api(master).call("GET", `/api/v1/crawls/${id}/export.warc.gz`)).status).toBe(409);
    await api(master).call("DELETE", `/api/v1/crawls/${crawl}?purge=true`);
    expect((await api(master).call("GET", `/api/v1/crawls/${crawl}/export.warc.gz`)).status).toBe(404);
  });
});

async function recordsOf(archive: Buffer): Promise<readonly Archived[]> {
  const records: Archived[] = [];
  for await (const record of new WARCParser([archive])) {
    const raw = Buffer.from(await record.readFully(false));
    records.push({
      type: record.warcType,
      url: record.warcTargetURI ?? undefined,
      statusline: record.httpHeaders?.statusline,
      headers: headersOf(record),
      warc: (name) => record.warcHeader(name) ?? undefined,
      raw,
    });
  }
  return records;
}

function headersOf({ httpHeaders }: WARCRecord): ReadonlyMap<string, string> {
  return new Map([...(httpHeaders?.headers ?? [])].map(([name, value]) => [name.toLowerCase(), value]));
}
