// What lies between a fused projection and attention: norms of queries and keys, their rotation, and storage of keys and
// values in the cache, token by token. With norms all of it is computed in float32 and rounded once.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cache.h"
#include "pool.h"
#include "replay.h"
#include "vector.h"

namespace slipway {
namespace {

// The affine part of the norm of the queries or of the keys.
struct Affine {
    const void *weight, *bias;  // [head_dim] or [heads, head_dim]; a bias may be missing
    int64_t step;               // elements from one head's weights to the next one's
};

struct Norms {
    // As kernels/rotate_and_store/native.py has them.
    enum Flag : int64_t { kLayer = 1, kProjection = 2, kAfter = 4, kWide = 8, kOwnQueries = 16, kOwnKeys = 32 };

    Affine query, key;
    float epsilon;
    int64_t flags;

    bool any() const { return query.weight != nullptr; }
    bool has(Flag flag) const { return flags & flag; }
};

// Rotates the first 2 · half elements of each of `heads` heads: pairs (i, i + half), as GPT-NeoX pairs them.
template <typename Element>
inline void rotate(Element* x, int64_t heads, int64_t head_dim, int64_t half, const float* cosine, const float* sine) {
    for (int64_t head = 0; head < heads; ++head, x += head_dim)
        for_lanes(half, [&](int64_t i, __mmask16 mask) {
            const __m512 first = load(x + i, mask), second = load(x + half + i, mask);
            const __m512 c = load(cosine + i, mask), s = load(sine + i, mask);
            store(x + i, mask, _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s)));
            store(x + half + i, mask, _mm512_fmadd_ps(second, c, _mm512_mul_ps(first, s)));
        });
}

inline float sum_of(const float* x, int64_t width) {
    __m512 sum = _mm512_setzero_ps();
    for_lanes(width, [&](int64_t i, __mmask16 mask) { sum = _mm512_add_ps(sum, load(x + i, mask)); });
    return _mm512_reduce_add_ps(sum);
}

// The sum of the squares of what x is above `mean`.
inline float squares_of(const float* x, int64_t width, float mean) {
    const __m512 middle = _mm512_set1_ps(mean);
    __m512 squares = _mm512_setzero_ps();
    for_lanes(width, [&](int64_t i, __mmask16 mask) {
        const __m512 centred = _mm512_maskz_sub_ps(mask, load(x + i, mask), middle);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    });
    return _mm512_reduce_add_ps(squares);
}

// Normalises `heads` heads in place: each by itself, or all as one vector.
template <typename Weight>
void normalise(float* x, int64_t heads, int64_t head_dim, const Norms& norms, const Affine& affine) {
    const int64_t width = norms.has(Norms::kProjection) ? heads * head_dim : head_dim;
    __m512 middle = _mm512_setzero_ps(), factor = _mm512_setzero_ps();
    for (int64_t head = 0; head < heads; ++head, x += head_dim) {
        if (head == 0 || width == head_dim) {
            const float count = static_cast<float>(width);
            const float mean = norms.has(Norms::kLayer) ? sum_of(x, width) / count : 0;
            middle = _mm512_set1_ps(mean);
            factor = _mm512_set1_ps(1 / std::sqrt(squares_of(x, width, mean) / count + norms.epsilon));
        }
        const auto* weight = static_cast<const Weight*>(affine.weight) + head * affine.step;
        const auto* bias = affine.bias ? static_cast<const Weight*>(affine.bias) + head * affine.step : nullptr;
        for_lanes(head_dim, [&](int64_t i, __mmask16 mask) {
            const __m512 normalised = _mm512_mul_ps(_mm512_sub_ps(load(x + i, mask), middle), factor);
            const __m512 shift = bias ? load(bias + i, mask) : _mm512_setzero_ps();
            store(x + i, mask, _mm512_fmadd_ps(normalised, load(weight + i, mask), shift));
        });
    }
}

// The query and the key heads of one token, in place.
template <typename Weight>
void normalise_heads(float* x, const Shape& shape, const Norms& norms) {
    normalise<Weight>(x, shape.heads, shape.head_dim, norms, norms.query);
    normalise<Weight>(x + shape.heads * shape.head_dim, shape.kv_heads, shape.head_dim, norms, norms.key);
}

