// KVM_{GET,SET}_ONE_REG and KVM_GET_REG_LIST.
//
// The id's bits 55:52 give the width: 2 to their power bytes, of which the architecture uses 1 to 256 (8 to 2048 bits).
// The kernel relies on them for the length of the memory it receives, so an id of any other width never reaches it.
#pragma once

#include <array>

#include "napi_setup.h"

// The value as a bigint, or -errno as a number. The arguments, the id and the value, are raw: these two are called
// millions of times.
napi_value GetOneReg(napi_env env, int fd, const std::array<napi_value, 1>& arguments);
napi_value SetOneReg(napi_env env, int fd, const std::array<napi_value, 2>& arguments);

Napi::Value GetOneRegAtNull(int fd, const Napi::CallbackInfo& info);
Napi::Value SetOneRegAtNull(int fd, const Napi::CallbackInfo& info);
Napi::Value GetRegs(int fd, const Napi::CallbackInfo& info);
Napi::Value SetRegs(int fd, const Napi::CallbackInfo& info);
Napi::Value GetRegList(int fd, const Napi::CallbackInfo& info);
