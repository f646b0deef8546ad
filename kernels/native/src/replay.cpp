// Calls of kernels, kept and made later in one go. See replay.h.
#include "replay.h"

#include <map>
#include <string>

namespace slipway {
namespace {

std::map<std::string, Invoke>& recordables() {
    static std::map<std::string, Invoke> all;
    return all;
}

struct Call {
    Invoke invoke;
    uint64_t words[kMaxArguments];
};

}  // namespace

Recordable::Recordable(const char* name, Invoke invoke) { recordables()[name] = invoke; }

}  // namespace slipway

extern "C" {

// What a kept call of this function begins with; null if there is no such function.
void* slipway_recordable(const char* name) {
    const auto found = slipway::recordables().find(name);
    return found == slipway::recordables().end() ? nullptr : reinterpret_cast<void*>(found->second);
}

void slipway_replay(const slipway::Call* calls, int64_t count) {
    for (int64_t index = 0; index < count; ++index) calls[index].invoke(calls[index].words);
}
}
