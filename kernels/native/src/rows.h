// Work on rows of activations, shared out among the threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pool.h"
#include "vector.h"

namespace slipway {

template <typename Function>
void for_rows(int64_t rows, int64_t width, const Function& function) {
    parallel_for(rows, std::max<int64_t>(1, kElementsPerPiece / width), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) function(row);
    });
}

// out[i] = function(x[i]), sixteen at a time; out may be x.
template <typename Element, typename Function>
void map(const Element* x, int64_t count, Element* out, const Function& function) {
    parallel_for(count, kElementsPerPiece, [&](int64_t begin, int64_t end) {
        for_lanes(end - begin, [&](int64_t i, __mmask16 mask) {
            store(out + begin + i, mask, function(load(x + begin + i, mask)));
        });
    });
}

}  // namespace slipway
