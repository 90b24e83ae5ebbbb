/** What the page's script computes, without a browser. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import * as fc from 'fast-check'
import { addressOf, initialState, stateOf } from '../../lib/cli/fleet-page/model/address.js'
import { ANOTHER_CPU, type FleetData } from '../../lib/cli/fleet-page/model/data.js'
import { isDoubtful, kindOf } from '../../lib/cli/fleet-page/model/kinds.js'
import { alike, blockOrder } from '../../lib/cli/fleet-page/model/order.js'
import { reasonsOf } from '../../lib/cli/fleet-page/model/reasons.js'
import { search } from '../../lib/cli/fleet-page/model/search.js'
import { causes, neighbours, reach, steps } from '../../lib/cli/fleet-page/model/summary.js'
import { fleetData } from '../../lib/cli/fleet-page/page-data.js'
import type { Finding } from '../../lib/migration/finding.js'
import { manyClasses } from './many-classes.js'

describe('the order of classes', () => {
  it('puts each block of free movement in one piece, the larger first, whatever the order before', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([...Array(12).keys()], { minLength: 12 }), (blocks) => {
        // Blocks of 3, 4 and 5 classes.
        const blockOf = (one: number) => [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2][blocks[one]!]!
        const weights = blocks.map(() => 1)
        const order = blockOrder(weights, (from, to) => blockOf(from) === blockOf(to))
        assert.deepEqual(
          order.toSorted((a, b) => a - b),
          [...blocks.keys()],
        )
        const changes = order.filter((one, place) => place > 0 && blockOf(one) !== blockOf(order[place - 1]!))
        assert.equal(changes.length, 2)
      }),
    )
  })

  it('puts what can go to more places first', () => {
    assert.deepEqual(
      blockOrder([1, 1, 1, 1], (from, to) => from > to),
      [3, 2, 1, 0],
    )
  })

  it('keeps a family together that has no move in common', () => {
    const families = ['a', 'b', 'a', 'b']
    const order = blockOrder([1, 1, 1, 1], () => false, families)
    assert.equal(families[order[0]!], families[order[1]!])
  })

  it('orders none and one', () => {
    assert.deepEqual(
      blockOrder([], () => true),
      [],
    )
    assert.deepEqual(
      blockOrder([5], () => true),
      [0],
    )
  })

  it('joins only classes that move alike and freely among each other', () => {
    // 0 and 1 are alike; 2 and 3 reach the same, and not each other.
    const joined = alike([2, 0, 3, 1], (from, to) => from < 2 && to < 2)
    assert.deepEqual(joined, [[2], [0, 1], [3]])
    const both = alike(
      [0, 1, 2],
      () => true,
      (from, to) => from === 0 || to !== 0,
    )
    assert.deepEqual(both, [[0], [1, 2]])
  })
})

describe('the address of a view', () => {
  const vmms = ['strict', 'qemu@11.1']

  it('leads back to it', () => {
    const state = fc.record({
      vmm: fc.constantFrom(...vmms),
      elected: fc.boolean(),
      query: fc.string(),
      severity: fc.string(),
      cause: fc.string(),
      theme: fc.constantFrom('' as const, 'light' as const, 'dark' as const),
    })
    fc.assert(
      fc.property(state, fc.boolean(), (view, grouped) => {
        const whole = { ...view, from: 'a1', to: 'b2', grouped }
        assert.deepEqual(stateOf(addressOf(whole, vmms), vmms), whole)
      }),
    )
  })

  it('ignores what it does not know', () => {
    assert.deepEqual(stateOf('#vmm=other&view=x&theme=red&what=1', vmms), initialState('strict'))
    assert.deepEqual(stateOf('', vmms), initialState('strict'))
  })
})

describe('what is seen first', () => {
  /** Five kernels of one CPU; the newer ones cannot go back without the baseline. */
  const data: FleetData = fleetData([manyClasses(5)])
  const [view] = data.vmms

  it('counts pairs of hosts, those of one class included', () => {
    const hosts = data.classes.map(({ hostCount }) => hostCount)
    const all = hosts.reduce((sum, count) => sum + count, 0)
    const elected = reach(data, view!.elected!)
    assert.equal(elected.possible, all * (all - 1))
    assert.equal(elected.mean, all - 1)
    const asIs = reach(data, view!.asIs)
    let possible = 0
    for (const [from, one] of hosts.entries())
      for (const [to, other] of hosts.entries())
        possible += from === to ? one * (one - 1) : from < to ? one * other : 0
    assert.equal(asIs.possible, possible)
    assert.deepEqual(neighbours(data.classes, data.patterns, view!.asIs, 4), {
      to: hosts[4]! - 1,
      from: all - 1,
    })
  })

  it('counts no move within a class whose VMs the VMM cannot save', () => {
    const { asIs, election } = manyClasses(2)
    const code = 'save-refused' as const
    const unsaved: Finding = { code, severity: 'refused', stops: true, vcpus: [], property: 'sve' }
    const predictions = [{ possible: false, obstacles: [0] }]
    const moves = [
      [0, 0],
      [0, 0],
    ]
    const bound = { ...asIs, obstacles: [unsaved], predictions, moves, groups: [] }
    const stuck = fleetData([{ asIs: bound, election }])
    const { possible, largestGroup } = reach(stuck, stuck.vmms[0]!.asIs)
    assert.deepEqual([possible, largestGroup], [0, 1])
    assert.deepEqual(neighbours(stuck.classes, stuck.patterns, stuck.vmms[0]!.asIs, 0), { to: 0, from: 0 })
  })

  it('counts apart what is possible only as far as the reports say', () => {
    const { asIs, election } = manyClasses(2)
    const unknown = ['source-guest-reads' as const]
    const predictions = asIs.predictions.map((prediction) => Object.assign({}, prediction, { unknown }))
    const doubted = fleetData([{ asIs: { ...asIs, predictions }, election }])
    const [one, other] = doubted.classes.map(({ hostCount }) => hostCount)
    assert.equal(reach(doubted, doubted.vmms[0]!.asIs).doubtful, one! * other!)
    assert.equal(reach(data, view!.asIs).doubtful, 0)
    const { patterns } = doubted
    assert.deepEqual(
      patterns.map((pattern) => isDoubtful(pattern)),
      patterns.map(({ possible }) => possible),
    )
  })

  it('names the cause and the step that opens everything', () => {
    const [cause, ...others] = causes(data, view!.asIs.moves)
    assert.deepEqual(others, [])
    assert.equal(cause!.cause, 'KVM_REG_ARM_PSCI_VERSION')
    assert.equal(cause!.share, 1)
    assert.equal(cause!.explained, 1)
    const found = steps(data, view!)
    assert.deepEqual(
      found.map(({ kind, gain }) => [kind, gain]),
      [
        ['elect', cause!.alone],
        ['remove', cause!.alone],
      ],
    )
  })

  it('blames the CPU alone for moves between CPUs', () => {
    const many = fleetData([manyClasses(130)])
    const [first, ...others] = causes(many, many.vmms[0]!.asIs.moves)
    assert.equal(first!.cause, ANOTHER_CPU)
    assert.ok(others.every(({ share }) => share < 1 - first!.share + 1e-9))
    assert.equal(others.at(-1)!.explained, 1)
  })
})

