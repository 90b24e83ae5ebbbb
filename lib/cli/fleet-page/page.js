/** Fills the page from the fleet's document in it. Text from a report stays text: it never becomes HTML. */
const fleet = JSON.parse(document.getElementById('data').textContent)
const { classes, obstacles } = fleet
const moves = new Map(fleet.moves.map((move) => [`${move.from}-${move.to}`, move]))

function add(parent, tag, text, className) {
  const made = document.createElement(tag)
  if (text !== undefined) made.textContent = text
  if (className) made.className = className
  parent.append(made)
  return made
}

function addHeading(row, text, scope = 'col') {
  const heading = add(row, 'th', text)
  heading.scope = scope
  return heading
}

function fillList(list, texts) {
  for (const text of texts.length === 0 ? ['none'] : texts) add(list, 'li', text)
}

const number = (count) => count.toLocaleString('en')
const obstaclesText = (count) => `${number(count)} ${count === 1 ? 'obstacle' : 'obstacles'}`
const hosts = (count) => `${number(count)} ${count === 1 ? 'host' : 'hosts'}`
const listed = (changed) =>
  changed.map((move) => `${move.direction} ${move.class + 1}`).join(', ') || 'nothing'
const label = (index) => `class ${index + 1}`

function describe(index) {
  const { cpu, releases, hostCount: count } = classes[index]
  return `${cpu}, ${releases[0]}${releases.length > 1 ? ' …' : ''} (${hosts(count)})`
}

function verdictOf({ possible, obstacles: found }) {
  if (!possible) {
    const stopping = found.filter((index) => obstacles[index].stops).length
    return { kind: 'no', mark: `✗ ${stopping}`, words: `stopped by ${obstaclesText(stopping)}` }
  }
  return found.length === 0
    ? { kind: 'yes', mark: '✓', words: 'moves' }
    : { kind: 'changed', mark: `≈ ${found.length}`, words: 'moves, and its guest sees a change' }
}

function showFacts() {
  const { left, faulty, vmm } = fleet
  const possible = fleet.moves.filter((move) => move.possible).length
  const facts = [
    `${hosts(fleet.hostCount)} in ${number(classes.length + left.classes)} classes`,
    `${number(possible)} of ${number(fleet.moves.length)} moves between classes are possible under the rules “${vmm}”`,
  ]
  if (left.classes)
    facts.push(`${number(left.classes)} classes with ${hosts(left.hostCount)} were not compared`)
  if (faulty) facts.push(`${number(faulty)} reports could not be read`)
  document.getElementById('facts').textContent = facts.join('; ')
}

function drawMatrix(table) {
  const head = add(add(table, 'thead'), 'tr')
  addHeading(head, 'from ↓ to →')
  for (const to of classes.keys()) addHeading(head, String(to + 1)).title = describe(to)
  const body = add(table, 'tbody')
  for (const from of classes.keys()) {
    const row = add(body, 'tr')
    addHeading(row, `${from + 1}  ${describe(from)}`, 'row')
    for (const to of classes.keys()) drawMove(row, from, to)
  }
}

function drawMove(row, from, to) {
  const move = moves.get(`${from}-${to}`)
  if (!move) {
    add(row, 'td', '·', 'self')
    return
  }
  const { kind, mark, words } = verdictOf(move)
  const cell = add(row, 'td', undefined, kind)
  cell.id = `cell-${from}-${to}`
  const link = add(cell, 'a', mark)
  link.href = `#${from + 1}-${to + 1}`
  link.title = `${label(from)} to ${label(to)}: ${words}`
  link.setAttribute('aria-label', link.title)
}

function listClasses(table) {
  const head = add(add(table, 'thead'), 'tr')
  for (const title of ['class', 'hosts', 'CPU', 'kernel', 'PSCI', 'answered by', 'first read', 'among them'])
    addHeading(head, title)
  const body = add(table, 'tbody')
  for (const [
    index,
    { hostCount: count, cpu, releases, psci, answeredBy, first, names },
  ] of classes.entries()) {
    const row = add(body, 'tr')
    for (const text of [index + 1, number(count), cpu, releases.join(', '), psci, answeredBy, first])
      add(row, 'td', text)
    add(row, 'td', names.join(', '), 'names')
  }
}

function listGroups(list) {
  const texts = fleet.groups.map(
    (group) => `${group.classes.map((index) => index + 1).join(', ')}: ${hosts(group.hostCount)}`,
  )
  fillList(list, texts)
}

function listDivides(list) {
  const texts = fleet.divides.map(({ subject, pairs, hostCount: count }) => {
    const pairsOfClasses = pairs.map(([one, other]) => `${one + 1} and ${other + 1}`)
    return `${subject}: ${pairsOfClasses.join('; ')} (${hosts(count)})`
  })
  fillList(list, texts)
}

function listUpgrades(section) {
  if (fleet.upgrades.length === 0) return
  section.hidden = false
  const texts = fleet.upgrades.map(
    ({ class: index, upgrade, opens, closes }) =>
      `${label(index)} as ${upgrade}: opens ${listed(opens)}; closes ${listed(closes)}`,
  )
  fillList(section.querySelector('ul'), texts)
}

/** Shows the reasons for the move that the address names. */
function showReasons() {
  for (const chosen of document.querySelectorAll('.chosen')) chosen.classList.remove('chosen')
  const [, from, to] = (/^#(\d+)-(\d+)$/.exec(location.hash) ?? []).map((text) => Number(text) - 1)
  const move = moves.get(`${from}-${to}`)
  if (!move) return
  document.getElementById(`cell-${from}-${to}`).classList.add('chosen')
  const panel = document.getElementById('reason')
  panel.replaceChildren()
  add(panel, 'h2', `${label(from)} to ${label(to)}`)
  add(panel, 'p', `${describe(from)} to ${describe(to)}`)
  const { kind, words } = verdictOf(move)
  add(add(panel, 'p'), 'strong', words, kind)
  const reasons = add(panel, 'dl')
  for (const index of move.obstacles) {
    const { severity, subject, source, destination, meaning, remedy, stops } = obstacles[index]
    add(reasons, 'dt', `${stops ? '✗' : '≈'} ${subject}`)
    add(reasons, 'dd', `${severity}: ${source} → ${destination}`, 'values')
    add(reasons, 'dd', meaning)
    add(reasons, 'dd', remedy, 'remedy')
  }
}

showFacts()
drawMatrix(document.getElementById('moves'))
listClasses(document.getElementById('classes'))
listGroups(document.getElementById('groups'))
listDivides(document.getElementById('divides'))
listUpgrades(document.getElementById('upgrades'))
addEventListener('hashchange', showReasons)
showReasons()
