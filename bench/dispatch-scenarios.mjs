/** What the dispatcher is tried with, in simulated time: see dispatch-simulation.mjs. */

const MINUTE_MS = 60_000;

/**
 * Every host is quick, and there are so many places that nothing but the dispatcher decides how fast it goes: what a
 * decision costs.
 * @param {{ hosts: number, urls: number, random: () => number }} size
 * @returns {import("./dispatch-simulation.mjs").SimulationOptions}
 */
export function rush({ hosts, urls, random }) {
  return {
    places: Math.min(8_000, hosts),
    random,
    crawls: [
      {
        ...{ id: "rush", urls, known: Math.min(urls, hosts * 2), hostOf: (number) => number % hosts },
        politeness: { obeyRobots: false },
      },
    ],
    serve: () => ({ ms: 50 + Math.floor(random() * 200), kind: "served", bytes: 20_000 }),
  };
}

/**
 * Four crawls with different manners, on hosts of which some are slow, some never answer, some stop doing so for a while,
 * some ask to be left alone, some are overloaded in storms, and some have a crawl delay. Hosts come and go in waves. A new
 * dispatcher takes over every ten minutes.
 * @param {{ hosts: number, urls: number, random: () => number }} size
 * @returns {import("./dispatch-simulation.mjs").SimulationOptions}
 */
export function wild({ hosts, urls, random }) {
  // Hosts do not change their nature; a wave of them is being crawled at a time.
  const natures = Float64Array.from({ length: hosts }, () => random());
  const perHost = Math.max(1, Math.floor(urls / hosts));
  const width = Math.max(4, Math.floor(hosts / 20));
  const waveOf = (number) => Math.floor(number / (width * perHost));
  const hostOf = (number) => Math.min(hosts - 1, waveOf(number) * width + (number % width));
  const manners = [
    { politeness: {} },
    { politeness: { delayMs: 500 }, priority: 8 },
    { politeness: { delayFactor: 3, maxDelayMs: 5_000, obeyRobots: false }, priority: 2 },
    { politeness: { maxBytesPerSecond: 100_000, maxConcurrencyPerHost: 2 } },
  ];
  const shares = [0.4, 0.2, 0.2, 0.2];
  const crawls = manners.map((manner, index) => {
    const own = Math.floor(urls * shares[index]);
    // Each goes through the same hosts, at its own pace.
    const stretch = urls / own;
    return {
      ...manner,
      id: `c${index}`,
      urls: own,
      known: Math.max(10, Math.floor(own / 20)),
      hostOf: (number) => hostOf(Math.floor(number * stretch)),
      startsAtMs: index * MINUTE_MS,
    };
  });
  const quick = () => ({
    ms: 40 + Math.floor(random() * 400),
    kind: "served",
    bytes: 2_000 + random() * 50_000,
  });
  const serve = (host, nowMs) => {
    const nature = natures[host];
    if (nature < 0.02) return { ms: random() < 0.5 ? 10 : 10_000, kind: "silent" };
    // Away for two minutes of ten, each host at another time.
    const phase = (nowMs / MINUTE_MS + host) % 10;
    if (nature < 0.04 && phase < 2) return { ms: 10, kind: "silent" };
    if (nature < 0.08 && phase < 1) return { ms: 20, kind: "overloaded", bytes: 200 };
    if (nature < 0.1 && random() < 0.1) {
      return { ms: 20, kind: "asked", bytes: 200, retryAfterMs: 1_000 * (1 + Math.floor(random() * 60)) };
    }
    if (nature < 0.15) return { ...quick(), ms: 1_000 + Math.floor(random() * 4_000) };
    return quick();
  };
  return {
    ...{ places: 400, random, crawls, serve, takeOverEveryMs: 10 * MINUTE_MS },
    crawlDelayOf: (host) => (natures[host] > 0.95 ? 1_000 + (host % 5) * 1_000 : 0),
  };
}

/**
 * A crawl of ten URLs beside one of very many, on a host of the other's or on others, with or without a delay.
 * @param {{ hosts: "same" | "other", isAlone: boolean, delayMs?: number, random: () => number }} how
 * @returns {import("./dispatch-simulation.mjs").SimulationOptions}
 */
export function neighbours({ hosts, isAlone, delayMs = 0, random }) {
  const many = 50_000;
  const big = { id: "big", urls: many, known: many, hostOf: (number) => number % 2_000 };
  const small = {
    ...{ id: "small", urls: 10, known: 3, startsAtMs: 20_000 },
    hostOf: (number) => (hosts === "same" ? 7 : 100_000 + (number % 2)),
  };
  const politeness = { obeyRobots: false, delayMs };
  return {
    ...{ places: 50, random, ends: "small" },
    crawls: (isAlone ? [small] : [big, small]).map((crawl) => ({ ...crawl, politeness })),
    serve: () => ({ ms: 200 + Math.floor(random() * 100), kind: "served", bytes: 20_000 }),
  };
}
