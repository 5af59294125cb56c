import { DONE, FINE, type HostileBehaviour, PAGE, page } from "./behaviour.js";

const PDF = Buffer.from("%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n");
const PNG = Buffer.from("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489", "hex");
const NOISE = Buffer.from(Array.from({ length: 20_000 }, (_, n) => (n * 2_654_435_761) >>> 24));
const LEADING_PAGE = `${PAGE}<a href="/denied/link">a link</a>`;

function typed(
  name: string,
  contentType: string | undefined,
  body: string | Buffer,
  title: string,
): HostileBehaviour {
  return {
    name,
    host: "types",
    answer: page(body, { "content-type": contentType }),
    ends: { ...DONE, title },
  };
}

/** What a page is said to be, and what it is. No type makes a page fail: what is no HTML has no title and no links. */
export const TYPES: readonly HostileBehaviour[] = [
  typed("HTML as plain text", "text/plain", LEADING_PAGE, ""),
  typed("HTML as bytes", "application/octet-stream", LEADING_PAGE, ""),
  typed("HTML as JSON", "application/json", LEADING_PAGE, ""),
  typed("HTML as an image", "image/png", LEADING_PAGE, ""),
  typed("HTML as XHTML", "application/xhtml+xml", PAGE, "Fine"),
  typed("HTML in capitals", "TEXT/HTML; Charset=UTF-8", PAGE, "Fine"),
  typed("HTML of no type", undefined, PAGE, "Fine"),
  typed("HTML of an empty type", "", PAGE, "Fine"),
  typed("HTML of a type that is none", "banana", PAGE, "Fine"),
  typed("HTML of two types", "text/html, text/plain", PAGE, "Fine"),
  typed("HTML with 1,000 parameters", `text/html${"; a=b".repeat(1_000)}`, PAGE, "Fine"),
  typed("a PDF as HTML", "text/html", PDF, ""),
  typed("an image as HTML", "text/html", PNG, ""),
  typed("noise as HTML", "text/html", NOISE, ""),
  typed("noise of no type", undefined, NOISE, ""),
  typed("nothing but NUL", "text/html", Buffer.alloc(100_000), ""),
  typed(
    "a page with NUL in it",
    "text/html",
    Buffer.from("<!doctype html>\0<title>Fi\0ne</title>"),
    "Fi\ufffdne",
  ),
  {
    ...typed("a PDF as HTML for a spider of PDFs", "text/html", PDF, ""),
    spider: "pdf",
    ends: { ...DONE, files: 1 },
  },
  { ...typed("a PDF of no type", undefined, PDF, ""), spider: "pdf", ends: { ...DONE, files: 1 } },
  { ...typed("a PDF as an image", "image/png", PDF, ""), spider: "pdf", ends: { ...DONE, files: 1 } },
  { ...typed("HTML as a PDF", "application/pdf", PAGE, ""), spider: "pdf", ends: { ...DONE, files: 1 } },
  {
    ...typed("HTML for a spider of PDFs", "text/html", PAGE, ""),
    spider: "pdf",
    ends: { ...FINE, files: 0 },
  },
];
