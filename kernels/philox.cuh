// Philox 4x32-10 and what is drawn from it, bit for bit as in gpucnn/random.py, whose head says how key and counter
// are made.
//
// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#pragma once

struct PhiloxWords {
    unsigned w[4];
};

// The cipher of one counter under key (k0, k1).
__device__ __forceinline__ PhiloxWords philox(PhiloxWords counter, unsigned k0, unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, counter.w[0]), low0 = 0xD2511F53u * counter.w[0];
        const unsigned high1 = __umulhi(0xCD9E8D57u, counter.w[2]), low1 = 0xCD9E8D57u * counter.w[2];
        counter = {{high1 ^ counter.w[1] ^ k0, low1, high0 ^ counter.w[3] ^ k1, low0}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

// Words 4 block .. 4 block + 3 of the stream (seed, step, purpose).
__device__ __forceinline__ PhiloxWords philox_block(
    unsigned long long block, unsigned long long seed, unsigned long long step, unsigned purpose) {
    const PhiloxWords counter = {{static_cast<unsigned>(block), (purpose << 16) | static_cast<unsigned>(block >> 32),
                                  static_cast<unsigned>(step), static_cast<unsigned>(step >> 32)}};
    return philox(counter, static_cast<unsigned>(seed), static_cast<unsigned>(seed >> 32));
}

// [0, 1) in multiples of 2^-24: both steps are exact.
__device__ __forceinline__ float philox_to_uniform(unsigned word) {
    return static_cast<float>(word >> 8) * 5.9604644775390625e-8f;
}

// MurmurHash3's finalizer.
__device__ __forceinline__ unsigned murmur_mix(unsigned h) {
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return h ^ (h >> 16);
}

constexpr int FEISTEL_ROUNDS = 12;

// Where the keyed permutation of 0 .. n-1 sends `index`: an alternating Feistel network on `width` bits, walked until
// it falls below n.
__device__ __forceinline__ unsigned long long philox_permute(
    unsigned long long index, unsigned long long n, int width, const unsigned (&round_keys)[FEISTEL_ROUNDS]) {
    const int low_width = width / 2;
    const unsigned low_mask = (1u << low_width) - 1, high_mask = (1u << (width - low_width)) - 1;  // width <= 62
    do {
        unsigned low = static_cast<unsigned>(index) & low_mask;
        unsigned high = static_cast<unsigned>(index >> low_width);
#pragma unroll
        for (int round = 0; round < FEISTEL_ROUNDS; round += 2) {
            low ^= murmur_mix(high ^ round_keys[round]) & low_mask;
            high ^= murmur_mix(low ^ round_keys[round + 1]) & high_mask;
        }
        index = low | (static_cast<unsigned long long>(high) << low_width);
    } while (index >= n);
    return index;
}
