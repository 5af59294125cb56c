import { accessSync, constants, readdirSync } from "node:fs";
import path from "node:path";

/**
 * A program in one of these folders (the last part of a name may end in `*`), or else in PATH.
 * @param {string} name
 * @param {readonly string[]} [places]
 * @returns {string | undefined}
 */
export function findProgram(name, places = []) {
  const folders = [
    ...places.flatMap(expand),
    ...(process.env.PATH ?? "").split(path.delimiter).filter((folder) => path.isAbsolute(folder)),
  ];
  return folders.map((folder) => path.join(folder, name)).find(isExecutable);
}

export function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A place with a star in all the ways in which it exists, the highest version first. */
function expand(place) {
  const star = place.indexOf("*");
  if (star < 0) return [place];
  const [before, after] = [place.slice(0, star), place.slice(star + 1)];
  const [parent, beginning] = [path.dirname(before), path.basename(before)];
  try {
    const names = readdirSync(parent).filter((name) => name.startsWith(beginning));
    return names
      .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
      .map((name) => path.join(parent, name, after));
  } catch {
    return [];
  }
}
