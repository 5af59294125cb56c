import { markdownTable } from "./markdown-table.mjs";
import { median } from "./median.mjs";

/** The targets that the crawl benchmark is held against; docs/performance.md says where they come from. */
const MB = 1_000_000;
const TARGETS = {
  standaloneToFloor: 0.8,
  clusterToFloor: 0.6,
  cpu: { workers: 0.75, masters: 0.15, rabbitmq: 0.2, mongod: 0.25 },
  workerRssBytes: 200 * MB,
  growthOfSpeed: 0.95,
  growthOfRss: 1.1,
};

const ROLES = {
  workers: /^worker/,
  masters: /^master/,
  rabbitmq: /^rabbitmq$/,
  mongod: /^mongod$/,
  site: /^site$/,
};

/**
 * Medians over the rounds, for each variant and size.
 * @returns {object[]} one a variant and size, in the order in which they were run
 */
export function summarize(runs) {
  const groups = groupBy(runs, keyOf);
  return [...groups.values()].map((group) => {
    const speeds = group.map(({ pagesPerSecond }) => pagesPerSecond);
    const [{ variant, pages }] = group;
    const roles = {};
    for (const [role, pattern] of Object.entries(ROLES)) {
      const found = group.map((run) => Object.entries(run.processes).filter(([name]) => pattern.test(name)));
      if (found.every((processes) => processes.length === 0)) continue;
      roles[role] = {
        cpuSecondsPerThousand: median(
          found.map((all) => sum(all.map(([, one]) => one.cpuSecondsPerThousand))),
        ),
        peakRssBytes: median(found.map((all) => largest(all.map(([, one]) => one.peakRssBytes)))),
      };
    }
    return {
      variant,
      pages,
      rounds: group.length,
      pagesPerSecond: median(speeds),
      slowest: Math.min(...speeds),
      fastest: Math.max(...speeds),
      roles,
      siteCores: median(group.map((run) => run.siteCores)),
      otherCores: median(group.map((run) => run.otherCores)),
    };
  });
}

/**
 * What was wanted and what was measured. Ratios are taken within each round, between runs that met the same
 * machine, and the median of those counts.
 * @returns {{ measure: string, value: number, target: number, isReached: boolean, text: string, wanted: string }[]}
 */
export function judge(runs) {
  const summaries = summarize(runs);
  const sizes = [...new Set(runs.map(({ pages }) => pages))];
  const verdicts = [];
  const atLeast = (measure, value, target) => {
    if (value === undefined) return;
    verdicts.push({
      ...{ measure, value, target, isReached: value >= target },
      ...{ text: value.toFixed(2), wanted: `≥ ${target}` },
    });
  };
  const atMost = (measure, value, target, text = (number) => number.toFixed(3)) => {
    if (value === undefined) return;
    verdicts.push({
      ...{ measure, value, target, isReached: value <= target },
      ...{ text: text(value), wanted: `≤ ${text === megabytes ? megabytes(target) : target}` },
    });
  };
  for (const pages of sizes) {
    const at = sizes.length > 1 ? ` (${pages} pages)` : "";
    const ratio = (variant, base) => ratioInRounds(runs, { variant, pages }, { variant: base, pages });
    atLeast(`standalone to floor, pages/s${at}`, ratio("standalone", "floor1"), TARGETS.standaloneToFloor);
    atLeast(`cluster of 2 to floor of 2, pages/s${at}`, ratio("cluster2", "floor2"), TARGETS.clusterToFloor);
    for (const { variant, roles } of summaries.filter((one) => one.pages === pages)) {
      if (!variant.startsWith("cluster")) continue;
      for (const [role, target] of Object.entries(TARGETS.cpu)) {
        const spent = roles[role]?.cpuSecondsPerThousand;
        atMost(`${variant}: CPU s per 1,000 pages, ${role}${at}`, spent, target);
      }
      atMost(
        `${variant}: peak RSS of a worker${at}`,
        roles.workers?.peakRssBytes,
        TARGETS.workerRssBytes,
        megabytes,
      );
    }
  }
  const [small, large] = [Math.min(...sizes), Math.max(...sizes)];
  for (const { variant } of summaries.filter(({ pages }) => pages === large && small !== large)) {
    const ends = [
      { variant, pages: large },
      { variant, pages: small },
    ];
    const between = `${small} to ${large} pages`;
    atLeast(`${variant}: pages/s from ${between}`, ratioInRounds(runs, ...ends), TARGETS.growthOfSpeed);
    const grown = ratioInRounds(runs, ...ends, (run) => run.processes["worker 1"]?.peakRssBytes);
    atMost(`${variant}: peak RSS of a worker from ${between}`, grown, TARGETS.growthOfRss);
  }
  return verdicts;
}

/** The tables, in Markdown. */
export function tablesOf(runs) {
  const rows = summarize(runs).map((one) => {
    const cpu = (role) => one.roles[role]?.cpuSecondsPerThousand?.toFixed(3) ?? "";
    const rss = (role) => megabytes(one.roles[role]?.peakRssBytes);
    return [
      one.variant,
      String(one.pages),
      `${Math.round(one.pagesPerSecond)} (${Math.round(one.slowest)}–${Math.round(one.fastest)})`,
      ...["workers", "masters", "rabbitmq", "mongod"].map(cpu),
      ...["workers", "masters", "rabbitmq", "mongod"].map(rss),
      one.siteCores.toFixed(2),
      one.otherCores.toFixed(2),
    ];
  });
  const heads = [
    ...["run", "pages", "pages/s (range)"],
    ...["CPU s per 1,000: workers", "master", "RabbitMQ", "mongod"],
    ...["peak RSS: worker", "master", "RabbitMQ", "mongod"],
    ...["site, cores", "others, cores"],
  ];
  const verdicts = judge(runs).map(({ measure, text, wanted, isReached }) => [
    measure,
    text,
    wanted,
    isReached ? "yes" : "NO",
  ]);
  const tables = [markdownTable(heads, rows)];
  if (verdicts.length > 0) tables.push(markdownTable(["measure", "value", "target", "reached"], verdicts));
  return tables.join("\n");
}

function ratioInRounds(runs, of, to, value = (run) => run.pagesPerSecond) {
  const find = (round, { variant, pages }) =>
    runs.find((run) => run.round === round && run.variant === variant && run.pages === pages);
  const rounds = [...new Set(runs.map(({ round }) => round))];
  const ratios = rounds.map((round) => {
    const [above, below] = [find(round, of), find(round, to)].map((run) => run && value(run));
    return above === undefined || below === undefined ? undefined : above / below;
  });
  return median(ratios);
}

function keyOf({ variant, pages }) {
  return `${variant} ${pages}`;
}

function groupBy(values, key) {
  const groups = new Map();
  for (const value of values) groups.set(key(value), [...(groups.get(key(value)) ?? []), value]);
  return groups;
}

/** Unknown as soon as one of them is. */
function sum(values) {
  return values.includes(undefined) ? undefined : values.reduce((total, value) => total + value, 0);
}

function largest(values) {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}

function megabytes(bytes) {
  return bytes === undefined ? "" : `${Math.round(bytes / MB)} MB`;
}
