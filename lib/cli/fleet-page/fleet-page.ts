/** Renders a fleet, or the verdict about one pair of hosts, as one self-contained page. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { deflateRawSync } from 'node:zlib'
import type { VerdictDocument } from '../../migration/verdict-document.js'
import { packageRoot } from '../../package-root.js'
import type { PageData } from './model/data.js'
import { fleetData, type JudgedFleet, pairData } from './page-data.js'

export type { JudgedFleet } from './page-data.js'

/** @param judged the fleet under each VMM: at least one */
export function fleetPage(judged: readonly JudgedFleet[], title: string): string {
  return page(fleetData(judged), title)
}

/** Renders the reasons that the page of a fleet shows for a chosen move. */
export function verdictPage(document: VerdictDocument, title: string): string {
  return page(pairData(document), title)
}

/**
 * The content of a report stays text: the page's script makes no HTML of it, and its policy allows no other script and no request.
 * The data is compressed, since a fleet's consists of repetitions: base64 has nothing that could end the element it is in.
 */
function page(content: PageData, title: string): string {
  const script = bundled('page.js')
  const style = bundled('page.css')
  const data = deflateRawSync(JSON.stringify(content)).toString('base64')
  const policy = `default-src 'none'; style-src '${digest(style)}'; script-src '${digest(script)}'`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<header class="top"><h1>${escaped(title)}</h1></header>
<div id="page"><noscript><p>A script draws this page, and scripts are disabled.</p></noscript></div>
<script type="text/plain" id="data">${data}</script>
<script type="module">${script}</script>
</body>
</html>
`
}

/** Returns what the build made of the files in this folder. */
function bundled(name: string): string {
  return readFileSync(new URL(`dist/bundle/fleet-${name}`, packageRoot), 'utf8')
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
