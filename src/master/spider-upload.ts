import {
  type Bundle,
  type BundleReaders,
  bundleOf,
  DECLARATION_FILE,
  MODULE_FILE,
} from "../crawl/bundles/bundle.js";
import { BundleError } from "../crawl/bundles/bundle-error.js";
import { type BundleFile, BundleFiles, type BundleLimits } from "../crawl/bundles/bundle-files.js";
import { readTarGz } from "../crawl/bundles/tar-archive.js";
import { readZip } from "../crawl/bundles/zip-archive.js";
import { processManifest } from "../crawl/process-manifest.js";
import { fieldErrorsOf } from "../lib/field-errors.js";
import {
  checkedDeclaration,
  parseDeclaration,
  SpiderDeclarationError,
} from "../spiders/declarative/index.js";
import { RequestError } from "./errors.js";

const READERS: BundleReaders = {
  faultsOf: {
    declarative(declaration) {
      if (Object.keys(declaration).every((member) => member === "name")) {
        return [{ field: "items", message: "is missing, and so is all else that a spider could do" }];
      }
      try {
        checkedDeclaration(declaration);
        return [];
      } catch (error) {
        if (error instanceof SpiderDeclarationError) return error.faults;
        throw error;
      }
    },
    process(manifest) {
      const { error } = processManifest.safeParse(manifest);
      return error === undefined ? [] : fieldErrorsOf(error);
    },
  },
  parseYaml: parseDeclaration,
};

/** As what code may come. */
export const UPLOAD_TYPES = [
  "application/json",
  "text/javascript",
  "application/gzip",
  "application/zip",
] as const;
export type UploadType = (typeof UPLOAD_TYPES)[number];

/** What came: an archive, a module's text, or an object of JSON. */
export type Upload = { readonly type: UploadType; readonly body: unknown };

/**
 * Reads what was uploaded as a spider's code. One file on its own is a bundle of one file.
 * @throws RequestError `invalid` or `too-large`, naming the file at fault
 */
export async function readUpload(name: string, upload: Upload, limits: BundleLimits): Promise<Bundle> {
  try {
    return bundleOf(name, await filesOf(upload, limits), READERS);
  } catch (error) {
    if (!(error instanceof BundleError)) throw error;
    const { path, message, reason, faults } = error;
    const ofPath = path === undefined ? [] : [{ field: path, message: message.slice(path.length + 2) }];
    const fields = faults.length > 0 ? faults : ofPath;
    throw new RequestError(reason, message, { fields, cause: error });
  }
}

async function filesOf({ type, body }: Upload, limits: BundleLimits): Promise<readonly BundleFile[]> {
  switch (type) {
    case "application/gzip":
      return readTarGz(bytesOf(body), limits);
    case "application/zip":
      return readZip(bytesOf(body), limits);
    case "text/javascript":
      return alone(MODULE_FILE, bytesOf(body), limits);
    case "application/json":
      return alone(DECLARATION_FILE, Buffer.from(`${JSON.stringify(body, undefined, 2)}\n`), limits);
    default:
      return type satisfies never;
  }
}

function bytesOf(body: unknown): Uint8Array {
  if (body instanceof Uint8Array && body.byteLength > 0) return body;
  throw new BundleError("invalid", "is empty");
}

function alone(path: string, body: Uint8Array, limits: BundleLimits): readonly BundleFile[] {
  const files = new BundleFiles(limits);
  files.add({ path: files.expect(path, body.byteLength), body, isExecutable: false });
  return files.files;
}
