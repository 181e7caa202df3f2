// One accelerator between a memory and a list of register accesses, for a four-state simulator.
// Whatever the accelerator says with a valid signal must be known: an x on a handshake, or in what
// goes with it, ends the simulation with a line that begins with "x:".
//
// memory.hex   32-bit words of the image, read and, as result.hex, written
// writes.hex   address and value of register writes, in order; the last one starts the call
// reads.hex    addresses of the registers that are printed after the interrupt
`timescale 1ns/1ps

`define KNOWN(WHAT, BITS) \
  if ((^BITS) === 1'bx) begin \
    $display("x: %s", WHAT); \
    $finish; \
  end

module bench;
  parameter WORDS = 1024;
  parameter WRITES = 1;
  parameter READS = 1;
  parameter LIMIT = 1;  // cycles
  localparam W = `BUS_BITS;

  reg aclk = 0, aresetn = 0;
  always #5 aclk = ~aclk;

  reg [31:0] memory[0:WORDS-1];
  reg [39:0] writes[0:WRITES-1];
  reg [7:0] reads[0:READS-1];

  wire irq;
  reg [7:0] awaddr = 0, araddr = 0;
  reg [31:0] wdata = 0;
  reg awvalid = 0, wvalid = 0, arvalid = 0;
  wire awready, wready, bvalid, arready, rvalid;
  wire [1:0] bresp, rresp;
  wire [31:0] rdata;

`define PORT(N) \
  wire [39:0] araddr``N, awaddr``N; \
  wire [7:0] arlen``N, awlen``N; \
  wire [W-1:0] rdata``N, wdata``N; \
  wire [W/8-1:0] wstrb``N; \
  wire arvalid``N, arready``N, rlast``N, rvalid``N, rready``N; \
  wire awvalid``N, awready``N, wvalid``N, wready``N, wlast``N, bvalid``N, bready``N; \
  slave #(W, N) slave``N( \
      aclk, aresetn, araddr``N, arlen``N, arvalid``N, arready``N, rdata``N, rlast``N, rvalid``N, \
      rready``N, awaddr``N, awlen``N, awvalid``N, awready``N, wdata``N, wstrb``N, wlast``N, \
      wvalid``N, wready``N, bvalid``N, bready``N);
`define PINS(N) \
    .m_axi``N``_araddr(araddr``N), .m_axi``N``_arlen(arlen``N), .m_axi``N``_arvalid(arvalid``N), \
    .m_axi``N``_arready(arready``N), .m_axi``N``_rdata(rdata``N), .m_axi``N``_rlast(rlast``N), \
    .m_axi``N``_rresp(2'b0), .m_axi``N``_rid(1'b0), .m_axi``N``_rvalid(rvalid``N), \
    .m_axi``N``_rready(rready``N), .m_axi``N``_awaddr(awaddr``N), .m_axi``N``_awlen(awlen``N), \
    .m_axi``N``_awvalid(awvalid``N), .m_axi``N``_awready(awready``N), .m_axi``N``_wdata(wdata``N), \
    .m_axi``N``_wstrb(wstrb``N), .m_axi``N``_wlast(wlast``N), .m_axi``N``_wvalid(wvalid``N), \
    .m_axi``N``_wready(wready``N), .m_axi``N``_bresp(2'b0), .m_axi``N``_bid(1'b0), \
    .m_axi``N``_bvalid(bvalid``N), .m_axi``N``_bready(bready``N)

  `PORT(0)
`ifdef PORT1
  `PORT(1)
`endif
`ifdef PORT2
  `PORT(2)
`endif
`ifdef PORT3
  `PORT(3)
`endif

  terntable dut(
    .aclk(aclk), .aresetn(aresetn), .irq(irq),
    .s_axil_awaddr(awaddr), .s_axil_awprot(3'b0), .s_axil_awvalid(awvalid),
    .s_axil_awready(awready), .s_axil_wdata(wdata), .s_axil_wstrb(4'hf), .s_axil_wvalid(wvalid),
    .s_axil_wready(wready), .s_axil_bresp(bresp), .s_axil_bvalid(bvalid), .s_axil_bready(1'b1),
    .s_axil_araddr(araddr), .s_axil_arprot(3'b0), .s_axil_arvalid(arvalid),
    .s_axil_arready(arready), .s_axil_rdata(rdata), .s_axil_rresp(rresp), .s_axil_rvalid(rvalid),
    .s_axil_rready(1'b1),
    `PINS(0)
