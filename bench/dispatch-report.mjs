import { markdownTable } from "./markdown-table.mjs";
import { median } from "./median.mjs";

const MB = 1_000_000;
/** URLs decided a second, and lanes for each host that is being crawled at a time. */
const LEAST_URLS_PER_SECOND = 20_000;
const MOST_LANES_OF_HOSTS = 0.5;

const SCENARIOS = { rush: "quick hosts, all at once", wild: "hosts of all kinds, in waves" };

/** Medians over the rounds, for each scenario. */
export function summarize(runs) {
  return Object.keys(SCENARIOS).flatMap((scenario) => {
    const of = runs.filter((run) => run.scenario === scenario);
    const [first] = of;
    if (first === undefined) return [];
    const middle = (value) => median(of.map(value));
    return [
      {
        ...{ scenario, hosts: first.hosts, urls: first.urls, rounds: of.length },
        urlsPerCpuSecond: middle(({ dispatched, cpuSeconds }) => dispatched / cpuSeconds),
        urlsPerSecond: middle(({ dispatched, seconds }) => dispatched / seconds),
        simulatedSeconds: middle(({ simulatedSeconds }) => simulatedSeconds),
        seconds: middle(({ seconds }) => seconds),
        mostLanes: middle(({ mostLanes }) => mostLanes),
        mostHeapBytes: middle(({ mostHeapBytes }) => mostHeapBytes),
      },
    ];
  });
}

/**
 * What was wanted and what was measured.
 * @returns {{ measure: string, value: number, target: number, isReached: boolean, text: string, wanted: string }[]}
 */
export function judge(runs) {
  return summarize(runs).flatMap(({ scenario, hosts, urlsPerCpuSecond, mostLanes }) => {
    if (scenario === "rush") {
      return {
        measure: `${SCENARIOS[scenario]}: URLs decided in a second of CPU, with all of the simulation`,
        ...{ value: urlsPerCpuSecond, target: LEAST_URLS_PER_SECOND },
        isReached: urlsPerCpuSecond >= LEAST_URLS_PER_SECOND,
        ...{ text: String(Math.round(urlsPerCpuSecond)), wanted: `≥ ${LEAST_URLS_PER_SECOND}` },
      };
    }
    const share = mostLanes / hosts;
    return {
      measure: `${SCENARIOS[scenario]}: lanes at once, of all hosts`,
      ...{ value: share, target: MOST_LANES_OF_HOSTS, isReached: share <= MOST_LANES_OF_HOSTS },
      ...{ text: share.toFixed(2), wanted: `≤ ${MOST_LANES_OF_HOSTS}` },
    };
  });
}

/** The tables, in Markdown. */
export function tablesOf(runs) {
  const rows = summarize(runs).map((one) => [
    SCENARIOS[one.scenario],
    String(one.hosts),
    String(one.urls),
    String(Math.round(one.urlsPerCpuSecond)),
    String(Math.round(one.urlsPerSecond)),
    `${Math.round(one.simulatedSeconds)} s in ${Math.round(one.seconds)} s`,
    String(one.mostLanes),
    `${Math.round(one.mostHeapBytes / MB)} MB`,
  ]);
  const heads = [
    "scenario",
    "hosts",
    "URLs",
    "URLs/s of CPU",
    "URLs/s",
    "simulated",
    "lanes at most",
    "heap at most",
  ];
  const verdicts = judge(runs).map(({ measure, text, wanted, isReached }) => [
    ...[measure, text, wanted],
    isReached ? "yes" : "NO",
  ]);
  return [
    markdownTable(heads, rows),
    markdownTable(["measure", "value", "target", "reached"], verdicts),
  ].join("\n");
}
