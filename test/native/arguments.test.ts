import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import { errnos } from '../../lib/uapi.js'
import { endlessHandles, hasKvm, opened, withoutKvm } from './handles.js'

const wrongType = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }
const outOfRange = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' }

if (hasKvm) {
  describe('An argument that cannot be handed to the kernel', () => {
    const handles = endlessHandles()
    const memory = opened(handles.system.createMemory(65536))
    const event = opened(handles.system.createEvent())
    const stats = handles.vm.getStatsFd()
    after(() => {
      if (typeof stats !== 'number') stats.close()
      event.close()
      memory.close()
      handles.close()
    })
    /** As a script without types sees them. */
    // eslint-disable-next-line @typescript-eslint/no-explicit-any
    const { system, vm, vcpu } = handles as unknown as Record<string, any>

    const notNumbers = [undefined, null, '1', 1n, {}, Symbol('1'), true]
    const notUint32s = [-1, 0.5, 4294967296, NaN, Infinity, -0.1]
    const notBigInts = [undefined, null, 1, '1', {}]
    const notUint64s = [-1n, 1n << 64n, -(1n << 70n)]

    const numbers: Record<string, (value: unknown) => unknown> = {
      'capability of /dev/kvm': (value) => system.checkExtension(value),
      'capability of a VM': (value) => vm.checkExtension(value),
      'capability to enable': (value) => vm.enableCap(value, 0, []),
      'flags of a capability': (value) => vm.enableCap(0, value, []),
      'vCPU id': (value) => vm.createVcpu(value),
      'range of masks': (value) => vm.getRegWritableMasks(value, new BigUint64Array(192)),
      slot: (value) =>
        vm.setUserMemoryRegion({ slot: value, flags: 0, address: 0n, memory, offset: 0, size: 65536 }),
      'flags of a slot': (value) =>
        vm.setUserMemoryRegion({ slot: 0, flags: value, address: 0n, memory, offset: 0, size: 65536 }),
      'device type': (value) => vm.createDevice(value, 0),
      'flags of a device': (value) => vm.createDevice(0, value),
      'attribute group of a VM': (value) => vm.hasDeviceAttr(value, 0n),
      'attribute group of a vCPU': (value) => vcpu.setDeviceAttr(value, 0n, null),
      'slot of a log': (value) => vm.getDirtyLog(value, new BigUint64Array(1)),
      'slot of a log to clear': (value) => vm.clearDirtyLog(value, 0, 0, new BigUint64Array(1)),
      'pages to clear': (value) => vm.clearDirtyLog(0, 0, value, new BigUint64Array(1)),
      'number of posted writes': (value) => vm.addPosted(0n, 4, value),
      'interrupt line': (value) => vm.irqLine(value, 1),
      'level of a line': (value) => vm.irqLine(0, value),
      'data of a message': (value) => vm.signalMsi(0n, value, 0, 0),
      'flags of a message': (value) => vm.signalMsi(0n, 0, value, 0),
      'device of a message': (value) => vm.signalMsi(0n, 0, 0, value),
      'flags of routes': (value) => vm.setGsiRouting(value, new Uint32Array(0)),
      'size of a doorbell': (value) => vm.ioEventFd(event, 0n, value, 0, 0n),
      'flags of a doorbell': (value) => vm.ioEventFd(event, 0n, 4, value, 0n),
      'interrupt of an event': (value) => vm.irqFd(event, value, 0, null),
      'flags of an event': (value) => vm.irqFd(event, 0, value, null),
      'flags of tags': (value) => vm.copyMteTags(0n, 16, new Uint8Array(1), value),
      'size of a zone': (value) => vm.registerCoalescedMmio(0n, value, 0),
      'kind of a zone': (value) => vm.unregisterCoalescedMmio(0n, 4, value),
      'control of debugging': (value) => vcpu.setGuestDebug(value, new BigUint64Array(64)),
      target: (value) => vcpu.init(value, []),
      'word of features': (value) => vcpu.init(0, [0, value]),
      'feature to finalize': (value) => vcpu.finalize(value),
      'multiprocessor state': (value) => vcpu.setMpState(value),
    }
    for (const [name, call] of Object.entries(numbers)) {
      it(`as the ${name} is refused`, () => {
        for (const value of notNumbers) assert.throws(() => call(value), wrongType)
        for (const value of notUint32s) assert.throws(() => call(value), outOfRange)
      })
    }

    const sizes: Record<string, (value: unknown) => unknown> = {
      'size of memory': (value) => system.createMemory(value),
      'offset into memory for a slot': (value) =>
        vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: value, size: 0 }),
      'size of a slot': (value) =>
        vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 0, size: value }),
      'size of a constant': (value) => vm.setConstant(0n, value, 0n),
      'size of posted writes': (value) => vm.addPosted(0n, value, 0),
      'first page to clear': (value) => vm.clearDirtyLog(0, value, 0, new BigUint64Array(1)),
      'offset to read from': (value) => memory.read(value as number, new Uint8Array(1)),
      'offset to write to': (value) => memory.write(value as number, new Uint8Array(1)),
    }
    for (const [name, call] of Object.entries(sizes)) {
      it(`as the ${name} is refused`, () => {
        for (const value of notNumbers) assert.throws(() => call(value), wrongType)
        for (const value of [-1, 0.5, 2 ** 53, NaN, Infinity]) assert.throws(() => call(value), outOfRange)
      })
    }

    const bigints: Record<string, (value: unknown) => unknown> = {
      'VM type': (value) => system.createVm(value),
      'argument of a capability': (value) => vm.enableCap(0, 0, [0n, value]),
      'guest physical address': (value) =>
        vm.setUserMemoryRegion({ slot: 0, flags: 0, address: value, memory, offset: 0, size: 65536 }),
      'offset of the counters': (value) => vm.setCounterOffset(value, 0n),
      'word beside the offset': (value) => vm.setCounterOffset(0n, value),
      'address of a constant': (value) => vm.setConstant(value, 4, 0n),
      constant: (value) => vm.setConstant(0n, 4, value),
      'address of posted writes': (value) => vm.addPosted(value, 4, 0),
      'address of a message': (value) => vm.signalMsi(value, 0, 0, 0),
      'address of a doorbell': (value) => vm.ioEventFd(event, value, 4, 0, 0n),
      'address of tags': (value) => vm.copyMteTags(value, 16, new Uint8Array(1), 0),
      'address of a zone': (value) => vm.registerCoalescedMmio(value, 4, 0),
      'value of a doorbell': (value) => vm.ioEventFd(event, 0n, 4, 0, value),
      'count of an event': (value) => event.signal(value as bigint),
      attribute: (value) => vm.getDeviceAttr(0, value, new Uint8Array(8)),
      'register to get': (value) => vcpu.getOneReg(value),
      'register to set': (value) => vcpu.setOneReg(value, 0n),
      'register to get at null': (value) => vcpu.getOneRegAtNull(value),
      'register to set at null': (value) => vcpu.setOneRegAtNull(value),
    }
    for (const [name, call] of Object.entries(bigints)) {
      it(`as the ${name} is refused`, () => {
        for (const value of notBigInts) assert.throws(() => call(value), wrongType)
        for (const value of notUint64s) assert.throws(() => call(value), outOfRange)
      })
    }

    const arrays: Record<string, { call: (value: unknown) => unknown; short: unknown[] }> = {
      'array of words for a register list': {
        call: (value) => vcpu.getRegList(value),
        short: [new BigUint64Array(0)],
      },
      'array of masks': {
        call: (value) => vm.getRegWritableMasks(0, value),
        short: [new BigUint64Array(191)],
      },
      'log to clear': {
        call: (value) => vm.clearDirtyLog(0, 0, 65, value),
        short: [new BigUint64Array(0), new BigUint64Array(1)],
      },
      'array of routes': { call: (value) => vm.setGsiRouting(0, value), short: [new Uint32Array(13)] },
      'array for coalesced writes': {
        call: (value) => vcpu.takeCoalesced(value),
        short: [new BigUint64Array(2)],
      },
      'array of tags': { call: (value) => vm.copyMteTags(0n, 64, value, 0), short: [new Uint8Array(3)] },
      'array for written pages': { call: (value) => vcpu.takeDirty(value), short: [new BigUint64Array(1)] },
      'array for posted writes': { call: (value) => vm.takePosted(value), short: [new BigUint64Array(2)] },
      'array for the preferred target': {
        call: (value) => vm.getPreferredTarget(value),
        short: [new Uint32Array(7)],
      },
      'array for the events': { call: (value) => vcpu.getVcpuEvents(value), short: [new Uint8Array(63)] },
      'array of debug registers': {
        call: (value) => vcpu.setGuestDebug(0, value),
        short: [new BigUint64Array(63)],
      },
      'array of events': { call: (value) => vcpu.setVcpuEvents(value), short: [new Uint8Array(0)] },
      'array of ids': {
        call: (value) => vcpu.getRegs(value, new BigUint64Array(2), new Int32Array(2)),
        short: [new BigUint64Array(1), new BigUint64Array(3)],
      },
      'array of values': {
        call: (value) => vcpu.setRegs(new BigUint64Array(2), value, new Int32Array(2)),
        short: [new BigUint64Array(1), new BigUint64Array(3)],
      },
      'array of errnos': {
        call: (value) => vcpu.getRegs(new BigUint64Array(2), new BigUint64Array(2), value),
        short: [new Int32Array(1), new Int32Array(3)],
      },
      'array to read into': { call: (value) => memory.read(0, value as Uint8Array), short: [] },
      'array to write from': { call: (value) => memory.write(0, value as Uint8Array), short: [] },
      'array for an attribute': { call: (value) => vcpu.getDeviceAttr(0, 0n, value), short: [] },
      'array of more features than there are words': {
        call: (value) => vcpu.init(0, value),
        short: [Array(8).fill(0)],
      },
      'array of more arguments than a capability has': {
        call: (value) => vm.enableCap(0, 0, value),
        short: [Array(5).fill(0n)],
      },
    }
    for (const [name, { call, short }] of Object.entries(arrays)) {
      it(`as the ${name} is refused`, () => {
        const wrong = [
          undefined,
          null,
          0,
          'array',
          {},
          new DataView(new ArrayBuffer(2048)),
          new Float64Array(256),
        ]
        for (const value of [...wrong, new Uint8ClampedArray(256), new BigInt64Array(256)]) {
          assert.throws(() => call(value), wrongType)
        }
        for (const value of short) assert.throws(() => call(value), outOfRange)
      })
    }

    it('as the memory of a slot is refused', () => {
      for (const value of [
        undefined,
        0,
        {},
        system,
        vm,
        vcpu,
        memory.buffer,
        Object.create(memory),
        new Proxy(memory, {}),
      ]) {
        assert.throws(
          () =>
            vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory: value, offset: 0, size: 65536 }),
          wrongType,
        )
      }
      assert.throws(
        () =>
          vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory: null, offset: 0, size: 65536 }),
        wrongType,
      )
      assert.throws(
        () => vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 0, size: 65537 }),
        outOfRange,
      )
      assert.throws(
        () => vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 65536, size: 1 }),
        outOfRange,
      )
    })

    it('as the timeout of a run is refused', () => {
      for (const value of notNumbers) assert.throws(() => vcpu.runSync(value), wrongType)
      for (const value of [-1, -Infinity, NaN]) assert.throws(() => vcpu.runSync(value), outOfRange)
    })

    it('as a register id of no possible width is refused', () => {
      for (let field = 9n; field <= 15n; field++) {
        const id = 0x6000000000130000n | (field << 52n)
        for (const method of ['getOneReg', 'getOneRegAtNull', 'setOneRegAtNull']) {
          assert.throws(() => vcpu[method](id), outOfRange)
        }
        assert.throws(() => vcpu.setOneReg(id, 0n), outOfRange)
      }
    })

    it('as a value wider than its register, or negative, is refused', () => {
      for (let field = 0n; field <= 8n; field++) {
        const id = 0x6000000000130000n | (field << 52n)
        const width = 8n << field
        for (const value of [1n << width, (1n << width) + 1n, 1n << 4096n, -1n, -(1n << width)]) {
          assert.throws(() => vcpu.setOneReg(id, value), outOfRange)
        }
        for (const value of [0n, (1n << width) - 1n]) assert.equal(typeof vcpu.setOneReg(id, value), 'number')
        for (const value of notBigInts) assert.throws(() => vcpu.setOneReg(id, value), wrongType)
      }
      const narrow = BigUint64Array.of(0x6020000000130000n)
      assert.throws(() => vcpu.setRegs(narrow, BigUint64Array.of(1n << 32n), new Int32Array(1)), outOfRange)
    })

    it('as a register count that its list has no room for is refused', () => {
      for (const n of [4n, 5n, (1n << 32n) + 4n, (1n << 32n) - 1n]) {
        const list = new BigUint64Array(4)
        list[0] = n
        assert.throws(() => vcpu.getRegList(list), outOfRange)
      }
    })
  })

  describe('An argument that closes the handle while it is read', () => {
    it('leaves the call with EBADF', () => {
      const { vcpu, close } = endlessHandles()
      const features = Object.defineProperty([0], 0, {
        get: () => {
          close()
          return 0
        },
      })
      assert.equal(vcpu.init(0, features), -errnos.EBADF)
    })
  })
} else void it.skip(withoutKvm)
