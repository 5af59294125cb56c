import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { type Collection, type Db, type Filter, GridFSBucket, ObjectId } from "mongodb";
import type { FileRecord, FileStore, StoredContent } from "../crawl/records.js";
import type { Clock } from "../lib/clock.js";
import { isDuplicateKey } from "./duplicates.js";
import { NotFoundError } from "./errors.js";

const SWEEP_BATCH = 500;
const SWEEP_AFTER_MS = 6 * 3_600_000;

/** Who knows which contents are still meant by a record. */
export interface ContentReferences {
  /** Those of these that some record refers to. */
  referredTo(contentIds: readonly string[]): Promise<ReadonlySet<string>>;
}

export type MongoFileStoreDeps = {
  readonly db: Db;
  readonly references: ContentReferences;
  readonly clock: Clock;
  /** Where they lie: the collections `<bucket>.files` and `<bucket>.chunks`. */
  readonly bucket: string;
};

/** What stands in `contents.files` beside what GridFS keeps there. */
type ContentDocument = {
  readonly _id: ObjectId;
  readonly length: number;
  readonly metadata?: {
    readonly contentType: string;
    /** Unique: the same bytes are stored once. Absent until they are known to be all there. */
    readonly sha256?: string;
    /** Raised with each save of these bytes. */
    readonly uses?: number;
    /** Saves of these bytes whose records are not stored yet. */
    readonly holds?: readonly { readonly id: string; readonly at: number }[];
  };
};

type ChunkDocument = { readonly _id: ObjectId; readonly files_id: ObjectId };

/**
 * Bytes in GridFS, each once for all who refer to them: files that crawls stored, or those of spiders' code.
 *
 * A body is uploaded before its checksum is known; if its bytes are there already by then, they are shared and the
 * upload goes. Bytes go when no file record refers to them, which must not be decided while someone is about to
 * refer to them:
 *
 * 1. Each save holds what it got, until the record is stored (`release`) or given up (`discard`). A hold whose worker
 *    was killed counts no more after hours.
 * 2. Whoever removes looks at holds and number of uses first, at records then, and removes only if the number of uses
 *    is still the same. A save in between raises it; one before has either its hold or its record.
 */
export class MongoFileStore implements FileStore {
  readonly #contents: Collection<ContentDocument>;
  readonly #bucket: GridFSBucket;
  readonly #chunks: Collection<ChunkDocument>;
  readonly #references: ContentReferences;
  readonly #clock: Clock;

