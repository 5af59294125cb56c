/** What the crawl benchmark runs, in the order of a round. */
export const VARIANTS = ["floor1", "floor2", "standalone", "cluster1", "cluster2"];

/** Those that need RabbitMQ and MongoDB. */
export const NEEDS_SERVERS = new Set(["cluster1", "cluster2"]);

/** What the bus benchmark measures, in the order of a round. */
export const MEASURES = [
  ...["call", "calls", "masterCall", "masterCalls", "tasks", "broadcast", "deadNode", "unknownNode"],
];
