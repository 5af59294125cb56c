import { MongoClient } from "mongodb";
import { z } from "zod";

const hello = z.object({
  setName: z.string().optional(),
  /** Set on a member of a replica set that has not been initiated yet. */
  isreplicaset: z.boolean().optional(),
  msg: z.string().optional(),
});

/** What a server's `hello` says against using it, or undefined. `wanted`: the set's name, if one is asked for. */
export function objectionTo(answer: unknown, wanted: string | undefined): string | undefined {
  const { setName, isreplicaset, msg } = hello.parse(answer);
  const isRouter = msg === "isdbgrid";
  if (isRouter || (isreplicaset === true && setName === undefined)) return undefined;
  if (setName === undefined) {
    return (
      "is not a replica set, which snapshots and majority writes need; " +
      "start mongod with --replSet and run rs.initiate() once (one member will do)"
    );
  }
  if (wanted === undefined || wanted === setName) return undefined;
  return `is the replica set "${setName}", not "${wanted}"`;
}

/**
 * Asks the servers one by one, when none of them could be used: the driver waits in silence for a server of
 * another set, or of none, to become the one that it was told of.
 */
export async function objectionToAny(client: MongoClient, timeoutMs: number): Promise<string | undefined> {
  const { hosts, replicaSet, tls } = client.options;
  if (tls) return undefined; // Certificates would be needed for the asking alone.
  for (const { host, port } of hosts) {
    if (host === undefined || port === undefined) continue;
    const probe = new MongoClient(`mongodb://${host.includes(":") ? `[${host}]` : host}:${port}/`, {
      directConnection: true,
      serverSelectionTimeoutMS: timeoutMs,
      maxPoolSize: 1,
    });
    try {
      const objection = objectionTo(await probe.db("admin").command({ hello: 1 }), replicaSet);
      if (objection !== undefined) return objection;
    } catch {
      // Away: that is what waiting is for.
    } finally {
      await probe.close();
    }
  }
  return undefined;
}
