// Kernels that can be called later: a call is kept as its function and up to 20 words of arguments, so that the calls of a
// whole forward pass can be made without going back to the caller between them.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace slipway {

constexpr int kMaxArguments = 20;

using Invoke = void (*)(const uint64_t* words);

template <typename Argument>
Argument decode(uint64_t word) {
    Argument argument;
    static_assert(sizeof(Argument) <= sizeof(word));
    std::memcpy(&argument, &word, sizeof(Argument));
    return argument;
}

template <auto kFunction>
struct Invoker;

template <typename... Arguments, void (*kFunction)(Arguments...)>
struct Invoker<kFunction> {
    static_assert(sizeof...(Arguments) <= kMaxArguments);

    static void invoke(const uint64_t* words) { invoke(words, std::index_sequence_for<Arguments...>()); }

    template <size_t... kIndex>
    static void invoke(const uint64_t* words, std::index_sequence<kIndex...>) {
        kFunction(decode<Arguments>(words[kIndex])...);
    }
};

// Lets a function be found by its name; defines one at namespace scope.
struct Recordable {
    Recordable(const char* name, Invoke invoke);
};

}  // namespace slipway

#define SLIPWAY_RECORDABLE(name) static const slipway::Recordable recordable_##name(#name, slipway::Invoker<name>::invoke)
