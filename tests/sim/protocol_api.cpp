// The protocol checkers for ctypes: what was broken first, "channel rule", or an empty text.
#include "protocol.h"

namespace {

const char* told(const protocol::Violation& v) {
    static std::string text;
    text = v ? std::string(v.channel) + " " + v.rule : "";
    return text.c_str();
}

}  // namespace

extern "C" {

void* new_port(int bus_bytes, int most_beats) { return new protocol::Port(bus_bytes, most_beats); }

const char* clock_port(void* port, int running, const uint32_t* master, const uint32_t* slave) {
    auto* p = static_cast<protocol::Port*>(port);
    p->clock(running, master, slave);
    return told(p->found);
}

void* new_lite() { return new protocol::Lite; }

const char* clock_lite(void* lite, int running, const uint32_t* pins) {
    auto* l = static_cast<protocol::Lite*>(lite);
    l->clock(running, pins);
    return told(l->found);
}
}
