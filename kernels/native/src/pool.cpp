#include "pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace slipway {
namespace {

// Longer than the wait between two kernels of a step, shorter than what a scheduler's time slice costs.
constexpr int64_t kSpinNanoseconds = 60'000;

int64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

// A 32-bit value that threads wait on.
struct Signal {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> sleepers{0};

    // Returns when the value is no longer `old`.
    void wait_change(uint32_t old) {
        const int64_t deadline = now() + kSpinNanoseconds;
        do {
            for (int turn = 0; turn < 64; ++turn) {
                if (value.load(std::memory_order_acquire) != old) return;
                _mm_pause();
            }
        } while (now() < deadline);
        sleepers.fetch_add(1);
        while (value.load() == old) syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
        sleepers.fetch_sub(1);
    }

    void wake() {
        if (sleepers.load() != 0) syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
    }
};

// What is left of a thread's share: begin in the low half, end in the high half. The owner takes from the beginning and
// helpers take from the end, so that both go on through adjacent memory.
struct alignas(64) Share {
    std::atomic<uint64_t> range{0};

    static uint64_t pack(uint64_t begin, uint64_t end) { return end << 32 | begin; }

    bool take(bool from_front, uint64_t grain, int64_t* begin, int64_t* end) {
        uint64_t current = range.load(std::memory_order_relaxed);
        while (true) {
            const uint64_t first = current & 0xffffffffu, last = current >> 32;
            if (first >= last) return false;
            const uint64_t length = std::min(grain, last - first);
            const uint64_t rest = from_front ? pack(first + length, last) : pack(first, last - length);
            if (range.compare_exchange_weak(current, rest, std::memory_order_acq_rel)) {
                *begin = static_cast<int64_t>(from_front ? first : last - length);
                *end = *begin + static_cast<int64_t>(length);
                return true;
            }
        }
    }
};

class Pool {
  public:
    explicit Pool(int threads) : shares_(threads) {
        for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { work(index); });
    }

    ~Pool() {
        ended_ = true;
        work_.value.fetch_add(1);
        work_.wake();
        for (auto& worker : workers_) worker.join();
    }

    int size() const { return static_cast<int>(shares_.size()); }

    void run(int64_t count, int64_t grain, Part part, void* context) {
        const int64_t pieces = (count + grain - 1) / grain;
        if (size() == 1 || pieces == 1) {
            part(context, 0, count);
            return;
        }
        part_ = part;
        context_ = context;
        grain_ = static_cast<uint64_t>(grain);
        for (int64_t index = 0; index < size(); ++index) {
            const int64_t begin = pieces * index / size() * grain, end = pieces * (index + 1) / size() * grain;
            shares_[index].range.store(Share::pack(begin, std::min(end, count)), std::memory_order_relaxed);
        }
        busy_.value.store(static_cast<uint32_t>(size() - 1), std::memory_order_relaxed);
        work_.value.fetch_add(1);
        work_.wake();
        help(0);
        for (uint32_t left; (left = busy_.value.load(std::memory_order_acquire)) != 0;) busy_.wait_change(left);
    }

  private:
    void work(int index) {
        uint32_t seen = 0;
        while (true) {
            work_.wait_change(seen);
            ++seen;
            if (ended_) return;
            help(index);
            busy_.value.fetch_sub(1);
            busy_.wake();
        }
    }

    void help(int index) {
        int64_t begin, end;
        while (shares_[index].take(true, grain_, &begin, &end)) part_(context_, begin, end);
        for (int other = 1; other < size(); ++other) {
            Share& share = shares_[(index + other) % size()];
            while (share.take(false, grain_, &begin, &end)) part_(context_, begin, end);
        }
    }

    std::vector<Share> shares_;
    std::vector<std::thread> workers_;
    Signal work_, busy_;
    Part part_ = nullptr;
    void* context_ = nullptr;
    uint64_t grain_ = 1;
    std::atomic<bool> ended_{false};
};

std::unique_ptr<Pool> pool;

}  // namespace

void parallel(int64_t count, int64_t grain, Part part, void* context) {
    if (count <= 0) return;
    if (!pool) {
        part(context, 0, count);
        return;
    }
    pool->run(count, grain, part, context);
}

}  // namespace slipway

// Sets how many threads the kernels use, the caller's included; not while a kernel runs.
extern "C" void slipway_set_threads(int threads) {
    slipway::pool.reset();
    slipway::pool = std::make_unique<slipway::Pool>(std::max(1, threads));
}

extern "C" int slipway_threads() { return slipway::pool ? slipway::pool->size() : 1; }
