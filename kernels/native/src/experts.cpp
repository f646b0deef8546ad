// Mixtures of experts: which rows and which weights a product takes is only known when it runs.
//
// A choice is token * top_k + slot. Choices are sorted by expert, so that the rows of an expert lie together; only the
// weights of experts with rows are read. Work is shared out by panels of all experts in use:
//
//     expert  3      3      7                     a run: up to 192 rows of one expert
//     panel   0 1 …  0 1 …  0 1 …                 a piece of work: one panel times one run
//
// A sum goes over all of k in order, and a token's terms are added in the order of its slots, so that a token's result
// is the same in any batch, bit by bit.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "int8.h"
#include "pool.h"
#include "product.h"
#include "replay.h"
#include "rows.h"

namespace slipway {
namespace {

// A layout of weights: how a row of x is written to be multiplied with it, and what sums are worth.
template <typename K>
struct Exact {
    using Kind = K;
    using In = typename K::Element;

    const uint32_t* panels;

    Exact(const void* memory, int64_t, int64_t) : panels(static_cast<const uint32_t*>(memory)) {}
    static int64_t bytes(int64_t depth, int64_t columns) {
        return panels_of(columns) * kPanel * depth * static_cast<int64_t>(sizeof(In));
    }
    static const In* as_it_is(const In* row) { return row; }
    static float write_row(const In* row, int64_t depth, void* to) {
        std::memcpy(to, row, static_cast<size_t>(depth) * sizeof(In));
        return 1;
    }
    __m512 value(__m512 sums, int64_t, float) const { return sums; }
};

template <typename Element>
struct Quantized {
    using Kind = Int8;
    using In = Element;

    Int8Weight weight;
    const uint32_t* panels;

    Quantized(const void* memory, int64_t depth, int64_t columns)
        : weight(const_cast<void*>(memory), depth, columns), panels(reinterpret_cast<const uint32_t*>(weight.panels)) {}
    static int64_t bytes(int64_t depth, int64_t columns) { return Int8Weight::bytes(depth, columns); }
    static const In* as_it_is(const In*) { return nullptr; }
    static float write_row(const In* row, int64_t depth, void* to) {
        return quantize_row(row, depth, static_cast<uint8_t*>(to));
    }
    __m512 value(__m512i sums, int64_t column, float row_scale) const { return weight.value(sums, column, row_scale); }
};

// Choices by expert: those of expert e are order[starts[e]] … order[starts[e + 1] - 1].
struct Order {
    const int32_t* order;
    const int32_t* starts;
    int64_t experts;

    int64_t choices() const { return starts[experts]; }
};

struct Run {
    int64_t begin, rows, expert;
};

void list_runs(const Order& order, std::vector<Run>& runs) {
    runs.clear();
    for (int64_t expert = 0; expert < order.experts; ++expert)
        for (int64_t begin = order.starts[expert]; begin < order.starts[expert + 1]; begin += kRowBlock)
            runs.push_back({begin, std::min<int64_t>(kRowBlock, order.starts[expert + 1] - begin), expert});
}

// The rows of the run that a thread is at, written to be multiplied. A thread works on one run for many panels.
struct Written {
    uint64_t product = 0;
    int64_t run = -1;
    std::vector<uint32_t> words;
    float scales[kRowBlock];

