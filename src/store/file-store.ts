import { createHash } from "node:crypto";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { type Db, GridFSBucket, MongoRuntimeError, ObjectId } from "mongodb";
import type { FileStore, StoredContent } from "../crawl/records.js";
import type { Clock } from "../lib/clock.js";
import { NotFoundError } from "./errors.js";
import type { Files } from "./files.js";

const BUCKET = "contents";
const SWEEP_BATCH = 500;
const SWEEP_AFTER_MS = 6 * 3_600_000;

/** Bytes in GridFS, in the collections `contents.files` and `contents.chunks`. */
export class MongoFileStore implements FileStore {
  readonly #db: Db;
  readonly #bucket: GridFSBucket;
  readonly #files: Files;
  readonly #clock: Clock;

  constructor(deps: { readonly db: Db; readonly files: Files; readonly clock: Clock }) {
    this.#db = deps.db;
    this.#files = deps.files;
    this.#clock = deps.clock;
    this.#bucket = new GridFSBucket(deps.db, {
      bucketName: BUCKET,
      writeConcern: { w: "majority", j: true },
    });
  }

  async save(
    body: AsyncIterable<Uint8Array>,
    about: { readonly name: string; readonly contentType: string },
  ): Promise<StoredContent> {
    const upload = this.#bucket.openUploadStream(about.name, {
      metadata: { contentType: about.contentType },
    });
    const hash = createHash("sha256");
    let bytes = 0;
    let failure: unknown;
    // Without a listener a failed write would end the process; with one it is thrown at the next step.
    upload.on("error", (error: unknown) => {
      failure ??= error;
    });
    try {
      for await (const chunk of body) {
        if (failure !== undefined) throw failure;
        hash.update(chunk);
        bytes += chunk.byteLength;
        if (!upload.write(chunk)) await once(upload, "drain");
      }
      upload.end();
      await once(upload, "finish");
      return { contentId: upload.id.toHexString(), bytes, sha256: hash.digest("hex") };
    } catch (error) {
      // Chunks that stay behind because the database went away are found by `sweep`.
      await upload.abort().catch(() => {});
      throw error;
    }
  }

  async discard(contentId: string): Promise<void> {
    if (!ObjectId.isValid(contentId)) return;
    try {
      await this.#bucket.delete(new ObjectId(contentId));
    } catch (error) {
      if (!(error instanceof MongoRuntimeError)) throw error; // Gone already.
    }
  }

  /** The bytes, or a range of them (`start` inclusive, `end` exclusive). @throws NotFoundError */
  async open(
    contentId: string,
    range: { readonly start?: number; readonly end?: number } = {},
  ): Promise<Readable> {
    if (!ObjectId.isValid(contentId)) throw new NotFoundError("content", contentId);
    const id = new ObjectId(contentId);
    const found = await this.#bucket.find({ _id: id }, { limit: 1 }).hasNext();
    if (!found) throw new NotFoundError("content", contentId);
    return this.#bucket.openDownloadStream(id, range);
  }

  /**
   * Removes contents, stored longer ago than this, that no file refers to: their worker was killed between
   * storing the bytes and committing the record.
   * @param olderThanMs well above the longest task, retries of its commit included
   * @returns how many were removed
   */
  async sweep(olderThanMs = SWEEP_AFTER_MS): Promise<number> {
    const before = ObjectId.createFromTime(Math.floor((this.#clock.now() - olderThanMs) / 1_000));
    return (await this.#sweepContents(before)) + (await this.#sweepChunks(before));
  }

  async #sweepContents(before: ObjectId): Promise<number> {
    let swept = 0;
    let batch: string[] = [];
    const discardUnused = async () => {
      const used = await this.#files.referredTo(batch);
      for (const contentId of batch) {
        if (used.has(contentId)) continue;
        await this.discard(contentId);
        swept += 1;
      }
      batch = [];
    };
    const contents = this.#bucket.find(
      { _id: { $lt: before } },
      { projection: { _id: 1 }, sort: { _id: 1 } },
    );
    for await (const { _id } of contents) {
      batch.push(_id.toHexString());
      if (batch.length === SWEEP_BATCH) await discardUnused();
    }
    if (batch.length > 0) await discardUnused();
    return swept;
  }

  /** Chunks of uploads that never ended: their entry in `contents.files` would have been written last. */
  async #sweepChunks(before: ObjectId): Promise<number> {
    const orphans = this.#db
      .collection(`${BUCKET}.chunks`)
      .aggregate<{ _id: ObjectId }>([
        { $match: { files_id: { $lt: before } } },
        { $sort: { files_id: 1 } },
        { $group: { _id: "$files_id" } },
        { $lookup: { from: `${BUCKET}.files`, localField: "_id", foreignField: "_id", as: "entry" } },
        { $match: { entry: { $size: 0 } } },
        { $project: { _id: 1 } },
      ]);
    let swept = 0;
    for await (const { _id } of orphans) {
      await this.#db.collection(`${BUCKET}.chunks`).deleteMany({ files_id: _id });
      swept += 1;
    }
    return swept;
  }
}
