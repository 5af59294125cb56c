export { CrawlLog, type CrawlLogOptions } from "./crawl-log.js";
export { LogShipper } from "./log-shipper.js";
export { logSpiderFaults } from "./spider-faults.js";
export { WorkerLines } from "./worker-lines.js";
