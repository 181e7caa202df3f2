// Checks of AXI4 and AXI4-Lite, on both sides of a port, from the pins at every clock edge.
#pragma once

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <string>
#include <vector>

#include "pins.h"

namespace protocol {

// What was broken first, or empty: channel, rule, details.
struct Violation {
    const char* channel = nullptr;
    const char* rule = nullptr;
    std::string details;

    explicit operator bool() const { return channel != nullptr; }
};

// An offer that no ready has answered: it must stand, unchanged.
class Offer {
  public:
    explicit Offer(const char* channel) : channel_(channel) {}
    // `payload` and `data` are the channel's state at this edge. `fresh`: the first edge after a
    // reset.
    void clock(bool valid, bool ready, std::initializer_list<uint32_t> payload,
               const uint32_t* data, int words, bool fresh, Violation& found);

  private:
    const char* channel_;
    bool waiting_ = false;
    std::vector<uint32_t> now_, before_;
};

// One AXI4 port. Bursts longer than `most_beats` are too long, whatever AXI allows.
class Port {
  public:
    Port(int bus_bytes, int most_beats);
    // The pins before an edge. The first violation since the reset is in `found`.
    void clock(bool running, const uint32_t* master, const uint32_t* slave);
    Violation found;

  private:
    struct Burst {
        uint64_t address;
        int beats, size, type;
        uint32_t id;
        int beat = 0;
    };
    struct Beat { uint32_t strobes; bool last; };

    Burst burst(const char* channel, uint64_t address, int beats, int size, int type, uint32_t id);
    void lanes(const Burst& b, uint32_t strobes);
    void match_writes();
    void fail(const char* channel, const char* rule, const std::string& details);

    int bus_bytes_, most_beats_;
    bool fresh_ = true;
    Offer ar_{"AR"}, r_{"R"}, aw_{"AW"}, w_{"W"}, b_{"B"};
    std::deque<Burst> reads_, writes_;
    std::deque<Beat> beats_;  // sent, of bursts whose address is still to come
    std::deque<uint32_t> unanswered_;  // identifiers of written bursts
};

// The AXI4-Lite port.
class Lite {
  public:
    void clock(bool running, const uint32_t* pins);
    Violation found;

  private:
    void fail(const char* channel, const char* rule, const std::string& details);

    bool fresh_ = true;
    Offer ar_{"AR"}, r_{"R"}, aw_{"AW"}, w_{"W"}, b_{"B"};
    int addresses_ = 0, words_ = 0, reads_ = 0;  // taken and not answered
};

}  // namespace protocol
