import { afterEach, describe, expect, it } from "vitest";
import type { DocumentOptions, Documents } from "../../../src/crawl/pages/documents.js";
import { FileView } from "../../../src/crawl/pages/file-view.js";
import { documentsUnderTest, pdfOf } from "../../support/documents-under-test.js";

const MIB = 1_048_576;
const ENCRYPTION = `/Encrypt << /Filter /Standard /V 1 /R 2 /O <${"41".repeat(32)}> /U <${"42".repeat(32)}> /P -4 >> /ID [<41><41>] `;
const HELLO = "BT /F1 24 Tf 72 700 Td (Hello world) Tj 0 -30 Td (and more) Tj ET";
/** Operators that take minutes to go through, in a few KB. */
const ENDLESS = `BT /F1 24 Tf ${"(Hello world) Tj ".repeat(2_000_000)} ET`;

const opened: Documents[] = [];
afterEach(async () => {
  for (const documents of opened.splice(0)) await documents.stop();
});

function setup(options: DocumentOptions = {}) {
  const documents = documentsUnderTest(options);
  opened.push(documents);
  return documents;
}

function readPdf(documents: Documents, pdf: Buffer, signal?: AbortSignal) {
  const bytes = new Uint8Array(new ArrayBuffer(pdf.length));
  bytes.set(pdf);
  return documents.read({ kind: "pdf", bytes }, "http://h/a.pdf", signal);
}

const paragraph =
  "<p>This is a paragraph of the article, with commas, and long enough to be read by someone.</p>";
const ARTICLE = `<!doctype html><html lang="en"><head><title>Big News</title><meta name="author" content="Ann Author">
  <meta property="article:published_time" content="2026-01-02T03:04:05Z"></head><body><nav><a href="/">Home</a></nav>
  <article><h1>Big News</h1>${paragraph.repeat(8)}<p>See <a href="more">the rest</a>.</p><ul><li>one<li>two</ul></article>
  <script>steal()</script><footer>Imprint</footer></body></html>`;

