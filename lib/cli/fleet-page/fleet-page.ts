import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { FleetDocument } from '../../fleet/document.js'
import { findingSubject, findingWords, severityWords } from '../../migration/words.js'
import { packageRoot } from '../../package-root.js'
import { classOrigins, classPsci, divideSubject } from '../view/fleet.js'

/** Host names shown for each class: a few identify it, and a million would fill the page. */
const NAMES = 5

/**
 * Renders a fleet as one self-contained page: a matrix of moves, source × destination, and the reasons for the selected one, chosen
 * by a click or by the address (`#2-5`). The content of a report stays text: the page's script makes no HTML of it, and its policy
 * allows no other script.
 */
export function fleetPage(fleet: FleetDocument, title: string): string {
  const script = bundled('page.js')
  const style = bundled('page.css')
  // Inside a script element only "<" could end it, and U+2028 and U+2029 do not end lines in JSON.
  const data = JSON.stringify(pageData(fleet)).replaceAll('<', String.raw`\u003c`)
  const policy = `default-src 'none'; style-src '${digest(style)}'; script-src '${digest(script)}'`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escaped(title)}</h1>
<p id="facts"></p>
<div class="layout">
<main>
<p class="legend"><span class="yes">✓ moves</span> <span class="changed">≈ moves, its guest sees a change</span> <span class="no">✗ stopped</span>
<span>rows move to columns; a number counts obstacles</span></p>
<div class="scroll"><table id="moves"><caption>Who can move where</caption></table></div>
<h2>Classes</h2>
<div class="scroll"><table id="classes"></table></div>
<h2>Groups with free movement</h2>
<ol id="groups"></ol>
<h2>Kept apart by one register</h2>
<ul id="divides"></ul>
<section id="upgrades" hidden><h2>What if</h2><ul></ul></section>
</main>
<aside id="reason" aria-live="polite"><h2>Choose a move</h2><p>Each mark in the matrix leads to its reasons.</p></aside>
</div>
<noscript><p>This page draws its matrix with a script, and scripts are disabled. The file contains the data as JSON.</p></noscript>
<script type="application/json" id="data">${data}</script>
<script type="module">${script}</script>
</body>
</html>
`
}

/** The data of the page's script: the document, with words for its findings. */
function pageData(fleet: FleetDocument) {
  return {
    ...fleet,
    classes: fleet.classes.map((one) => ({
      ...one,
      psci: classPsci(one),
      answeredBy: classOrigins(one),
      names: few(one.names),
    })),
    obstacles: fleet.obstacles.map((finding) => ({
      stops: finding.stops,
      severity: severityWords(finding.severity),
      subject: findingSubject(finding),
      ...findingWords(finding, fleet.vmm),
    })),
    divides: fleet.divides.map((divide) => ({ ...divide, subject: divideSubject(divide) })),
  }
}

/** Returns what the build made of a file in fleet-page/. */
function bundled(name: string): string {
  return readFileSync(new URL(`dist/bundle/fleet-${name}`, packageRoot), 'utf8')
}

function few(names: readonly string[]): readonly string[] {
  return names.length <= NAMES ? names : [...names.slice(0, NAMES), '…']
}

function digest(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => entities[character]!)
}
