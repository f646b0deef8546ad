// Weights brought into the panels that products read; see product.h.
#include <algorithm>
#include <vector>

#include "int8.h"
#include "pool.h"
#include "product.h"
#include "tile.h"

namespace slipway {
namespace {

template <typename Kind>
void pack(const typename Kind::Element* weight, int64_t rows, int64_t depth, typename Kind::Element* packed) {
    constexpr int per = Kind::kPerWord;
    const int64_t panels = panels_of(rows);
    parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
            auto* to = packed + panel * kPanel * depth;
            for (int64_t column = 0; column < kPanel; ++column) {
                const int64_t row = panel * kPanel + column;
                for (int64_t k = 0; k < depth; k += per)
                    for (int value = 0; value < per; ++value)
                        to[(k / per * kPanel + column) * per + value] =
                            row < rows ? weight[row * depth + k + value] : typename Kind::Element{};
            }
        }
    });
}

template <typename In>
void pack_int8(const In* weight, int64_t rows, int64_t depth, void* packed) {
    const Int8Weight to(packed, depth, rows);
    parallel_for(panels_of(rows), 1, [&](int64_t begin, int64_t end) {
        std::vector<uint8_t> values(static_cast<size_t>(depth));
        for (int64_t column = begin * kPanel; column < end * kPanel; ++column) {
            std::fill(values.begin(), values.end(), kZeroPoint);
            to.scales[column] = column < rows ? quantize_row(weight + column * depth, depth, values.data()) : 0;
            int8_t* panel = to.panels + column / kPanel * kPanel * depth + column % kPanel * 4;
            int32_t sum = 0;
            for (int64_t k = 0; k < depth; ++k) {
                const int value = values[static_cast<size_t>(k)] - kZeroPoint;
                panel[k / 4 * kPanel * 4 + k % 4] = static_cast<int8_t>(value);
                sum += value;
            }
            to.offsets[column] = sum * kZeroPoint;
        }
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

void slipway_pack_f32(const float32* weight, int64_t rows, int64_t depth, float32* packed) {
    pack<Float32>(weight, rows, depth, packed);
}
void slipway_pack_bf16(const bfloat16* weight, int64_t rows, int64_t depth, bfloat16* packed) {
    pack<BFloat16>(weight, rows, depth, packed);
}
void slipway_pack_int8_f32(const float32* weight, int64_t rows, int64_t depth, void* packed) {
    pack_int8(weight, rows, depth, packed);
}
void slipway_pack_int8_bf16(const bfloat16* weight, int64_t rows, int64_t depth, void* packed) {
    pack_int8(weight, rows, depth, packed);
}
}
