#include "protocol.h"

#include <cstdarg>
#include <cstdio>

namespace protocol {
namespace {

using namespace pins;

enum BurstType { FIXED, INCR, WRAP };

std::string text(const char* format, ...) {
    char buffer[160];
    va_list values;
    va_start(values, format);
    vsnprintf(buffer, sizeof buffer, format, values);
    va_end(values);
    return buffer;
}

}  // namespace

void Offer::clock(bool valid, bool ready, std::initializer_list<uint32_t> payload,
                  const uint32_t* data, int words, bool fresh, Violation& found) {
    if (!valid && !waiting_) return;
    now_.assign(payload);
    now_.insert(now_.end(), data, data + words);
    if (!found) {
        if (fresh && valid) {
            found = {channel_, "reset", "valid at the first edge after the reset"};
        } else if (waiting_ && !valid) {
            found = {channel_, "held", "valid fell before ready"};
        } else if (waiting_ && now_ != before_) {
            found = {channel_, "stable", "the payload changed before ready"};
        }
    }
    waiting_ = valid && !ready;
    if (waiting_) before_.swap(now_);
}

Port::Port(int bus_bytes, int most_beats) : bus_bytes_(bus_bytes), most_beats_(most_beats) {}

void Port::fail(const char* channel, const char* rule, const std::string& details) {
    if (!found) found = {channel, rule, details};
}

void Port::clock(bool running, const uint32_t* in, const uint32_t* out) {
    if (!running) {
        if (!fresh_) *this = Port(bus_bytes_, most_beats_);
        return;
    }
    const uint32_t m = in[IN_FLAGS], s = out[OUT_FLAGS];
    const int words = bus_bytes_ / 4;

    ar_.clock(m & ARVALID, s & ARREADY,
              {in[IN_ARADDR], in[IN_HIGH] & 0x00FF00FF, m & (ARID | 7u << ARSIZE | 3u << ARBURST)},
              nullptr, 0, fresh_, found);
    aw_.clock(m & AWVALID, s & AWREADY,
              {in[IN_AWADDR], in[IN_HIGH] & 0xFF00FF00, m & (AWID | 7u << AWSIZE | 3u << AWBURST)},
              nullptr, 0, fresh_, found);
    w_.clock(m & WVALID, s & WREADY, {in[IN_WSTRB], m & WLAST}, in + IN_WDATA, words, fresh_,
             found);
    r_.clock(s & RVALID, m & RREADY, {s & (RLAST | RID | 3u << RRESP)}, out + OUT_RDATA, words,
             fresh_, found);
    b_.clock(s & BVALID, m & BREADY, {s & (BID | 3u << BRESP)}, nullptr, 0, fresh_, found);
    fresh_ = false;

    // Answers belong to what was taken at earlier edges.
    if (s & RVALID) {
        if (reads_.empty()) {
            fail("R", "order", "data that nobody asked for");
        } else {
            Burst& b = reads_.front();
            const bool last = b.beat + 1 == b.beats;
            if (((s & RID) != 0) != (b.id != 0)) fail("R", "order", "another burst's identifier");
            if (((s & RLAST) != 0) != last) {
                fail("R", "last", text("rlast at beat %d of %d", b.beat + 1, b.beats));
            }
            if ((s >> RRESP & 3) == EXOKAY) fail("R", "response", "EXOKAY to a normal access");
            if ((m & RREADY) && ++b.beat == b.beats) reads_.pop_front();
        }
    }
    if (s & BVALID) {
        if (unanswered_.empty()) {
            fail("B", "order", "an answer before the burst was written");
        } else {
            if (((s & BID) != 0) != (unanswered_.front() != 0)) {
                fail("B", "order", "another burst's identifier");
            }
            if ((s >> BRESP & 3) == EXOKAY) fail("B", "response", "EXOKAY to a normal access");
            if (m & BREADY) unanswered_.pop_front();
        }
    }
    if ((m & ARVALID) && (s & ARREADY)) {
        reads_.push_back(burst("AR", read_address(in), read_beats(in), m >> ARSIZE & 7,
                               m >> ARBURST & 3, m & ARID));
    }
    if ((m & AWVALID) && (s & AWREADY)) {
        writes_.push_back(burst("AW", write_address(in), write_beats(in), m >> AWSIZE & 7,
                                m >> AWBURST & 3, m & AWID));
    }
    if ((m & WVALID) && (s & WREADY)) beats_.push_back({in[IN_WSTRB], (m & WLAST) != 0});
    match_writes();
}

Port::Burst Port::burst(const char* channel, uint64_t address, int beats, int size, int type,
                        uint32_t id) {
    const uint64_t bytes = 1ull << size;
    const std::string what = text("%d beats of %d bytes at 0x%llx", beats, int(bytes),
                                  static_cast<unsigned long long>(address));
    if (int(bytes) > bus_bytes_) fail(channel, "size", what + ", wider than the bus");
    if (type > WRAP) fail(channel, "type", what + ", of a type that is reserved");
    if (beats > most_beats_) {
        fail(channel, "length", what + text(", more than the %d of a burst", most_beats_));
    }
    if (type == FIXED && beats > 16) fail(channel, "length", what + ", fixed");
    if (type == WRAP) {
        if (beats != 2 && beats != 4 && beats != 8 && beats != 16) {
            fail(channel, "length", what + ", wrapping");
        }
        if (address % bytes) fail(channel, "alignment", what + ", wrapping");
    }
    const uint64_t first = address & ~(bytes - 1), end = first + beats * bytes - 1;
    if (type == INCR && (first ^ end) >> 12) fail(channel, "4KiB", what);
    return {address, beats, size, type, id};
}

void Port::match_writes() {
    while (!writes_.empty() && !beats_.empty()) {
        Burst& b = writes_.front();
        lanes(b, beats_.front().strobes);
        const bool last = b.beat + 1 == b.beats;
        if (beats_.front().last != last) {
            fail("W", "last", text("wlast at beat %d of %d", b.beat + 1, b.beats));
        }
        beats_.pop_front();
        ++b.beat;
        if (last) {
            unanswered_.push_back(b.id);
            writes_.pop_front();
        }
    }
}

void Port::lanes(const Burst& b, uint32_t strobes) {
    const uint64_t bytes = 1ull << b.size, start = b.address & ~(bytes - 1);
    uint64_t at = b.type == FIXED ? start : start + b.beat * bytes;
    if (b.type == WRAP) {
        const uint64_t block = bytes * b.beats;
        at = (start & ~(block - 1)) + (start + b.beat * bytes) % block;
    }
    uint64_t first = at % bus_bytes_;
    const uint64_t end = first + bytes;
    if (b.beat == 0 || b.type == FIXED) first += b.address % bytes;
    const uint64_t allowed = (1ull << end) - (1ull << first);
    if (strobes & ~allowed) {
        fail("W", "strobes", text("0x%x in beat %d, lanes %d to %d belong to it", strobes,
                                  b.beat + 1, int(first), int(end) - 1));
    }
}

void Lite::fail(const char* channel, const char* rule, const std::string& details) {
    if (!found) found = {channel, rule, details};
}

void Lite::clock(bool running, const uint32_t* at) {
    if (!running) {
        if (!fresh_) *this = Lite();
        return;
    }
    const uint32_t f = at[LITE_FLAGS];
    const uint32_t addresses = at[LITE_ADDRESS];
    aw_.clock(f & L_AWVALID, f & L_AWREADY, {addresses & 0xFFFF}, nullptr, 0, fresh_, found);
    w_.clock(f & L_WVALID, f & L_WREADY, {at[LITE_WDATA]}, nullptr, 0, fresh_, found);
    b_.clock(f & L_BVALID, f & L_BREADY, {f & 3u << L_BRESP}, nullptr, 0, fresh_, found);
    ar_.clock(f & L_ARVALID, f & L_ARREADY, {addresses >> 16}, nullptr, 0, fresh_, found);
    r_.clock(f & L_RVALID, f & L_RREADY, {at[LITE_RDATA], f & 3u << L_RRESP}, nullptr, 0, fresh_,
             found);
    fresh_ = false;

    if (f & L_BVALID) {
        if (!addresses_ || !words_) fail("B", "order", "an answer before address and data");
        if ((f >> L_BRESP & 3) == EXOKAY) fail("B", "response", "EXOKAY is not of AXI4-Lite");
        if ((f & L_BREADY) && addresses_ && words_) --addresses_, --words_;
    }
    if (f & L_RVALID) {
        if (!reads_) fail("R", "order", "data that nobody asked for");
        if ((f >> L_RRESP & 3) == EXOKAY) fail("R", "response", "EXOKAY is not of AXI4-Lite");
        if ((f & L_RREADY) && reads_) --reads_;
    }
    if ((f & L_AWVALID) && (f & L_AWREADY)) ++addresses_;
    if ((f & L_WVALID) && (f & L_WREADY)) ++words_;
    if ((f & L_ARVALID) && (f & L_ARREADY)) ++reads_;
}

namespace {

// All ports of a design; the first violation is told once.
class Bench {
  public:
    Bench(int ports, int bus_bytes, int most_beats)
        : ports_(ports, Port(bus_bytes, most_beats)), words_(bus_bytes / 4) {}

