/** Run once before the tests, so that no two of them install at the same time. */
import { ensureChromium } from './chromium.js'

await ensureChromium()