describe("a document thread", () => {
  it("gives the text of a PDF, page by page", async () => {
    const pdf = await readPdf(setup(), pdfOf([HELLO, "BT /F1 9 Tf 72 700 Td (Page two) Tj ET"]));
    expect(pdf).toEqual({ pages: ["Hello world\nand more", "Page two"], pageCount: 2, isCut: false });
  });

  it.each([
    ["broken", "is cut", pdfOf([HELLO]).subarray(0, 300)],
    ["broken", "is none", Buffer.alloc(1_000)],
    ["broken", "is empty", Buffer.alloc(0)],
    ["encrypted", "needs a password", pdfOf([HELLO], ENCRYPTION)],
  ])("says %s of a PDF that %s, and reads the next one", async (reason, _what, pdf) => {
    const documents = setup();
    await expect(readPdf(documents, pdf)).rejects.toMatchObject({ code: "DOCUMENT", reason });
    expect((await readPdf(documents, pdfOf([HELLO]))).pageCount).toBe(1);
  });

  it("is ended when a PDF takes too long, and the next one is read", async () => {
    const documents = setup({ timeoutMs: 1_500 });
    const endless = readPdf(documents, pdfOf([ENDLESS]));
    await expect(endless).rejects.toMatchObject({ reason: "timeout" });
    expect(documents.isRunning).toBe(false);
    const patient = setup();
    expect((await readPdf(patient, pdfOf([HELLO]))).pages).toEqual(["Hello world\nand more"]);
  });

  it("is ended when a PDF takes too much memory", async () => {
    const bomb = pdfOf([Buffer.alloc(400 * MIB, " ")]);
    await expect(readPdf(setup({ maxMemoryMb: 64 }), bomb)).rejects.toMatchObject({ reason: "memory" });
  });

  it("finds the article of a page, and what it says of itself", async () => {
    const documents = setup();
    const article = await documents.read({ kind: "article", text: ARTICLE, url: "http://h/dir/" }, "it");
    expect(article).toMatchObject({ title: "Big News", byline: "Ann Author", lang: "en" });
    expect(article?.published).toBe("2026-01-02T03:04:05Z");
    expect(article?.text).toContain("This is a paragraph of the article");
    expect(article?.text.match(/^This is a paragraph.*someone\.$/gm)).toHaveLength(8);
    expect(article?.text).not.toMatch(/Imprint|steal/);
    expect(article?.markdown).toContain("[the rest](http://h/dir/more)");
    expect(article?.markdown).toMatch(/^- +one$/m);
  });

  it("finds no article where there is none, and makes Markdown of all of it", async () => {
    const documents = setup();
    const text = "<h2>Hi</h2><script>no</script>";
    expect(await documents.read({ kind: "article", text: "<p>", url: "http://h/" }, "it")).toBeUndefined();
    expect(await documents.read({ kind: "markdown", text, url: "http://h/" }, "it")).toContain("Hi");
  });

  it.each([
    ["100,000 elements in each other", "<div>".repeat(100_000)],
    ["100,000 pieces of formatting", "<b>x".repeat(100_000)],
    ["tables in each other", `${"<table><tr><td>".repeat(10_000)}hello, world`],
    ["line breaks", "<br>".repeat(50_000)],
    ["one attribute after the other", `<p ${"a=1 ".repeat(200_000)}>`],
  ])("comes to an end with a page of %s", async (_what, text) => {
    const documents = setup({ timeoutMs: 3_000 });
    const article = documents.read({ kind: "article", text, url: "http://h/" }, "it");
    const ended = await article.then(
      () => "read",
      (error: { code?: string }) => error.code,
    );
    expect(["read", "DOCUMENT"]).toContain(ended);
  });

  it("is one for all documents, and ends when there are no more", async () => {
    const documents = setup({ idleMs: 1 });
    const all = await Promise.all([1, 2, 3].map(() => readPdf(documents, pdfOf([HELLO]))));
    expect(all).toHaveLength(3);
    await expect.poll(() => documents.isRunning, { timeout: 10_000 }).toBe(false);
  });

  it("lets go of what is no longer wanted, and takes no more than may wait", async () => {
    const documents = setup({ maxWaiting: 1 });
    const stopping = new AbortController();
    const first = readPdf(documents, pdfOf([HELLO]));
    const second = readPdf(documents, pdfOf([HELLO]), stopping.signal);
    await expect(readPdf(documents, pdfOf([HELLO]))).rejects.toThrow("1 documents wait already");
    stopping.abort();
    await expect(second).rejects.toMatchObject({ reason: "stopped" });
    expect((await first).pageCount).toBe(1);
  });

  it("fails what it has when it is stopped", async () => {
    const documents = setup();
    const reading = readPdf(documents, pdfOf([ENDLESS])).catch((error: unknown) => error);
    await documents.stop();
    expect(await reading).toMatchObject({ reason: "stopped" });
    await expect(readPdf(documents, pdfOf([HELLO]))).rejects.toMatchObject({ reason: "stopped" });
  });
});

describe("a stored file", () => {
  function fileOf(body: Buffer, contentType: string, options: DocumentOptions = {}) {
    const record = {
      ...{ id: "c:1.0", crawl: "c", url: "http://h/f", contentId: "1", name: "f", sha256: "", at: 0 },
      ...{ bytes: body.length, contentType },
    };
    return new FileView({
      ...{ record, url: "http://h/f", foundOn: "http://h/", meta: {}, documents: setup(options) },
      files: {
        open: async () =>
          (async function* () {
            for (let at = 0; at < body.length; at += 100) yield body.subarray(at, at + 100);
          })(),
      },
      signal: new AbortController().signal,
    });
  }

  it("has the text of its PDF", async () => {
    const file = fileOf(pdfOf([HELLO, HELLO]), "application/pdf");
    expect(await file.text()).toBe("Hello world\nand more\n\nHello world\nand more");
    expect((await file.pdf()).pageCount).toBe(2);
  });

  it("has its text if it is one, and says so if it is none", async () => {
    expect(await fileOf(Buffer.from("a;b\nü;ß"), "text/csv").text()).toBe("a;b\nü;ß");
    await expect(fileOf(Buffer.from("x"), "image/png").text()).rejects.toMatchObject({ code: "DOCUMENT" });
  });

  it("is not read when it is larger than it may be", async () => {
    const file = fileOf(pdfOf([HELLO]), "application/pdf", { maxFileBytes: 100 });
    await expect(file.pdf()).rejects.toMatchObject({ reason: "too-large" });
  });
});
