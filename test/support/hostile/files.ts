import {
  ATTEMPTS,
  DONE,
  drip,
  FINE,
  type Headers,
  type HostileBehaviour,
  head,
  pour,
  raw,
  reply,
  timeout,
  tooLarge,
} from "./behaviour.js";

const PDF = Buffer.from("%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n");
const TYPE = "application/pdf";
const STORED = { ...DONE, files: 1 } as const;
const CUT = { state: "failed", reason: "network", attempts: ATTEMPTS, statusCode: 200, files: 0 } as const;

function file(
  name: string,
  headers: Headers,
  ends: HostileBehaviour["ends"],
  path?: string,
): HostileBehaviour {
  return {
    name,
    host: "files",
    spider: "pdf",
    ...(path !== undefined && { path }),
    // The same bytes would be stored once, under one name.
    answer: ({ socket }) =>
      reply(socket, Buffer.concat([PDF, Buffer.from(`% ${name}\n`)]), { "content-type": TYPE, ...headers }),
    ends,
  };
}

function sent(
  name: string,
  answer: HostileBehaviour["answer"] & {},
  ends: HostileBehaviour["ends"],
): HostileBehaviour {
  return { name, spider: "pdf", answer, ends };
}

/** Files that are too long, cut off, or want to be stored where they should not be. */
export const FILES: readonly HostileBehaviour[] = [
  file("a PDF", {}, STORED),
  sent(
    "a PDF without end",
    ({ socket }) => {
      socket.write(head(200, { "content-type": TYPE }));
      socket.write(PDF);
      pour(socket, Buffer.alloc(65_536, "0 "));
    },
    { ...tooLarge(200), files: 0 },
  ),
  sent(
    "a PDF that says it is a terabyte",
    ({ socket }) =>
      socket.write(Buffer.concat([head(200, { "content-type": TYPE, "content-length": 2 ** 40 }), PDF])),
    { ...tooLarge(200), files: 0 },
  ),
  sent(
    "a PDF cut off",
    raw(Buffer.concat([head(200, { "content-type": TYPE, "content-length": 100_000 }), PDF])),
    CUT,
  ),
  sent(
    "a PDF cut in a chunk",
    raw(
      Buffer.concat([
        head(200, { "content-type": TYPE, "transfer-encoding": "chunked" }),
        Buffer.from("ffff\r\n"),
        PDF,
      ]),
    ),
    CUT,
  ),
  sent(
    "a PDF reset half way",
    ({ socket }) => {
      socket.write(head(200, { "content-type": TYPE, "content-length": 400_000 }));
      socket.write(Buffer.concat([PDF, Buffer.alloc(100_000)]), () => socket.resetAndDestroy());
    },
    CUT,
  ),
  sent(
    "a PDF byte by byte",
    ({ socket }) => {
      socket.write(head(200, { "content-type": TYPE }));
      socket.write(PDF);
      drip(socket, "0");
    },
    { ...timeout(200), files: 0 },
  ),
  sent(
    "a PDF cut twice and then whole",
    ({ socket, count }) => {
      if (count > 2) reply(socket, PDF, { "content-type": TYPE });
      else socket.end(Buffer.concat([head(200, { "content-type": TYPE, "content-length": 1_000 }), PDF]));
    },
    { ...STORED, attempts: 3 },
  ),
  sent(
    "a PDF longer than promised",
    raw(Buffer.concat([head(200, { "content-type": TYPE, "content-length": PDF.length }), PDF, PDF])),
    STORED,
  ),
  sent("an empty PDF", raw(head(200, { "content-type": TYPE, "content-length": 0 })), STORED),
  file(
    "a PDF that wants to be /etc/passwd",
    { "content-disposition": 'attachment; filename="../../../../etc/passwd"' },
    STORED,
  ),
  file(
    "a PDF with a name of 10 KB",
    { "content-disposition": `attachment; filename="${"x".repeat(10_240)}.pdf"` },
    STORED,
  ),
  file("a PDF with a path for a name", {}, STORED, "/..%2f..%2f..%2fetc%2fpasswd"),
  file("a PDF named by dots", {}, STORED, "/%2e%2e%2f%2e%2e%2fdots"),
  file("a PDF with a path of another system", {}, STORED, "/..%5c..%5cwindows%5csystem.ini"),
  file("a PDF with NUL in its name", {}, STORED, "/a%00.pdf"),
  file("a PDF with line ends in its name", {}, STORED, "/a%0d%0aset-cookie:b=c.pdf"),
  file("a PDF with a name of 4,000 letters", {}, STORED, `/${"n".repeat(4_000)}.pdf`),
  file("a PDF with a name of 200 wide letters", {}, STORED, `/${encodeURIComponent("本".repeat(200))}.pdf`),
  file("a PDF with a name of 150 pictures", {}, STORED, `/${encodeURIComponent("😀".repeat(150))}.pdf`),
  file("a PDF with a name that is no UTF-8", {}, STORED, "/%ff%fe%c3%28.pdf"),
  file("a PDF without a name", {}, STORED, "/folder/"),
  {
    name: "a page of PDFs that are none",
    spider: "pdf",
    path: "/list",
    answer: ({ socket, path }) => {
      if (path === "/list")
        reply(socket, '<title>Fine</title><a href="/not.pdf">a</a><a href="/is.html">b</a>');
      else if (path === "/is.html") reply(socket, PDF, { "content-type": TYPE });
      else reply(socket);
    },
    ends: FINE,
    leadsTo: { "/not.pdf": { ...FINE, files: 0 }, "/is.html": STORED },
  },
];
