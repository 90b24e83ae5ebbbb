// An addon with what getOneReg() cannot do without: a call from JavaScript, a bigint in, the ioctl and a bigint out.
// test/bench/kvm.ts measures the call with and without the bigints, and all of it together: an ioctl leaves the
// processor's caches to the kernel, and an emulated processor without any translated address, so that the rest costs
// several times what it costs alone. Node-API is declared here, since the headers of Node.js are not everywhere.
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

typedef struct env *napi_env;
typedef struct value *napi_value;
typedef struct info *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

int napi_get_cb_info(napi_env, napi_callback_info, size_t *count, napi_value *arguments, napi_value *self, void **data);
int napi_get_value_bigint_uint64(napi_env, napi_value, uint64_t *result, bool *lossless);
int napi_create_bigint_uint64(napi_env, uint64_t, napi_value *result);
int napi_create_function(napi_env, const char *name, size_t length, napi_callback, void *data, napi_value *result);
int napi_set_named_property(napi_env, napi_value object, const char *name, napi_value value);

static napi_value empty(napi_env env, napi_callback_info info) {
  (void)env, (void)info;
  return NULL;
}

static napi_value echo(napi_env env, napi_callback_info info) {
  napi_value argument, result = NULL;
  size_t count = 1;
  uint64_t number = 0;
  bool lossless;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_get_value_bigint_uint64(env, argument, &number, &lossless);
  napi_create_bigint_uint64(env, number, &result);
  return result;
}

static int vcpu;

static int request(int fd, unsigned long number, void *argument) {
  int result = ioctl(fd, number, argument);
  if (result < 0) err(1, "ioctl 0x%lx", number);
  return result;
}

static void make_vcpu(void) {
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) err(1, "/dev/kvm");
  int vm = request(kvm, KVM_CREATE_VM, NULL);
  vcpu = request(vm, KVM_CREATE_VCPU, NULL);
  struct kvm_vcpu_init init;
  request(vm, KVM_ARM_PREFERRED_TARGET, &init);
  init.features[0] = 1u << KVM_ARM_VCPU_PSCI_0_2;
  request(vcpu, KVM_ARM_VCPU_INIT, &init);
}

static napi_value get(napi_env env, napi_callback_info info) {
  napi_value argument, result = NULL;
  size_t count = 1;
  uint64_t value = 0;
  struct kvm_one_reg reg = {.addr = (uintptr_t)&value};
  bool lossless;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_get_value_bigint_uint64(env, argument, (uint64_t *)&reg.id, &lossless);
  request(vcpu, KVM_GET_ONE_REG, &reg);
  napi_create_bigint_uint64(env, value, &result);
  return result;
}

static void define(napi_env env, napi_value exports, const char *name, napi_callback callback) {
  napi_value function;
  napi_create_function(env, name, (size_t)-1, callback, NULL, &function);
  napi_set_named_property(env, exports, name, function);
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  make_vcpu();
  define(env, exports, "empty", empty);
  define(env, exports, "echo", echo);
  define(env, exports, "get", get);
  return exports;
}