describe('a cell and its reasons', () => {
  const obstacle = {
    stops: true,
    severity: 'refused',
    cause: 'A',
    subject: 'A.x',
    source: '1',
    destination: '0',
    meaning: 'm',
    remedy: 'r',
  }
  const obstacles = [
    obstacle,
    { ...obstacle, subject: 'A.y' },
    { ...obstacle, cause: 'B' },
    { ...obstacle, stops: false, severity: 'notice' },
    { ...obstacle, severity: 'guest broken' },
  ]
  const kind = (possible: boolean, ...found: number[]) =>
    kindOf({ possible, obstacles: found, unknown: [] }, obstacles)

  it('tells one cause from several, and a broken guest from a refusal', () => {
    assert.deepEqual(
      [kind(true), kind(true, 3), kind(false, 0, 1), kind(false, 0, 2), kind(false, 4)],
      ['free', 'changed', 'near', 'stopped', 'broken'],
    )
    assert.equal(kindOf(undefined, obstacles), 'none')
  })

  it('lists registers together for which the same is said', () => {
    const found = reasonsOf(obstacles)
    assert.deepEqual(
      found.map(({ registers }) => registers.map(({ subject }) => subject)),
      [['A.x', 'A.y', 'A.x'], ['A.x'], ['A.x']],
    )
  })

  it('finds classes by every word', () => {
    const { classes } = fleetData([manyClasses(10)])
    assert.equal(search(classes, '  '), undefined)
    assert.deepEqual(
      search(classes, 'neoverse 6.12'),
      new Set([2, 7].filter((one) => classes[one]!.cpu.includes('Neoverse'))),
    )
    assert.deepEqual(search(classes, 'RACK-3-node-7'), new Set([3]))
  })
})
