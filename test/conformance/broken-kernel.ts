/** Kernels with a fault each: a simulated host some of whose calls are answered otherwise. */
import type { Backend, SystemFd, VcpuFd, VmFd } from '../../lib/backend.js'
import { altered } from '../fuzz/backends.js'

type Method = (...args: never[]) => unknown
/** By method, what answers in its place: `real` is the method itself, `this` what it belongs to. */
export type Faults<Fd> = {
  [Name in keyof Fd as Fd[Name] extends Method ? Name : never]?: Fd[Name] extends (
    ...args: infer Args
  ) => infer Result
    ? (this: Fd, real: (...args: Args) => Result, ...args: Args) => Result
    : never
}

export interface Fault {
  system?: Faults<SystemFd>
  vm?: Faults<VmFd>
  vcpu?: Faults<VcpuFd>
}

/** The backend with a fault. */
export function breakBackend(backend: Backend, { system = {}, vm = {}, vcpu = {} }: Fault): Backend {
  const wrapVcpu = (fd: VcpuFd): VcpuFd => wrap(fd, vcpu)
  const wrapVm = (fd: VmFd): VmFd =>
    wrap(
      wrap(fd, {
        createVcpu: (real, id) => {
          const made = real(id)
          return typeof made === 'number' ? made : wrapVcpu(made)
        },
      }),
      vm,
    )
  const wrapSystem = (fd: SystemFd): SystemFd =>
    wrap(
      wrap(fd, {
        createVm: (real, type) => {
          const made = real(type)
          return typeof made === 'number' ? made : wrapVm(made)
        },
      }),
      system,
    )
  return {
    ...backend,
    open() {
      const fd = backend.open()
      return typeof fd === 'number' ? fd : wrapSystem(fd)
    },
  }
}

export function wrap<Fd extends object>(fd: Fd, faults: Faults<Fd>): Fd {
  const answers = Object.entries(faults as Record<string, Method>).map(([name, fault]): [string, Method] => {
    const real = (fd as Record<string, Method>)[name]!.bind(fd)
    return [name, (...args) => fault.call(fd, ...([real, ...args] as never[]))]
  })
  return altered(fd, Object.fromEntries(answers) as Partial<Fd>)
}
