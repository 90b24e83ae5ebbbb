import { simulator } from '../../lib/hosts/index.js'
import { type GuestMemory, type Kvm, KvmError, openKvm, type Vm } from '../../lib/kvm/index.js'

export const HOST = 'linux-6.12-neoverse-n1'

/** A host that remembers what was made on it. */
export class Host implements Disposable {
  readonly kvm: Kvm
  readonly #vms: Vm[] = []
  readonly #memories: GuestMemory[] = []

  constructor(name: Parameters<typeof simulator>[0] = HOST) {
    this.kvm = openKvm(simulator(name))
    const { kvm: host } = this
    const [createVm, createMemory] = [host.createVm.bind(host), host.createMemory.bind(host)]
    host.createVm = (options) => remembered(this.#vms, createVm(options))
    host.createMemory = (size) => remembered(this.#memories, createMemory(size))
  }

  /** What has not been closed. */
  get open(): number {
    const memories = this.#memories.filter(({ buffer }) => buffer.byteLength > 0)
    return memories.length + this.#vms.filter(isOpen).length
  }

  [Symbol.dispose](): void {
    this.kvm.close()
  }
}

function remembered<T>(list: T[], made: T): T {
  list.push(made)
  return made
}

function isOpen(vm: Vm): boolean {
  try {
    vm.checkExtension('KVM_CAP_ONE_REG')
    return true
  } catch (error) {
    if (error instanceof KvmError && error.code === 'ERR_KVM_CLOSED') return false
    throw error
  }
}
