/** The table of a fleet's moves. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { checkFleetDocument, type FleetDocument } from '../../lib/fleet/document.js'
import { boundClasses, canMove, predictionOf, Predictions } from '../../lib/fleet/moves.js'
import type { Answer } from '../../lib/fleet/predict.js'
import type { Finding } from '../../lib/migration/finding.js'

function finding(ipaSize: number): Finding {
  return {
    code: 'address-space-refused',
    severity: 'refused',
    stops: true,
    vcpus: [],
    ipaSize,
    errno: 'EINVAL',
  }
}

const free: Answer = { possible: true, findings: [], unknown: [] }
const stopped: Answer = { possible: false, findings: [finding(48), finding(40)], unknown: [] }
const doubtful: Answer = { possible: true, findings: [], unknown: ['source-page-size'] }

/** Moves between three classes, predicted in the given order of columns. */
function tableOf(order: readonly number[]) {
  const answers = [
    [free, free, stopped],
    [doubtful, stopped, { ...stopped, findings: [finding(40)] }],
    [free, structuredClone(stopped), doubtful],
  ]
  const collected = new Predictions()
  const moves: number[][] = [[], [], []]
  for (const to of order) {
    for (const from of [0, 1, 2]) {
      moves[from]![to] = collected.add(answers[from]![to]!)
    }
  }
  return collected.table(moves)
}

describe('the table of moves', () => {
  const table = tableOf([0, 1, 2])

  it('lists each distinct prediction and finding once, in the order of the rows', () => {
    assert.deepEqual(table.predictions, [
      { possible: true, obstacles: [] },
      { possible: false, obstacles: [0, 1] },
      { possible: true, obstacles: [], unknown: ['source-page-size'] },
      { possible: false, obstacles: [1] },
    ])
    assert.deepEqual(table.moves, [
      [0, 0, 1],
      [2, 1, 3],
      [0, 1, 2],
    ])
    assert.deepEqual(table.obstacles, [finding(48), finding(40)])
  })

  it('does not depend on the order in which moves were predicted', () => {
    for (const order of [
      [2, 1, 0],
      [1, 2, 0],
    ]) {
      assert.deepEqual(tableOf(order), table)
    }
  })

  it('is looked up by the places of two classes', () => {
    assert.equal(predictionOf(table, 1, 2), table.predictions[3])
    assert.deepEqual([canMove(table, 0, 1), canMove(table, 1, 2), canMove(table, 2, 2)], [true, false, true])
    assert.deepEqual(boundClasses(table), new Set([1]))
  })
})

function classOf(digit: string): FleetDocument['classes'][number] {
  return {
    digest: digit.repeat(16),
    hostCount: 1,
    cpu: '',
    psciVersion: null,
    releases: [],
    origins: [],
    first: digit,
    names: [],
  }
}

describe('a fleet that is read', () => {
  const fleet: FleetDocument = {
    format: 'kvm-arm64/fleet',
    version: 1,
    hostCount: 3,
    faulty: 0,
    vmm: 'strict',
    classes: ['a', 'b', 'c'].map(classOf),
    left: { classes: 0, hostCount: 0 },
    ...tableOf([0, 1, 2]),
    groups: [],
    divides: [],
    upgrades: [],
  }
  const changed = (change: (document: FleetDocument) => void): FleetDocument => {
    const document = structuredClone(fleet)
    change(document)
    return document
  }

  it('has a row and a column for each class', () => {
    assert.deepEqual(checkFleetDocument(fleet, 'fleet'), fleet)
    for (const [document, message] of [
      [
        changed(({ classes }) => (classes[1]!.digest = classes[0]!.digest)),
        '$.classes[1].digest: is already at $.classes[0]',
      ],
      [changed(({ moves }) => moves.pop()), '$.moves: expected 3 rows, one for each class, found 2'],
      [
        changed(({ moves }) => moves[1]!.push(0)),
        '$.moves[1]: expected 3 columns, one for each class, found 4',
      ],
      [
        changed(({ moves }) => (moves[0]![2] = 4)),
        '$.moves[0][2]: expected the index of one of 4 predictions, found 4',
      ],
      [
        changed(({ predictions }) => predictions[3]!.obstacles.push(9)),
        '$.predictions[3].obstacles: no such obstacle: 9 of 2',
      ],
    ] as const) {
      assert.throws(() => checkFleetDocument(document, 'fleet'), { message: `fleet: ${message}` })
    }
  })
})
