/** Slurm on this machine: munged, slurmctld, and a slurmd for each of several nodes. */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { Daemons, freePort } from './daemon.js'

export class Slurm {
  readonly #folder: string
  readonly #daemons = new Daemons()

  /** @param folder in a folder of the test's own */
  constructor(folder: string) {
    this.#folder = folder
  }

  /** What Slurm's commands need in their environment. */
  get environment(): Record<string, string> {
    return { SLURM_CONF: this.#at('slurm.conf') }
  }

  /** @param nodes their names */
  async start(nodes: readonly string[]): Promise<void> {
    mkdirSync(this.#at('state'), { recursive: true })
    // munged wants every user to reach its socket.
    chmodSync(join(this.#folder, '..'), 0o711)
    writeFileSync(this.#at('munge.key'), randomBytes(1024), { mode: 0o400 })
    const munge = ['key-file', 'socket', 'pid-file', 'log-file', 'seed-file']
    this.#start('munged', ['--foreground', ...munge.map((name) => `--${name}=${this.#at(munged(name))}`)])
    await this.#daemons.until('munged', () => existsSync(this.#at(munged('socket'))))
    await this.#configure(nodes)
    this.#start('slurmctld', ['-D', '-f', this.#at('slurm.conf')])
    for (const node of nodes) {
      mkdirSync(this.#at(`spool-${node}`))
      this.#start('slurmd', ['-D', '-N', node, '-f', this.#at('slurm.conf')])
    }
    await this.#daemons.until('Slurm', () => this.#idle() === nodes.length)
  }

  async stop(): Promise<void> {
    await this.#daemons.stop()
  }

  #at(file: string): string {
    return join(this.#folder, file)
  }

  #start(program: string, args: string[]): void {
    this.#daemons.start(program, `/usr/sbin/${program}`, args, { ...process.env, ...this.environment })
  }

  /** Returns the number of nodes that are ready for jobs. */
  #idle(): number {
    try {
      const args = ['--noheader', '--Node', '--states=idle', '--format=%N %t']
      const options = {
        encoding: 'utf8',
        stdio: 'pipe',
        env: { ...process.env, ...this.environment },
      } as const
      return execFileSync('sinfo', args, options)
        .split('\n')
        .filter((line) => line.endsWith(' idle')).length
    } catch {
      return 0
    }
  }

  async #configure(nodes: readonly string[]): Promise<void> {
    const { username } = userInfo()
    const [short] = hostname().split('.')
    const lines = [
      'ClusterName=test',
      `SlurmctldHost=${short}(127.0.0.1)`,
      `SlurmctldPort=${await freePort()}`,
      'AuthType=auth/munge',
      `AuthInfo=socket=${this.#at(munged('socket'))}`,
      'CredType=cred/munge',
      `SlurmUser=${username}`,
      `SlurmdUser=${username}`,
      // Without control groups, which a container may not make.
      'ProctrackType=proctrack/linuxproc',
      'TaskPlugin=task/none',
      `StateSaveLocation=${this.#at('state')}`,
      `SlurmdSpoolDir=${this.#at('spool-%n')}`,
      `SlurmctldPidFile=${this.#at('slurmctld.pid')}`,
      `SlurmdPidFile=${this.#at('slurmd-%n.pid')}`,
      'ReturnToService=2',
      'KillWait=2',
      'SelectType=select/cons_tres',
      'SelectTypeParameters=CR_CPU',
      // Nodes may have more CPUs than this machine.
      'SlurmdParameters=config_overrides',
    ]
    for (const node of nodes) {
      const address = `NodeHostname=${short} NodeAddr=127.0.0.1 Port=${await freePort()}`
      lines.push(`NodeName=${node} ${address} CPUs=2 State=UNKNOWN`)
    }
    lines.push('PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP')
    writeFileSync(this.#at('slurm.conf'), `${lines.join('\n')}\n`)
  }
}

/** The file for an option of munged. */
function munged(option: string): string {
  return `munge.${option.replace('-file', '')}`
}
