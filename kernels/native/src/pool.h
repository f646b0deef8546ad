// The library's threads.
//
// One pool per process. The calling thread takes part in the work; the others wait for the next piece by spinning for
// some tens of microseconds, because a step calls about a hundred kernels in a row, and then sleep in the kernel, because
// a thread that spins while another process needs its core only prolongs the step.
#pragma once

#include <cstdint>

namespace slipway {

// Runs part(context, begin, end) over pieces of [0, count) on all threads and returns when every piece is done. Each
// thread starts on a contiguous share of its own, in steps of `grain`, and then helps the others with the end of theirs.
using Part = void (*)(void* context, int64_t begin, int64_t end);
void parallel(int64_t count, int64_t grain, Part part, void* context);

template <typename Function>
void parallel_for(int64_t count, int64_t grain, const Function& function) {
    parallel(count, grain,
             [](void* context, int64_t begin, int64_t end) { (*static_cast<const Function*>(context))(begin, end); },
             const_cast<Function*>(&function));
}

}  // namespace slipway