  constructor({ db, references, clock, bucket }: MongoFileStoreDeps) {
    this.#references = references;
    this.#clock = clock;
    this.#contents = db.collection(`${bucket}.files`);
    this.#chunks = db.collection(`${bucket}.chunks`);
    this.#bucket = new GridFSBucket(db, {
      bucketName: bucket,
      writeConcern: { w: "majority", j: true },
    });
  }

  async save(
    body: AsyncIterable<Uint8Array>,
    about: { readonly name: string; readonly contentType: string },
  ): Promise<StoredContent> {
    const hold = { id: randomUUID(), at: this.#clock.now() };
    const upload = this.#bucket.openUploadStream(about.name, {
      metadata: { contentType: about.contentType, uses: 1, holds: [hold] },
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
      const sha256 = hash.digest("hex");
      const contentId = await this.#settle(upload.id, sha256, hold);
      return { contentId: contentId.toHexString(), bytes, sha256, hold: hold.id };
    } catch (error) {
      // Chunks that stay behind because the database went away are found by `sweep`.
      await upload.abort().catch(() => {});
      throw error;
    }
  }

  /** Holds bytes that are there already, as `save` would; undefined when they are not. */
  async share(sha256: string): Promise<StoredContent | undefined> {
    const hold = { id: randomUUID(), at: this.#clock.now() };
    const shared = await this.#hold(sha256, hold);
    if (shared === null) return undefined;
    return { contentId: shared._id.toHexString(), bytes: shared.length, sha256, hold: hold.id };
  }

  async discard(contentId: string, hold?: string): Promise<void> {
    if (!ObjectId.isValid(contentId)) return;
    const id = new ObjectId(contentId);
    if (hold !== undefined) await this.#giveUp([id], [hold]);
    await this.#removeUnused(id, this.#clock.now() - SWEEP_AFTER_MS);
  }

  /** The records are stored: they keep their contents from now on. */
  async release(records: readonly Pick<FileRecord, "contentId" | "hold">[]): Promise<void> {
    const held = records.filter(({ contentId, hold }) => hold !== undefined && ObjectId.isValid(contentId));
    if (held.length === 0) return;
    await this.#giveUp(
      held.map(({ contentId }) => new ObjectId(contentId)),
      held.flatMap(({ hold }) => hold ?? []),
    );
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

  /** Makes an upload the one place of its bytes, or shares theirs and drops it. */
  async #settle(
    upload: ObjectId,
    sha256: string,
    hold: { readonly id: string; readonly at: number },
  ): Promise<ObjectId> {
    for (;;) {
      try {
        await this.#contents.updateOne({ _id: upload }, { $set: { "metadata.sha256": sha256 } });
        return upload;
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
      }
      const shared = await this.#hold(sha256, hold);
      if (shared === null) continue; // They were removed just now: the upload takes their place.
      await this.#remove(upload);
      return shared._id;
    }
  }

  #hold(sha256: string, hold: { readonly id: string; readonly at: number }) {
    return this.#contents.findOneAndUpdate(
      { "metadata.sha256": sha256 },
      { $push: { "metadata.holds": hold }, $inc: { "metadata.uses": 1 } },
      { projection: { _id: 1, length: 1 } },
    );
  }

  async #giveUp(ids: readonly ObjectId[], holds: readonly string[]): Promise<void> {
    await this.#contents.updateMany(
      { _id: { $in: [...ids] } },
      { $pull: { "metadata.holds": { id: { $in: [...holds] } } } },
    );
  }

  /**
   * @param expired holds from before this instant count no more
   * @returns whether it was removed
   */
  async #removeUnused(id: ObjectId, expired: number): Promise<boolean> {
    const content = await this.#contents.findOne({ _id: id }, { projection: { metadata: 1 } });
    if (content === null) return false;
    const { uses, holds = [] } = content.metadata ?? {};
    if (holds.some(({ at }) => at >= expired)) return false;
    const contentId = id.toHexString();
    if ((await this.#references.referredTo([contentId])).has(contentId)) return false;
    return this.#remove(id, { "metadata.uses": uses ?? { $exists: false } });
  }

  /** The entry goes first: chunks without one are found by `sweep`. */
  async #remove(id: ObjectId, still: Filter<ContentDocument> = {}): Promise<boolean> {
    const { deletedCount } = await this.#contents.deleteOne({ ...still, _id: id });
    if (deletedCount === 0) return false;
    await this.#chunks.deleteMany({ files_id: id });
    return true;
  }

  async #sweepContents(before: ObjectId): Promise<number> {
    const expired = before.getTimestamp().getTime();
    let swept = 0;
    let batch: string[] = [];
    const discardUnused = async () => {
      const used = await this.#references.referredTo(batch);
      for (const contentId of batch) {
        if (used.has(contentId)) continue;
        if (await this.#removeUnused(new ObjectId(contentId), expired)) swept += 1;
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
    const orphans = this.#chunks.aggregate<{ _id: ObjectId }>([
      { $match: { files_id: { $lt: before } } },
      { $sort: { files_id: 1 } },
      { $group: { _id: "$files_id" } },
      {
        $lookup: { from: this.#contents.collectionName, localField: "_id", foreignField: "_id", as: "entry" },
      },
      { $match: { entry: { $size: 0 } } },
      { $project: { _id: 1 } },
    ]);
    let swept = 0;
    for await (const { _id } of orphans) {
      await this.#chunks.deleteMany({ files_id: _id });
      swept += 1;
    }
    return swept;
  }
}
