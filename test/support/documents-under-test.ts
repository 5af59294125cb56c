import { deflateSync } from "node:zlib";
import { type DocumentOptions, Documents } from "../../src/crawl/pages/documents.js";

/** A thread runs JavaScript: the one that was built. */
export function documentsUnderTest(options: DocumentOptions = {}): Documents {
  const program = new URL("../../dist/crawl/pages/document-thread.js", import.meta.url);
  return new Documents({ program, timeoutMs: 60_000, ...options });
}

/** A PDF with one page for each of these, which are in its language for drawing. */
export function pdfOf(contents: readonly (string | Buffer)[], trailer = ""): Buffer {
  const kids = contents.map((_, page) => `${4 + page * 2} 0 R`).join(" ");
  const objects = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    `<< /Type /Pages /Kids [${kids}] /Count ${contents.length} >>`,
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ...contents.flatMap((content, page) => {
      const stream = deflateSync(content);
      return [
        `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents ${5 + page * 2} 0 R /Resources << /Font << /F1 3 0 R >> >> >>`,
        `<< /Length ${stream.length} /Filter /FlateDecode >>\nstream\n${stream.toString("latin1")}\nendstream`,
      ];
    }),
  ];
  let pdf = "%PDF-1.7\n";
  const offsets: string[] = [];
  for (const [index, object] of objects.entries()) {
    offsets.push(`${String(pdf.length).padStart(10, "0")} 00000 n \n`);
    pdf += `${index + 1} 0 obj\n${object}\nendobj\n`;
  }
  const table = `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${offsets.join("")}`;
  pdf += `${table}trailer\n<< /Size ${objects.length + 1} /Root 1 0 R ${trailer}>>\nstartxref\n${pdf.length}\n%%EOF\n`;
  return Buffer.from(pdf, "latin1");
}
