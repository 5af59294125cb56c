import { mkdir } from "node:fs/promises";
import path from "node:path";

/** Where profiles go, if they are wanted. */
export class Profile {
  #folder;

  static async for(parent, name) {
    const profile = new Profile();
    if (parent !== undefined) {
      profile.#folder = path.resolve(parent, name);
      await mkdir(profile.#folder, { recursive: true });
    }
    return profile;
  }

  /** Flags of node that make a process write its profile when it ends. */
  flags(name) {
    if (this.#folder === undefined) return [];
    return ["--cpu-prof", `--cpu-prof-dir=${this.#folder}`, `--cpu-prof-name=${name}.cpuprofile`];
  }
}
