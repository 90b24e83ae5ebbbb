#include "arguments.h"

#include <cmath>
#include <string>

namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;
constexpr const char* kUint64Range = "a bigint from 0n to 2n ** 64n - 1n";
constexpr const char* kUint32Range = "an integer from 0 to 4294967295";

std::string Sentence(const char* name, const char* expected) { return std::string(name) + " must be " + expected; }

double Number(Napi::Env env, Napi::Value value, const char* name) {
  if (!value.IsNumber()) ThrowInvalidType(env, name, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

double Integer(Napi::Env env, Napi::Value value, const char* name, double maximum, const char* range) {
  const double number = Number(env, value, name);
  if (!(number >= 0 && number <= maximum) || std::trunc(number) != number) ThrowOutOfRange(env, name, range);
  return number;
}

std::uint64_t BigInt(Napi::Env env, Napi::Value value, const char* name) {
  std::uint64_t number = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env, value, &number, &lossless) != napi_ok) {
    ThrowInvalidType(env, name, "a bigint");
  }
  if (!lossless) ThrowOutOfRange(env, name, kUint64Range);
  return number;
}

template <typename Element>
std::span<Element> Elements(const Argument& argument, napi_typedarray_type type, const char* type_name,
                            std::size_t minimum) {
  const Napi::Env env = argument.Env();
  const Napi::Value value = argument.value;
  bool is_typed_array = false;
  napi_typedarray_type actual = napi_int8_array;
  std::size_t length = 0;
  void* data = nullptr;
  if (napi_is_typedarray(env, value, &is_typed_array) != napi_ok || !is_typed_array ||
      napi_get_typedarray_info(env, value, &actual, &length, &data, nullptr, nullptr) != napi_ok || actual != type) {
    ThrowInvalidType(env, argument.name, type_name);
  }
  if (length < minimum) {
    const std::string expected = "at least " + std::to_string(minimum) + " elements long";
    ThrowOutOfRange(env, argument.name, expected.c_str());
  }
  return {static_cast<Element*>(data), length};
}

template <typename Element, typename Read>
void CopyArray(const Argument& argument, std::span<Element> output, Read read) {
  const Napi::Env env = argument.Env();
  if (!argument.value.IsArray()) ThrowInvalidType(env, argument.name, "an array");
  const Napi::Array array = argument.value.As<Napi::Array>();
  const std::uint32_t length = array.Length();
  if (length > output.size()) {
    const std::string expected = "at most " + std::to_string(output.size()) + " elements long";
    ThrowOutOfRange(env, argument.name, expected.c_str());
  }
  for (std::uint32_t i = 0; i < length; i++) output[i] = read(env, array.Get(i), argument.name);
}

std::uint32_t Uint32(Napi::Env env, Napi::Value value, const char* name) {
  return static_cast<std::uint32_t>(Integer(env, value, name, 4294967295.0, kUint32Range));
}

}  // namespace

void ThrowInvalidType(Napi::Env env, const char* name, const char* expected) {
  Napi::TypeError error = Napi::TypeError::New(env, Sentence(name, expected));
  error.Set("code", "ERR_INVALID_ARG_TYPE");
  throw error;
}

void ThrowOutOfRange(Napi::Env env, const char* name, const char* expected) {
  Napi::RangeError error = Napi::RangeError::New(env, Sentence(name, expected));
  error.Set("code", "ERR_OUT_OF_RANGE");
  throw error;
}

Napi::Object ToObject(const Argument& argument) {
  if (!argument.value.IsObject()) ThrowInvalidType(argument.Env(), argument.name, "an object");
  return argument.value.As<Napi::Object>();
}

std::uint32_t ToUint32(const Argument& argument) { return Uint32(argument.Env(), argument.value, argument.name); }

std::size_t ToSize(const Argument& argument) {
  return static_cast<std::size_t>(Integer(argument.Env(), argument.value, argument.name, kMaxSafeInteger,
                                          "an integer from 0 to Number.MAX_SAFE_INTEGER"));
}

double ToDuration(const Argument& argument) {
  const double number = Number(argument.Env(), argument.value, argument.name);
  if (!(number >= 0)) ThrowOutOfRange(argument.Env(), argument.name, "at least 0");
  return number;
}

std::uint64_t ToUint64(const Argument& argument) { return BigInt(argument.Env(), argument.value, argument.name); }

std::span<std::uint8_t> ToBytes(const Argument& argument, std::size_t minimum) {
  return Elements<std::uint8_t>(argument, napi_uint8_array, "a Uint8Array", minimum);
}

std::span<std::int32_t> ToInt32s(const Argument& argument, std::size_t minimum) {
  return Elements<std::int32_t>(argument, napi_int32_array, "an Int32Array", minimum);
}

std::span<std::uint32_t> ToUint32s(const Argument& argument, std::size_t minimum) {
  return Elements<std::uint32_t>(argument, napi_uint32_array, "a Uint32Array", minimum);
}

std::span<std::uint64_t> ToUint64s(const Argument& argument, std::size_t minimum) {
  return Elements<std::uint64_t>(argument, napi_biguint64_array, "a BigUint64Array", minimum);
}

void CopyUint32s(const Argument& argument, std::span<std::uint32_t> output) { CopyArray(argument, output, Uint32); }

void CopyUint64s(const Argument& argument, std::span<std::uint64_t> output) { CopyArray(argument, output, BigInt); }