    bool clock(bool running, const uint32_t* masters, const uint32_t* slaves,
               const uint32_t* lite) {
        ++cycle_;
        if (!running) told_ = false;
        int number = 0;
        for (Port& port : ports_) {
            port.clock(running, masters, slaves);
            if (port.found) tell(text("m_axi%d", number), port.found);
            masters += IN_WDATA + words_;
            slaves += OUT_RDATA + words_;
            ++number;
        }
        lite_.clock(running, lite);
        if (lite_.found) tell("s_axil", lite_.found);
        return told_;
    }

  private:
    void tell(const std::string& port, const Violation& v) {
        if (told_) return;
        told_ = true;
        fprintf(stderr, "AXI protocol: port %s, channel %s, rule %s, cycle %lld: %s\n",
                port.c_str(), v.channel, v.rule, static_cast<long long>(cycle_),
                v.details.c_str());
    }

    std::vector<Port> ports_;
    Lite lite_;
    const int words_;
    int64_t cycle_ = 0;
    bool told_ = false;
};

}  // namespace
}  // namespace protocol

// The test bench calls this at every edge, with the pins before it. `broken` is high from a violation
// on, until a reset.
extern "C" void protocol_clock(int ports, int bus_bytes, int most_beats, unsigned char running,
                    const uint32_t* masters, const uint32_t* slaves, const uint32_t* lite,
                    unsigned char* broken) {
    static protocol::Bench bench(ports, bus_bytes, most_beats);
    *broken = bench.clock(running, masters, slaves, lite);
}