// Norm and rotation of a token's queries and keys, in place; `wide` holds them in float32 meanwhile.
template <typename Element>
void turn(Element* row, const Shape& shape, int64_t half, const float* cosine, const float* sine, const Norms& norms,
          std::vector<float>& wide) {
    const int64_t heads = shape.heads + shape.kv_heads, width = heads * shape.head_dim;
    wide.resize(static_cast<size_t>(width));
    float* x = wide.data();
    const auto apply = norms.has(Norms::kWide) ? normalise_heads<float32> : normalise_heads<Element>;
    for_lanes(width, [&](int64_t i, __mmask16 mask) { store(x + i, mask, load(row + i, mask)); });
    if (!norms.has(Norms::kAfter)) apply(x, shape, norms);
    rotate(x, heads, shape.head_dim, half, cosine, sine);
    if (norms.has(Norms::kAfter)) apply(x, shape, norms);
    for_lanes(width, [&](int64_t i, __mmask16 mask) { store(row + i, mask, load(x + i, mask)); });
}

// A token's keys and values, [kv_heads, head_dim] each and one behind the other, to their slot.
template <typename Kind>
void put(const typename Kind::Element* row, const Shape& shape, int64_t slot, typename Kind::Element* keys,
         typename Kind::Element* values) {
    constexpr int kPer = Kind::kPerWord;
    const int64_t head_dim = shape.head_dim, within = slot % shape.block_size, lane = within % kPanel;
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
        const int64_t panel =
            slot / shape.block_size * shape.block() + shape.kv_head(head) + (within - lane) * head_dim;
        const auto *key = row + head * head_dim, *value = row + (shape.kv_heads + head) * head_dim;
        for (int64_t word = 0; word < head_dim / kPer; ++word)
            std::copy_n(key + word * kPer, kPer, keys + panel + (word * kPanel + lane) * kPer);
        auto* to = values + panel + lane / kPer * kPer * head_dim + lane % kPer;
        for (int64_t i = 0; i < head_dim; ++i) to[i * kPer] = value[i];
    }
}

// Norms and rotates queries and keys in place and stores keys and values in the cache.
template <typename Kind>
void rotate_and_store(typename Kind::Element* qkv, int64_t tokens, const Shape& shape, int64_t half,
                      const float* cosine, const float* sine, const int64_t* slots, typename Kind::Element* keys,
                      typename Kind::Element* values, const Norms& norms) {
    const int64_t head_dim = shape.head_dim, width = (shape.heads + 2 * shape.kv_heads) * head_dim;
    parallel_for(tokens, std::max<int64_t>(1, kElementsPerPiece / 4 / width), [&](int64_t begin, int64_t end) {
        static thread_local std::vector<float> wide;
        for (int64_t token = begin; token < end; ++token) {
            auto* row = qkv + token * width;
            const float *c = cosine + token * half, *s = sine + token * half;
            if (norms.any())
                turn(row, shape, half, c, s, norms, wide);
            else
                rotate(row, shape.heads + shape.kv_heads, head_dim, half, c, s);
            put<Kind>(row + shape.heads * head_dim, shape, slots[token], keys, values);
        }
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

#define SLIPWAY_ROTATE_AND_STORE(suffix, Kind)                                                                         \
    void slipway_rotate_and_store_##suffix(                                                                            \
        Kind::Element* qkv, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t block_size,     \
        int64_t half, const float* cosine, const float* sine, const int64_t* slots, Kind::Element* keys,               \
        Kind::Element* values, const void* query_weight, const void* key_weight, const void* query_bias,               \
        const void* key_bias, float epsilon, int64_t flags) {                                                          \
        const int64_t query_step = flags & Norms::kOwnQueries ? head_dim : 0;                                          \
        const int64_t key_step = flags & Norms::kOwnKeys ? head_dim : 0;                                               \
        rotate_and_store<Kind>(                                                                                        \
            qkv, tokens, {heads, kv_heads, head_dim, block_size}, half, cosine, sine, slots, keys, values,             \
            {{query_weight, query_bias, query_step}, {key_weight, key_bias, key_step}, epsilon, flags});               \
    }

extern "C" {
SLIPWAY_ROTATE_AND_STORE(f32, Float32)
SLIPWAY_ROTATE_AND_STORE(bf16, BFloat16)
}

SLIPWAY_RECORDABLE(slipway_rotate_and_store_f32);
SLIPWAY_RECORDABLE(slipway_rotate_and_store_bf16);
