import { DOCUMENT_BOUNDS, type PdfReading } from "./document-job.js";

/** It cannot be read without a password. */
export class EncryptedPdfError extends Error {}

type TextPiece = { readonly str?: string; readonly hasEOL?: boolean };

/**
 * The text of a PDF by its pages, by pdf.js. May take any time and memory: for a thread that can be ended.
 * @throws EncryptedPdfError
 * @throws Error whatever pdf.js has against the file
 */
export async function readPdf(bytes: Uint8Array): Promise<PdfReading> {
  const { getDocumentProxy, getMeta } = await import("unpdf");
  const { maxPdfPages, maxPdfCharacters } = DOCUMENT_BOUNDS;
  const pdf = await getDocumentProxy(bytes, {
    verbosity: 0,
    // Nothing is drawn, and nothing is fetched.
    disableFontFace: true,
    useSystemFonts: false,
    useWorkerFetch: false,
    disableRange: true,
    stopAtErrors: false,
  }).catch((error: unknown) => {
    if (error instanceof Error && error.name === "PasswordException") {
      throw new EncryptedPdfError("it cannot be read without a password", { cause: error });
    }
    throw error;
  });
  try {
    const pages: string[] = [];
    let characters = 0;
    for (let number = 1; number <= Math.min(pdf.numPages, maxPdfPages); number += 1) {
      const page = await pdf.getPage(number);
      const { items } = await page.getTextContent();
      const text = textOf(items as readonly TextPiece[], maxPdfCharacters - characters);
      page.cleanup();
      pages.push(text);
      characters += text.length;
      if (characters >= maxPdfCharacters) break;
    }
    const info = (await getMeta(pdf)).info as Readonly<Record<string, unknown>> | undefined;
    return {
      pages,
      pageCount: pdf.numPages,
      isCut: pages.length < pdf.numPages || characters >= maxPdfCharacters,
      ...stringOf(info, "Title", "title"),
      ...stringOf(info, "Author", "author"),
    };
  } finally {
    await pdf.destroy();
  }
}

function textOf(items: readonly TextPiece[], maxCharacters: number): string {
  const parts: string[] = [];
  let left = maxCharacters;
  for (const { str, hasEOL } of items) {
    if (str === undefined) continue;
    const part = hasEOL === true ? `${str}\n` : str;
    parts.push(part.slice(0, left));
    left -= part.length;
    if (left <= 0) break;
  }
  return parts.join("").trim();
}

function stringOf<Name extends "title" | "author">(
  info: Readonly<Record<string, unknown>> | undefined,
  member: string,
  name: Name,
): Partial<Record<Name, string>> {
  const value = info?.[member];
  const isStated = typeof value === "string" && value.trim() !== "";
  return isStated ? ({ [name]: value.trim().slice(0, 1_000) } as Partial<Record<Name, string>>) : {};
}
