#!/usr/bin/env node
import { runProgram } from "./cli/program.js";
import { SPIDER_COMMANDS } from "./cli/spiders.js";
import { main } from "./lib/main.js";

await main(() =>
  runProgram([...SPIDER_COMMANDS], {
    argv: process.argv.slice(2),
    environment: process.env,
    out: (text) => process.stdout.write(text),
    note: (text) => process.stderr.write(text),
  }),
);
