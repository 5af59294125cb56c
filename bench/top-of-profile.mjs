/**
 * The functions in which a .cpuprofile spent most time themselves, and the same by package or file.
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
const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
const byFunction = new Map();
const byOwner = new Map();
let total = 0;
let idle = 0;
for (let index = 0; index < samples.length; index += 1) {
  const frame = frames.get(samples[index]);
  // A sample stands for the time until the next one.
  const microseconds = timeDeltas[index + 1] ?? 0;
  total += microseconds;
  if (frame.functionName === "(idle)") {
    idle += microseconds;
    continue;
  }
  add(byFunction, placeOf(frame), microseconds);
  add(byOwner, ownerOf(frame), microseconds);
}
const busy = total - idle;

console.log(`${path.basename(file)}: ${seconds(total)} s, busy ${seconds(busy)} s\n`);
print("function", byFunction, Number(rowsWanted));
print("package or file", byOwner, Math.ceil(Number(rowsWanted) / 2));

function add(sums, key, value) {
  sums.set(key, (sums.get(key) ?? 0) + value);
}

function print(what, sums, rows) {
  console.log(` self ms   busy %  ${what}`);
  const top = [...sums].sort(([, a], [, b]) => b - a).slice(0, rows);
  for (const [name, microseconds] of top) {
    const share = ((100 * microseconds) / busy).toFixed(1);
    console.log(`${(microseconds / 1_000).toFixed(1).padStart(8)}  ${share.padStart(6)}  ${name}`);
  }
  console.log("");
}

function seconds(microseconds) {
  return (microseconds / 1e6).toFixed(2);
}

function placeOf({ functionName, url, lineNumber }) {
  const name = functionName === "" ? "(anonymous)" : functionName;
  return url === "" ? name : `${name}  ${fileOf(url)}:${lineNumber + 1}`;
}

/** Whose code it is: a package, a file of ours, or a part of the runtime. */
function ownerOf({ functionName, url }) {
  if (url === "") return functionName.startsWith("(") ? functionName : "(native)";
  const file = fileOf(url);
  const [, owner] = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file) ?? [];
  return owner ?? file;
}

function fileOf(url) {
  return url.startsWith("file:") ? path.relative(process.cwd(), fileURLToPath(url)) : url;
}
