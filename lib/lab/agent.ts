/** The agent writes this to the console before it gives up. */
export const unfitKernel = 'kvm-arm64 lab: no driver for virtio-serial'

/**
 * The program that runs as process 1 in the lab's machine: a shell script for busybox, because every kernel can run it and no
 * compiler is needed to make it.
 *
 * It obeys lines on the first virtio-serial port. `run MARK STDIN COMMAND…` runs a command with pipes for its standard streams,
 * which are carried over three further ports: stdin in frames (a decimal length, a newline, that many bytes; length 0 ends it),
 * stdout and stderr unchanged, each followed by MARK, since a port has no end of file. The agent returns the exit status on the
 * first port once it has killed everything the command left running. When that port's other end goes away the machine powers off.
 */
export const agent: string = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8
# With the memory functions that glibc has for the A64FX, Node dies on QEMU 7.2's a64fx within a minute.
export GLIBC_TUNABLES=glibc.cpu.name=generic
busybox --install -s /usr/bin

for module in /modules/*.ko; do [ -f "$module" ] && insmod "$module"; done

if ! [ -d /sys/bus/pci/drivers/virtio-pci ] || ! [ -d /sys/bus/virtio/drivers/virtio_console ]; then
  echo '${unfitKernel}'
  poweroff -f
fi
# A port's file is there some time before the port: opening it fails until then, which without "command" would end the shell.
until [ -c /dev/vport0p1 ] && command exec 3<>/dev/vport0p1; do sleep 0.01; done
until [ -c /dev/vport0p2 ] && command exec 4<>/dev/vport0p2; do sleep 0.01; done
until [ -c /dev/vport0p3 ] && command exec 5<>/dev/vport0p3; do sleep 0.01; done
until [ -c /dev/vport0p4 ] && command exec 6<>/dev/vport0p4; do sleep 0.01; done
# A read from a port whose other end is not known to be there yet is an end of file; a write waits.
echo >&4
mkfifo /run/stdin /run/stdout /run/stderr
newline='
'

feed() {
  while read -r length && [ "$length" -gt 0 ]; do
    dd bs="$length" count=1 iflag=fullblock 2>/dev/null
  done <&4
}

# Kills all processes but this shell, those given and their children.
kill_others() {
  for directory in /proc/[0-9]*; do
    # Kernel threads have no executable.
    [ -e $directory/exe ] || continue
    pid=\${directory#/proc/}
    read -r stat 2>/dev/null <$directory/stat || continue
    stat=\${stat##*) }
    stat=\${stat#* }
    parent=\${stat%% *}
    case " 1 $* " in *" $pid "*) continue ;; esac
    case " $* " in *" $parent "*) continue ;; esac
    kill -9 $pid 2>/dev/null
  done
}

run() {
  mark=$1 stdin=$2
  shift 2
  feeder=
  if [ $stdin = 1 ]; then
    feed >/run/stdin 3>&- 5>&- 6>&- &
    feeder=$!
    input=/run/stdin
  else
    input=/dev/null
  fi
  cat </run/stdout >&5 3>&- 4>&- 6>&- &
  out=$!
  cat </run/stderr >&6 3>&- 4>&- 5>&- &
  err=$!
  (exec "$@") <$input >/run/stdout 2>/run/stderr 3>&- 4>&- 5>&- 6>&-
  status=$?
  kill_others $feeder $out $err
  wait $out $err
  printf %s "$mark" >&5
  printf %s "$mark" >&6
  echo "exit $status" >&3
  [ $stdin = 0 ] || wait $feeder
}

cd /lab
echo ready >&3
while IFS= read -r line <&3; do eval "$line"; done
poweroff -f
`

/** Returns the line that makes the agent run a command; `mark` ends its stdout and its stderr. */
export function runLine(mark: string, stdin: boolean, command: readonly string[]): string {
  return `run ${mark} ${stdin ? 1 : 0} ${command.map(quote).join(' ')}\n`
}

function quote(argument: string): string {
  return `'${argument.replaceAll("'", `'\\''`).replaceAll('\n', `'"$newline"'`)}'`
}
