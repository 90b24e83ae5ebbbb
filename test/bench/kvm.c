// What the library is measured against: the same work as test/bench/kvm.ts, in plain C. Prints nanoseconds per operation,
// the best of several rounds, as JSON.
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

// Many short rounds, so that one of them is undisturbed.
enum { ROUNDS = 300, GETS = 100, LISTS = 1, EXITS = 50 };

static const uint64_t CODE = 0x10000, DEVICE = 0x9000000;
static const uint64_t X1 = 0x6030000000100002, PC = 0x6030000000100040, STD_BMAP = 0x6030000000160000;

// again: str w0, [x1]; add x0, x0, #1; b again
static const uint32_t program[] = {0xb9000020, 0x91000400, 0x17fffffe};

static int vm, vcpu;
static struct kvm_run *run;
static __u64 *ids;
static uint64_t *values;
static size_t count;

static int request(int fd, unsigned long number, void *argument) {
  int result = ioctl(fd, number, argument);
  if (result < 0) err(1, "ioctl 0x%lx", number);
  return result;
}

static void get(uint64_t id, uint64_t *value) {
  struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)value};
  request(vcpu, KVM_GET_ONE_REG, &reg);
}

static void set(uint64_t id, uint64_t value) {
  struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)&value};
  request(vcpu, KVM_SET_ONE_REG, &reg);
}

static void setup(void) {
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) err(1, "/dev/kvm");
  vm = request(kvm, KVM_CREATE_VM, 0);
  vcpu = request(vm, KVM_CREATE_VCPU, 0);
  size_t size = (size_t)request(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

  struct kvm_vcpu_init init;
  request(vm, KVM_ARM_PREFERRED_TARGET, &init);
  init.features[0] = 1u << KVM_ARM_VCPU_PSCI_0_2;
  request(vcpu, KVM_ARM_VCPU_INIT, &init);

  void *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memcpy(memory, program, sizeof program);
  struct kvm_userspace_memory_region region = {
      .guest_phys_addr = CODE, .memory_size = 65536, .userspace_addr = (uintptr_t)memory};
  request(vm, KVM_SET_USER_MEMORY_REGION, &region);
  set(PC, CODE);
  set(X1, DEVICE);

  struct kvm_reg_list *list = calloc(1, sizeof *list + 8192 * sizeof(uint64_t));
  list->n = 8192;
  request(vcpu, KVM_GET_REG_LIST, list);
  ids = list->reg;
  for (size_t i = 0; i < list->n; i++) {
    // What the batch call of the library reads: registers of at most 64 bits.
    if (((ids[i] >> 52) & 0xf) <= 3) ids[count++] = ids[i];
  }
  values = calloc(count, sizeof *values);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void single(void) {
  uint64_t value;
  for (int i = 0; i < GETS; i++) get(STD_BMAP, &value);
}

static void batch(void) {
  for (int n = 0; n < LISTS; n++) {
    for (size_t i = 0; i < count; i++) get(ids[i], &values[i]);
  }
}

static void mmio(void) {
  for (int i = 0; i < EXITS; i++) {
    request(vcpu, KVM_RUN, NULL);
    if (run->exit_reason != KVM_EXIT_MMIO || run->mmio.phys_addr != DEVICE) errx(1, "exit %u", run->exit_reason);
  }
}

static double best(void (*work)(void), double operations) {
  double shortest = 1e18;
  for (int i = 0; i < ROUNDS; i++) {
    double start = now();
    work();
    double time = now() - start;
    if (time < shortest) shortest = time;
  }
  return shortest / operations;
}

int main(void) {
  setup();
  double get_ns = best(single, GETS), batch_ns = best(batch, (double)LISTS * (double)count), exit_ns = best(mmio, EXITS);
  printf("{\"get\":%.0f,\"batch\":%.0f,\"exit\":%.0f}\n", get_ns, batch_ns, exit_ns);
}
