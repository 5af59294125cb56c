import { createHash, randomUUID } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import type { FileStore, StoredContent } from "../crawl/records.js";

/**
 * Files in a folder of the disk, named by their content's checksum and by the name that they were first saved under:
 * the same content is there once, also of earlier runs.
 */
export class FolderFileStore implements FileStore {
  readonly #folder: string;
  /** How often each content was saved: the same bytes may come from several URLs. */
  readonly #saved = new Map<string, number>();
  /** By the start of the checksum. */
  #known: Promise<Map<string, string>> | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async save(
    body: AsyncIterable<Uint8Array>,
    about: { name: string; contentType: string },
  ): Promise<StoredContent> {
    await mkdir(this.#folder, { recursive: true });
    const unfinished = path.join(this.#folder, `.${randomUUID()}`);
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      const file = await open(unfinished, "wx");
      try {
        for await (const chunk of body) {
          hash.update(chunk);
          bytes += chunk.length;
          await file.write(chunk);
        }
      } finally {
        await file.close();
      }
      const sha256 = hash.digest("hex");
      this.#known ??= this.#look();
      const known = await this.#known;
      const contentId = known.get(sha256.slice(0, 16)) ?? `${sha256.slice(0, 16)}-${about.name}`;
      known.set(sha256.slice(0, 16), contentId);
      // Counted first: whoever discards the same content meanwhile leaves it there.
      this.#saved.set(contentId, (this.#saved.get(contentId) ?? 0) + 1);
      await rename(unfinished, path.join(this.#folder, contentId));
      return { contentId, bytes, sha256 };
    } catch (error) {
      await rm(unfinished, { force: true });
      throw error;
    }
  }

  async open(contentId: string): Promise<AsyncIterable<Uint8Array>> {
    const file = await open(path.join(this.#folder, path.basename(contentId)), "r");
    return file.createReadStream();
  }

  async discard(contentId: string): Promise<void> {
    const left = (this.#saved.get(contentId) ?? 0) - 1;
    this.#saved.set(contentId, left);
    if (left > 0) return;
    const known = await this.#known;
    known?.delete(contentId.slice(0, 16));
    await rm(path.join(this.#folder, path.basename(contentId)), { force: true });
  }

  /** What earlier runs have left, which no run but theirs removes. */
  async #look(): Promise<Map<string, string>> {
    const names = (await readdir(this.#folder)).filter((name) => /^[0-9a-f]{16}-/.test(name));
    for (const name of names) this.#saved.set(name, 1);
    return new Map(names.map((name) => [name.slice(0, 16), name]));
  }
}
