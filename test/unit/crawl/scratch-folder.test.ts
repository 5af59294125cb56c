import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ScratchFolder } from "../../../src/crawl/render/scratch-folder.js";

/** More than any system gives to a process. */
const NOBODY = 999_999_999;

describe("a browser's scratch folder", () => {
  it("goes with the profile that was noted in it, and with nothing else", async () => {
    const profile = await mkdtemp(path.join(tmpdir(), "playwright_chromiumdev_profile-"));
    const other = await mkdtemp(path.join(tmpdir(), "warren-test-"));
    const [one, two] = [await ScratchFolder.make(), await ScratchFolder.make()];
    await one.noteProfile(profile);
    await two.noteProfile(other);
    await Promise.all([one.remove(), two.remove()]);
    expect([one.path, two.path, profile, other].map(existsSync)).toEqual([false, false, false, true]);
    await rm(other, { recursive: true });
  });

  it("of a process that was killed is removed by the next one", async () => {
    const profile = await mkdtemp(path.join(tmpdir(), "playwright_chromiumdev_profile-"));
    const left = path.join(tmpdir(), `warren-browser-${NOBODY}-x`);
    const alive = path.join(tmpdir(), `warren-browser-${process.ppid}-x`);
    await mkdir(left, { recursive: true });
    await mkdir(alive, { recursive: true });
    await writeFile(path.join(left, "profile"), profile);
    const scratch = await ScratchFolder.make();
    expect([left, profile, alive].map(existsSync)).toEqual([false, false, true]);
    await scratch.remove();
    await rm(alive, { recursive: true });
  });
});