    template <typename Layout, typename Rows>
    void write(const Run& run, int64_t depth, int64_t words_per_row, const Rows& rows) {
        words.resize(static_cast<size_t>(run.rows * words_per_row));
        for (int64_t row = 0; row < run.rows; ++row)
            scales[row] = Layout::write_row(rows(run.begin + row), depth, words.data() + row * words_per_row);
    }
};

// One product for all experts. rows(place) is the row of x of that place in the order; `adjoining` says that these lie
// one after another. put(place, expert, column, low, high) takes the values of a panel's first and last 16 columns.
template <typename Layout, typename Rows, typename Put>
void multiply_experts(const Order& order, int64_t depth, int64_t columns, const void* weights, bool adjoining,
                      const Rows& rows, const Put& put) {
    using Kind = typename Layout::Kind;
    static std::atomic<uint64_t> products{0};
    static thread_local std::vector<Run> listed;
    list_runs(order, listed);
    const std::vector<Run>& runs = listed;
    const uint64_t product = ++products;
    const int64_t panels = panels_of(columns), words = depth / Kind::kPerWord, stride = Layout::bytes(depth, columns);
    const auto matrix = [&](int64_t run) {
        return Layout(static_cast<const char*>(weights) + runs[run].expert * stride, depth, columns);
    };
    const int64_t pieces = static_cast<int64_t>(runs.size()) * panels;
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
        static thread_local Written written;
        for (int64_t piece = begin; piece < end; ++piece) {
            const int64_t index = piece / panels, panel = piece % panels, after = std::min(piece + 1, pieces - 1);
            const Run& run = runs[index];
            const auto* left = reinterpret_cast<const uint32_t*>(Layout::as_it_is(rows(run.begin)));
            if (!left || (run.rows > 1 && !adjoining)) {
                if (written.product != product || written.run != index) {
                    written.write<Layout>(run, depth, words, rows);
                    written.product = product;
                    written.run = index;
                }
                left = written.words.data();
            }
            const Layout from = matrix(index);
            multiply_panel<Kind>(
                left, run.rows, words, from.panels + panel * words * kPanel,
                matrix(after / panels).panels + after % panels * words * kPanel,
                [&](int64_t row, int64_t height, const typename Kind::Sum(&sums)[kMaxRows][2]) {
                    for (int64_t r = row; r < row + height; ++r) {
                        const __m512 low = from.value(sums[r - row][0], panel * kPanel, written.scales[r]);
                        const __m512 high = from.value(sums[r - row][1], panel * kPanel + kLanes, written.scales[r]);
                        put(run.begin + r, run.expert, panel * kPanel, low, high);
                    }
                });
        }
    });
}

struct Activation {
    float alpha, limit, offset;
};

// out[place] = gate * share(alpha * gate) * (up + offset) of the row at that place. A panel holds 16 columns of the gate
// and the 16 of the other half that they scale; biases are [experts, 2 * intermediate], the gate's half first.
template <typename Layout, typename Gate>
void gate_experts(const typename Layout::In* x, int64_t hidden, int64_t intermediate, const Order& order, int64_t top_k,
                  const void* weights, const typename Layout::In* biases, const Activation& activation,
                  typename Layout::In* out) {
    const __m512 alpha = _mm512_set1_ps(activation.alpha), most = _mm512_set1_ps(activation.limit);
    const __m512 least = _mm512_set1_ps(-activation.limit), offset = _mm512_set1_ps(activation.offset);
    const auto row_of = [&](int64_t place) { return x + order.order[place] / top_k * hidden; };
    multiply_experts<Layout>(
        order, hidden, 2 * intermediate, weights, false, row_of,
        [&](int64_t place, int64_t expert, int64_t column, __m512 gate, __m512 up) {
            const __mmask16 all = static_cast<__mmask16>(0xffff);
            if (biases) {
                const auto* bias = biases + expert * 2 * intermediate + column / 2;
                gate = _mm512_add_ps(gate, load(bias, all));
                up = _mm512_add_ps(up, load(bias + intermediate, all));
            }
            gate = _mm512_min_ps(most, gate);
            up = _mm512_min_ps(most, _mm512_max_ps(least, up));
            const __m512 through = _mm512_mul_ps(gate, Gate::share(_mm512_mul_ps(alpha, gate)));
            store(out + place * intermediate + column / 2, all, _mm512_mul_ps(through, _mm512_add_ps(up, offset)));
        });
}

