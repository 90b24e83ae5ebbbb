/** Prints the journey on a terminal, step by step as it runs: `npm run tool journey`. */
import { journey } from '../test/lab-kernels/journey/journey.js'

for await (const { title, on, stay } of journey()) {
  console.log(`\n${title} (Linux ${on})`)
  if ('refused' in stay) console.log(`  refused: ${stay.refused}`)
  else {
    if (title.includes('starts')) console.log(`  found ${stay.found.join(', ')}`)
    console.log(stay.changed.length === 0 ? '  sees nothing change' : `  ${stay.changed.join('\n  ')}`)
  }
}
