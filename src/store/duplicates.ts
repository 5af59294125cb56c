import { MongoBulkWriteError, MongoServerError } from "mongodb";

const DUPLICATE_KEY = 11_000;

/** Whether a write was refused because a key is taken. */
export function isDuplicateKey(error: unknown): boolean {
  return error instanceof MongoServerError && error.code === DUPLICATE_KEY;
}

/**
 * The indexes of the documents that an unordered `insertMany` refused because their `_id` is taken.
 * @throws the error itself when it says anything else. The driver wraps a lost connection in the same class,
 * with no refusals: taken for success it would lose every document of the batch.
 */
export function refusedAsDuplicates(error: unknown): readonly number[] {
  if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError() !== undefined)
    throw error;
  const refusals = Array.isArray(error.writeErrors) ? error.writeErrors : [error.writeErrors];
  if (refusals.length === 0 || refusals.some(({ code }) => code !== DUPLICATE_KEY)) throw error;
  return refusals.map(({ index }) => index);
}
