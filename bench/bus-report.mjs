import { markdownTable } from "./markdown-table.mjs";
import { median } from "./median.mjs";

/** What is measured, as tables show it: `value` is the number that counts, and `text` how it is written. */
const MEASURES = {
  call: { title: "a call to a node, one at a time", ...latency() },
  calls: { title: "calls to a node, 64 in flight", ...rate("calls/s") },
  masterCall: { title: "a call to any master, one at a time", ...latency() },
  masterCalls: { title: "calls to any master, 64 in flight", ...rate("calls/s") },
  tasks: { title: "tasks: publish, confirm, consume, ack", ...rate("tasks/s") },
  broadcast: { title: "a broadcast with 20 answers", ...latency() },
  deadNode: { title: "a call to a node that has died", ...latency() },
  unknownNode: { title: "a call to a node that never was", ...latency() },
};

const CONTESTANTS = { ours: "the bus", bare: "bare loop", direct: "bare loop, direct reply-to" };

/** Ours to bare, and for nodes that are not there the longest wait, in milliseconds. */
const TARGETS = [
  { measure: "call", title: "call to a node, p50 to the bare loop's", atMost: 1.2 },
  { measure: "calls", title: "calls/s to a node, 64 in flight, to the bare loop's", atLeast: 0.7 },
  { measure: "masterCall", title: "call to any master, p50 to the bare loop's", atMost: 1.2 },
  { measure: "masterCalls", title: "calls/s to any master, 64 in flight, to the bare loop's", atLeast: 0.7 },
  { measure: "tasks", title: "tasks/s to the bare loop's", atLeast: 0.8 },
  { measure: "broadcast", title: "broadcast with 20 answers, p50 to the bare loop's", atMost: 1.3 },
];
const REFUSED_WITHIN_MS = 50;
const REFUSALS = ["deadNode", "unknownNode"];

function latency() {
  return { value: ({ p50Ms }) => p50Ms, text: (ms) => `${ms.toFixed(3)} ms` };
}

function rate(unit) {
  return { value: ({ perSecond }) => perSecond, text: (number) => `${Math.round(number)} ${unit}` };
}

/** Medians over the rounds, for each measure and contestant, in the order of a round. */
export function summarize(runs) {
  return Object.keys(MEASURES).flatMap((measure) =>
    Object.keys(CONTESTANTS).flatMap((contestant) => {
      const own = runs.filter((run) => run.measure === measure && run.contestant === contestant);
      if (own.length === 0) return [];
      const values = own.map(MEASURES[measure].value);
      return {
        ...{ measure, contestant, rounds: own.length },
        ...{ median: median(values), least: Math.min(...values), most: Math.max(...values) },
        ...(own[0].p99Ms !== undefined && { p99Ms: median(own.map(({ p99Ms }) => p99Ms)) }),
        cpuMicrosecondsEach: median(own.map(({ cpuMicrosecondsEach }) => cpuMicrosecondsEach)),
        ...(contestant !== "bare" && { ratioToBare: ratioToBare(runs, measure, contestant) }),
      };
    }),
  );
}

/** The median of the ratios within each round, between measurements that met the same machine. */
function ratioToBare(runs, measure, contestant) {
  const { value } = MEASURES[measure];
  const find = (who, round) =>
    runs.find((run) => run.measure === measure && run.contestant === who && run.round === round);
  const ratios = runs
    .filter((run) => run.measure === measure && run.contestant === contestant)
    .map((run) => {
      const bare = find("bare", run.round);
      return bare === undefined ? undefined : value(run) / value(bare);
    });
  return median(ratios);
}

/**
 * What was wanted and what was measured.
 * @returns {{ measure: string, value: number, target: number, isReached: boolean, text: string, wanted: string }[]}
 */
export function judge(runs) {
  const verdicts = [];
  for (const { measure, title, atMost, atLeast } of TARGETS) {
    const value = ratioToBare(runs, measure, "ours");
    if (value === undefined) continue;
    const [target, sign] = atMost === undefined ? [atLeast, "≥"] : [atMost, "≤"];
    const isReached = atMost === undefined ? value >= target : value <= target;
    verdicts.push({
      measure: title,
      ...{ value, target, isReached, text: value.toFixed(2), wanted: `${sign} ${target}` },
    });
  }
  for (const measure of REFUSALS) {
    const waits = runs.filter((run) => run.measure === measure).map(({ maxMs }) => maxMs);
    if (waits.length === 0) continue;
    const value = Math.max(...waits);
    verdicts.push({
      measure: `${MEASURES[measure].title}, longest`,
      ...{ value, target: REFUSED_WITHIN_MS, isReached: value < REFUSED_WITHIN_MS },
      ...{ text: `${value.toFixed(1)} ms`, wanted: `< ${REFUSED_WITHIN_MS} ms` },
    });
  }
  return verdicts;
}

/** The tables, in Markdown. */
export function tablesOf(runs) {
  const rows = summarize(runs).map((one) => {
    const { title, text } = MEASURES[one.measure];
    return [
      title,
      CONTESTANTS[one.contestant],
      `${text(one.median)} (${text(one.least).split(" ")[0]}–${text(one.most).split(" ")[0]})`,
      one.p99Ms === undefined ? "" : `${one.p99Ms.toFixed(2)} ms`,
      String(Math.round(one.cpuMicrosecondsEach)),
      one.ratioToBare === undefined ? "" : one.ratioToBare.toFixed(2),
    ];
  });
  const verdicts = judge(runs).map(({ measure, text, wanted, isReached }) => [
    measure,
    text,
    wanted,
    isReached ? "yes" : "NO",
  ]);
  const heads = ["measure", "by", "p50 or rate (range)", "p99", "CPU µs each", "to bare"];
  const tables = [markdownTable(heads, rows)];
  if (verdicts.length > 0) tables.push(markdownTable(["measure", "value", "target", "reached"], verdicts));
  return tables.join("\n");
}
