import { parentPort } from "node:worker_threads";
import { messageOf } from "../../lib/errors.js";
import type { DocumentFailure } from "../errors.js";
import { readArticle, writeMarkdown } from "./article-reader.js";
import type { DocumentAnswer, DocumentJob, DocumentResults } from "./document-job.js";
import { EncryptedPdfError, readPdf } from "./pdf-reader.js";

// The program of a document thread: it does one job after the other, and may be ended in the midst of any.
const port = parentPort;
if (port === null) throw new Error("this is the program of a thread");
port.on("message", (job: DocumentJob) => {
  void answer(job).then((value) => port.postMessage(value));
});

async function answer(job: DocumentJob): Promise<DocumentAnswer> {
  try {
    return { ok: true, result: await done(job) };
  } catch (error) {
    return { ok: false, reason: reasonOf(error), message: messageOf(error) };
  }
}

async function done(job: DocumentJob): Promise<DocumentResults[DocumentJob["kind"]]> {
  switch (job.kind) {
    case "article":
      return readArticle(job.text, job.url);
    case "markdown":
      return writeMarkdown(job.text, job.url);
    case "pdf":
      return readPdf(job.bytes);
    default:
      return job satisfies never;
  }
}

function reasonOf(error: unknown): DocumentFailure {
  if (error instanceof EncryptedPdfError) return "encrypted";
  // What V8 throws instead of ending the thread: no room for an array, or no room on the stack.
  if (error instanceof RangeError) return "memory";
  return "broken";
}
