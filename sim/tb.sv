// Test bench of the whole accelerator: `terntable` between cocotb (control port, clock, reset,
// interrupt) and the DRAM model. The model and the checker of the AXI protocol are called once a
// clock for all ports. PORTS, BUS_BITS and BURST_BEATS come from the configuration.
module tb;
  localparam P = `PORTS;
  localparam W = `BUS_BITS;
  localparam IN = 5 * 32 + W;   // bits of a port's master and slave pins, see pins.h
  localparam OUT = 32 + W;

  import "DPI-C" function void dram_clock(
    input int ports, input int bus_bytes, input bit running,
    input bit [P*IN-1:0] i, output bit [P*OUT-1:0] o);
  import "DPI-C" function void protocol_clock(
    input int ports, input int bus_bytes, input int most_beats, input bit running,
    input bit [P*IN-1:0] masters, input bit [P*OUT-1:0] slaves, input bit [127:0] lite,
    output bit broken);

  reg aclk /*verilator public_flat_rw*/;
  reg aresetn /*verilator public_flat_rw*/;
  wire irq /*verilator public_flat_rd*/;
  reg fault /*verilator public_flat_rd*/;  // the AXI protocol was broken
  reg [7:0] s_axil_awaddr /*verilator public_flat_rw*/;
  reg s_axil_awvalid /*verilator public_flat_rw*/;
  wire s_axil_awready /*verilator public_flat_rd*/;
  reg [31:0] s_axil_wdata /*verilator public_flat_rw*/;
  reg s_axil_wvalid /*verilator public_flat_rw*/;
  wire s_axil_wready /*verilator public_flat_rd*/;
  wire [1:0] s_axil_bresp /*verilator public_flat_rd*/;
  wire s_axil_bvalid /*verilator public_flat_rd*/;
  reg s_axil_bready /*verilator public_flat_rw*/;
  reg [7:0] s_axil_araddr /*verilator public_flat_rw*/;
  reg s_axil_arvalid /*verilator public_flat_rw*/;
  wire s_axil_arready /*verilator public_flat_rd*/;
  wire [31:0] s_axil_rdata /*verilator public_flat_rd*/;
  wire [1:0] s_axil_rresp /*verilator public_flat_rd*/;
  wire s_axil_rvalid /*verilator public_flat_rd*/;
  reg s_axil_rready /*verilator public_flat_rw*/;

  tri0 [P*IN-1:0] to_dram;  // bits that no pin drives are 0
  bit [P*OUT-1:0] next;
  bit broken;
  reg [P*OUT-1:0] from_dram;
  wire [127:0] lite = {
    s_axil_rdata, s_axil_wdata, 8'b0, s_axil_araddr, 8'b0, s_axil_awaddr,
    18'b0, s_axil_rresp, s_axil_bresp, s_axil_rready, s_axil_rvalid, s_axil_arready,
    s_axil_arvalid, s_axil_bready, s_axil_bvalid, s_axil_wready, s_axil_wvalid, s_axil_awready,
    s_axil_awvalid};
  always @(posedge aclk) begin
    protocol_clock(P, W / 8, `BURST_BEATS, aresetn, to_dram, from_dram, lite, broken);
    dram_clock(P, W / 8, aresetn, to_dram, next);
    fault <= broken;
    from_dram <= next;
  end

`define PORT(N) \
    .m_axi``N``_arid(to_dram[N*IN+96+6]), \
    .m_axi``N``_araddr({to_dram[N*IN+64+16+:8], to_dram[N*IN+:32]}), \
    .m_axi``N``_arlen(to_dram[N*IN+64+:8]), \
    .m_axi``N``_arsize(to_dram[N*IN+96+8+:3]), \
    .m_axi``N``_arburst(to_dram[N*IN+96+14+:2]), \
    .m_axi``N``_arvalid(to_dram[N*IN+96]), \
    .m_axi``N``_arready(from_dram[N*OUT]), \
    .m_axi``N``_rid(from_dram[N*OUT+3]), \
    .m_axi``N``_rdata(from_dram[N*OUT+32+:W]), \
    .m_axi``N``_rresp(from_dram[N*OUT+4+:2]), \
    .m_axi``N``_rlast(from_dram[N*OUT+2]), \
    .m_axi``N``_rvalid(from_dram[N*OUT+1]), \
    .m_axi``N``_rready(to_dram[N*IN+96+1]), \
    .m_axi``N``_awid(to_dram[N*IN+96+7]), \
    .m_axi``N``_awaddr({to_dram[N*IN+64+24+:8], to_dram[N*IN+32+:32]}), \
    .m_axi``N``_awlen(to_dram[N*IN+64+8+:8]), \
    .m_axi``N``_awsize(to_dram[N*IN+96+11+:3]), \
    .m_axi``N``_awburst(to_dram[N*IN+96+16+:2]), \
    .m_axi``N``_awvalid(to_dram[N*IN+96+2]), \
    .m_axi``N``_awready(from_dram[N*OUT+6]), \
    .m_axi``N``_wdata(to_dram[N*IN+160+:W]), \
    .m_axi``N``_wstrb(to_dram[N*IN+128+:W/8]), \
    .m_axi``N``_wlast(to_dram[N*IN+96+4]), \
    .m_axi``N``_wvalid(to_dram[N*IN+96+3]), \
    .m_axi``N``_wready(from_dram[N*OUT+7]), \
    .m_axi``N``_bid(from_dram[N*OUT+9]), \
    .m_axi``N``_bresp(from_dram[N*OUT+10+:2]), \
    .m_axi``N``_bvalid(from_dram[N*OUT+8]), \
    .m_axi``N``_bready(to_dram[N*IN+96+5])

  terntable dut (
    .aclk(aclk), .aresetn(aresetn), .irq(irq),
    .s_axil_awaddr(s_axil_awaddr), .s_axil_awprot(3'b0), .s_axil_awvalid(s_axil_awvalid),
    .s_axil_awready(s_axil_awready),
    .s_axil_wdata(s_axil_wdata), .s_axil_wstrb(4'hf), .s_axil_wvalid(s_axil_wvalid),
    .s_axil_wready(s_axil_wready),
    .s_axil_bresp(s_axil_bresp), .s_axil_bvalid(s_axil_bvalid), .s_axil_bready(s_axil_bready),
    .s_axil_araddr(s_axil_araddr), .s_axil_arprot(3'b0), .s_axil_arvalid(s_axil_arvalid),
    .s_axil_arready(s_axil_arready),
    .s_axil_rdata(s_axil_rdata), .s_axil_rresp(s_axil_rresp), .s_axil_rvalid(s_axil_rvalid),
    .s_axil_rready(s_axil_rready),
    `PORT(0)
`ifdef PORT1
    , `PORT(1)
`endif
`ifdef PORT2
    , `PORT(2)
`endif
`ifdef PORT3
    , `PORT(3)
`endif
  );
endmodule