`ifdef PORT1
    , `PINS(1)
`endif
`ifdef PORT2
    , `PINS(2)
`endif
`ifdef PORT3
    , `PINS(3)
`endif
  );

  // The reset reaches the registers within 16 cycles: from then on nothing is unknown.
  reg ready = 0;
  integer cycle = 0, n;
  always @(posedge aclk) begin
    cycle = cycle + 1;
    if (ready) begin
      `KNOWN("interrupt or control port", {irq, awready, wready, bvalid, arready, rvalid})
      if (bvalid) `KNOWN("response of a register write", bresp)
      if (rvalid) `KNOWN("value of a register", {rdata, rresp})
    end
    if (cycle == LIMIT) begin
      $display("no interrupt within %0d cycles", LIMIT);
      $finish;
    end
  end

  // Values change after the edge, so that each side sees what the other showed before it.
  initial begin
    $readmemh("memory.hex", memory);
    $readmemh("writes.hex", writes);
    $readmemh("reads.hex", reads);
    repeat (16) @(posedge aclk);
    ready = 1;
    #1 aresetn = 1;
    repeat (4) @(posedge aclk);
    for (n = 0; n < WRITES; n = n + 1) begin
      #1 {awaddr, wdata} = writes[n];
      {awvalid, wvalid} = 2'b11;
      while (awvalid | wvalid) begin
        @(posedge aclk);
        #1 if (awready_before) awvalid = 0;
        if (wready_before) wvalid = 0;
      end
      while (!bvalid) @(posedge aclk);
    end
    while (!irq) @(posedge aclk);
    for (n = 0; n < READS; n = n + 1) begin
      #1 araddr = reads[n];
      arvalid = 1;
      while (arvalid) begin
        @(posedge aclk);
        #1 if (arready_before) arvalid = 0;
      end
      while (!rvalid) @(posedge aclk);
      $display("register %h %h", araddr, rdata);
    end
    $writememh("result.hex", memory);
    $display("finished");
    $finish;
  end

  reg awready_before, wready_before, arready_before;
  always @(posedge aclk) begin
    awready_before <= awready;
    wready_before <= wready;
    arready_before <= arready;
  end
endmodule

// A port of the memory: one burst at a time in either direction, a beat a cycle.
module slave #(
  parameter W = 32,
  parameter N = 0
) (
  input clk, input resetn,
  input [39:0] araddr, input [7:0] arlen, input arvalid, output arready,
  output [W-1:0] rdata, output rlast, output rvalid, input rready,
  input [39:0] awaddr, input [7:0] awlen, input awvalid, output awready,
  input [W-1:0] wdata, input [W/8-1:0] wstrb, input wlast, input wvalid, output wready,
  output reg bvalid, input bready
);
  reg [39:0] read_at = 0, write_at = 0;
  reg [8:0] to_read = 0, to_write = 0;
  integer i;
  initial bvalid = 0;

  assign arready = to_read == 0;
  assign rvalid = to_read != 0;
  assign rlast = to_read == 1;
  assign awready = to_write == 0 && !bvalid;
  assign wready = to_write != 0;
  genvar g;
  for (g = 0; g < W / 32; g = g + 1) begin : words
    assign rdata[32*g+:32] = bench.memory[read_at / 4 + g];
  end

  always @(posedge clk) if (bench.ready) begin
    `KNOWN("handshake of a memory port", {arvalid, rready, awvalid, wvalid, bready})
    if (arvalid) `KNOWN("read address", {araddr, arlen})
    if (awvalid) `KNOWN("write address", {awaddr, awlen})
    if (wvalid) `KNOWN("end or strobes of a write", {wlast, wstrb})
    if (arvalid && arready) begin
      read_at <= araddr;
      to_read <= arlen + 1;
    end
    if (rvalid && rready) begin
      read_at <= read_at + W / 8;
      to_read <= to_read - 1;
    end
    if (awvalid && awready) begin
      write_at <= awaddr;
      to_write <= awlen + 1;
    end
    if (wvalid && wready) begin
      for (i = 0; i < W / 8; i = i + 1) begin
        if (wstrb[i]) begin
          `KNOWN("written byte", wdata[8*i+:8])
          bench.memory[write_at / 4 + i / 4][8*(i%4)+:8] = wdata[8*i+:8];
        end
      end
      write_at <= write_at + W / 8;
      to_write <= to_write - 1;
      bvalid <= wlast;
    end
    if (bvalid && bready) bvalid <= 0;
  end
endmodule
