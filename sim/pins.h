// The pins of the test bench (tb.sv) as the DRAM model and the protocol checker see them: runs of
// 32-bit words.
//
// Every AXI4 port, port 0 first:
//   master: araddr[31:0] | awaddr[31:0] | awaddr[39:32] araddr[39:32] awlen arlen | flags | wstrb |
//           wdata...
//   slave:  flags | rdata...
// The AXI4-Lite port: flags | araddr awaddr | wdata | rdata
#pragma once

#include <cstdint>

namespace pins {

enum MasterWord { IN_ARADDR, IN_AWADDR, IN_HIGH, IN_FLAGS, IN_WSTRB, IN_WDATA };
enum SlaveWord { OUT_FLAGS, OUT_RDATA };
enum LiteWord { LITE_FLAGS, LITE_ADDRESS, LITE_WDATA, LITE_RDATA, LITE_WORDS };

// Bits of the master's flags.
constexpr uint32_t ARVALID = 1u << 0, RREADY = 1u << 1, AWVALID = 1u << 2, WVALID = 1u << 3,
                   WLAST = 1u << 4, BREADY = 1u << 5, ARID = 1u << 6, AWID = 1u << 7;
constexpr int ARSIZE = 8, AWSIZE = 11, ARBURST = 14, AWBURST = 16;

// Bits of the slave's flags.
constexpr uint32_t ARREADY = 1u << 0, RVALID = 1u << 1, RLAST = 1u << 2, RID = 1u << 3,
                   AWREADY = 1u << 6, WREADY = 1u << 7, BVALID = 1u << 8, BID = 1u << 9;
constexpr int RRESP = 4, BRESP = 10;

// Bits of the AXI4-Lite flags.
constexpr uint32_t L_AWVALID = 1u << 0, L_AWREADY = 1u << 1, L_WVALID = 1u << 2,
                   L_WREADY = 1u << 3, L_BVALID = 1u << 4, L_BREADY = 1u << 5,
                   L_ARVALID = 1u << 6, L_ARREADY = 1u << 7, L_RVALID = 1u << 8,
                   L_RREADY = 1u << 9;
constexpr int L_BRESP = 10, L_RRESP = 12;

constexpr uint32_t OKAY = 0, EXOKAY = 1, SLVERR = 2, DECERR = 3;

inline uint64_t read_address(const uint32_t* in) {
    return in[IN_ARADDR] | uint64_t(in[IN_HIGH] >> 16 & 0xFF) << 32;
}
inline uint64_t write_address(const uint32_t* in) {
    return in[IN_AWADDR] | uint64_t(in[IN_HIGH] >> 24) << 32;
}
inline int read_beats(const uint32_t* in) { return int(in[IN_HIGH] & 0xFF) + 1; }
inline int write_beats(const uint32_t* in) { return int(in[IN_HIGH] >> 8 & 0xFF) + 1; }

}  // namespace pins
