#include "mapping.h"

#include <sys/mman.h>

Shared<Mapping> Mapping::Map(int fd, std::size_t size, std::size_t offset) {
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) return {};
  return Shared<Mapping>::Make(address, size);
}

Mapping::~Mapping() {
  if (!range_.IsShared()) return;
  // If there is no memory for this, the old mapping stays until the addresses are released.
  static_cast<void>(
      ::mmap(data(), size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
}

Mapping::Range::~Range() { ::munmap(address, size); }

void MappedBuffer::Publish(Napi::Object handle, const char* name, const Shared<Mapping>& mapping) {
  const napi_env env = handle.Env();
  hold_ = new Shared<Mapping>(mapping);
  napi_value buffer = nullptr;
  const napi_status status =
      napi_create_external_arraybuffer(env, mapping->data(), mapping->size(), ReleaseMapping, hold_, &buffer);
  if (status != napi_ok) {
    // For every failure except this one Node.js calls the finalizer itself.
    if (status == napi_no_external_buffers_allowed) delete hold_;
    hold_ = nullptr;
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    napi_value ignored;
    if (pending) napi_get_and_clear_last_exception(env, &ignored);
    buffer = handle.Env().Null();
  } else {
    auto* const hold = new Shared<Mapping::Range>(mapping->range_);
    if (napi_add_finalizer(env, buffer, hold, ReleaseRange, nullptr, nullptr) != napi_ok) delete hold;
  }
  handle.DefineProperty(Napi::PropertyDescriptor::Value(name, Napi::Value(env, buffer), napi_enumerable));
}

void MappedBuffer::Detach(Napi::Object handle, const char* name) {
  Shared<Mapping>* const hold = std::exchange(hold_, nullptr);
  if (hold == nullptr) return;
  Napi::ArrayBuffer buffer = handle.Get(name).As<Napi::ArrayBuffer>();
  // A buffer that is detached already was moved by ArrayBuffer.prototype.transfer(): the memory is reachable through
  // another ArrayBuffer now, which keeps the mapping until it is collected.
  if (buffer.IsDetached()) return;
  // Node.js runs the finalizer only on a later turn of the event loop; a script that opens and closes handles in a
  // synchronous loop must not pile up mappings until then. Bun and Deno run it within Detach(), which ends `hold`.
  const Shared<Mapping> last = std::move(*hold);
  buffer.Detach();
}

void MappedBuffer::ReleaseMapping(napi_env, void*, void* hold) { delete static_cast<Shared<Mapping>*>(hold); }

void MappedBuffer::ReleaseRange(napi_env, void* hold, void*) { delete static_cast<Shared<Mapping::Range>*>(hold); }