// out[token] = sum over slots of weight * (gated @ down.T + bias), plus the residual. `terms` is [choices, hidden];
// each is rounded once before it is added.
template <typename Layout>
void join_experts(const typename Layout::In* gated, int64_t intermediate, int64_t hidden, const Order& order,
                  int64_t top_k, const void* weights, const typename Layout::In* biases, const float* shares,
                  const typename Layout::In* residual, typename Layout::In* terms, typename Layout::In* out) {
    const auto row_of = [&](int64_t place) { return gated + place * intermediate; };
    multiply_experts<Layout>(
        order, intermediate, hidden, weights, true, row_of,
        [&](int64_t place, int64_t expert, int64_t column, __m512 low, __m512 high) {
            const int64_t choice = order.order[place];
            const __m512 share = _mm512_set1_ps(shares[choice]);
            const __m512 halves[2] = {low, high};
            for (int half = 0; half < 2; ++half, column += kLanes) {
                if (column >= hidden) break;
                const __mmask16 mask = lanes(hidden - column);
                __m512 value = halves[half];
                if (biases) value = _mm512_add_ps(value, load(biases + expert * hidden + column, mask));
                store(terms + choice * hidden + column, mask, _mm512_mul_ps(value, share));
            }
        });
    for_rows(order.choices() / top_k, hidden * top_k, [&](int64_t token) {
        for_lanes(hidden, [&](int64_t i, __mmask16 mask) {
            __m512 sum = load(terms + token * top_k * hidden + i, mask);
            for (int64_t slot = 1; slot < top_k; ++slot)
                sum = _mm512_add_ps(sum, load(terms + (token * top_k + slot) * hidden + i, mask));
            if (residual) sum = _mm512_add_ps(sum, load(residual + token * hidden + i, mask));
            store(out + token * hidden + i, mask, sum);
        });
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

// starts is [num_experts + 1]; choices of one expert stay in order.
void slipway_sort_choices(const int32_t* experts, int64_t choices, int64_t num_experts, int32_t* order,
                          int32_t* starts) {
    std::fill(starts, starts + num_experts + 1, 0);
    for (int64_t choice = 0; choice < choices; ++choice) ++starts[experts[choice]];
    int32_t end = 0;
    for (int64_t expert = 0; expert < num_experts; ++expert) starts[expert] = end += starts[expert];
    starts[num_experts] = end;
    // Each start is at its run's end by now, and goes back to its beginning.
    for (int64_t choice = choices; choice-- > 0;) order[--starts[experts[choice]]] = static_cast<int32_t>(choice);
}

#define SLIPWAY_EXPERTS(suffix, Layout)                                                                               \
    void slipway_gate_experts_##suffix(const Layout::In* x, int64_t hidden, int64_t intermediate,                     \
                                       const int32_t* order, const int32_t* starts, int64_t num_experts,              \
                                       int64_t top_k, const void* weights, const Layout::In* biases, int64_t kind,    \
                                       float alpha, float limit, float offset, Layout::In* out) {                     \
        with_gate(kind, [&](auto gate) {                                                                              \
            gate_experts<Layout, decltype(gate)>(x, hidden, intermediate, Order{order, starts, num_experts}, top_k,   \
                                                 weights, biases, Activation{alpha, limit, offset}, out);             \
        });                                                                                                           \
    }                                                                                                                 \
    void slipway_join_experts_##suffix(const Layout::In* gated, int64_t intermediate, int64_t hidden,                 \
                                       const int32_t* order, const int32_t* starts, int64_t num_experts,              \
                                       int64_t top_k, const void* weights, const Layout::In* biases,                  \
                                       const float* shares, const Layout::In* residual, Layout::In* terms,            \
                                       Layout::In* out) {                                                             \
        join_experts<Layout>(gated, intermediate, hidden, Order{order, starts, num_experts}, top_k, weights, biases,  \
                             shares, residual, terms, out);                                                           \
    }

SLIPWAY_EXPERTS(f32, Exact<Float32>)
SLIPWAY_EXPERTS(bf16, Exact<BFloat16>)
SLIPWAY_EXPERTS(int8_f32, Quantized<float32>)
SLIPWAY_EXPERTS(int8_bf16, Quantized<bfloat16>)
}

SLIPWAY_RECORDABLE(slipway_sort_choices);
SLIPWAY_RECORDABLE(slipway_gate_experts_f32);
SLIPWAY_RECORDABLE(slipway_gate_experts_bf16);
SLIPWAY_RECORDABLE(slipway_gate_experts_int8_f32);
SLIPWAY_RECORDABLE(slipway_gate_experts_int8_bf16);
SLIPWAY_RECORDABLE(slipway_join_experts_f32);
SLIPWAY_RECORDABLE(slipway_join_experts_bf16);
SLIPWAY_RECORDABLE(slipway_join_experts_int8_f32);
SLIPWAY_RECORDABLE(slipway_join_experts_int8_bf16);
