/** Counts the test cases of JUnit files, `node tools/count-tests.mjs FILE…`; a missing file has none. */
import { existsSync, readFileSync } from 'node:fs'

let [passed, failed, skipped] = [0, 0, 0]
for (const file of process.argv.slice(2).filter((name) => existsSync(name))) {
  // Of each test case what stands between its tag and the next one's: `<failure>` and its like.
  for (const text of readFileSync(file, 'utf8').split('<testcase ').slice(1)) {
    const [outcome] = /<(failure|error|skipped)\b/.exec(text.split('</testcase>')[0]) ?? ['']
    if (outcome === '<skipped') skipped++
    else if (outcome === '') passed++
    else failed++
  }
}
if (skipped > 0) console.log(`${skipped} skipped`)
console.log(`${passed} passed, ${failed} failed`)
