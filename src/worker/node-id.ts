import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { ConfigError, messageOf } from "../lib/errors.js";

/**
 * The id kept in this data directory, made on the first start.
 * @throws ConfigError when the directory cannot be used
 */
export async function nodeIdIn(dataDir: string): Promise<string> {
  const file = path.join(dataDir, "node-id");
  try {
    await mkdir(dataDir, { recursive: true });
    const host = hostname()
      .replace(/[^A-Za-z0-9-]/g, "-")
      .slice(0, 40);
    const made = `${host || "node"}-${randomBytes(4).toString("hex")}`;
    try {
      await writeFile(file, `${made}\n`, { flag: "wx" });
      return made;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const kept = (await readFile(file, "utf8")).trim();
    if (kept !== "") return kept;
    // Whoever made the file died before it was written.
    await writeFile(file, `${made}\n`);
    return made;
  } catch (error) {
    throw new ConfigError(`--data-dir: cannot keep the node's id in ${file}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
