// The parts of liblz4 and zlib that Verilator's waveform writer calls, so that waves need no
// system library: LZ4 blocks with a greedy match search, and zlib streams of stored blocks.
#include <cstdint>
#include <cstring>
#include <vector>

#include "codec.h"

namespace {

constexpr int MIN_MATCH = 4, LAST_LITERALS = 5, MATCH_LIMIT = 12, HASH_BITS = 14;

uint32_t load32(const uint8_t* at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

struct Output {
    uint8_t* at;
    uint8_t* end;
    bool full = false;

    void put(uint8_t byte) {
        if (at < end) *at++ = byte;
        else full = true;
    }
    void length(int rest) {
        for (; rest >= 255; rest -= 255) put(255);
        put(uint8_t(rest));
    }
};

// One sequence: literals, then a match unless `match` is 0.
void sequence(Output& o, const uint8_t* literals, int count, int offset, int match) {
    const int extra = match - MIN_MATCH;
    o.put(uint8_t((count < 15 ? count : 15) << 4 | (match ? (extra < 15 ? extra : 15) : 0)));
    if (count >= 15) o.length(count - 15);
    for (int i = 0; i < count; ++i) o.put(literals[i]);
    if (!match) return;
    o.put(uint8_t(offset));
    o.put(uint8_t(offset >> 8));
    if (extra >= 15) o.length(extra - 15);
}

}  // namespace

int LZ4_compressBound(int size) { return size + size / 255 + 16; }

int LZ4_compress_default(const char* from, char* to, int size, int capacity) {
    const auto* in = reinterpret_cast<const uint8_t*>(from);
    Output o{reinterpret_cast<uint8_t*>(to), reinterpret_cast<uint8_t*>(to) + capacity};
    std::vector<int> seen(size_t(1) << HASH_BITS, -1);
    int anchor = 0, at = 0;
    while (at + MATCH_LIMIT < size) {
        int& slot = seen[load32(in + at) * 2654435761u >> (32 - HASH_BITS)];
        const int candidate = slot;
        slot = at;
        if (candidate < 0 || at - candidate > 65535 || load32(in + candidate) != load32(in + at)) {
            ++at;
            continue;
        }
        int match = MIN_MATCH;
        while (at + match < size - LAST_LITERALS && in[candidate + match] == in[at + match]) ++match;
        sequence(o, in + anchor, at - anchor, at - candidate, match);
        at += match;
        anchor = at;
    }
    sequence(o, in + anchor, size - anchor, 0, 0);
    return o.full ? 0 : int(o.at - reinterpret_cast<uint8_t*>(to));
}

uLong compressBound(uLong size) { return size + 5 * (size / 65535 + 1) + 6; }

int compress2(Bytef* to, uLongf* capacity, const Bytef* from, uLong size, int) {
    Output o{to, to + *capacity};
    o.put(0x78);
    o.put(0x01);
    uLong at = 0;
    do {
        const unsigned n = unsigned(size - at < 65535 ? size - at : 65535);
        o.put(at + n == size);
        o.put(uint8_t(n));
        o.put(uint8_t(n >> 8));
        o.put(uint8_t(~n));
        o.put(uint8_t(~n >> 8));
        for (unsigned i = 0; i < n; ++i) o.put(from[at + i]);
        at += n;
    } while (at < size);
    uint32_t a = 1, b = 0;  // Adler-32
    for (uLong i = 0; i < size; ++i) {
        a = (a + from[i]) % 65521;
        b = (b + a) % 65521;
    }
    for (int shift = 8; shift >= 0; shift -= 8) o.put(uint8_t(b >> shift));
    for (int shift = 8; shift >= 0; shift -= 8) o.put(uint8_t(a >> shift));
    *capacity = uLong(o.at - to);
    return o.full ? Z_BUF_ERROR : Z_OK;
}
