// The CPUs the calling thread may run on: sched_getaffinity(2), sched_setaffinity(2).
#pragma once

#include "napi_setup.h"

// Fills the mask with one bit for each CPU, little-endian, zeros behind them. Returns 0 or -errno.
Napi::Value GetAffinity(const Napi::CallbackInfo& info);
// Returns 0 or -errno.
Napi::Value SetAffinity(const Napi::CallbackInfo& info);
