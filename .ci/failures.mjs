// Prints the tests that failed, with the start of why, from the results that the tests wrote: node failures.mjs FILE.
import { readFileSync } from "node:fs";

const MAX_CHARACTERS = 1_500;
const COLOURS = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g");

let results = { testResults: [] };
try {
  results = JSON.parse(readFileSync(process.argv[2], "utf8"));
} catch (error) {
  console.log(`No results of tests to read: ${error.message}`);
}
for (const { name, status, message, assertionResults } of results.testResults) {
  const failed = assertionResults.filter((test) => test.status === "failed");
  if (status === "failed" && failed.length === 0) console.log(`FAILED ${name}: ${tidy(message)}`);
  for (const { fullName, failureMessages } of failed) {
    console.log(`FAILED ${name}: ${fullName}\n${tidy(failureMessages.join("\n"))}\n`);
  }
}

function tidy(text) {
  return text.replaceAll(COLOURS, "").slice(0, MAX_CHARACTERS);
}
