import { createHash } from 'node:crypto'
import type { FleetJson } from './fleet-json.js'

/** Told of each class; the script knows by one more that there are more. */
const NAMES = 5

/**
 * The analysis as one page that needs nothing else: a matrix of moves, source × destination, and the reasons of the one that is chosen, by a
 * click or by the address (`#2-5`). Whatever a report says stays text: the page's script makes no HTML of it, and its policy lets no
 * other script run.
 */
export function fleetPage(analysis: FleetJson, title: string): string {
  // A few names tell which class it is; a million would be the page.
  const classes = analysis.classes.map((one) => ({ ...one, names: one.names.slice(0, NAMES + 1) }))
  // Inside a script element only "<" could end it, and U+2028 and U+2029 are no line ends in JSON.
  const data = JSON.stringify({ ...analysis, classes }).replaceAll('<', String.raw`\u003c`)
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
<span>a number tells how many obstacles; rows move to columns</span></p>
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
<noscript><p>This page draws its matrix with a script, which is switched off. Its data stands in this file as JSON.</p></noscript>
<script type="application/json" id="data">${data}</script>
<script>${script}</script>
</body>
</html>
`
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

/** The colours keep their contrast for those who tell red and green badly, and the marks tell the same without colour. */
const style = `
:root { color-scheme: light; --yes: #d7efe3; --changed: #fff1c9; --no: #f7d9d6; --line: #c9ced6; --ink: #1b2430; --soft: #59636f }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 100rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 1.75rem 0 .5rem }
#facts { margin: 0 0 1rem; color: var(--soft) }
.layout { display: grid; grid-template-columns: minmax(0, 1fr) minmax(18rem, 26rem); gap: 2rem; align-items: start }
@media (max-width: 60rem) { .layout { grid-template-columns: minmax(0, 1fr) } }
.legend span { display: inline-block; margin: 0 .5rem .25rem 0; padding: .1rem .5rem; border-radius: .25rem }
.legend span:last-child { color: var(--soft); padding-left: 0 }
.scroll { overflow: auto; max-height: 80vh }
table { border-collapse: separate; border-spacing: 0 }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem }
th, td { border-right: 1px solid var(--line); border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top }
#moves td { padding: 0; text-align: center; min-width: 2.6rem; vertical-align: middle }
#moves td a { display: block; white-space: nowrap; font-size: .87em; padding: .35rem .4rem; color: inherit; text-decoration: none; font-variant-numeric: tabular-nums }
#moves td a:hover, #moves td a:focus-visible { outline: 2px solid var(--ink); outline-offset: -2px }
#moves td.chosen a { outline: 3px solid #1d4ed8; outline-offset: -3px }
#moves th { background: #f4f6f8; font-weight: 500; white-space: nowrap }
#moves thead th { position: sticky; top: 0; z-index: 1; text-align: center }
#moves tbody th { position: sticky; left: 0 }
#moves thead th:first-child { left: 0; z-index: 2 }
.yes { background: var(--yes) } .changed { background: var(--changed) } .no { background: var(--no) } .self { background: #eef0f3; color: var(--soft) }
#reason { position: sticky; top: 1rem; border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.25rem; max-height: 92vh; overflow: auto; overflow-wrap: anywhere }
#reason h2 { margin-top: 0 }
#reason dl { margin: 0 } #reason dt { font-weight: 600; margin-top: 1rem } #reason dd { margin: 0 }
#reason .values, .names { font-family: ui-monospace, monospace; font-size: .85em }
.remedy { color: var(--soft) }
`

const script = `
'use strict'
const fleet = JSON.parse(document.getElementById('data').textContent)
const { classes, obstacles } = fleet
const byMove = new Map(fleet.moves.map((move) => [move.from + '-' + move.to, move]))
const add = (parent, tag, text, className) => {
  const made = document.createElement(tag)
  if (text !== undefined) made.textContent = text
  if (className) made.className = className
  parent.append(made)
  return made
}
const number = (count) => count.toLocaleString('en')
const hosts = (count) => number(count) + (count === 1 ? ' host' : ' hosts')
const label = (index) => 'class ' + (index + 1)
const verdictOf = (move) => {
  const stopping = move.obstacles.filter((index) => obstacles[index].stops).length
  if (!move.possible) return { kind: 'no', mark: '✗ ' + stopping, words: 'stopped by ' + stopping }
  return move.obstacles.length === 0
    ? { kind: 'yes', mark: '✓', words: 'moves' }
    : { kind: 'changed', mark: '≈ ' + move.obstacles.length, words: 'moves, and its guest sees a change' }
}
const possible = fleet.moves.filter((move) => move.possible).length
document.getElementById('facts').textContent = hosts(fleet.hosts) + ' in ' + number(classes.length + fleet.left.classes) +
  ' classes; ' + number(possible) + ' of ' + number(fleet.moves.length) + ' moves between classes are possible under the rules \u201c' + fleet.vmm + '\u201d' +
  (fleet.left.classes ? '; ' + number(fleet.left.classes) + ' classes with ' + hosts(fleet.left.hosts) + ' were not compared' : '') +
  (fleet.faulty ? '; ' + number(fleet.faulty) + ' reports could not be read' : '')

const table = document.getElementById('moves')
const head = add(add(table, 'thead'), 'tr')
add(head, 'th', 'from ↓ to →').scope = 'col'
for (const index of classes.keys()) { const cell = add(head, 'th', String(index + 1)); cell.scope = 'col'; cell.title = describe(index) }
const body = add(table, 'tbody')
for (const from of classes.keys()) {
  const row = add(body, 'tr')
  const name = add(row, 'th', (from + 1) + '  ' + describe(from))
  name.scope = 'row'
  for (const to of classes.keys()) {
    const move = byMove.get(from + '-' + to)
    if (!move) { add(row, 'td', '·', 'self'); continue }
    const { kind, mark, words } = verdictOf(move)
    const cell = add(row, 'td', undefined, kind)
    cell.id = 'cell-' + from + '-' + to
    const link = add(cell, 'a', mark)
    link.href = '#' + (from + 1) + '-' + (to + 1)
    link.title = label(from) + ' to ' + label(to) + ': ' + words
    link.setAttribute('aria-label', link.title)
  }
}
function describe(index) {
  const { cpu, releases } = classes[index]
  return cpu + ', ' + releases[0] + (releases.length > 1 ? ' …' : '') + ' (' + hosts(classes[index].hosts) + ')'
}

const list = document.getElementById('classes')
const titles = add(add(list, 'thead'), 'tr')
for (const title of ['class', 'hosts', 'CPU', 'kernel', 'PSCI', 'first read', 'among them']) add(titles, 'th', title).scope = 'col'
const rows = add(list, 'tbody')
for (const [index, one] of classes.entries()) {
  const row = add(rows, 'tr')
  for (const text of [index + 1, number(one.hosts), one.cpu, one.releases.join(', '), one.psci, one.first]) add(row, 'td', String(text))
  add(row, 'td', one.names.slice(0, ${NAMES}).join(', ') + (one.names.length > ${NAMES} ? ' …' : ''), 'names')
}
const several = (parent, entries, none) => { for (const text of entries) add(parent, 'li', text); if (entries.length === 0) add(parent, 'li', none) }
several(document.getElementById('groups'), fleet.groups.map((group) =>
  group.classes.map((index) => String(index + 1)).join(', ') + ': ' + hosts(group.hosts)), 'none')
several(document.getElementById('divides'), fleet.divides.map((divide) => divide.register + ': ' +
  divide.pairs.map((pair) => (pair[0] + 1) + ' and ' + (pair[1] + 1)).join('; ') + ' (' + hosts(divide.hosts) + ')'), 'none')
if (fleet.upgrades.length > 0) {
  const section = document.getElementById('upgrades')
  section.hidden = false
  const told = (moves) => moves.map((move) => (move.direction === 'to' ? 'to ' : 'from ') + (move.class + 1)).join(', ') || 'nothing'
  several(section.querySelector('ul'), fleet.upgrades.map((upgrade) => label(upgrade.class) + ' as ' + upgrade.upgrade +
    ': opens ' + told(upgrade.opens) + '; closes ' + told(upgrade.closes)), 'none')
}

function show() {
  for (const chosen of document.querySelectorAll('.chosen')) chosen.classList.remove('chosen')
  const match = /^#([0-9]+)-([0-9]+)$/.exec(location.hash)
  const [from, to] = match ? [match[1] - 1, match[2] - 1] : []
  const move = byMove.get(from + '-' + to)
  if (!move) return
  document.getElementById('cell-' + from + '-' + to).classList.add('chosen')
  const panel = document.getElementById('reason')
  panel.replaceChildren()
  add(panel, 'h2', label(from) + ' to ' + label(to))
  add(panel, 'p', describe(from) + ' to ' + describe(to))
  const { kind, words } = verdictOf(move)
  add(add(panel, 'p'), 'strong', words, kind)
  const reasons = add(panel, 'dl')
  for (const index of move.obstacles) {
    const { severity, register, field, source, destination, meaning, remedy, stops } = obstacles[index]
    add(reasons, 'dt', (stops ? '✗ ' : '≈ ') + (register ? register.name : source) + (field ? '.' + field : ''))
    add(reasons, 'dd', severity + ': ' + source + ' → ' + destination, 'values')
    add(reasons, 'dd', meaning)
    add(reasons, 'dd', remedy, 'remedy')
  }
}
addEventListener('hashchange', show)
show()
`
