import type { DocumentFailure } from "../errors.js";
import type { Article } from "../spider.js";

/** What a document thread is asked to do. */
export type DocumentJob =
  | { readonly kind: "article"; readonly text: string; readonly url: string }
  | { readonly kind: "markdown"; readonly text: string; readonly url: string }
  | { readonly kind: "pdf"; readonly bytes: Uint8Array };

/** A PDF's text as the thread gives it. */
export type PdfReading = {
  readonly pages: readonly string[];
  readonly pageCount: number;
  readonly isCut: boolean;
  readonly title?: string;
  readonly author?: string;
};

/** What comes of each kind of job. */
export type DocumentResults = {
  readonly article: Article | undefined;
  readonly markdown: string;
  readonly pdf: PdfReading;
};

export type DocumentAnswer =
  | { readonly ok: true; readonly result: DocumentResults[DocumentJob["kind"]] }
  | { readonly ok: false; readonly reason: DocumentFailure; readonly message: string };

/** Bounds of what is read out of a document. Whatever is beyond them is left out, and said to be. */
export const DOCUMENT_BOUNDS = {
  /** Characters of a page's markup that an article or Markdown is made of. */
  maxMarkup: 2_097_152,
  /** Nodes of its tree, and how deep they are. */
  maxNodes: 20_000,
  maxDepth: 128,
  /** Of a PDF. */
  maxPdfPages: 2_000,
  maxPdfCharacters: 4_194_304,
} as const;
