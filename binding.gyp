# The native addon. Built by `node tools/build-addon.mjs`; not part of the published package, which carries prebuilds.
{
  'variables': {
    # Warnings fail our own builds (tools/build-addon.mjs passes -Dwarnings_as_errors=1). They do not fail others': a newer
    # compiler than ours finds new ones.
    'warnings_as_errors%': 0,
  },
  'targets': [
    {
      # build/Release/kvm-arm64.node, where node-gyp-build looks first.
      'target_name': 'kvm-arm64',
      'sources': [
        'native/addon.cc',
        'native/affinity.cc',
        'native/arguments.cc',
        'native/attributes.cc',
        'native/device.cc',
        'native/event.cc',
        'native/interrupt.cc',
        'native/mapping.cc',
        'native/memory.cc',
        'native/mmio.cc',
        'native/registers.cc',
        'native/rings.cc',
        'native/stats.cc',
        'native/system.cc',
        'native/vcpu.cc',
        'native/vcpu_thread.cc',
        'native/vm.cc',
      ],
      # C++ exceptions, and all of them: with plain node_addon_api_except one that is not a Napi::Error (std::bad_alloc)
      # would abort the process.
      'dependencies': ['<!(node -p "require(\'node-addon-api\').targets"):node_addon_api_except_all'],
      'defines': [
        # The highest version that every supported Node.js has; 10 needs 22.14.
        'NAPI_VERSION=9',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        # Throwing while worker.terminate() tears the worker down would otherwise abort the whole process.
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
        # Finalizers that could run JavaScript do not compile.
        'NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS',
      ],
      # Node's own; on a 64-bit machine all it does is to ask for open64 and mmap64, names that musl is giving up.
      'defines!': ['_FILE_OFFSET_BITS=64'],
      'cflags_cc': [
        # Pinned: Node's default follows its major version.
        '-std=c++20',
        # napi.h again as a system header, so that the warnings below are about our code only.
        '-isystem <!(node -p "path.dirname(require.resolve(\'node-addon-api/package.json\'))")',
        '-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow',
        # Only the module's entry points are to be seen from outside.
        '-fvisibility=hidden', '-fvisibility-inlines-hidden',
      ],
      'ldflags': [
        # Relocations are done at load and then read-only; no executable stack.
        '-Wl,-z,relro,-z,now', '-Wl,-z,noexecstack',
        # Never unloaded: Node.js calls dlclose() when a worker ends, but the signal handler stays installed.
        '-Wl,-z,nodelete',
      ],
      # Left out on purpose. One arm64 file has to load on every glibc from 2.28 on and on musl:
      #  -fstack-protector-strong needs __stack_chk_guard from ld-linux-aarch64.so.1, which musl does not have;
      #  -D_FORTIFY_SOURCE needs __*_chk functions, which musl does not have;
      #  -D_GLIBCXX_ASSERTIONS needs GLIBCXX_3.4.30 (GCC 12);
      #  -static-libstdc++ needs GLIBC_2.36.
      'conditions': [
        # Outline atomics ask the C library for __getauxval, which older musl does not have.
        ['target_arch=="arm64"', {'cflags_cc': ['-mno-outline-atomics']}],
        ['warnings_as_errors==1', {'cflags_cc': ['-Werror']}],
        # Node's own switch (node-gyp --asan=1 --ubsan=1): undefined behaviour is to fail the run, not only to be told.
        ['ubsan==1', {'cflags_cc': ['-fno-sanitize-recover=undefined']}],
        # Node's own switch too (node-gyp --tsan=1), which by itself only sets a define of V8's.
        ['tsan==1', {'cflags_cc': ['-fsanitize=thread'], 'ldflags': ['-fsanitize=thread']}],
        ['asan==1', {'defines': ['_GLIBCXX_ASSERTIONS']}],
      ],
      'configurations': {
        'Debug': {'defines': ['NODE_ADDON_API_ENABLE_TYPE_CHECK_ON_AS', '_GLIBCXX_ASSERTIONS']},
      },
    },
  ],
}
