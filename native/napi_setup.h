// The only include of <napi.h>: what every file of the addon must agree on is fixed here (and in binding.gyp, whose
// defines this file checks), so that no translation unit can see another N-API than its neighbour.
#pragma once

#include <napi.h>

#if NAPI_VERSION != 9
#error "NAPI_VERSION must be 9: the highest that every supported Node.js (20.19 and later) offers"
#endif
#ifndef NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#error "build with node_addon_api_except_all: any other C++ exception would abort the process"
#endif
