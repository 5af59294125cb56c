import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

const NAME = /^warren-browser-(\d+)-/;
/** In it: where the browser has its profile, which is made by the driver and not by us. */
const PROFILE_NOTE = "profile";
const PROFILE_NAME = /^playwright_\w+-/;

/**
 * A folder for a browser's temporary files, `warren-browser-<process id>-<random>` among the system's. Those of
 * processes that are gone without having removed theirs, as when they were killed, are removed when one is made.
 */
export class ScratchFolder {
  readonly path: string;

  static async make(): Promise<ScratchFolder> {
    const parent = tmpdir();
    for (const name of await readdir(parent).catch(() => [])) {
      const pid = NAME.exec(name)?.[1];
      // Whoever has this id now may be a stranger: then it is left for the next time.
      if (pid !== undefined && !isAlive(Number(pid)))
        await new ScratchFolder(path.join(parent, name)).remove();
    }
    return new ScratchFolder(await mkdtemp(path.join(parent, `warren-browser-${process.pid}-`)));
  }

  private constructor(folder: string) {
    this.path = folder;
  }

  /** This profile is to go with it. */
  async noteProfile(folder: string): Promise<void> {
    await writeFile(path.join(this.path, PROFILE_NOTE), folder);
  }

  /** Removes it with all that is in it; what cannot be removed stays. */
  async remove(): Promise<void> {
    const profile = await readFile(path.join(this.path, PROFILE_NOTE), "utf8").catch(() => "");
    const isProfile =
      path.dirname(profile) === path.dirname(this.path) && PROFILE_NAME.test(path.basename(profile));
    for (const folder of isProfile ? [profile, this.path] : [this.path]) {
      await rm(folder, { recursive: true, force: true, maxRetries: 3 }).catch(() => {});
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
