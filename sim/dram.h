// A DRAM behind AXI4 ports: bandwidth, latency, stalls and errors, over a memory-mapped file.
//
// One call a clock for all ports. Inputs are the pins before the edge, outputs the pins after it.
// Every port is a flat run of 32-bit words, port 0 first:
//   in:  araddr[31:0] | awaddr[31:0] | awaddr[39:32] araddr[39:32] awlen arlen | flags | wstrb |
//        wdata...
//   out: flags | rdata...
#pragma once

#include <cstdint>

namespace dram {

enum InWord { IN_ARADDR, IN_AWADDR, IN_HIGH, IN_FLAGS, IN_WSTRB, IN_WDATA };
enum OutWord { OUT_FLAGS, OUT_RDATA };

// Bits of the input flags.
constexpr uint32_t ARVALID = 1u << 0, RREADY = 1u << 1, AWVALID = 1u << 2, WVALID = 1u << 3,
                   WLAST = 1u << 4, BREADY = 1u << 5, ARID = 1u << 6, AWID = 1u << 7;
constexpr int ARSIZE = 8, AWSIZE = 11, ARBURST = 14, AWBURST = 16;

// Bits of the output flags.
constexpr uint32_t ARREADY = 1u << 0, RVALID = 1u << 1, RLAST = 1u << 2, RID = 1u << 3,
                   AWREADY = 1u << 6, WREADY = 1u << 7, BVALID = 1u << 8, BID = 1u << 9,
                   FAULT = 1u << 12;
constexpr int RRESP = 4, BRESP = 10;

constexpr uint32_t OKAY = 0, SLVERR = 2, DECERR = 3;

}  // namespace dram
