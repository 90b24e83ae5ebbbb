/** Hosts to reach by SSH: one sshd for each, on an address of 127.0.1.0/24, with keys of its own. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { accepts, Daemons, freePort } from './daemon.js'

export interface SshHost {
  name: string
  address: string
}

export class SshHosts {
  readonly hosts: readonly SshHost[]
  readonly #folder: string
  readonly #environment: readonly string[]
  readonly #daemons = new Map<string, Daemons>()
  #port = 0

  /** @param environment variables of the hosts' sessions, as `NAME=value` */
  constructor(folder: string, names: readonly string[], environment: readonly string[] = []) {
    this.#folder = folder
    this.#environment = environment
    this.hosts = names.map((name, index) => ({ name, address: `127.0.1.${index + 1}` }))
  }

  /** Variables of Ansible that lead to every host. */
  get variables(): Record<string, string> {
    return {
      ansible_port: String(this.#port),
      ansible_user: userInfo().username,
      ansible_ssh_private_key_file: join(this.#folder, 'client'),
      ansible_ssh_common_args: `-o UserKnownHostsFile=${join(this.#folder, 'known_hosts')} -o StrictHostKeyChecking=yes`,
    }
  }

  async start(): Promise<void> {
    mkdirSync(this.#folder, { recursive: true })
    // As root, sshd wants it.
    if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
    this.#port = await freePort()
    this.#key('client')
    copyFileSync(join(this.#folder, 'client.pub'), join(this.#folder, 'authorized_keys'))
    const known = this.hosts.map((host) => this.#startOne(host))
    writeFileSync(join(this.#folder, 'known_hosts'), known.join(''))
    for (const { name, address } of this.hosts) {
      await this.#daemons.get(name)!.until(`sshd of ${name}`, () => accepts(this.#port, address))
    }
  }

  /** Makes a host unreachable. */
  async stopOne(name: string): Promise<void> {
    await this.#daemons.get(name)!.stop()
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#daemons.values()].map((daemons) => daemons.stop()))
  }

  /** Starts a host's sshd and returns its line in known_hosts. */
  #startOne({ name, address }: SshHost): string {
    const key = this.#key(name)
    const config = join(this.#folder, `${name}.conf`)
    const lines = [
      `ListenAddress ${address}:${this.#port}`,
      `HostKey ${join(this.#folder, name)}`,
      `AuthorizedKeysFile ${join(this.#folder, 'authorized_keys')}`,
      'PermitRootLogin prohibit-password',
      'PasswordAuthentication no',
      'StrictModes no',
      'UsePAM no',
      'PidFile none',
      'Subsystem sftp internal-sftp',
      // Only the first such line counts.
      `SetEnv ${['LC_ALL=C.UTF-8', ...this.#environment].join(' ')}`,
    ]
    writeFileSync(config, `${lines.join('\n')}\n`)
    const daemons = new Daemons()
    // sshd starts itself anew for each connection, so it needs its whole path.
    daemons.start(name, '/usr/sbin/sshd', ['-D', '-e', '-f', config])
    this.#daemons.set(name, daemons)
    return `[${address}]:${this.#port} ${key}`
  }

  /** Makes a pair of keys and returns the public one. */
  #key(name: string): string {
    const file = join(this.#folder, name)
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', file])
    return execFileSync('cut', ['-d', ' ', '-f', '1,2', `${file}.pub`], { encoding: 'utf8' })
  }
}
