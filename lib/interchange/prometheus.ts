/** Metrics for the textfile collector of Prometheus' node_exporter, in the text exposition format. */
import type { GateDocument } from '../fleet/gate.js'
import type { Report } from '../report/report.js'
import { capabilities } from '../uapi.js'
import type { Emitted } from './emitted.js'
import { moveLabels } from './move-labels.js'
import { nodeFacts } from './node-facts.js'

type Labels = Readonly<Record<string, string>>

interface Metric {
  name: string
  help: string
  samples: readonly (readonly [labels: Labels, value: number])[]
}

interface PrometheusOptions {
  /** Fleets that this host is in, each for another VMM: nodes with the same key of `kvm_arm64_moves_info` can exchange VMs both ways. */
  fleets?: readonly GateDocument[]
}

/**
 * Returns a node's metrics. Every value that needs 64 bits is in a label, since samples are floating-point numbers.
 * @throws RangeError for a host that is not in a fleet
 */
export function prometheusMetrics(report: Report, { fleets = [] }: PrometheusOptions = {}): Emitted {
  const facts = nodeFacts(report)
  const moves = fleets.map((fleet) => ({ ...moveLabels(facts.hostClass, fleet), vmm: fleet.vmm }))
  const metrics: Metric[] = [
    {
      name: 'kvm_arm64_info',
      help: 'What guests of this host are shown, its class, and what answered the probe.',
      samples: [
        [
          {
            release: facts.release,
            class: facts.hostClass,
            midr: facts.midr,
            psci: facts.psci,
            origin: facts.origin,
          },
          1,
        ],
      ],
    },
    {
      name: 'kvm_arm64_moves_info',
      help: 'Hosts with the same key can exchange VMs both ways under the VMM.',
      samples: moves.flatMap(({ vmm, key }) => (key === undefined ? [] : [[{ vmm, key }, 1] as const])),
    },
    {
      name: 'kvm_arm64_probe_timestamp_seconds',
      help: 'When the host was probed.',
      samples: [[{}, Date.parse(report.probedAt) / 1000]],
    },
    {
      name: 'kvm_arm64_registers',
      help: 'Registers of a vCPU without optional features.',
      samples: [[{}, report.registers.length]],
    },
    {
      name: 'kvm_arm64_vcpu_feature',
      help: 'Whether vCPUs can have the feature.',
      samples: facts.vcpuFeatures
        .filter((feature) => feature !== 'power-off')
        .map((feature) => [{ feature }, 1] as const),
    },
    {
      name: 'kvm_arm64_capability',
      help: 'KVM_CHECK_EXTENSION on a VM.',
      samples: [
        ...Object.entries(report.capabilities).filter(([name]) => name in capabilities),
        ...Object.entries(report.otherCapabilities ?? {}),
      ].map(([capability, [, value]]) => [{ capability }, value] as const),
    },
    {
      name: 'kvm_arm64_interrupt_controller',
      help: 'Whether KVM can make the interrupt controller.',
      samples: (facts.interruptControllers ?? []).map((type) => [{ type }, 1] as const),
    },
    recorded('kvm_arm64_counter_frequency_hertz', 'CNTFRQ_EL0 of guests.', facts.counterFrequency),
    recorded('kvm_arm64_page_size_bytes', 'Page size of the kernel.', facts.pageSize),
    recorded('kvm_arm64_guest_address_bits', 'The most bits of guest physical address.', facts.ipaLimit),
    recorded('kvm_arm64_memory_tagging', 'Whether VMs can have memory tagging.', facts.mte),
    recorded('kvm_arm64_protected_kvm', 'Whether pKVM shows itself.', facts.protectedKvm),
    recorded('kvm_arm64_cpu_kinds', 'Kinds of CPU the machine has.', facts.cpuKinds),
    {
      name: 'kvm_arm64_guest_read_info',
      help: 'What a guest reads from the CPU itself.',
      samples: facts.guestReads.map(({ name, value }) => [{ register: name, value }, 1] as const),
    },
    {
      name: 'kvm_arm64_services_mask',
      help: 'Bits a VM may elect in a bitmap of hypercall services.',
      samples: facts.bitmaps.map(({ name, mask }) => [{ register: name }, Number(BigInt(mask))] as const),
    },
    {
      name: 'kvm_arm64_workaround_level',
      help: 'State of a mitigation that the guest sees.',
      samples: facts.workarounds.map(
        ({ name, value }) => [{ register: name }, Number(BigInt(value))] as const,
      ),
    },
    {
      name: 'kvm_arm64_id_register_info',
      help: 'Value of a feature ID register of guests.',
      samples: facts.idRegisters.map(({ name, value }) => [{ register: name, value }, 1] as const),
    },
  ]
  const text = metrics
    .filter(({ samples }) => samples.length > 0)
    .map(({ name, help, samples }) =>
      [
        `# HELP ${name} ${help}`,
        `# TYPE ${name} gauge`,
        ...samples.map(([labels, value]) => `${name}${labelText(labels)} ${value}`),
      ].join('\n'),
    )
    .join('\n')
  return {
    text: `${text}\n`,
    inexpressible: [
      'what may be written, register by register: it only shows in the class',
      ...moves.flatMap(({ inexpressible }) => inexpressible),
    ],
  }
}

/** Returns the metric of a fact; without a sample if it was not recorded. */
function recorded(name: string, help: string, value: bigint | number | boolean | undefined): Metric {
  return { name, help, samples: value === undefined ? [] : [[{}, Number(value)]] }
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) =>
      `${name}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`,
  )
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}
