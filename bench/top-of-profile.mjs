/**
 * The functions in which a .cpuprofile spent most time themselves.
 *
 * usage: node bench/top-of-profile.mjs FILE [ROWS]
 */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const [file, rowsWanted = "30"] = process.argv.slice(2);
if (file === undefined || !/^\d+$/.test(rowsWanted)) {
  console.error("usage: node bench/top-of-profile.mjs FILE [ROWS]");
  process.exit(2);
}
let profile;
try {
  profile = JSON.parse(await readFile(file, "utf8"));
} catch (error) {
  console.error(`cannot read ${file} as a CPU profile: ${error.message}`);
  process.exit(1);
}

const { nodes, samples, timeDeltas } = profile;
const places = new Map(nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]));
const selfMicroseconds = new Map();
for (let index = 0; index < samples.length; index += 1) {
  const place = places.get(samples[index]);
  // A sample stands for the time until the next one.
  selfMicroseconds.set(place, (selfMicroseconds.get(place) ?? 0) + (timeDeltas[index + 1] ?? 0));
}
const total = [...selfMicroseconds.values()].reduce((sum, value) => sum + value, 0);
const idle = selfMicroseconds.get("(idle)") ?? 0;
const busy = total - idle;
const top = [...selfMicroseconds]
  .filter(([place]) => place !== "(idle)")
  .sort(([, a], [, b]) => b - a)
  .slice(0, Number(rowsWanted));

console.log(`${path.basename(file)}: ${seconds(total)} s, busy ${seconds(busy)} s\n`);
console.log(" self ms   busy %  function");
for (const [place, microseconds] of top) {
  const share = ((100 * microseconds) / busy).toFixed(1);
  console.log(`${(microseconds / 1_000).toFixed(1).padStart(8)}  ${share.padStart(6)}  ${place}`);
}

function seconds(microseconds) {
  return (microseconds / 1e6).toFixed(2);
}

function placeOf({ functionName, url, lineNumber }) {
  if (url === "") return functionName === "" ? "(anonymous)" : functionName;
  const local = url.startsWith("file:") ? path.relative(process.cwd(), fileURLToPath(url)) : url;
  return `${functionName === "" ? "(anonymous)" : functionName}  ${local}:${lineNumber + 1}`;
}
