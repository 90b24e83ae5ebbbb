// An addon with what getOneReg() cannot do without besides the ioctl: a call from JavaScript, a bigint in and a bigint out.
// test/bench/kvm.ts measures each. Node-API is declared here, since the headers of Node.js are not everywhere.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

static void define(napi_env env, napi_value exports, const char *name, napi_callback callback) {
  napi_value function;
  napi_create_function(env, name, (size_t)-1, callback, NULL, &function);
  napi_set_named_property(env, exports, name, function);
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  define(env, exports, "empty", empty);
  define(env, exports, "echo", echo);
  return exports;
}
