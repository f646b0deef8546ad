// How the paged key/value cache lies in memory.
//
// A block of the cache holds, per KV head, panels of 32 tokens in the layouts that the two products of attention read,
// where a word is one float or two bfloat16:
//
//     keys    [panel][word of head_dim][token][value]       scores = query · keys, 32 tokens wide
//     values  [panel][word of tokens][head_dim][value]      output = probabilities · values, head_dim wide
#pragma once

#include <cstdint>

#include "tile.h"

namespace slipway {

struct Shape {
    int64_t heads, kv_heads, head_dim, block_size;

    int64_t group() const { return heads / kv_heads; }
    // Elements between the starts of two panels, and of two blocks.
    int64_t panel() const { return kPanel * head_dim; }
    int64_t block() const { return block_size * kv_heads * head_dim; }
    int64_t kv_head(int64_t head) const { return head * block_size * head_dim; }
};

}  // namespace slipway
