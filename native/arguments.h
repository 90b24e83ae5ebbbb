// Reading the arguments of a call. Each throws a TypeError (ERR_INVALID_ARG_TYPE) or a RangeError (ERR_OUT_OF_RANGE)
// that names the argument. An argument is a place in the call or a property of an object there, with its name in
// lib/backend.ts.
#pragma once

#include <cstdint>
#include <span>

#include "napi_setup.h"

struct Argument {
  Argument(const Napi::CallbackInfo& info, std::size_t index, const char* its_name)
      : value(info[index]), name(its_name) {}
  // Reading a property may run JavaScript.
  Argument(const Napi::Object& object, const char* its_name) : value(object.Get(its_name)), name(its_name) {}

  Napi::Value value;
  const char* name;

  Napi::Env Env() const { return value.Env(); }
  bool IsNull() const { return value.IsNull(); }
};

[[noreturn]] void ThrowInvalidType(Napi::Env env, const char* name, const char* expected);
[[noreturn]] void ThrowOutOfRange(Napi::Env env, const char* name, const char* expected);

Napi::Object ToObject(const Argument& argument);
// A number that is an integer from 0 to 4294967295.
std::uint32_t ToUint32(const Argument& argument);
// A number that is an integer from 0 to Number.MAX_SAFE_INTEGER.
std::size_t ToSize(const Argument& argument);
// A number that is at least 0.
double ToDuration(const Argument& argument);
// A bigint from 0 to 2^64 - 1.
std::uint64_t ToUint64(const Argument& argument);

// The elements of a typed array of exactly this type and at least `minimum` elements. Valid until control returns to
// JavaScript.
std::span<std::uint8_t> ToBytes(const Argument& argument, std::size_t minimum = 0);
std::span<std::int32_t> ToInt32s(const Argument& argument, std::size_t minimum = 0);
std::span<std::uint32_t> ToUint32s(const Argument& argument, std::size_t minimum = 0);
std::span<std::uint64_t> ToUint64s(const Argument& argument, std::size_t minimum = 0);

// The elements of an array of at most `output.size()` elements; the rest of `output` is left alone.
void CopyUint32s(const Argument& argument, std::span<std::uint32_t> output);
void CopyUint64s(const Argument& argument, std::span<std::uint64_t> output);
