import { Argument, Command } from 'commander'
import { completionScript, shells, type Shell } from '../completion.js'

/**
 * `kvm-arm64 completion`: print a script that makes a shell complete the command line.
 * @param program all commands
 */
export function completionCommand(program: () => Promise<Command>): Command {
  return new Command('completion')
    .addArgument(new Argument('<shell>', 'the shell').choices(shells))
    .addHelpText(
      'after',
      `
It completes commands, options, files, hosts, vCPU features, services and VMMs.

Examples:
  source <(kvm-arm64 completion bash)              in ~/.bashrc
  source <(kvm-arm64 completion zsh)               in ~/.zshrc, after compinit
  kvm-arm64 completion fish > ~/.config/fish/completions/kvm-arm64.fish`,
    )
    .action(async (shell: Shell) => {
      process.stdout.write(completionScript(shell, await program()))
    })
}
